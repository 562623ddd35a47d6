"""Gemini's tokens from Cloud Monitoring: whose they are, what they are priced as, and what Google does not have."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from common.adapters.google.cloud import GoogleCloudAdapter
from common.platform.errors import PermanentError, TransientError
from common.platform.paths import CONFIGS
from common.processors.genai.payg_usage import GenaiPaygUsage, GenaiPaygUsageParams
from common.processors.genai.providers.gemini import DEVELOPER, PARTIAL
from common.tables.contract import load_table
from infra.local.sandbox import gemini_data
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.gemini import PROJECT, GeminiSandbox
from infra.local.sandbox.server import SandboxServer
from infra.local.sandbox.service_accounts import MONITORING
from tests.processors.context import NOW, RecordingContext, make_context

DAY = date(2026, 11, 18)
PAID = gemini_data.PAID_INPUT


@contextmanager
def sandbox(
    answers: dict[str, Any] | None = None, settled: bool = True, **more: Any
) -> Iterator[tuple[SandboxServer, RecordingContext]]:
    """A sandbox; with ``answers``, one that has these series (or bodies) by metric and nothing else."""

    def fake(request: Request) -> Answer | None:
        if answers is None or not request.path.endswith("timeSeries"):
            return None
        name = dict(request.query)["filter"].split('"')[1]
        found = answers.get(name)
        if found is None:
            return Answer(404, {})
        return Answer(200, found if isinstance(found, dict) and "timeSeries" in found else {"timeSeries": found})

    with SandboxServer(1, fail_with=fake, rate_limit_every=0, settled=settled) as server:
        google = GoogleCloudAdapter("test-project", lambda: server.urls["gcp_token"])
        mine = {
            "secret": lambda: server.secrets["gemini"],
            "provider_url": lambda key: server.urls[key],
            "google": lambda: google,
        }
        yield server, make_context(**mine | {"start_date": DAY, "end_date": DAY} | more)


def read(context: RecordingContext, *endpoints: str) -> list[dict[str, Any]]:
    params = GenaiPaygUsageParams(destination_table="t", provider="gemini", endpoints=endpoints or None)
    return [dict(row) for batch in GenaiPaygUsage().run(context, params) for row in batch.rows]


def series(tokens: Any, ends: str = "2026-11-19T00:00:00Z", resource: Any = None, **labels: str) -> dict[str, Any]:
    point = {"interval": {"startTime": "2026-11-18T00:00:00Z", "endTime": ends}, "value": {"int64Value": tokens}}
    return {
        "metric": {"type": "x", "labels": labels},
        "resource": {"type": "y", "labels": resource or {"resource_container": "projects/other-project"}},
        "points": [point],
    }


def test_input_of_the_gemini_api_is_priced_by_its_tier_and_output_as_its_input() -> None:
    found = {
        PAID: [series("1000", model="gemini-2.5-flash")],
        gemini_data.FREE_INPUT: [series("500", model="gemini-2.5-flash-lite")],
        gemini_data.OUTPUT: [
            series("70", model="gemini-2.5-flash", thinking_enabled="true"),
            series("30", model="gemini-2.5-flash-lite"),
            series("20", model="gemini-3.5-flash"),
        ],
    }
    with sandbox(found) as (_, context):
        rows = read(context, "generative_language")
    assert [(r["model"], r["meter"], r["quantity"], r.get("service_tier")) for r in rows] == [
        ("gemini-2.5-flash-lite", "input_text", 500, "free_tier"),
        ("gemini-2.5-flash", "input_text", 1000, "paid_tier"),
        ("gemini-2.5-flash", "output_text", 70, None),
        ("gemini-2.5-flash-lite", "output_text", 30, None),
        ("gemini-3.5-flash", "output_text", 20, None),
    ]
    assert [row["price_variant"] for row in rows] == ["free", "standard", "standard", "free", "standard"]
    assert rows[2] == {
        "provider": "gemini",
        "account_id": PROJECT,
        "endpoint": "generative_language",
        "bucket_start": datetime(2026, 11, 18, tzinfo=UTC),
        "bucket_end": datetime(2026, 11, 19, tzinfo=UTC),
        "project_id": "other-project",
        "model": "gemini-2.5-flash",
        "attributes": '{"thinking_enabled": "true"}',
        "price_variant": "standard",
        "meter": "output_text",
        "quantity": Decimal(70),
        "unit": "Tokens",
        "x_pipeline_run_date": DAY,
    }
    assert context.warnings == []


def test_output_of_a_model_used_by_free_and_paid_tiers_is_priced_and_told() -> None:
    both = [series("10", model="gemini-2.5-flash")]
    with sandbox({PAID: both, gemini_data.FREE_INPUT: both, gemini_data.OUTPUT: both}) as (_, context):
        assert [row["price_variant"] for row in read(context)] == ["free", "standard", "standard"]
    assert "by free and paid tiers on 2026-11-18" in context.warnings[0]


def test_vertex_tells_direction_modality_region_publisher_and_batches() -> None:
    claude = {"project_id": "p", "model_user_id": "claude-sonnet-4-5@20250929", "publisher": "anthropic"}
    gemini = {"project_id": "p", "model_user_id": "gemini-2.5-flash", "publisher": "google", "location": "global"}
    found = [
        series("5", type="input", modality="TEXT", resource=claude | {"location": "us-east5"}, request_type="shared"),
        series("6", type="output", modality="AUDIO", resource=gemini, source="batch_us-central1"),
        series("7", type="input", resource=gemini, request_type="dedicated"),
        series("8", type="input", modality="VIDEO", resource=gemini),
    ]
    with sandbox({gemini_data.VERTEX: found}) as (_, context):
        rows = read(context, "vertex_ai")
    told = [tuple(row[k] for k in ("meter", "region", "publisher", "price_variant", "quantity")) for row in rows]
    assert told == [
        ("input_text", "us-east5", "anthropic", "standard", 5),
        ("output_audio", None, None, "batch", 6),
        ("input_text", None, None, "dedicated", 7),
        ("input_video", None, None, "standard", 8),
    ]
    assert rows[0]["attributes"] == '{"request_type": "shared"}' and rows[0]["project_id"] == "p"
    columns = {*load_table(CONFIGS, "genai_payg_usage").names, "x_pipeline_run_date"}
    assert all(set(row) <= columns for row in rows)


def test_all_tokens_of_the_sandbox_arrive_and_pages_are_followed() -> None:
    """The sum is read past our code, from the sandbox's own series."""
    days = {"start_date": date(2026, 11, 10), "end_date": date(2026, 11, 14)}
    with sandbox(**days) as (server, context):
        rows = read(context)
        asked = [request for request in server.requests if request.path.endswith("timeSeries")]
    start, end = datetime(2026, 11, 10, tzinfo=UTC), datetime(2026, 11, 15, tzinfo=UTC)
    every = (s for metric in gemini_data.METRICS for s in gemini_data.series_of(1, metric, start, end, late=True))
    assert sum(row["quantity"] for row in rows) == sum(n for s in every for _, n in s.tokens) > 0
    assert {row["x_pipeline_run_date"] for row in rows} == {start.date() + timedelta(days=n) for n in range(5)}
    assert any(key == "pageToken" for request in asked for key, _ in request.query)
    assert {key: value for key, value in asked[0].query if key != "filter"} == {
        "interval.startTime": "2026-11-10T00:00:00Z",
        "interval.endTime": "2026-11-15T00:00:00Z",
        "aggregation.alignmentPeriod": "86400s",
        "aggregation.perSeriesAligner": "ALIGN_SUM",
        "pageSize": "1000",
    }
    assert any("no metric" in text and "paid_tier_3" in text for text in context.infos)


