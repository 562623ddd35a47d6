"""Anthropic: the organisation's usage and cost reports of the Admin API, with an admin key.

Facts are those of the Admin API's reference and guide (platform.claude.com/docs/en/api/admin). What differs from
OpenAI: token counts are apart from one another and not parts of a total, and money is in cents, as text.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from common.platform.errors import TransientError
from common.ports.http import Calls
from common.processors.base import Caller, StepContext
from common.processors.genai.prices import US, variant
from common.processors.genai.provider import FocusNames, GenaiProvider
from common.processors.http.client import Api, ProviderClient
from common.processors.http.json_fields import Fields
from common.processors.http.report_pages import DAY, Days, pages

API = Api(
    key="anthropic",
    name="Anthropic",
    credential_help="It has to be an admin key (sk-ant-admin...), which only an organisation's admin can make; "
    "a workspace's key can't read the organisation's reports.",
)
VERSION = "2023-06-01"
PAGE_DAYS = 7
"""Buckets a page: Anthropic's default. It allows 31, but a page is one batch in memory."""

USAGE_GROUPS = ("workspace_id", "model", "service_tier", "context_window", "inference_geo")
"""Anthropic takes five at most (more is a 400, PostHog issue 72556). These four make the price, and whose it is; so
there is no room for ``api_key_id`` and ``account_id``."""

COST_GROUPS = ("workspace_id", "description")
DEFAULT_WORKSPACE = "default"
"""Anthropic's default workspace has no id: grouped by workspace, its rows have null."""

LONG_WINDOW = "200k-1M"

_CACHE_WRITES = {
    "input_cache_write_5m": "ephemeral_5m_input_tokens",
    "input_cache_write_1h": "ephemeral_1h_input_tokens",
}
_TOKENS = {
    "input_text": "uncached_input_tokens",
    "input_cached_text": "cache_read_input_tokens",
    "output_text": "output_tokens",
}
_METERS = {name: meter for meter, name in _TOKENS.items()} | {
    f"cache_creation.{name}": meter for meter, name in _CACHE_WRITES.items()
}
SEARCHES = "web_searches"
_COST_METERS = {"web_search": SEARCHES}
_COST_ATTRIBUTES = ("cost_type", "token_type", "context_window", "inference_geo")


def _client(calls: Calls, secret: str) -> ProviderClient:
    headers = {"x-api-key": secret, "anthropic-version": VERSION}
    return ProviderClient(calls, API, secret=secret, headers=headers)


def try_credential(caller: Caller, secret: str) -> str:
    """Ask whose key it is."""
    with _client(caller, secret) as client:
        return f"organisation {_organisation(client)}"


def _organisation(client: ProviderClient) -> str:
    path = "/v1/organizations/me"
    return Fields.of(client.get_json(path).body, "Anthropic organization").required("id")


