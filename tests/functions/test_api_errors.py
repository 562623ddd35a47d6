"""Errors: problem documents that say what to do, and nothing else."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.test import TestResponse

from common.platform import problems
from common.platform.errors import ConfigError, PermanentError, RequestError, TransientError
from common.platform.paths import PROJECT_ROOT
from common.platform.problems import KINDS, kind_of
from tests.harness import ORG, ROUTE, SECRET, Harness

RUN = f"/pipelines/run/{ORG}/{ROUTE}"
CONTROL = {"by": "ana", "reason": "because"}


def problem(answer: TestResponse, slug: str) -> dict[str, Any]:
    """Return the answer's document, which has to be of this kind and whole."""
    assert answer.content_type == "application/problem+json", answer.text
    body: dict[str, Any] = json.loads(answer.data)
    kind = KINDS[slug]
    assert body["type"] == f"/problems/{slug}" and body["title"] == kind.title and body["hint"] == kind.hint
    assert body["status"] == answer.status_code == kind.status
    assert body["detail"]
    assert "Traceback" not in answer.text and str(PROJECT_ROOT) not in answer.text
    return body


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_a_method_that_a_path_does_not_have_is_405_with_those_that_it_has(harness: Harness, method: str) -> None:
    for key in (None, "x"):
        answer = harness.http(method, RUN, key=key)
        problem(answer, "method-not-allowed")
        assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/", "/pipelines", "/pipelines/", "/pipelines//history", "/api/v2/health", "/health/"]
)
def test_an_unknown_path_is_404_without_a_redirect(harness: Harness, path: str) -> None:
    problem(harness.http("GET", path), "no-such-path")


def test_head_answers_as_get_does_without_its_body(harness: Harness) -> None:
    path = f"/pipelines/history/{ORG}"
    assert harness.http("HEAD", path).status_code == 200
    refused = harness.http("HEAD", path, key=None)
    assert refused.status_code == 401 and refused.data == b"" and refused.content_type == "application/problem+json"


def test_what_is_about_a_run_names_the_run(harness: Harness) -> None:
    run_id = harness.start()
    harness.drain()
    body = problem(harness.http("POST", f"/pipelines/cancel/{ORG}/{run_id}", json=CONTROL), "conflicting-state")
    assert body["run_id"] == run_id and run_id in body["detail"]
    assert "run_id" not in problem(harness.http("GET", f"/pipelines/status/{ORG}/x"), "not-found")


def test_all_wrong_fields_are_named_at_once_with_the_nearest_name(harness: Harness) -> None:
    answer = harness.http("POST", RUN, json={"startdate": "2026-11-20", "end_date": "tomorrow"})
    body = problem(answer, "invalid-fields")
    told = {error["field"]: error["problem"] for error in body["errors"]}
    assert "Did you mean 'start_date'?" in told["startdate"] and "2026-11-20" in told["end_date"]


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("limit=0", "limit", "greater than or equal to 1"),
        ("limit=201", "limit", "less than or equal to 200"),
        ("limit=1_0", "limit", "whole number"),
        ("limit=%2B5", "limit", "whole number"),
        ("limit=", "limit", "whole number"),
        ("status=runing", "status", "Did you mean 'running'?"),
        ("lmit=3", "lmit", "Did you mean 'limit'?"),
        ("from=yesterday", "from", "2026-11-20"),
        ("from=2026-11-20T06:00:00", "from", "with its zone"),
        ("to=2026-02-30", "to", "2026-11-20"),
        ("from=20261120", "from", "2026-11-20"),
    ],
)
def test_a_wrong_query_parameter_is_422_and_never_ignored(harness: Harness, query: str, field: str, says: str) -> None:
    body = problem(harness.http("GET", f"/pipelines/history/{ORG}?{query}"), "invalid-fields")
    told = {error["field"]: error["problem"] for error in body["errors"]}
    assert says in told[field], told


def test_a_query_parameter_that_is_there_twice_is_refused(harness: Harness) -> None:
    body = problem(harness.http("GET", f"/pipelines/history/{ORG}?limit=1&limit=2"), "malformed-request")
    assert "limit" in body["detail"]