@pytest.mark.parametrize("field", PARTIAL)
def test_a_partial_answer_is_no_day_with_fewer_tokens(field: str) -> None:
    left_out = [{"code": 14, "message": "backend"}] if field == "executionErrors" else ["us-west1"]
    whole = {"timeSeries": [series("5", model="gemini-2.5-pro")], field: left_out}
    with (
        sandbox({PAID: whole}) as (_, context),
        pytest.raises(TransientError, match=f"the answer is partial: {field} is filled"),
    ):
        read(context, DEVELOPER)


def test_an_answer_that_says_that_nothing_is_missing_is_whole() -> None:
    whole = {"timeSeries": [series("5", model="gemini-2.5-pro")], **{field: [] for field in PARTIAL}}
    with sandbox({PAID: whole}) as (_, context):
        assert read(context, DEVELOPER)


def test_late_tokens_are_there_when_the_days_are_read_again() -> None:
    with sandbox(settled=False, start_date=date(2026, 11, 10), end_date=date(2026, 11, 19)) as (server, context):
        before = sum(row["quantity"] for row in read(context))
        server.settle()
        assert sum(row["quantity"] for row in read(context)) > before


def test_a_project_without_any_metric_is_told() -> None:
    with sandbox({}) as (_, context):
        assert read(context) == []
    assert "no Gemini metric at all" in context.warnings[0]


def test_days_that_google_no_longer_has_are_refused_and_nothing_is_replaced() -> None:
    with sandbox(start_date=NOW.date() - timedelta(days=42)) as (server, context):
        with pytest.raises(PermanentError, match="six weeks: 2026-10-10 is gone, the oldest day is 2026-10-11"):
            read(context)
        assert list(server.requests) == []


@pytest.mark.parametrize(
    ("found", "path"),
    [
        ([series(12)], r"points\[0\].value.int64Value is 12"),
        ([series("-1")], "int64Value is '-1'"),
        ([series("1", ends="2026-11-18T07:00:00Z")], r"points\[0\].interval is"),
        ([series("1", ends="2026-11-21T00:00:00Z")], r"points\[0\].interval is"),
        ([series("1") | {"points": [series("1")["points"][0]] * 2}], r"points\[1\].interval is"),
        ([{"metric": {}, "points": []}], r"timeSeries\[0\].resource is None"),
        ({}, "timeSeries is dict"),
    ],
)
def test_an_answer_of_another_shape_is_transient_and_names_the_place(found: Any, path: str) -> None:
    with sandbox({PAID: found}) as (_, context), pytest.raises(TransientError, match=path):
        read(context)


