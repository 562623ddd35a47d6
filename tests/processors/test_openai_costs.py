"""OpenAI's costs: the documented example, line items as public code has seen them, and answers of another shape."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from common.adapters.google.cloud import GoogleCloudAdapter
from common.platform.errors import PermanentError, TransientError
from common.platform.paths import CONFIGS
from common.processors.genai.payg_usage import GenaiPaygUsage, GenaiPaygUsageParams
from common.processors.genai.registry import genai_provider, provider_keys
from common.tables.contract import load_table
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.openai import OpenAISandbox
from infra.local.sandbox.server import SANDBOXED, SandboxServer
from tests.processors.context import NOW, RecordingContext, make_context

DAY = date(2024, 11, 1)  # 1730419200, the day of OpenAI's example
START, END = 1_730_419_200, 1_730_505_600
EXAMPLE = {
    "object": "organization.costs.result",
    "amount": {"value": 0.06, "currency": "usd"},
    "line_item": None,
    "project_id": None,
    "api_key_id": None,
    "quantity": None,
    "quantity_unit": None,
}


def page(*results: dict[str, Any]) -> Answer:
    bucket = {"object": "bucket", "start_time": START, "end_time": END, "results": list(results)}
    return Answer(200, {"object": "page", "data": [bucket], "has_more": False, "next_page": None})


@contextmanager
def sandbox(*answers: Answer, settled: bool = True, **days: date) -> Iterator[tuple[SandboxServer, RecordingContext]]:
    days = days or {"start_date": DAY, "end_date": DAY}
    with SandboxServer(1, fail_with=list(answers), rate_limit_every=0, settled=settled) as server:
        yield server, make_context(provider_url=lambda _key: server.url, **days)


def read(context: RecordingContext) -> list[dict[str, Any]]:
    params = GenaiPaygUsageParams(destination_table="t", provider="openai", report="cost")
    return [dict(row) for batch in GenaiPaygUsage().run(context, params) for row in batch.rows]


def read_one(result: dict[str, Any]) -> dict[str, Any]:
    with sandbox(page(result)) as (_, context):
        (row,) = read(context)
    return row


def test_the_documented_example_becomes_one_row_in_dollars() -> None:
    row = read_one(EXAMPLE)
    assert row == {
        "provider": "openai",
        "account_id": "cred_openai",
        "bucket_start": datetime(2024, 11, 1, tzinfo=UTC),
        "bucket_end": datetime(2024, 11, 2, tzinfo=UTC),
        "project_id": None,
        "api_key_id": None,
        "line_item": None,
        "model": None,
        "meter": None,
        "price_variant": None,
        "quantity": None,
        "unit": None,
        "amount": Decimal("0.06"),
        "currency": "USD",
        "attributes": None,
        "provider_name": "OpenAI",
        "service_name": "OpenAI API",
        "account_type": "Organization",
        "project_type": "Project",
        "x_pipeline_run_date": DAY,
    }
    assert {*row, "credit"} == {*load_table(CONFIGS, "genai_reported_cost").names, "x_pipeline_run_date"}


@pytest.mark.parametrize(
    ("line", "model", "meter", "variant"),
    [
        ("gpt-5.5-2026-04-23, input", "gpt-5.5-2026-04-23", "input_text", "standard"),
        ("gpt-5.5-2026-04-23, cached input", "gpt-5.5-2026-04-23", "input_cached_text", "standard"),
        ("gpt-5.6-sol, cache writes", "gpt-5.6-sol", "input_cache_write", "standard"),
        ("gpt-6-astra, input_tokens", "gpt-6-astra", "input_text", "standard"),
        ("gpt-audio-mini-2025-12-15 audio, input", "gpt-audio-mini-2025-12-15", "input_audio", "standard"),
        ("gpt-image-2.5-flare image, output", "gpt-image-2.5-flare", "output_image", "standard"),
        ("priority | gpt-5.6-sol, output, long context", "gpt-5.6-sol", "output_text", "priority+long_context"),
        ("ft:gpt-4o-2024-08-06:acme::abc, input", "ft:gpt-4o-2024-08-06:acme::abc", "input_text", "standard"),
        ("whisper-1, audio", "whisper-1", None, None),
        ("web search tool calls", None, "web_searches", None),
        ("Vector storage", None, "stored_bytes", None),
        ("assistants api | code interpreter", None, "sessions", None),
        ("Something new", None, None, None),
    ],
)
def test_a_line_item_is_read_as_far_as_it_can_be_and_kept_whole(
    line: str, model: str | None, meter: str | None, variant: str | None
) -> None:
    row = read_one(EXAMPLE | {"line_item": line})
    assert (row["line_item"], row["model"], row["meter"], row["price_variant"]) == (line, model, meter, variant)


def test_a_quantity_has_its_unit_and_an_unknown_unit_its_own_word() -> None:
    row = read_one(EXAMPLE | {"quantity": 1234, "quantity_unit": "1000_tokens"})
    assert (row["quantity"], row["unit"]) == (1234, "1000 Tokens")
    assert read_one(EXAMPLE | {"quantity": 1.5, "quantity_unit": "parsecs"})["unit"] == "parsecs"


def test_every_digit_of_an_amount_is_kept() -> None:
    body = page(EXAMPLE).content().replace(b"0.06", b"0.0000012345678901234567890123")
    with sandbox(Answer(200, body)) as (_, context):
        assert read(context)[0]["amount"] == Decimal("0.0000012345678901234567890123")


def test_a_result_without_an_amount_is_told() -> None:
    with sandbox(page(EXAMPLE | {"amount": None}, EXAMPLE)) as (_, context):
        assert len(read(context)) == 1
    assert "1 results have no amount" in context.warnings[0]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"object": "organization.usage.completions.result"}, r"results\[0\].object is"),
        ({"amount": {"value": None, "currency": "usd"}}, r"amount.value is None"),
        ({"amount": {"value": 1, "currency": None}}, r"amount.currency is None"),
        ({"amount": 6}, r"amount is 6"),
        ({"quantity": -1}, r"quantity is -1"),
    ],
)
def test_an_answer_of_another_shape_is_transient_and_names_the_place(change: dict[str, Any], path: str) -> None:
    with (
        sandbox(page(EXAMPLE | change)) as (_, context),
        pytest.raises(TransientError, match=f"OpenAI costs: .*{path}"),
    ):
        read(context)


def test_costs_are_asked_for_by_project_and_line_and_by_key_never() -> None:
    with sandbox(start_date=date(2026, 9, 1), end_date=date(2026, 10, 31)) as (server, context):
        read(context)
        asked = list(server.requests)
    assert [request.path for request in asked] == ["/v1/organization/costs"] * 2  # 61 days, 31 a page
    assert [value for key, value in asked[0].query if key == "group_by[]"] == [
        "project_id",
        "line_item",
        "api_source",
    ]


def test_all_money_of_the_sandbox_arrives() -> None:
    """Read past our code: the sandbox's own total without any grouping."""
    with sandbox(start_date=date(2026, 11, 1), end_date=date(2026, 11, 9)) as (_, context):
        found = sum(row["amount"] for row in read(context))
    query = [("start_time", "1793491200"), ("end_time", "1794268800"), ("limit", "31")]
    answer = OpenAISandbox(1).answer(Request("/v1/organization/costs", query))
    totals = [result["amount"]["value"] for bucket in answer.body["data"] for result in bucket["results"]]
    assert float(found) == pytest.approx(sum(totals)) and found > 0


