"""Anthropic's analytics reports: their rows, what fast mode costs, and when the legacy reports are read instead.

Field names and limits are those of Anthropic's SDK 2.14.0 (types/beta/organization/analytics).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import pytest

from common.platform.errors import PermanentError, TransientError
from common.platform.paths import CONFIGS
from common.processors.genai.payg_usage import GenaiPaygUsage, GenaiPaygUsageParams
from common.processors.genai.prices import Item, PriceList
from common.tables.contract import load_table
from infra.local.sandbox.anthropic import ADMIN_KEY, ORGANISATION, AnthropicSandbox
from infra.local.sandbox.anthropic_analytics import BETA, DEFAULT_WORKSPACE
from infra.local.sandbox.anthropic_data import cost_lines, records
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.server import SandboxServer
from tests.processors.context import RecordingContext, make_context

DAY = date(2026, 11, 18)
ME = Answer(200, {"id": ORGANISATION, "name": "Sandbox", "type": "organization"})
GROUP = {
    "workspace_id": "wrkspc_search",
    "model": "claude-opus-5",
    "service_tier": "standard",
    "context_window": "0-200k",
    "inference_geo": "global",
}
USAGE = {
    "uncached_input_tokens": 1500,
    "cache_read_input_tokens": 200,
    "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
    "output_tokens": 500,
    "server_tool_use": {"web_search_requests": 10},
    "total_tokens": 3700,
    "requests": 7,
}
COST = {"amount": "123.78912", "list_amount": "130", "currency": "USD", "requests": None}


def usage_item(day: str = "2026-11-18", group: dict[str, Any] = {}, **usage: Any) -> dict[str, Any]:  # noqa: B006
    return {"starting_at": f"{day}T00:00:00Z", **_to(day), "group": GROUP | group, "usage": USAGE | usage}


def cost_item(day: str = "2026-11-18", group: dict[str, Any] = {}, **cost: Any) -> dict[str, Any]:  # noqa: B006
    of = {"cost_type": "tokens", "token_type": "output_tokens"}
    return {"starting_at": f"{day}T00:00:00Z", **_to(day), "group": GROUP | of | group, "cost": COST | cost}


def _to(day: str) -> dict[str, str]:
    return {"ending_at": f"{date.fromisoformat(day) + timedelta(days=1)}T00:00:00Z"}


def page(*items: dict[str, Any], next_page: str | None = None, refreshed: str | None = None) -> Answer:
    body = {"data": list(items), "has_more": next_page is not None, "next_page": next_page}
    return Answer(200, body | {"data_refreshed_at": refreshed or "2026-11-21T04:00:00Z"})


@contextmanager
def sandbox(fail_with: Any = None, **more: Any) -> Iterator[tuple[SandboxServer, RecordingContext]]:
    context = {"start_date": DAY, "end_date": DAY, "secret": lambda: ADMIN_KEY} | more
    with SandboxServer(1, fail_with=fail_with, rate_limit_every=0) as server:
        yield server, make_context(provider_url=lambda key: server.urls[key], **context)


def of_sandbox(server: SandboxServer) -> AnthropicSandbox:
    return cast(AnthropicSandbox, server.provider("anthropic"))


def read(context: RecordingContext, report: str = "usage") -> list[dict[str, Any]]:
    params = GenaiPaygUsageParams.model_validate({"destination_table": "t", "provider": "anthropic", "report": report})
    return [dict(row) for batch in GenaiPaygUsage().run(context, params) for row in batch.rows]


def usage_of(*items: dict[str, Any], fast: tuple[dict[str, Any], ...] = (), **more: Any) -> list[dict[str, Any]]:
    """Read usage: that of fast mode is asked for first."""
    with sandbox([page(*fast), page(*items), ME], **more) as (_, context):
        return read(context)


def quantities(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {row["meter"]: row["quantity"] for row in rows}


def test_a_row_of_usage_becomes_a_row_a_meter_and_no_token_is_counted_twice() -> None:
    rows = usage_of(usage_item())
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
        "bucket_start": datetime(2026, 11, 18, tzinfo=UTC),
        "bucket_end": datetime(2026, 11, 19, tzinfo=UTC),
        "project_id": "wrkspc_search",
        "model": "claude-opus-5",
        "batch": False,
        "service_tier": "standard",
        "region": None,
        "attributes": '{"context_window": "0-200k", "inference_geo": "global", "report": "analytics/usage"}',
        "price_variant": "standard",
        "requests": 7,
        "meter": "input_text",
        "quantity": Decimal(1500),
        "unit": "Tokens",
        "x_pipeline_run_date": DAY,
    }
    assert set(rows[0]) <= {*load_table(CONFIGS, "genai_payg_usage").names, "x_pipeline_run_date"}


def test_a_row_of_cost_is_dollars_and_not_cents_and_keeps_its_list_price() -> None:
    with sandbox([page(cost_item()), ME]) as (_, context):
        (row,) = read(context, "cost")
    assert (row["amount"], row["currency"], row["meter"]) == (Decimal("1.2378912"), "USD", "output_text")
    assert row["line_item"] == "claude-opus-5, output_tokens, standard, 0-200k, global"
    told = json.loads(row["attributes"])
    assert (told["list_amount"], told["report"], told["cost_type"]) == ("1.30", "analytics/cost", "tokens")
    assert set(row) <= {*load_table(CONFIGS, "genai_reported_cost").names, "x_pipeline_run_date"}


@pytest.mark.parametrize("kind", ["web_search", "code_execution", "session_usage"])
def test_a_cost_that_is_not_of_tokens_is_kept(kind: str) -> None:
    with sandbox([page(cost_item(group={"cost_type": kind, "token_type": None})), ME]) as (_, context):
        (row,) = read(context, "cost")
    assert (row["model"], json.loads(row["attributes"])["model"]) == (None, "claude-opus-5")
    assert row["meter"] == {"web_search": "web_searches"}.get(kind, kind) and kind in row["line_item"]


def test_fast_mode_is_read_apart_and_taken_off_the_whole() -> None:
    fast = usage_item(
        uncached_input_tokens=500,
        cache_read_input_tokens=0,
        cache_creation={"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 100},
        output_tokens=500,
        server_tool_use={"web_search_requests": 0},
        requests=2,
    )
    rows = usage_of(usage_item(), fast=(fast,))
    by_variant = {how: quantities([r for r in rows if r["price_variant"] == how]) for how in ("standard", "fast")}
    assert by_variant == {
        "standard": {
            "input_text": 1000,
            "input_cached_text": 200,
            "input_cache_write_5m": 400,
            "input_cache_write_1h": 1000,
            "web_searches": 10,
        },
        "fast": {"input_text": 500, "input_cache_write_5m": 100, "output_text": 500},
    }
    assert {row["requests"] for row in rows} == {5, 2}


def test_fast_mode_has_its_own_price() -> None:
    # platform.claude.com/docs/en/about-claude/pricing: claude-opus-5 in fast mode is 10 in and 50 out a million
    for meter, price in (("input_text", "0.00001"), ("output_text", "0.00005")):
        found = PriceList().price(Item("anthropic", "messages", "claude-opus-5", meter, "fast", DAY))
        assert found.unit_price == Decimal(price)
    unknown = PriceList().price(Item("anthropic", "messages", "claude-haiku-4-5", "input_text", "fast", DAY))
    assert unknown.unit_price is None and "no fast price" in unknown.reason


@pytest.mark.parametrize(
    ("fast", "says"),
    [
        (usage_item(output_tokens=501), "output_tokens is 500, expected at least as much as in fast mode alone"),
        (usage_item(group={"model": "claude-haiku-5"}), "fast mode has usage that the whole does not have"),
    ],
)
def test_more_usage_in_fast_mode_than_in_all_is_no_usage(fast: dict[str, Any], says: str) -> None:
    with pytest.raises(TransientError, match=says):
        usage_of(usage_item(), fast=(fast,))


def test_the_request_is_as_documented_and_long_runs_ask_31_days_at_a_time() -> None:
    days = {"start_date": date(2026, 10, 1), "end_date": date(2026, 11, 10)}
    with sandbox(**days) as (server, context):
        read(context)
        asked = [request for request in server.requests if "analytics" in request.path]
    assert {request.path for request in asked} == {"/v1/organizations/analytics/usage"}
    assert all(request.headers["anthropic-beta"] == BETA for request in asked)
    spans = dict.fromkeys((dict(r.query)["starting_at"], dict(r.query)["ending_at"]) for r in asked)
    assert list(spans) == [
        ("2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        ("2026-11-01T00:00:00Z", "2026-11-11T00:00:00Z"),
    ]
    groups = [value for key, value in asked[0].query if key == "group_by[]"]
    assert groups == ["workspace_id", "model", "service_tier", "context_window", "inference_geo"]


def test_all_tokens_and_all_money_of_the_sandbox_arrive() -> None:
    """Sums are read past our code, from the sandbox's own records."""
    first, last = date(2026, 9, 1), date(2026, 10, 9)
    with sandbox(start_date=first, end_date=last) as (server, context):
        of_sandbox(server).fast = frozenset({"claude-opus-5"})
        usage, costs = read(context), read(context, "cost")
    own = [record for n in range(39) for record in records(1, first + timedelta(days=n))]
    tokens = sum(count for record in own for name, count in record.measures.items() if name.endswith("tokens"))
    assert sum(row["quantity"] for row in usage if row["unit"] == "Tokens") == tokens > 0
    assert {row["price_variant"] for row in usage} > {"standard", "fast", "batch"}
    billed = sum((cost for record in own for _, cost in cost_lines(record)), Decimal(0))
    assert sum(row["amount"] for row in costs) == billed > 0
    assert DEFAULT_WORKSPACE in {row["project_id"] for row in usage}