def test_an_operation_without_parameters_takes_none(harness: Harness) -> None:
    body = problem(harness.http("GET", f"/pipelines/usage/{ORG}?verbose=1"), "invalid-fields")
    assert "Known: none" in body["errors"][0]["problem"]


def test_a_cursor_of_nobodys_is_refused_and_tells_what_to_do(harness: Harness) -> None:
    body = problem(harness.http("GET", f"/pipelines/history/{ORG}?cursor=x"), "invalid-request")
    assert "leave it away" in body["detail"]


@pytest.mark.parametrize(
    ("error", "slug"),
    [
        (RuntimeError(f"password {SECRET}"), "internal-error"),
        (PermanentError(f"no role for {SECRET}"), "internal-error"),
        (ConfigError(f"configs/x.yml:3: {SECRET}"), "misconfigured"),
    ],
)
def test_an_error_of_our_own_says_nothing_of_itself(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, error: Exception, slug: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(type(harness.engine.store), "history", fail)
    answer = harness.http("GET", f"/pipelines/history/{ORG}")
    problem(answer, slug)
    assert SECRET not in answer.text and type(error).__name__ not in answer.text


def test_what_may_pass_is_503_with_the_time_to_wait(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise TransientError("The run store is busy.", retry_after_s=17)

    monkeypatch.setattr(type(harness.engine.store), "history", fail)
    answer = harness.http("GET", f"/pipelines/history/{ORG}")
    assert "busy" in problem(answer, "try-again")["detail"] and answer.headers["Retry-After"] == "17"


def test_a_wrong_secret_is_not_repeated(harness: Harness) -> None:
    for body in (
        {"provider": "openai", "secret": {"sk": SECRET}},
        {"provider": "openai", "secret": SECRET * 1_000},
        {"provider": "openai", "secret": 5, "secret2": SECRET},
        {"provider": {"sk": 1}, "secret": SECRET},
    ):
        answer = harness.http("POST", f"/pipelines/credentials/{ORG}", json=body)
        problem(answer, "invalid-fields")
        assert SECRET not in answer.text


def _errors(base: type[RequestError]) -> Iterator[type[RequestError]]:
    for error in base.__subclasses__():
        yield error
        yield from _errors(error)


def test_every_error_that_a_request_can_meet_has_a_kind_of_its_own() -> None:
    ours = [error for error in _errors(RequestError) if error.__module__.startswith("common.")]
    assert len(ours) > 5
    for error in ours:
        kind = kind_of(error.__new__(error))
        assert kind is not problems.INVALID_REQUEST, f"{error.__name__} is in no table of problems"
        assert (kind.status, kind.title) == (error.status, error.title)


def test_every_kind_has_a_page_and_stands_in_the_docs(harness: Harness) -> None:
    docs = (PROJECT_ROOT / "docs" / "errors.md").read_text()
    for kind in KINDS.values():
        page = harness.http("GET", f"/problems/{kind.slug}", key=None)
        assert page.status_code == 200 and kind.meaning in page.text and kind.hint in page.text
        assert f"| `{kind.slug}` | {kind.status} | {kind.meaning} | {kind.hint} |" in docs
    problem(harness.http("GET", "/problems/nothing"), "no-such-path")


@pytest.mark.parametrize("path", ["/favicon.ico", "/robots.txt", "/health%0a", "/pipelines/status/acme_corp/%0a"])
def test_what_the_framework_refuses_before_the_function_is_a_problem_document_too(harness: Harness, path: str) -> None:
    problem(harness.http("GET", path), "no-such-path")


def test_an_event_function_repeats_nothing_of_a_request_that_is_no_event(harness: Harness) -> None:
    for data in (b"no event", b"{}", b'{"context": {}}'):
        headers = {"X-Canary": SECRET, "Content-Type": "application/json"}
        answer = harness.http("POST", "/functions/advance/", data=data, headers=headers)
        assert answer.content_type == "application/problem+json" and 400 <= answer.status_code < 500, answer.text
        assert SECRET not in answer.text