def usage(context: StepContext, _endpoints: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each page of the messages report.

    Raises TransientError for an answer of unexpected shape or without one of the days, and as ProviderClient.
    """
    yield from _read(context, "/v1/organizations/usage_report/messages", USAGE_GROUPS, "Anthropic usage", _usage_rows)


def costs(context: StepContext, _endpoints: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each page of the cost report; raises as ``usage`` does.

    Costs of the Priority Tier are in no report: their usage has the tier ``priority``, and no price.
    """
    yield from _read(context, "/v1/organizations/cost_report", COST_GROUPS, "Anthropic costs", _cost_rows)


def _read(context: StepContext, path: str, groups: Sequence[str], title: str, rows_of: Any) -> Iterator[list[Any]]:
    days = Days(context.start_date, context.end_date)
    query = [
        ("starting_at", _stamp(days.start)),
        # The reference has buckets that end *before* this, so a day is added and the bucket of that day left out.
        ("ending_at", _stamp(days.end + DAY)),
        ("bucket_width", "1d"),
        ("limit", str(PAGE_DAYS)),
        *(("group_by[]", group) for group in groups),
    ]
    with _client(context, context.secret()) as client:
        account = _organisation(client)
        for body, _ in pages(client, path, query, title):
            rows: list[dict[str, Any]] = []
            for bucket in body.objects("data"):
                begins, ends = bucket.time("starting_at"), bucket.time("ending_at")
                results = bucket.objects("results")
                if begins >= days.end:
                    continue
                days.take(bucket, begins, ends, start="starting_at", end="ending_at")
                when = {"bucket_start": begins, "bucket_end": ends, "x_pipeline_run_date": begins.date()}
                whose = {"provider": API.key, "account_id": account}
                rows += [when | whose | row for result in results for row in rows_of(result)]
            yield rows
    _complete(days, title, context.now())


def _complete(days: Days, title: str, now: datetime) -> None:
    """Each day has a bucket, one without usage too; only today's may not be there yet."""
    if missing := days.missing(now.astimezone(UTC).date()):
        raise TransientError(
            f"{title}: the report has no bucket for {missing[0]}"
            + (f" and {len(missing) - 1} more days" if len(missing) > 1 else "")
            + ". It is read again in the next attempt; nothing of it is used."
        )


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _usage_rows(result: Fields) -> Iterator[dict[str, Any]]:
    tier, window, geo = result.text("service_tier"), result.text("context_window"), result.text("inference_geo")
    attributes = {name: value for name, value in (("context_window", window), ("inference_geo", geo)) if value}
    row = {
        "endpoint": "messages",
        "project_id": result.text("workspace_id") or DEFAULT_WORKSPACE,
        "model": result.text("model"),
        "batch": None if tier is None else tier == "batch",
        "service_tier": tier,
        "region": geo if geo == US else None,
        "attributes": json.dumps(attributes, sort_keys=True) if attributes else None,
        "price_variant": variant(None, tier, long_context=window == LONG_WINDOW, region=_priced_region(geo)),
    }
    for meter, quantity in _quantities(result):
        if quantity:
            unit = "Calls" if meter == SEARCHES else "Tokens"
            yield row | {"meter": meter, "quantity": Decimal(quantity), "unit": unit}


def _priced_region(geo: str | None) -> str:
    """Return the region where the price is another one than that of anywhere, which is the standard price."""
    return "" if geo in (None, "global", "not_available") else str(geo)


def _quantities(result: Fields) -> Iterator[tuple[str, int]]:
    for meter, name in _TOKENS.items():
        yield meter, result.whole(name)
    writes = result.object("cache_creation")  # nested: a look for a flat field would lose them
    for meter, name in _CACHE_WRITES.items():
        yield meter, writes.whole(name)
    tools = result.optional_object("server_tool_use")
    yield SEARCHES, 0 if tools is None else tools.optional_whole("web_search_requests") or 0


def _cost_rows(result: Fields) -> Iterator[dict[str, Any]]:
    cost_type, tier, window = result.text("cost_type"), result.text("service_tier"), result.text("context_window")
    attributes = {name: value for name in _COST_ATTRIBUTES if (value := result.text(name)) is not None}
    meter = _METERS.get(result.text("token_type") or "") or _COST_METERS.get(cost_type or "", cost_type)
    yield {
        "project_id": result.text("workspace_id") or DEFAULT_WORKSPACE,
        "line_item": result.text("description"),
        "model": result.text("model"),
        "meter": meter,
        "price_variant": None if tier is None else variant(None, tier, long_context=window == LONG_WINDOW),
        "amount": result.amount("amount").scaleb(-2),  # cents
        "currency": result.required("currency").upper(),
        "attributes": json.dumps(attributes, sort_keys=True) if attributes else None,
    }


PROVIDER = GenaiProvider(
    names=FocusNames(provider="Anthropic", service="Claude API", project="Workspace"),
    price_key="anthropic",
    reports={
        "usage": usage,
        "cost": costs,
        "balance": "Anthropic has no API for balances; what is left of prepaid credits is in the Claude Console alone.",
    },
    meters={"messages": (*_TOKENS, *_CACHE_WRITES, SEARCHES)},
    page_days=PAGE_DAYS,
    try_credential=try_credential,
)