def test_absent_days_are_quiet_days() -> None:
    days = {"start_date": date(2026, 11, 17), "end_date": date(2026, 11, 19)}
    assert {row["x_pipeline_run_date"] for row in usage_of(usage_item(), **days)} == {DAY}
    assert usage_of() == []


@pytest.mark.parametrize("report", ["usage", "cost"])
def test_a_report_that_is_not_refreshed_yet_is_no_quiet_day(report: str) -> None:
    early = page(refreshed="2026-11-18T20:00:00Z")
    says = "reaches to 2026-11-18 20:00 UTC, so 2026-11-18 is not complete"
    with sandbox([early]) as (_, context), pytest.raises(TransientError, match=says):
        read(context, report)


def test_today_may_be_incomplete() -> None:
    today = date(2026, 11, 21)
    nothing = page(refreshed="2026-11-21T04:00:00Z")
    with sandbox([nothing, nothing, ME], start_date=today, end_date=today) as (_, context):
        assert read(context) == []


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("report", ["usage", "cost"])
def test_the_legacy_report_is_read_only_where_the_other_is_not_to_be_had(report: str, status: int) -> None:
    def refuse(request: Request) -> Answer | None:
        return Answer(status, {"error": {"message": "no"}}) if "analytics" in request.path else None

    with sandbox(refuse) as (_, context):
        rows = read(context, report)
    legacy = {"usage": "usage_report/messages", "cost": "cost_report"}[report]
    assert {json.loads(row["attributes"])["report"] for row in rows} == {legacy}
    assert any(str(status) in text and "legacy" in text for text in context.infos)


