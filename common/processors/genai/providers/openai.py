"""OpenAI: the organisation's usage and costs, with an admin key."""

from collections.abc import Mapping

from common.ports.http import Calls
from common.processors.genai.sources import Names, Source
from common.processors.http.json_fields import Fields
from common.processors.openai_costs import costs
from common.processors.openai_usage import ENDPOINTS, PAGE_DAYS, client, usage


def check(calls: Calls, secret: str) -> str:
    """Ask for one day of costs: an admin key alone may, and the answer is the smallest there is."""
    query = [("start_time", str(int(calls.now().timestamp()) - 86_400)), ("limit", "1")]
    with client(calls, secret) as opened:
        answer = opened.get_json("/organization/costs", query)
    Fields.of(answer.body, "OpenAI costs").objects("data")
    return f"organisation {_named(answer.headers)}"


def _named(headers: Mapping[str, str]) -> str:
    return headers.get("openai-organization") or "(OpenAI does not say which)"


SOURCE = Source(
    names=Names(provider="OpenAI", service="OpenAI API"),
    price_key="openai",
    reports={
        "usage": usage,
        "cost": costs,
        "balance": "OpenAI has no API for balances; what is left of prepaid credits is on platform.openai.com alone.",
    },
    endpoints=tuple(ENDPOINTS),
    page_days=PAGE_DAYS,
    check=check,
)
