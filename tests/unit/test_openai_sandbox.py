"""The sandbox keeps to what OpenAI documents, so that a client which works here can work there."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.openai import ADMIN_KEY, ENDPOINTS, RETRY_AFTER_S, OpenAISandbox
from infra.local.sandbox.server import SandboxServer

DAY = 86_400
START = 1_763_424_000  # 2025-11-18T00:00:00Z
ROOT = Path(__file__).resolve().parent.parent.parent


def call(url: str, path: str, query: Any = (), key: str | None = ADMIN_KEY) -> tuple[int, Any, Any]:
    """Return status, body and headers of a GET over the wire."""
    request = urllib.request.Request(f"{url}/organization/usage/{path}?{urlencode(query)}")
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, json.load(response), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), error.headers


def ask(name: str, *query: tuple[str, Any], seed: int = 1) -> Answer:
    """Return the answer to a query, without the wire."""
    pairs = [(key, str(value)) for key, value in query]
    return OpenAISandbox(seed).answer(Request(f"/v1/organization/usage/{name}", pairs))


def days(count: int) -> tuple[tuple[str, Any], ...]:
    return ("start_time", START), ("end_time", START + count * DAY)


def results(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.body
    return [result for bucket in answer.body["data"] for result in bucket["results"]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with SandboxServer(seed=1, rate_limit_every=0) as server:
        yield server.url


def test_an_admin_key_reads_and_the_organisation_is_named(url: str) -> None:
    status, body, headers = call(url, "completions", days(1))
    assert (status, body["object"], headers["openai-organization"]) == (200, "page", "org-sandbox")


def test_a_project_key_is_refused_with_the_documented_missing_scope(url: str) -> None:
    status, body, _ = call(url, "completions", days(1), key="sk-proj-1")
    assert status == 403
    assert "Missing scopes: api.usage.read." in body["error"]["message"]
    assert body["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize("key", [None, "", "sk-other", ADMIN_KEY + "x"])
def test_any_other_key_is_refused(url: str, key: str | None) -> None:
    status, body, _ = call(url, "completions", days(1), key=key)
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(("width", "default", "most"), [("1d", 7, 31), ("1h", 24, 168), ("1m", 60, 1440)])
def test_pages_have_the_documented_sizes_and_refuse_larger_ones(width: str, default: int, most: int) -> None:
    query = (*days(40), ("bucket_width", width))
    assert len(ask("embeddings", *query).body["data"]) == default
    assert len(ask("embeddings", *query, ("limit", most)).body["data"]) == most
    refused = ask("embeddings", *query, ("limit", most + 1))
    assert (refused.status, refused.body["error"]["message"]) == (400, f"Limit must be less than or equal to {most}")


def test_pages_follow_one_another_without_gap_or_repeat() -> None:
    query, seen = (*days(17), ("group_by[]", "model")), list[Any]()
    body = ask("completions", *query).body
    seen += body["data"]
    while body["has_more"]:
        body = ask("completions", *query, ("page", body["next_page"])).body
        seen += body["data"]
    assert body["next_page"] is None
    assert [b["start_time"] for b in seen] == [START + n * DAY for n in range(17)]
    assert [b["end_time"] for b in seen] == [START + n * DAY for n in range(1, 18)]


def test_a_page_token_is_good_for_its_own_query_alone() -> None:
    token = ask("completions", *days(17)).body["next_page"]
    assert ask("completions", *days(17), ("page", token)).status == 200
    assert ask("completions", *days(18), ("page", token)).status == 400
    assert ask("completions", *days(17), ("group_by", "model"), ("page", token)).status == 400
    assert ask("completions", *days(17), ("limit", 8), ("page", token)).status == 400
    assert ask("embeddings", *days(17), ("page", token)).status == 400


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ((), "start_time"),
        ((("start_time", "x"),), "start_time"),
        ((("start_time", START), ("end_time", START)), "end_time"),
        ((("start_time", START), ("bucket_width", "2d")), "bucket_width"),
        ((("start_time", START), ("limit", 0)), "limit"),
        ((("start_time", START), ("page", "page_zzz")), "page"),
        ((("start_time", START), ("group_by", "size")), "group_by"),
        ((("start_time", START), ("group_by[]", "line_item")), "group_by"),
        ((("start_time", START), ("colour", "red")), "colour"),
        ((("start_time", START), ("sizes", "1x1")), "sizes"),
        ((("start_time", START), ("start_time", START)), "start_time"),
    ],
)
def test_what_is_not_documented_is_refused_by_name(query: Any, param: str) -> None:
    answer = ask("completions", *query)
    assert (answer.status, answer.body["error"]["param"]) == (400, param)


def test_group_by_is_read_with_brackets_and_repeated() -> None:
    brackets = ask("completions", *days(3), ("group_by[]", "model"), ("group_by[]", "batch"))
    repeated = ask("completions", *days(3), ("group_by", "model"), ("group_by", "batch"))
    assert brackets.body == repeated.body
    assert {r["project_id"] for r in results(brackets)} == {None}
    assert None not in {r["model"] for r in results(brackets)}


@pytest.mark.parametrize("name", sorted(ENDPOINTS))
def test_every_endpoint_serves_its_documented_dimensions(name: str) -> None:
    endpoint = ENDPOINTS[name]
    found = results(ask(name, *days(7), *(("group_by[]", value) for value in endpoint.group_by)))
    assert found
    for result in found:
        assert result["object"] == f"organization.usage.{endpoint.result}.result"
        assert all(result[dimension] is not None for dimension in endpoint.group_by)
        assert all(type(result[measure]) is int and result[measure] >= 0 for measure in endpoint.measures)


@pytest.mark.parametrize("name", ["completions", "decisions"])
def test_tokens_add_up_as_documented(name: str) -> None:
    for r in results(ask(name, *days(31), ("limit", 31), ("group_by", "model"), ("group_by", "service_tier"))):
        kinds = ("text", "audio", "image")
        assert r["input_tokens"] == sum(r[f"input_{k}_tokens"] for k in ("uncached", "cached", "cache_write"))
        assert r["input_uncached_tokens"] == sum(r[f"input_{k}_tokens"] for k in kinds)
        assert r["input_cached_tokens"] == sum(r[f"input_cached_{k}_tokens"] for k in kinds)
        assert r["output_tokens"] == sum(r[f"output_{k}_tokens"] for k in kinds)


def test_usage_holds_what_a_pipeline_has_to_cope_with() -> None:
    groups = [("group_by", value) for value in ("model", "batch", "service_tier")]
    found = results(ask("completions", *days(7), *groups))
    models = {"gpt-5.6-sol", "gpt-4o", "gpt-5-mini", "gpt-realtime", "gpt-sandbox-unpriced"}
    assert {r["model"] for r in found} == models
    assert {r["service_tier"] for r in found} == {"default", "flex", "priority"}
    assert {r["batch"] for r in found} == {True, False}
    measures = ("input_cached_tokens", "input_cache_write_tokens", "input_audio_tokens", "input_image_tokens")
    assert all(any(r[measure] for r in found) for measure in measures)


def test_some_days_are_quiet_and_still_have_their_bucket() -> None:
    buckets = ask("completions", *days(31), ("limit", 31)).body["data"]
    assert len(buckets) == 31
    assert [] in [b["results"] for b in buckets]


def test_usage_depends_on_seed_and_day_and_not_on_the_order_of_questions() -> None:
    whole = ask("completions", *days(5), ("group_by", "model")).body["data"]
    third = ask("completions", ("start_time", START + 2 * DAY), ("end_time", START + 3 * DAY), ("group_by", "model"))
    assert third.body["data"] == [whole[2]]
    assert ask("completions", *days(5), ("group_by", "model"), seed=2).body["data"] != whole


def test_hours_add_up_to_their_day() -> None:
    day = results(ask("embeddings", *days(1)))
    hours = results(ask("embeddings", *days(1), ("bucket_width", "1h")))
    assert sum(r["input_tokens"] for r in hours) == sum(r["input_tokens"] for r in day) > 0


def test_filters_narrow_the_usage() -> None:
    def inputs(*query: tuple[str, str]) -> list[int]:
        return [r["input_tokens"] for r in results(ask("completions", *days(7), *query)) if r["model"] == "gpt-4o"]

    assert inputs(("group_by", "model"), ("models[]", "gpt-4o")) == inputs(("group_by", "model")) != []
    assert {r["model"] for r in results(ask("completions", *days(7), ("group_by", "model"), ("models", "gpt-4o")))} == {
        "gpt-4o"
    }
    batch = results(ask("completions", *days(7), ("batch", "true"), ("group_by", "batch")))
    assert {r["batch"] for r in batch} == {True}


def test_every_nth_request_is_told_to_come_back() -> None:
    with SandboxServer(seed=1, rate_limit_every=3) as server:
        seen = [call(server.url, "completions", days(1)) for _ in range(6)]
    assert [status for status, _, _ in seen] == [200, 200, 429, 200, 200, 429]
    assert seen[2][2]["Retry-After"] == str(RETRY_AFTER_S)
    assert seen[2][1]["error"]["code"] == "rate_limit_exceeded"


def test_a_refused_key_does_not_count_towards_the_rate_limit() -> None:
    with SandboxServer(seed=1, rate_limit_every=2) as server:
        assert call(server.url, "completions", days(1), key="sk-other")[0] == 401
        assert call(server.url, "completions", days(1))[0] == 200


def test_faults_can_be_injected_in_turn_or_by_request() -> None:
    canned = [Answer(500, {"error": {"message": "boom"}}), None]
    with SandboxServer(seed=1, fail_with=canned) as server:
        assert [call(server.url, "images", days(1))[0] for _ in range(3)] == [500, 200, 200]
        assert [r.path.rpartition("/")[2] for r in server.requests] == ["images"] * 3
    with SandboxServer(seed=1, fail_with=lambda r: Answer(503, {}) if "images" in r.path else None) as server:
        assert [call(server.url, name, days(1))[0] for name in ("images", "embeddings")] == [503, 200]


def test_a_slow_answer_does_not_hold_up_the_stop() -> None:
    server = SandboxServer(seed=1, fail_with=[Answer(200, {}, delay_s=600)])
    server.start()
    with pytest.raises((TimeoutError, OSError)):
        urllib.request.urlopen(f"{server.url}/organization/usage/images", timeout=0.1)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 5


def test_another_path_is_not_found(url: str) -> None:
    assert call(url, "colours", days(1))[0] == 404
    assert call(url, "../usage", days(1))[0] == 404


def test_it_runs_as_a_program_and_says_where() -> None:
    command = [sys.executable, "-m", "infra.local.sandbox", "--seed", "1"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            url = process.stderr.readline().strip().removeprefix("PIPELINE_OPS_PROVIDER_URL_OPENAI=")
            assert call(url, "embeddings", days(1))[0] == 200
        finally:
            process.terminate()
