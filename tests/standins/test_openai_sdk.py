"""OpenAI's own SDK as the client of our sandbox, in strict mode, and its types as the judge of our requests.

The SDK is newer than the OpenAPI document: cache writes by retention, ``api_source`` and ``decisions`` are here alone.
"""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import openai
import pytest
from openai import OpenAI
from openai.types.admin.organization import (
    usage_completions_params,
    usage_completions_response,
    usage_costs_params,
    usage_decisions_params,
)
from pydantic import BaseModel

from common.processors.genai.providers.openai import _COST_GROUPS, ENDPOINTS, TOKEN_METERS
from infra.local.sandbox.openai import ADMIN_KEY
from infra.local.sandbox.openai import ENDPOINTS as SANDBOXED
from infra.local.sandbox.server import SandboxServer

START, END = 1_793_491_200, 1_794_268_800  # 2026-11-01 to 2026-11-10


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(1, rate_limit_every=0) as running:
        yield running


def client(server: SandboxServer, key: str = ADMIN_KEY) -> OpenAI:
    made: dict[str, Any] = {"base_url": server.url, "max_retries": 0, "_strict_response_validation": True}
    return OpenAI(api_key="none", admin_api_key=key, **made)


def extra(model: BaseModel, at: str = "") -> list[str]:
    """Return the fields, at any depth, that the SDK does not declare."""
    found = [f"{at}.{name}" for name in model.model_extra or ()]
    for name, value in vars(model).items():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, BaseModel):
                found += extra(inner, f"{at}.{name}")
    return found


@pytest.mark.parametrize("endpoint", [*ENDPOINTS, "costs"])
def test_the_sdk_reads_every_page_of_every_endpoint(server: SandboxServer, endpoint: str) -> None:
    read = getattr(client(server).admin.organization.usage, endpoint)
    groups = list(_COST_GROUPS if endpoint == "costs" else ENDPOINTS[endpoint].group_by)
    page, results, more = None, 0, True
    while more:
        paged = {"page": page} if page else {}
        answer = read(start_time=START, end_time=END, bucket_width="1d", limit=4, group_by=groups, **paged)
        assert extra(answer) == []
        results += sum(len(bucket.results) for bucket in answer.data)
        page, more = answer.next_page, answer.has_more
    assert results > 0


@pytest.mark.parametrize(("key", "error"), [("sk-other", openai.AuthenticationError), ("sk-proj-a", None)])
def test_the_sdk_knows_the_errors_of_the_sandbox(server: SandboxServer, key: str, error: Any) -> None:
    with pytest.raises(error or openai.PermissionDeniedError) as caught:
        client(server, key).admin.organization.usage.costs(start_time=START)
    assert caught.value.body["message"]
    with pytest.raises(openai.BadRequestError) as bad:
        client(server).admin.organization.usage.costs(start_time=START, limit=181)
    assert bad.value.param == "limit"


@pytest.mark.parametrize(
    ("params", "groups"),
    [
        (usage_completions_params.UsageCompletionsParams, ENDPOINTS["completions"].group_by),
        (usage_decisions_params.UsageDecisionsParams, ENDPOINTS["decisions"].group_by),
        (usage_costs_params.UsageCostsParams, _COST_GROUPS),
    ],
)
def test_every_dimension_that_we_ask_for_is_in_the_sdk(params: Any, groups: tuple[str, ...]) -> None:
    assert set(groups) <= set(_literals(get_type_hints(params)["group_by"]))


def _literals(of: Any) -> list[str]:
    return list(get_args(of)) if get_origin(of) is Literal else [x for part in get_args(of) for x in _literals(part)]


def test_every_count_of_tokens_in_the_sdk_is_a_meter_or_a_sum_of_some() -> None:
    """A count that OpenAI adds shows here when the SDK is renewed: unknown, it would be cost that is missing."""
    result = usage_completions_response.DataResultOrganizationUsageCompletionsResult
    counted = {name for name in result.model_fields if name.endswith("_tokens")}
    sums = {f"input{of}_tokens" for of in ("", "_uncached", "_cached")} | {"output_tokens"}
    assert counted == {f"{meter}_tokens" for meter in TOKEN_METERS} | sums
    assert counted <= set(SANDBOXED["completions"].measures)