@pytest.mark.parametrize(
    ("status", "error"), [(400, PermanentError), (401, PermanentError), (429, TransientError), (500, TransientError)]
)
def test_no_other_failure_turns_to_the_legacy_report(status: int, error: type[Exception]) -> None:
    def fail(request: Request) -> Answer | None:
        return Answer(status, {"error": {"message": "no"}}) if "analytics" in request.path else None

    with sandbox(fail) as (server, context):
        with pytest.raises(error):
            read(context)
        assert not [request for request in server.requests if "usage_report" in request.path]


def test_a_refusal_after_the_first_rows_is_no_reason_to_read_the_legacy_report() -> None:
    """Its days would be counted a second time."""
    gone = Answer(404, {"error": {"message": "no"}})
    with sandbox([page(cost_item(), next_page="page_b"), ME, gone]) as (server, context):
        with pytest.raises(PermanentError, match="404"):
            read(context, "cost")
        assert not [request for request in server.requests if request.path.endswith("/cost_report")]


def test_days_that_the_analytics_reports_do_not_have_are_read_from_the_legacy_ones() -> None:
    """A run reads one report: a run that begins too early reads the legacy one for all its days."""
    with sandbox(start_date=date(2025, 12, 30), end_date=date(2026, 1, 2)) as (server, context):
        rows = read(context)
        assert not [request for request in server.requests if "analytics" in request.path]
    assert {json.loads(row["attributes"])["report"] for row in rows} == {"usage_report/messages"}
    assert any("goes back to 2026-01-01" in text for text in context.infos)


