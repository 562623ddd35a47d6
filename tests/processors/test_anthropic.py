"""Anthropic's legacy reports: the documented examples, pages, money in cents, and answers of another shape.

The example bodies are those of the Admin API's reference (platform.claude.com/docs/en/api/admin).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, cast

import pytest

from common.platform.errors import PermanentError, TransientError
from common.platform.paths import CONFIGS
from common.processors.genai.payg_usage import GenaiPaygUsage, GenaiPaygUsageParams
from common.tables.contract import load_table
from infra.local.sandbox.anthropic import ADMIN_KEY, ORGANISATION, AnthropicSandbox
from infra.local.sandbox.anthropic_data import cost_lines, records
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.server import SandboxServer
from tests.processors.context import RecordingContext, make_context

DAY = date(2025, 8, 1)
USAGE = {
    "account_id": None,
    "api_key_id": None,
    "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
    "cache_read_input_tokens": 200,
    "context_window": "0-200k",
    "inference_geo": "global",
    "model": "claude-opus-5",
    "output_tokens": 500,
    "server_tool_use": {"web_search_requests": 10},
    "service_account_id": None,
    "service_tier": "standard",
    "uncached_input_tokens": 1500,
    "workspace_id": "wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ",
}
COST = {
    "amount": "123.78912",
    "currency": "USD",
    "description": "Claude Sonnet 4 Usage - Input Tokens",
    "cost_type": "tokens",
    "context_window": "0-200k",
    "model": "claude-sonnet-4-20250514",
    "service_tier": "standard",
    "token_type": "uncached_input_tokens",
    "workspace_id": "wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ",
}
ME = Answer(200, {"id": ORGANISATION, "name": "Sandbox", "type": "organization"})


def bucket(*results: dict[str, Any], day: str = "2025-08-01", to: str = "2025-08-02") -> dict[str, Any]:
    return {"starting_at": f"{day}T00:00:00Z", "ending_at": f"{to}T00:00:00Z", "results": list(results)}


def page(*buckets: dict[str, Any], next_page: str | None = None) -> Answer:
    return Answer(200, {"data": list(buckets), "has_more": next_page is not None, "next_page": next_page})


@contextmanager
def sandbox(*answers: Answer, **more: Any) -> Iterator[tuple[SandboxServer, RecordingContext]]:
    """A sandbox that gives these answers first, and a context of ``DAY`` that reads it."""
    of_context = {"start_date": DAY, "end_date": DAY} | {k: more.pop(k) for k in set(more) - {"settled"}}
    of_context.setdefault("secret", lambda: ADMIN_KEY)
    refused = [None] if of_context["start_date"].year >= 2026 else []  # the analytics report is asked first
    fail_with = [*refused, ME, *answers] if answers else None
    with SandboxServer(1, fail_with=fail_with, rate_limit_every=0, **more) as server:
        cast(AnthropicSandbox, server.provider("anthropic")).has_analytics = False
        yield server, make_context(provider_url=lambda key: server.urls[key], **of_context)


def read(context: RecordingContext, report: str = "usage") -> list[dict[str, Any]]:
    params = GenaiPaygUsageParams.model_validate({"destination_table": "t", "provider": "anthropic", "report": report})
    return [dict(row) for batch in GenaiPaygUsage().run(context, params) for row in batch.rows]


def read_one(result: dict[str, Any], report: str = "usage") -> list[dict[str, Any]]:
    with sandbox(page(bucket(result))) as (_, context):
        return read(context, report)


def quantities(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {row["meter"]: row["quantity"] for row in rows}


def test_the_documented_usage_becomes_a_row_a_meter_and_no_token_is_counted_twice() -> None:
    rows = read_one(USAGE)
    assert quantities(rows) == {
        "input_text": 1500,
        "input_cached_text": 200,
        "input_cache_write_5m": 500,
        "input_cache_write_1h": 1000,
        "output_text": 500,
        "web_searches": 10,
    }
    assert rows[0] == {
        "provider": "anthropic",
        "account_id": ORGANISATION,
        "endpoint": "messages",
        "bucket_start": datetime(2025, 8, 1, tzinfo=UTC),
        "bucket_end": datetime(2025, 8, 2, tzinfo=UTC),
        "project_id": "wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ",
        "model": "claude-opus-5",
        "batch": False,
        "service_tier": "standard",
        "region": None,
        "attributes": '{"context_window": "0-200k", "inference_geo": "global", "report": "usage_report/messages"}',
        "requests": None,
        "price_variant": "standard",
        "meter": "input_text",
        "quantity": Decimal(1500),
        "unit": "Tokens",
        "x_pipeline_run_date": DAY,
    }
    assert set(rows[0]) <= {*load_table(CONFIGS, "genai_payg_usage").names, "x_pipeline_run_date"}


@pytest.mark.parametrize(
    ("change", "variant"),
    [
        ({"service_tier": "batch"}, "batch"),
        ({"service_tier": "priority"}, "priority"),
        ({"context_window": "200k-1M"}, "standard+long_context"),
        ({"inference_geo": "us"}, "standard+us"),
        ({"inference_geo": "not_available"}, "standard"),
        ({"service_tier": "batch", "context_window": "200k-1M", "inference_geo": "us"}, "batch+long_context+us"),
    ],
)
def test_what_makes_the_price_stands_on_each_row(change: dict[str, str], variant: str) -> None:
    assert {row["price_variant"] for row in read_one(USAGE | change)} == {variant}


def test_the_default_workspace_has_a_name_because_null_means_it() -> None:
    assert read_one(USAGE | {"workspace_id": None})[0]["project_id"] == "default"
    assert read_one(COST | {"workspace_id": None}, "cost")[0]["project_id"] == "default"


def test_the_documented_cost_is_dollars_and_not_cents() -> None:
    (row,) = read_one(COST, "cost")
    assert row == {
        "provider": "anthropic",
        "account_id": ORGANISATION,
        "bucket_start": datetime(2025, 8, 1, tzinfo=UTC),
        "bucket_end": datetime(2025, 8, 2, tzinfo=UTC),
        "project_id": "wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ",
        "line_item": "Claude Sonnet 4 Usage - Input Tokens",
        "model": "claude-sonnet-4-20250514",
        "meter": "input_text",
        "price_variant": "standard",
        "amount": Decimal("1.2378912"),
        "currency": "USD",
        "attributes": '{"context_window": "0-200k", "cost_type": "tokens", "report": "cost_report", '
        '"token_type": "uncached_input_tokens"}',
        "provider_name": "Anthropic",
        "service_name": "Claude API",
        "account_type": "Organization",
        "project_type": "Workspace",
        "x_pipeline_run_date": DAY,
    }
    assert set(row) <= {*load_table(CONFIGS, "genai_reported_cost").names, "x_pipeline_run_date"}


@pytest.mark.parametrize(
    ("change", "meter"),
    [
        ({"token_type": "cache_creation.ephemeral_1h_input_tokens"}, "input_cache_write_1h"),
        ({"token_type": "cache_read_input_tokens"}, "input_cached_text"),
        ({"cost_type": "web_search", "token_type": None, "model": None}, "web_searches"),
        ({"cost_type": "code_execution", "token_type": None, "model": None}, "code_execution"),
        ({"cost_type": "session_usage", "token_type": None}, "session_usage"),
    ],
)
def test_a_cost_says_what_it_is_for_in_the_words_of_the_usage(change: dict[str, Any], meter: str) -> None:
    assert read_one(COST | change, "cost")[0]["meter"] == meter


def test_every_digit_of_an_amount_is_kept_and_a_credit_is_negative() -> None:
    assert read_one(COST | {"amount": "0.00000000000000000123"}, "cost")[0]["amount"] == Decimal("1.23E-20")
    assert read_one(COST | {"amount": "-250"}, "cost")[0]["amount"] == Decimal("-2.5")


def test_five_dimensions_are_asked_for_and_the_last_day_is_not_lost() -> None:
    """Anthropic's ``ending_at`` takes buckets that end before it, so a day more is asked for and not taken."""
    days = {"start_date": date(2026, 11, 1), "end_date": date(2026, 11, 16)}
    with sandbox(**days) as (server, context):
        rows = read(context)
        asked = [request for request in server.requests if "usage_report" in request.path]
    assert len(asked) == 3  # 16 days, 7 a page
    assert [pair for pair in asked[0].query if pair[0] != "group_by[]"] == [
        ("starting_at", "2026-11-01T00:00:00Z"),
        ("ending_at", "2026-11-18T00:00:00Z"),
        ("bucket_width", "1d"),
        ("limit", "7"),
    ]
    groups = [value for key, value in asked[0].query if key == "group_by[]"]
    assert groups == ["workspace_id", "model", "service_tier", "context_window", "inference_geo"]
    found = {row["x_pipeline_run_date"] for row in rows}
    assert max(found) == date(2026, 11, 16) and min(found) >= date(2026, 11, 1) and len(found) > 10


