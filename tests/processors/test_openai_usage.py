"""OpenAI's usage in the long format: documented examples, pages, arithmetic, and answers of another shape.

The example bodies are those of OpenAI's OpenAPI document 2.3.0 (x-oaiMeta of each endpoint).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from common.platform.errors import PermanentError, TransientError
from common.processors.genai.payg_usage import GenaiPaygUsage, GenaiPaygUsageParams
from common.processors.genai.providers.openai import ENDPOINTS
from common.tables.contract import load_table
from infra.local.sandbox import openai as documented
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.server import SandboxServer
from tests.processors.context import RecordingContext, make_context

DAY = date(2024, 11, 1)  # 1730419200, the day of OpenAI's examples
START, END = 1_730_419_200, 1_730_505_600
CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"
NULLS = dict.fromkeys(("project_id", "user_id", "api_key_id", "model"))

EXAMPLE = {
    "object": "organization.usage.completions.result",
    "input_tokens": 1000,
    "input_cached_tokens": 400,
    "input_cache_write_tokens": 100,
    "input_uncached_tokens": 500,
    "output_tokens": 500,
    "input_text_tokens": 400,
    "output_text_tokens": 400,
    "input_cached_text_tokens": 300,
    "input_audio_tokens": 50,
    "input_cached_audio_tokens": 50,
    "output_audio_tokens": 50,
    "input_image_tokens": 50,
    "input_cached_image_tokens": 50,
    "output_image_tokens": 50,
    "num_model_requests": 5,
    **NULLS,
    "batch": None,
    "service_tier": None,
}

OTHERS: list[tuple[str, str, dict[str, Any], tuple[str, int, str, int | None]]] = [
    ("embeddings", "embeddings", {"input_tokens": 16, "num_model_requests": 2}, ("input_text", 16, "Tokens", 2)),
    ("moderations", "moderations", {"input_tokens": 16, "num_model_requests": 2}, ("input_text", 16, "Tokens", 2)),
    ("images", "images", {"images": 2, "num_model_requests": 2}, ("images", 2, "Images", 2)),
    (
        "audio_speeches",
        "audio_speeches",
        {"characters": 45, "num_model_requests": 1},
        ("characters", 45, "Characters", 1),
    ),
    (
        "audio_transcriptions",
        "audio_transcriptions",
        {"seconds": 20, "num_model_requests": 1},
        ("seconds", 20, "Seconds", 1),
    ),
    ("vector_stores", "vector_stores", {"usage_bytes": 1024}, ("stored_bytes", 1024, "Bytes", None)),
    (
        "code_interpreter_sessions",
        "code_interpreter_sessions",
        {"num_sessions": 1},
        ("sessions", 1, "Sessions", None),
    ),
    ("file_search_calls", "file_searches", {"num_requests": 2}, ("file_searches", 2, "Calls", None)),
    (
        "web_search_calls",
        "web_searches",
        {"num_model_requests": 2, "num_requests": 2},
        ("web_searches", 2, "Calls", 2),
    ),
]


def bucket(*results: dict[str, Any], start: int = START, end: int = END) -> dict[str, Any]:
    return {"object": "bucket", "start_time": start, "end_time": end, "results": list(results)}


def page(*buckets: dict[str, Any], next_page: str | None = None, **headers: str) -> Answer:
    body = {"object": "page", "data": list(buckets), "has_more": next_page is not None, "next_page": next_page}
    return Answer(200, body, headers)


@contextmanager
def sandbox(fail_with: Any = None, **more: Any) -> Iterator[tuple[SandboxServer, RecordingContext]]:
    first = {"start_date": DAY, "end_date": DAY} | {k: more.pop(k) for k in ("start_date", "end_date") if k in more}
    more.setdefault("rate_limit_every", 0)
    with SandboxServer(1, fail_with=fail_with, **more) as server:
        yield server, make_context(provider_url=lambda _key: server.url, **first)


def read(context: RecordingContext, *endpoints: str) -> list[dict[str, Any]]:
    """Return all rows of the endpoints (completions if none is named)."""
    params = GenaiPaygUsageParams(
        destination_table="genai_payg_usage", provider="openai", endpoints=endpoints or ("completions",)
    )
    return [dict(row) for batch in GenaiPaygUsage().run(context, params) for row in batch.rows]


def read_result(result: dict[str, Any], name: str = "completions") -> tuple[list[dict[str, Any]], RecordingContext]:
    with sandbox([page(bucket(result))]) as (_, context):
        return read(context, name), context


def quantities(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {row["meter"]: row["quantity"] for row in rows}


def test_the_documented_completions_example_becomes_a_row_a_meter() -> None:
    with sandbox([page(bucket(EXAMPLE), **{"openai-organization": "org-1"})]) as (_, context):
        rows = read(context)
    assert quantities(rows) == {
        "input_text": 400,
        "input_audio": 50,
        "input_image": 50,
        "input_cached_text": 300,
        "input_cached_audio": 50,
        "input_cached_image": 50,
        "input_cache_write": 100,
        "output_text": 400,
        "output_audio": 50,
        "output_image": 50,
    }
    assert rows[0] == {
        "provider": "openai",
        "account_id": "org-1",
        "endpoint": "completions",
        "bucket_start": datetime(2024, 11, 1, tzinfo=UTC),
        "bucket_end": datetime(2024, 11, 2, tzinfo=UTC),
        "project_id": None,
        "user_id": None,
        "api_key_id": None,
        "model": None,
        "batch": None,
        "service_tier": None,
        "price_variant": "standard",
        "attributes": None,
        "meter": "input_text",
        "quantity": Decimal(400),
        "unit": "Tokens",
        "requests": 5,
        "x_pipeline_run_date": DAY,
    }
    assert context.warnings == []


@pytest.mark.parametrize(("name", "result", "measures", "row"), OTHERS)
def test_the_other_documented_examples_become_one_row(
    name: str, result: str, measures: dict[str, Any], row: tuple[str, int, str, int | None]
) -> None:
    rows, _ = read_result({"object": f"organization.usage.{result}.result", **measures, **NULLS}, name)
    assert [(r["endpoint"], r["meter"], r["quantity"], r["unit"], r["requests"]) for r in rows] == [(name, *row)]


def test_rows_have_exactly_the_columns_of_the_contract_and_their_day() -> None:
    rows, _ = read_result(EXAMPLE)
    unsaid = {"region", "publisher", "stated_price", "stated_currency"}
    assert set(rows[0]) == {*load_table(CONFIGS, "genai_payg_usage").names, "x_pipeline_run_date"} - unsaid


def test_dimensions_and_rarer_attributes_are_kept() -> None:
    who = {"project_id": "p", "api_key_id": "k", "model": "gpt-4o", "batch": True, "service_tier": "flex"}
    rows, _ = read_result(EXAMPLE | who)
    assert {name: rows[0][name] for name in who} == who
    images = {"object": "organization.usage.images.result", "images": 1, "size": "1x1", "source": "image.edit"}
    assert json.loads(read_result(images, "images")[0][0]["attributes"]) == {"size": "1x1", "source": "image.edit"}


def test_without_modality_fields_all_tokens_are_text() -> None:
    bare = {k: EXAMPLE[k] for k in ("object", "input_tokens", "output_tokens", "num_model_requests")}
    rows, context = read_result(bare)
    assert quantities(rows) == {"input_text": 1000, "output_text": 500}
    rows, _ = read_result(bare | {"input_cached_tokens": 400, "input_cache_write_tokens": 100})
    assert quantities(rows) == {
        "input_text": 500,
        "input_cached_text": 400,
        "input_cache_write": 100,
        "output_text": 500,
    }
    assert context.warnings == []


def test_without_a_text_field_the_rest_of_the_total_is_text() -> None:
    part = {"object": EXAMPLE["object"], "input_tokens": 100, "input_audio_tokens": 30, "output_tokens": 0}
    rows, context = read_result(part)
    assert quantities(rows) == {"input_text": 70, "input_audio": 30}
    assert context.warnings == []


@pytest.mark.parametrize(
    ("change", "meter", "tokens"),
    [
        ({"input_tokens": 1007}, "input_text", 407),
        ({"output_tokens": 507}, "output_text", 407),
        ({"input_cached_tokens": 407, "input_tokens": 1007}, "input_cached_text", 307),
        ({"input_text_tokens": None, "input_uncached_tokens": 493}, "input_text", 400),
    ],
)
def test_tokens_in_no_part_are_counted_as_text_and_reported(change: Any, meter: str, tokens: int) -> None:
    rows, context = read_result(EXAMPLE | {"model": "gpt-4o"} | change)
    assert quantities(rows)[meter] == tokens
    total = (EXAMPLE | change)["input_tokens"] + (EXAMPLE | change)["output_tokens"]
    assert sum(quantities(rows).values()) == total
    (warning,) = context.warnings
    for part in ("completions", "gpt-4o", "2024-11-01", " 7 tokens", meter):
        assert part in warning


def test_many_results_that_do_not_add_up_are_one_warning() -> None:
    off = EXAMPLE | {"input_tokens": 1001, "model": "gpt-4o"}
    with sandbox([page(bucket(off, off, off | {"project_id": "p"}))]) as (_, context):
        read(context)
    assert len(context.warnings) == 1
    assert "3 results" in context.warnings[0] and " 3 tokens" in context.warnings[0]


@pytest.mark.parametrize(
    "change",
    [
        {"input_tokens": 499},
        {"input_tokens": 999},
        {"output_tokens": 99},
        {"input_audio_tokens": 501},
        {"input_text_tokens": 401},
        {"input_cached_tokens": 350, "input_tokens": 950},
        {"input_cache_write_30m_tokens": 101},
    ],
)
def test_parts_larger_than_their_total_end_the_step_by_name(change: dict[str, int]) -> None:
    with pytest.raises(PermanentError, match=r"completions, 2024-11-01, model gpt-4o: .* more than"):
        read_result(EXAMPLE | {"model": "gpt-4o"} | change)


@pytest.mark.parametrize("endpoint", ["completions", "decisions"])
def test_cache_writes_are_told_apart_by_retention(endpoint: str) -> None:
    more = {"input_cache_write_30m_tokens": 60, "input_cache_write_12h_tokens": 40}
    rows, _ = read_result(EXAMPLE | more | {"object": f"organization.usage.{endpoint}.result"}, endpoint)
    found = quantities(rows)
    assert (found["input_cache_write_30m"], found["input_cache_write_12h"]) == (60, 40)
    assert "input_cache_write" not in found
    assert sum(found.values()) == 1500


def test_pages_are_followed_to_the_end_with_an_unchanged_query() -> None:
    with sandbox(start_date=date(2026, 11, 1), end_date=date(2026, 11, 20)) as (server, context):
        params = GenaiPaygUsageParams(destination_table="t", provider="openai", endpoints=("vector_stores",))
        batches = list(GenaiPaygUsage().run(context, params))
        asked = list(server.requests)
    assert len(batches) == len(asked) == 3  # 20 days, 7 a page
    assert {tuple((k, v) for k, v in request.query if k != "page") for request in asked} == {
        (
            ("start_time", "1793491200"),  # 2026-11-01T00:00:00Z
            ("end_time", "1795219200"),  # 2026-11-21T00:00:00Z: exclusive at the API, inclusive in a run
            ("bucket_width", "1d"),
            ("limit", "7"),
            ("group_by[]", "project_id"),
        )
    }
    found = {row["x_pipeline_run_date"] for batch in batches for row in batch.rows}
    assert min(found) >= date(2026, 11, 1) and max(found) <= date(2026, 11, 20) and len(found) > 14


def test_all_usage_of_the_sandbox_arrives_on_the_meters() -> None:
    """The sum over meters is the sum of totals, read past our code from the sandbox itself."""
    first, last = date(2026, 11, 1), date(2026, 11, 9)
    with sandbox(start_date=first, end_date=last) as (_, context):
        rows = read(context, "completions", "embeddings")
    query = [("start_time", "1793491200"), ("end_time", "1794268800"), ("limit", "31")]
    for name in ("completions", "embeddings"):
        answer = documented.OpenAISandbox(1).answer(Request(f"/v1/organization/usage/{name}", query))
        results = [result for one in answer.body["data"] for result in one["results"]]
        total = sum(result["input_tokens"] + result.get("output_tokens", 0) for result in results)
        assert sum(row["quantity"] for row in rows if row["endpoint"] == name) == total > 0
    assert context.warnings == []


def test_every_documented_endpoint_is_read_with_every_documented_grouping_but_user_id() -> None:
    with sandbox() as (server, context):
        params = GenaiPaygUsageParams(destination_table="t", provider="openai")
        list(GenaiPaygUsage().run(context, params))
        asked = {r.path.rpartition("/")[2]: {v for k, v in r.query if k == "group_by[]"} for r in server.requests}
    assert asked == {name: set(e.group_by) - {"user_id"} for name, e in documented.ENDPOINTS.items()}


def _refusing(message: str, *, page_token: str | None = None) -> Any:
    """Refuse what names ``api_source``: every request, or only that of a page."""

    def refuse(request: Request) -> Answer | None:
        given = dict(request.query)
        named = ("group_by[]", "api_source") in request.query and given.get("page") == page_token
        return Answer(400, {"error": {"message": message, "code": None}}) if named else None

    return refuse


def test_an_organisation_without_api_source_is_read_without_it() -> None:
    with sandbox(_refusing("Invalid value: 'api_source'.")) as (server, context):
        assert read(context)
        asked = [[v for k, v in request.query if k == "group_by[]"] for request in server.requests]
    assert [("api_source" in groups, len(groups)) for groups in asked] == [(True, 6), (False, 5)]
    assert any("without it" in text for text in context.infos)


def test_another_refusal_is_no_reason_to_read_fewer_dimensions() -> None:
    with sandbox(_refusing("Invalid value: 'model'.")) as (_, context), pytest.raises(PermanentError, match="'model'"):
        read(context)


def test_a_later_page_that_refuses_a_dimension_does_not_start_the_report_again() -> None:
    """Its first page is counted already, by other dimensions."""
    first = page(bucket(EXAMPLE), next_page="page_2")

    def answers(request: Request) -> Answer | None:
        return _refusing("Invalid value: 'api_source'.", page_token="page_2")(request) or first

    with sandbox(answers) as (_, context), pytest.raises(PermanentError, match="api_source"):
        read(context)


def test_quiet_days_give_no_rows() -> None:
    with sandbox([page(bucket())]) as (_, context):
        assert read(context) == []


def test_a_meter_without_quantity_is_no_row() -> None:
    rows, _ = read_result({"object": EXAMPLE["object"], "input_tokens": 0, "output_tokens": 0})
    assert rows == []


def test_the_account_is_the_credential_where_openai_does_not_tell() -> None:
    rows, _ = read_result(EXAMPLE)
    assert rows[0]["account_id"] == "cred_openai"


def test_rate_limits_are_waited_out() -> None:
    with sandbox(rate_limit_every=2) as (_, context):
        read(context, "embeddings", "images", "moderations")
    assert context.time.slept == [1.0, 1.0]  # the sandbox says Retry-After: 1


@pytest.mark.parametrize(
    ("key", "status"), [("sk-proj-abc", 403), ("sk-unknown-abc", 401)], ids=["project key", "unknown key"]
)
def test_a_wrong_key_is_explained_and_not_shown(key: str, status: int) -> None:
    with sandbox() as (server, _), pytest.raises(PermanentError) as caught:
        read(make_context(provider_url=lambda _key: server.url, secret=lambda: key))
    text = str(caught.value)
    assert str(status) in text and "admin key" in text and "api.usage.read" in text and "credentials add" in text
    assert key not in text


def test_decisions_may_be_missing_and_others_may_not() -> None:
    def gone(request: Request) -> Answer | None:
        return None if "completions" in request.path else Answer(404, {})

    with sandbox(gone) as (_, context):
        read(context, "decisions", "completions")
        assert any("'decisions'" in text for text in context.infos)
        assert context.warnings == []
        with pytest.raises(PermanentError, match="embeddings: answered 404"):
            read(context, "embeddings")


@pytest.mark.parametrize(
    ("answer", "path"),
    [
        (Answer(200, []), "the answer is list"),
        (Answer(200, {}), "data is None"),
        (Answer(200, {"data": {}}), "data is dict"),
        (Answer(200, {"data": [7]}), r"data\[0\] is 7"),
        (Answer(200, {"data": []}), "has_more is None"),
        (Answer(200, {"data": [], "has_more": True, "next_page": None}), "next_page is None"),
        (page({"start_time": START, "end_time": END}), r"data\[0\].results is None"),
        (page(bucket(EXAMPLE, EXAMPLE | {"input_tokens": "1000"})), r"results\[1\].input_tokens is '1000'"),
        (page(bucket(EXAMPLE | {"input_tokens": True})), r"results\[0\].input_tokens is True"),
        (page(bucket(EXAMPLE | {"input_tokens": -1})), r"results\[0\].input_tokens is -1"),
        (page(bucket(EXAMPLE | {"input_tokens": 1000.5})), r"results\[0\].input_tokens is Decimal"),
        (page(bucket(EXAMPLE | {"output_tokens": None})), r"results\[0\].output_tokens is None"),
        (page(bucket(EXAMPLE | {"batch": "yes"})), r"results\[0\].batch is 'yes'"),
        (page(bucket(EXAMPLE | {"model": 4})), r"results\[0\].model is 4"),
        (page(bucket(EXAMPLE | {"model": "\ud800"})), r"results\[0\].model is "),
        (page(bucket(EXAMPLE | {"num_model_requests": "5"})), r"num_model_requests is '5'"),
        (page(bucket(EXAMPLE | {"object": "organization.costs.result"})), r"object is 'organization.costs.result'"),
        (page(bucket(EXAMPLE, start=START - 1)), r"data\[0\].start_time is 1730419199"),
        (page(bucket(EXAMPLE, start=END, end=END + 60)), "start_time is"),
        (page(bucket(EXAMPLE, end=END + 1)), r"data\[0\].end_time is"),
        (page(bucket(EXAMPLE), bucket(EXAMPLE)), r"data\[1\].start_time is"),
    ],
)
def test_an_answer_of_another_shape_is_transient_and_names_the_place(answer: Answer, path: str) -> None:
    with sandbox([answer]) as (_, context), pytest.raises(TransientError, match=f"OpenAI completions: .*{path}"):
        read(context)


def test_pages_that_lead_in_a_circle_are_given_up() -> None:
    round_and_round = [page(next_page="page_a"), page(next_page="page_b"), page(next_page="page_a")]
    with sandbox(round_and_round) as (_, context), pytest.raises(TransientError, match="circle"):
        read(context)


def test_malformed_json_is_transient() -> None:
    with sandbox([Answer(200, b'{"data": [')]) as (_, context), pytest.raises(TransientError, match="not valid JSON"):
        read(context)


def test_an_unknown_endpoint_in_the_config_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValidationError, match="Did you mean 'embeddings'"):
        GenaiPaygUsageParams(destination_table="t", provider="openai", endpoints=("embedings",))
    with pytest.raises(ValidationError, match="listed twice"):
        GenaiPaygUsageParams(destination_table="t", provider="openai", endpoints=("images", "images"))
    with pytest.raises(ValidationError, match=r"no GenAI provider is named 'opennai'. Did you mean 'openai'\?"):
        GenaiPaygUsageParams(destination_table="t", provider="opennai")


def test_every_endpoint_of_the_document_is_known() -> None:
    assert set(ENDPOINTS) == set(documented.ENDPOINTS)
    assert [name for name, endpoint in ENDPOINTS.items() if endpoint.optional] == ["decisions"]


def test_an_answer_without_a_day_that_is_over_fails() -> None:
    """OpenAI marks a day without usage with an empty bucket; without any, its stored rows would be deleted."""
    with (
        sandbox([page(bucket(EXAMPLE))], end_date=date(2024, 11, 3)) as (_, context),
        pytest.raises(TransientError, match="no bucket for 2024-11-02 and 1 more days"),
    ):
        read(context)


def test_a_day_without_usage_is_an_empty_bucket() -> None:
    days = page(bucket(EXAMPLE), bucket(start=END, end=END + 86_400))
    with sandbox([days], end_date=date(2024, 11, 2)) as (_, context):
        assert {row["x_pipeline_run_date"] for row in read(context)} == {DAY}