def test_a_direction_that_is_not_known_is_refused() -> None:
    says = "type is 'sideways', expected input or output"
    found = {gemini_data.VERTEX: [series("1", type="sideways")]}
    with sandbox(found) as (_, context), pytest.raises(TransientError, match=says):
        read(context)


# The service account


def broken(secret: str, **change: Any) -> str:
    return json.dumps(json.loads(secret) | change)


@pytest.mark.parametrize("secret", ["", "sk-not-json", "{}", "[]", '{"client_email": 4}', "[" * 100_000])
def test_what_is_no_key_file_is_refused_and_not_repeated(secret: str) -> None:
    with sandbox(secret=lambda: secret) as (_, context), pytest.raises(PermanentError) as caught:
        read(context)
    assert "JSON key of a" in str(caught.value) and "credentials add" in str(caught.value)
    assert not secret or secret not in str(caught.value)


def test_a_private_key_that_can_not_be_read_is_refused_and_not_repeated() -> None:
    with sandbox() as (server, context):
        secret = broken(server.secrets["gemini"], private_key="-----BEGIN canary-77-----")
        bad = make_context(provider_url=context.provider_url, google=context.google, secret=lambda: secret)
        with pytest.raises(PermanentError, match="no private key that can be read") as caught:
            read(bad)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("change", [{"client_email": "other@x.iam.gserviceaccount.com"}, {"private_key_id": "old"}])
def test_a_service_account_that_google_refuses_is_explained(change: dict[str, str]) -> None:
    with sandbox() as (server, context):
        secret = broken(server.secrets["gemini"], **change)
        bad = make_context(provider_url=context.provider_url, google=context.google, secret=lambda: secret)
        with pytest.raises(PermanentError, match="Google does not accept the service account.*credentials add"):
            read(bad)


def test_a_project_that_it_may_not_read_is_explained() -> None:
    with sandbox() as (server, context):
        secret = broken(server.secrets["gemini"], project_id="somebody-elses")
        bad = make_context(provider_url=context.provider_url, google=context.google, secret=lambda: secret)
        with pytest.raises(PermanentError, match="403.*Monitoring Viewer"):
            read(bad)


@pytest.mark.parametrize("project", ["../x", "A", "p?x=1", "p/q"])
def test_a_project_that_is_more_than_an_id_reaches_no_address(project: str) -> None:
    with sandbox() as (server, context):
        secret = broken(server.secrets["gemini"], project_id=project)
        bad = make_context(provider_url=context.provider_url, google=context.google, secret=lambda: secret)
        with pytest.raises(PermanentError, match="project_id is not a valid project id"):
            read(bad)
        assert list(server.requests) == []


def test_the_token_is_asked_for_where_the_registry_says_and_not_where_the_key_file_does() -> None:
    with sandbox() as (server, context):
        secret = broken(server.secrets["gemini"], token_uri="https://evil.example/token")
        good = make_context(
            provider_url=context.provider_url,
            google=context.google,
            secret=lambda: secret,
            start_date=DAY,
            end_date=DAY,
        )
        assert read(good)
        form = server.requests[0].form
    claims = json.loads(base64.urlsafe_b64decode(form["assertion"].split(".")[1] + "=="))
    assert claims.pop("exp") == claims.pop("iat") + 3600
    assert claims == {
        "iss": MONITORING.email,
        "scope": "https://www.googleapis.com/auth/monitoring.read",
        "aud": "https://oauth2.googleapis.com/token",
    }


# The sandbox itself

GOOD = {
    "filter": f'metric.type="{PAID}"',
    "interval.startTime": "2026-11-18T00:00:00Z",
    "interval.endTime": "2026-11-19T00:00:00Z",
    "aggregation.alignmentPeriod": "86400s",
    "aggregation.perSeriesAligner": "ALIGN_SUM",
}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"filter": 'metric.type="x.googleapis.com/none"'}, 404),
        ({"filter": "metric.type=x"}, 400),
        ({"interval.endTime": "2026-11-17T00:00:00Z"}, 400),
        ({"interval.startTime": "yesterday"}, 400),
        ({"aggregation.alignmentPeriod": "1d"}, 400),
        ({"aggregation.alignmentPeriod": "30s"}, 400),
        ({"aggregation.perSeriesAligner": "SUM"}, 400),
        ({"pageSize": "0"}, 400),
        ({"pageToken": "zzz"}, 400),
        ({"alignmentPeriod": "60s"}, 400),
    ],
)
def test_the_sandbox_refuses_what_google_does(change: dict[str, str], status: int) -> None:
    query = tuple((GOOD | change).items())
    assert GeminiSandbox(1).answer(Request(f"/v3/projects/{PROJECT}/timeSeries", query)).status == status


def test_the_sandbox_wants_a_token_that_it_gave() -> None:
    request = Request(f"/v3/projects/{PROJECT}/timeSeries", tuple(GOOD.items()), {"authorization": "Bearer ya29.x"})
    refusal = GeminiSandbox(1).refuse(request)
    assert refusal is not None and refusal.status == 401