def test_the_bucket_after_the_last_day_is_not_taken_should_it_come() -> None:
    beyond = bucket(USAGE, day="2025-08-02", to="2025-08-03")
    with sandbox(page(bucket(USAGE), beyond)) as (_, context):
        assert {row["x_pipeline_run_date"] for row in read(context)} == {DAY}


def test_all_tokens_and_all_money_of_the_sandbox_arrive() -> None:
    """Sums are read past our code, from the sandbox's own records."""
    first, last = date(2026, 11, 1), date(2026, 11, 9)
    with sandbox(start_date=first, end_date=last) as (_, context):
        usage, costs = read(context), read(context, "cost")
    own = [record for n in range(1, 10) for record in records(1, date(2026, 11, n))]
    tokens = sum(count for record in own for name, count in record.measures.items() if name.endswith("tokens"))
    assert sum(row["quantity"] for row in usage if row["unit"] == "Tokens") == tokens > 0
    billed = sum((cost for record in own for _, cost in cost_lines(record)), Decimal(0))
    assert sum(row["amount"] for row in costs) == billed > 0


def test_late_usage_is_there_when_the_days_are_read_again() -> None:
    days = {"start_date": date(2026, 11, 1), "end_date": date(2026, 11, 9)}
    with sandbox(settled=False, **days) as (server, context):
        before = sum(row["quantity"] for row in read(context))
        server.settle()
        assert sum(row["quantity"] for row in read(context)) > before


