"""The HTTP function: what it answers, and that it says what to do."""

import json
from typing import Any

import pytest

from common.platform.errors import PermanentError
from tests.harness import ORG, ROUTE, SECRET, Harness, step

RUN = f"/pipelines/run/{ORG}/{ROUTE}"


def problem(harness: Harness, method: str, path: str, **more: Any) -> dict[str, Any]:
    answer = harness.http(method, path, **more)
    assert answer.content_type == "application/problem+json"
    body: dict[str, Any] = json.loads(answer.data)
    assert {"type", "title", "status", "detail", "hint"} <= set(body) and body["status"] == answer.status_code
    return body


def test_a_run_is_accepted_with_its_id_and_links(harness: Harness) -> None:
    answer = harness.http("POST", RUN, json={"start_date": "2026-11-01"})
    assert answer.status_code == 202 and answer.json is not None
    assert answer.json["status"] == "pending"
    assert harness.http("GET", answer.json["links"]["status"]).status_code == 200


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
def test_the_api_answers_with_and_without_its_versioned_prefix(harness: Harness, prefix: str) -> None:
    assert harness.http("POST", prefix + RUN).status_code == 202
    assert harness.http("GET", f"{prefix}/pipelines/history/{ORG}").status_code == 200


def test_an_unknown_pipeline_is_404_with_near_names(harness: Harness) -> None:
    body = problem(harness, "POST", f"/pipelines/run/{ORG}/test/demo/pipelin")
    assert body["status"] == 404 and ROUTE in body["detail"]


def test_an_unknown_organisation_is_404(harness: Harness) -> None:
    assert problem(harness, "POST", f"/pipelines/run/nobody/{ROUTE}")["status"] == 404


def test_a_lapsed_subscription_is_403(harness: Harness) -> None:
    assert "PAST_DUE" in problem(harness, "POST", f"/pipelines/run/lapsed/{ROUTE}")["detail"]


def test_a_bad_date_is_422_and_named(harness: Harness) -> None:
    body = problem(harness, "POST", RUN, json={"start_date": "2026-02-30"})
    assert body["status"] == 422 and body["errors"][0]["field"] == "start_date"


def test_an_unknown_field_is_422_with_the_nearest_name(harness: Harness) -> None:
    body = problem(harness, "POST", RUN, json={"startdate": "2026-02-03"})
    assert body["status"] == 422 and "start_date" in body["errors"][0]["problem"]


def test_an_unknown_credential_is_404_before_a_run_is_made(harness: Harness) -> None:
    body = problem(harness, "POST", RUN, json={"credential_id": "cred_opena"})
    assert body["status"] == 404 and "cred_openai" in body["detail"]
    assert harness.engine.store.usage(ORG, harness.clock.now).daily == 0


def test_a_used_up_limit_is_429_with_its_name_value_use_and_retry_after(harness: Harness) -> None:
    for _ in range(5):
        harness.start()
    answer = harness.http("POST", RUN)
    body = json.loads(answer.data)
    assert (answer.status_code, body["limit"], body["value"], body["used"]) == (429, "concurrent", 5, 5)
    assert int(answer.headers["Retry-After"]) > 0


def test_an_unknown_path_or_method_is_a_problem_document_too(harness: Harness) -> None:
    assert problem(harness, "GET", "/pipelines")["status"] == 404
    assert problem(harness, "GET", RUN)["status"] == 405


def test_status_shows_each_step_with_reason_and_times(harness: Harness) -> None:
    harness.pipeline(step("first"), step("second", "first"))
    run_id = harness.start()
    body = harness.http("GET", f"/pipelines/status/{ORG}/{run_id}").json
    assert body is not None
    assert body["status"] == "pending" and body["reason"] and body["since"] and body["until"]
    harness.drain()
    body = harness.http("GET", f"/pipelines/status/{ORG}/{run_id}").json
    assert body is not None
    assert [(s["step_id"], s["status"], s["attempt"]) for s in body["steps"]] == [
        ("first", "succeeded", 1),
        ("second", "succeeded", 1),
    ]
    assert body["status"] == "completed" and body["credential_id"] == "cred_openai"


def test_another_organisations_run_looks_like_one_that_does_not_exist(harness: Harness) -> None:
    run_id = harness.start()
    absent = "run_" + "0" * 32
    paths = (
        "/pipelines/status/{}/{}",
        *(f"/pipelines/logs/{{}}/{{}}{p}" for p in ("", "/steps", "/transitions", "/download")),
    )
    for path in paths:
        theirs = problem(harness, "GET", path.format("globex", run_id))
        nobodys = problem(harness, "GET", path.format("globex", absent))
        assert theirs["status"] == 404
        assert theirs["detail"].replace(run_id, "X") == nobodys["detail"].replace(absent, "X")