@pytest.mark.parametrize(
    ("answer", "path"),
    [
        (Answer(200, {}), "data is None"),
        (Answer(200, {"data": []}), "has_more is None"),
        (page(usage_item(day="2026-11-17")), r"data\[0\].starting_at is"),
        (page(usage_item(day="2026-11-19")), r"data\[0\].starting_at is"),
        (page(usage_item() | {"ending_at": "2026-11-18T01:00:00Z"}), r"data\[0\].ending_at is"),
        (page(usage_item(), usage_item()), r"data\[1\].group is"),
        (page(usage_item() | {"group": None}), r"data\[0\].group is"),
        (page(usage_item() | {"usage": None}), r"data\[0\].usage is"),
        (page(usage_item(output_tokens=None)), "output_tokens is None"),
        (page(usage_item(cache_creation=None)), "cache_creation is None"),
        (page(refreshed="yesterday"), "data_refreshed_at is"),
    ],
)
def test_an_answer_of_another_shape_is_transient_and_names_the_place(answer: Answer, path: str) -> None:
    with (
        sandbox([page(), answer, ME]) as (_, context),
        pytest.raises(TransientError, match=f"Anthropic usage: .*{path}"),
    ):
        read(context)


# The sandbox itself


def ask(name: str, *query: tuple[str, str], **headers: str) -> Answer:
    sent = {"authorization": f"Bearer {ADMIN_KEY}", "anthropic-version": "2026-10-21", "anthropic-beta": BETA} | headers
    request = Request(f"/v1/organizations/analytics/{name}", query, sent)
    return AnthropicSandbox(1).refuse(request) or AnthropicSandbox(1).answer(request)


RANGE = (("starting_at", "2026-11-01T00:00:00Z"), ("ending_at", "2026-11-09T00:00:00Z"))
ORDER = (("order", "asc"), ("order_by", "time"))


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ((("starting_at", "2025-12-31T00:00:00Z"), RANGE[1], *ORDER), "no earlier than"),
        ((RANGE[0], ("ending_at", "2026-12-09T00:00:00Z"), *ORDER), "31 days"),
        ((RANGE[0], *ORDER), "ending_at"),
        ((*RANGE, *ORDER, ("limit", "1001")), "limit"),
        ((*RANGE, *ORDER, ("bucket_width", "1d")), "bucket_width: Extra"),
        ((*RANGE, *ORDER, ("time_bucket_width", "2d")), "time_bucket_width"),
        ((*RANGE, *ORDER, ("group_by[]", "token_type")), "group_by"),
        ((*RANGE, *ORDER, *(("group_by[]", g) for g in (*GROUP, "speed"))), "at most 5"),
        ((*RANGE, *ORDER, ("page", "page_zzz")), "page"),
    ],
)
def test_the_sandbox_refuses_what_is_not_documented(query: tuple[tuple[str, str], ...], says: str) -> None:
    answer = ask("usage", *query)
    assert (answer.status, answer.body["error"]["type"]) == (400, "invalid_request_error")
    assert says in answer.body["error"]["message"]


def test_the_sandbox_wants_the_beta_and_takes_the_key_in_both_headers() -> None:
    assert ask("usage", *RANGE, *ORDER, **{"anthropic-beta": "other"}).status == 400
    assert ask("usage", *RANGE, *ORDER).status == 200
    assert ask("usage", *RANGE, *ORDER, **{"authorization": "", "x-api-key": ADMIN_KEY}).status == 200
    assert ask("usage", *RANGE, *ORDER, **{"authorization": "Bearer sk-ant-api03-x"}).status == 403
    assert ask("usage", *RANGE, *ORDER, **{"authorization": "Basic x"}).status == 401