def test_quiet_days_give_no_rows() -> None:
    with sandbox(page(bucket())) as (_, context):
        assert read(context) == []


@pytest.mark.parametrize("report", ["usage", "cost"])
def test_a_day_without_a_bucket_is_no_day_without_usage(report: str) -> None:
    with sandbox(page()) as (_, context), pytest.raises(TransientError, match="no bucket for 2025-08-01"):
        read(context, report)


def test_only_the_bucket_of_today_may_be_missing() -> None:
    today = date(2026, 11, 21)
    with sandbox(page(), start_date=today, end_date=today) as (_, context):
        assert read(context) == []


@pytest.mark.parametrize("key", ["sk-ant-api03-workspace", "sk-ant-other"])
def test_a_wrong_key_is_explained_and_not_shown(key: str) -> None:
    with sandbox(secret=lambda: key) as (_, context), pytest.raises(PermanentError) as caught:
        read(context)
    text = str(caught.value)
    assert "admin key" in text and "credentials add" in text and key not in text


def test_an_expired_cursor_is_read_from_the_first_page_in_another_attempt() -> None:
    gone = Answer(410, {"type": "error", "error": {"type": "invalid_request_error", "message": "cursor expired"}})
    says = r"410: cursor expired\. It is read from the first page again"
    with sandbox(page(bucket(), next_page="page_b"), gone) as (_, context), pytest.raises(TransientError, match=says):
        read(context)


@pytest.mark.parametrize(
    ("answer", "path"),
    [
        (Answer(200, {}), "data is None"),
        (Answer(200, {"data": [bucket()]}), "has_more is None"),
        (page(bucket(USAGE | {"cache_creation": None})), r"results\[0\].cache_creation is None"),
        (page(bucket(USAGE | {"cache_creation": {}})), "ephemeral_5m_input_tokens is None"),
        (page(bucket(USAGE | {"uncached_input_tokens": None})), "uncached_input_tokens is None"),
        (page(bucket(USAGE | {"output_tokens": -1})), "output_tokens is -1"),
        (page(bucket(USAGE | {"output_tokens": 1.5})), "output_tokens is Decimal"),
        (page({"starting_at": "2025-08-01", "ending_at": "2025-08-02T00:00:00Z", "results": []}), "starting_at is"),
        (page(bucket(day="2025-07-31", to="2025-08-01")), r"data\[0\].starting_at is"),
        (page(bucket(to="2025-08-03")), r"data\[0\].ending_at is"),
        (page(bucket(USAGE), bucket(USAGE)), r"data\[1\].starting_at is"),
    ],
)
def test_usage_of_another_shape_is_transient_and_names_the_place(answer: Answer, path: str) -> None:
    with sandbox(answer) as (_, context), pytest.raises(TransientError, match=f"Anthropic usage: .*{path}"):
        read(context)