@pytest.mark.parametrize("run_id", ["x", "run_1", "run_" + "g" * 32, "%00", "run_" + "0" * 33])
def test_what_can_be_no_run_id_is_404(harness: Harness, run_id: str) -> None:
    assert problem(harness, "GET", f"/pipelines/status/{ORG}/{run_id}")["status"] == 404


def test_history_pages_and_filters(harness: Harness) -> None:
    harness.pipeline(step("only"), route="test/demo/other")
    ids = []
    for route in (ROUTE, "test/demo/other", ROUTE):
        harness.clock.tick(1)
        ids.append(harness.start(route=route))
    first = harness.http("GET", f"/pipelines/history/{ORG}?limit=2").json
    assert first is not None
    assert [r["run_id"] for r in first["runs"]] == [ids[2], ids[1]]
    path = f"/pipelines/history/{ORG}"
    rest = harness.http("GET", path, query_string={"cursor": first["next_cursor"]}).json
    only = harness.http("GET", path, query_string={"pipeline": "test/demo/other", "status": "pending"}).json
    assert rest is not None and only is not None
    assert [r["run_id"] for r in rest["runs"]] == [ids[0]]
    assert [r["run_id"] for r in only["runs"]] == [ids[1]]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "limit=9e9", "status=runing", "lmit=3", "cursor=x"]
)
def test_a_wrong_query_parameter_is_422_and_never_ignored(harness: Harness, query: str) -> None:
    assert problem(harness, "GET", f"/pipelines/history/{ORG}?{query}")["status"] == 422


def test_logs_steps_transitions_and_download_tell_one_story(harness: Harness) -> None:
    harness.script("warns", lambda context, _params: context.warn("model x has no price"))
    harness.pipeline(step("first", script="warns"), step("second", "first"))
    run_id = harness.start()
    harness.drain()
    base = f"/pipelines/logs/{ORG}/{run_id}"
    lines = harness.http("GET", base).json
    warned = harness.http("GET", f"{base}?severity=WARNING&step=first").json
    steps = harness.http("GET", f"{base}/steps").json
    moves = harness.http("GET", f"{base}/transitions").json
    assert lines and warned and steps and moves
    assert [line["message"] for line in warned["lines"]] == ["model x has no price"]
    assert steps["steps"][0]["warnings"] == ["model x has no price"]
    assert [t["to"] for t in moves["transitions"] if t["step_id"] is None] == [
        "pending",
        "validating",
        "running",
        "completed",
    ]
    download = harness.http("GET", f"{base}/download")
    assert [json.loads(line) for line in download.text.splitlines()] == lines["lines"]


def test_no_answer_log_or_file_holds_the_secret_even_when_a_step_leaks_it(harness: Harness) -> None:
    def leak(context: Any, _params: Any) -> None:
        raise RuntimeError(f"the provider said: bad key {context.secret()}")

    harness.script("leak", leak)
    harness.pipeline(step("only", script="leak"))
    run_id = harness.start()
    harness.drain()
    for path in (f"/pipelines/status/{ORG}/{run_id}", f"/pipelines/logs/{ORG}/{run_id}/download"):
        assert SECRET not in harness.http("GET", path).text
    for path in (harness.folder / "state").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path.name


def test_an_error_nobody_foresaw_is_500_without_details(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"password {SECRET}")

    monkeypatch.setattr(type(harness.engine.store), "history", fail)
    body = problem(harness, "GET", f"/pipelines/history/{ORG}")
    assert body["status"] == 500 and SECRET not in json.dumps(body) and "RuntimeError" not in json.dumps(body)


def test_a_failed_run_says_what_a_person_can_do(harness: Harness) -> None:
    def refuse(_context: Any, _params: Any) -> None:
        raise PermanentError("OpenAI refused the key (401). Use an admin key: main.py credentials add acme_corp openai")

    harness.script("refuse", refuse)
    harness.pipeline(step("only", script="refuse", attempts=3))
    run_id = harness.start()
    harness.drain()
    body = harness.http("GET", f"/pipelines/status/{ORG}/{run_id}").json
    assert body is not None
    assert body["status"] == "failed" and "Use an admin key" in body["error"]
    assert body["steps"][0]["attempt"] == 1