def test_late_usage_changes_the_costs_of_its_day() -> None:
    with sandbox(settled=False, start_date=date(2026, 11, 1), end_date=date(2026, 11, 9)) as (server, context):
        before = sum(row["amount"] for row in read(context))
        server.settle()
        assert sum(row["amount"] for row in read(context)) > before


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ([("bucket_width", "1h")], "bucket_width"),
        ([("limit", "181")], "limit"),
        ([("group_by[]", "api_key_id")], "group_by"),
        ([("models", "gpt-4o")], "models"),
    ],
)
def test_the_sandbox_refuses_what_openai_does(query: list[tuple[str, str]], param: str) -> None:
    answer = OpenAISandbox(1).answer(Request("/v1/organization/costs", [("start_time", "1793491200"), *query]))
    assert (answer.status, answer.body["error"]["param"]) == (400, param)


# What every provider has


@pytest.mark.parametrize("key", provider_keys())
def test_every_report_that_a_provider_lacks_is_refused_with_the_reason(key: str) -> None:
    its = genai_provider(key)
    for name in ("usage", "cost", "balance"):
        if callable(its.reports.get(name)):
            continue
        with pytest.raises(ValidationError, match=its.names.provider):
            GenaiPaygUsageParams.model_validate({"destination_table": "t", "provider": key, "report": name})


def test_endpoints_are_those_of_usage() -> None:
    with pytest.raises(ValidationError, match="endpoints apply to the usage report only"):
        GenaiPaygUsageParams(destination_table="t", provider="openai", report="cost", endpoints=("completions",))


@pytest.mark.parametrize("key", [key for key in provider_keys() if key in SANDBOXED])
def test_a_good_credential_is_proved_by_one_small_call_and_a_bad_one_refused(key: str) -> None:
    with SandboxServer(1, rate_limit_every=0) as server:
        google = GoogleCloudAdapter("test-project", lambda: server.urls["gcp_token"])
        context = make_context(provider_url=lambda name: server.urls[name], now=lambda: NOW, google=lambda: google)
        assert genai_provider(key).try_credential(context, server.secrets[key])
        assert len([request for request in server.requests if request.path != "/gcp-token"]) == 1
        with pytest.raises(PermanentError, match="credentials add"):
            genai_provider(key).try_credential(context, "wrong-key-1234")


def test_costs_without_a_day_that_is_over_fail() -> None:
    days = {"start_date": DAY, "end_date": DAY.replace(day=2)}
    with (
        sandbox(page(EXAMPLE), **days) as (_, context),
        pytest.raises(TransientError, match="no bucket for 2024-11-02"),
    ):
        read(context)