@pytest.mark.parametrize("amount", [None, "", "NaN", "1e999", "1,5", "1_0", True, {}, "9" * 200])
def test_an_amount_that_is_none_is_refused(amount: Any) -> None:
    with sandbox(page(bucket(COST | {"amount": amount}))) as (_, context), pytest.raises(TransientError) as caught:
        read(context, "cost")
    assert "results[0].amount is" in str(caught.value)


# The sandbox itself


def ask(name: str, *query: tuple[str, str], **headers: str) -> Answer:
    sent = {"x-api-key": ADMIN_KEY, "anthropic-version": "2023-06-01"} | headers
    request = Request(f"/v1/organizations/{name}", query, sent)
    return AnthropicSandbox(1).refuse(request) or AnthropicSandbox(1).answer(request)


MESSAGES, START = "usage_report/messages", ("starting_at", "2026-11-01T00:00:00Z")


@pytest.mark.parametrize(
    ("name", "query", "says"),
    [
        (MESSAGES, [], "starting_at: Field required"),
        (MESSAGES, [("starting_at", "2026-11-01")], "RFC 3339"),
        (MESSAGES, [START, ("ending_at", "2026-10-01T00:00:00Z")], "ending_at"),
        (MESSAGES, [START, ("limit", "32")], "limit"),
        (MESSAGES, [START, ("bucket_width", "2d")], "bucket_width"),
        (MESSAGES, [START, ("group_by", "model")], "group_by: Extra inputs"),
        (MESSAGES, [START, ("group_by[]", "speed")], "group_by"),
        (MESSAGES, [START, ("page", "page_zzz")], "page"),
        ("cost_report", [START, ("bucket_width", "1h")], "bucket_width"),
        ("cost_report", [START, ("group_by[]", "model")], "group_by"),
        (
            MESSAGES,
            [
                START,
                *(("group_by[]", g) for g in ("model", "account_id", "api_key_id")),
                *(("group_by[]", g) for g in ("workspace_id", "service_tier", "inference_geo")),
            ],
            "Cannot specify more than 5 group_by[] dimensions.",
        ),
    ],
)
def test_the_sandbox_refuses_what_is_not_documented(name: str, query: list[tuple[str, str]], says: str) -> None:
    answer = ask(name, *query)
    assert (answer.status, answer.body["error"]["type"]) == (400, "invalid_request_error")
    assert says in answer.body["error"]["message"]


def test_the_sandbox_wants_a_key_and_a_version() -> None:
    assert ask("me", **{"x-api-key": ""}).status == 401
    assert ask("me", **{"x-api-key": "sk-ant-api03-x"}).status == 403
    assert ask("me", **{"anthropic-version": ""}).status == 400
    assert ask("colours").status == 404


def test_a_cursor_of_the_sandbox_is_good_for_its_own_query_alone() -> None:
    query = [START, ("ending_at", "2026-11-20T00:00:00Z")]
    token = ask(MESSAGES, *query).body["next_page"]
    assert ask(MESSAGES, *query, ("page", token)).status == 200
    assert ask(MESSAGES, *query, ("limit", "8"), ("page", token)).status == 400


def test_the_sandbox_answers_as_the_documented_examples_look() -> None:
    found = json.loads(ask(MESSAGES, START, ("ending_at", "2026-11-09T00:00:00Z"), ("group_by[]", "model")).content())
    result = next(r for b in found["data"] for r in b["results"])
    assert result.keys() == USAGE.keys()
    found = json.loads(ask("cost_report", START, ("group_by[]", "description")).content())
    result = next(r for b in found["data"] for r in b["results"])
    assert result.keys() >= COST.keys() and isinstance(result["amount"], str)
