"""Idempotency-Key over HTTP: the same key and body are the same run; with another body they are 409."""

import json
from typing import Any

import pytest
from werkzeug.test import TestResponse

from common.ports.store import HistoryQuery
from tests.harness import ORG, ROUTE, Harness

RUN = f"/pipelines/run/{ORG}/{ROUTE}"
CONTROL = {"by": "ana", "reason": "because"}


def ask(harness: Harness, path: str, body: Any, key: str, **more: Any) -> TestResponse:
    return harness.http("POST", path, json=body, headers={"Idempotency-Key": key}, **more)


def run_id(answer: TestResponse) -> str:
    assert answer.status_code == 202 and answer.json is not None, answer.text
    found: str = answer.json["run_id"]
    return found


def count(harness: Harness) -> int:
    return len(harness.engine.store.history(HistoryQuery(ORG, 50)).runs)


def test_the_same_key_and_body_are_the_same_run_with_and_without_the_prefix(harness: Harness) -> None:
    body = {"start_date": "2026-11-20"}
    first = run_id(ask(harness, RUN, body, "invoice-7"))
    harness.drain()
    harness.clock.tick(3 * 86_400)
    assert run_id(ask(harness, RUN, body, "invoice-7")) == first
    assert run_id(ask(harness, f"/api/v1{RUN}", {**body, "queue": False}, "invoice-7")) == first
    assert count(harness) == 1 and harness.drain() == 0


def test_the_same_key_with_another_body_is_409_and_names_the_run(harness: Harness) -> None:
    first = run_id(ask(harness, RUN, {"start_date": "2026-11-20"}, "invoice-7"))
    answer = ask(harness, RUN, {"start_date": "2026-11-19"}, "invoice-7")
    body = json.loads(answer.data)
    assert answer.status_code == 409 and body["run_id"] == first and count(harness) == 1


def test_another_organisation_may_use_the_same_key(harness: Harness) -> None:
    first = run_id(ask(harness, RUN, {}, "k"))
    harness.http("POST", "/pipelines/credentials/globex", json={"provider": "openai", "secret": "x"})
    other = run_id(ask(harness, f"/pipelines/run/globex/{ROUTE}", {}, "k"))
    assert other != first and harness.run(other).request.org_slug == "globex"


@pytest.mark.parametrize("what", ["rerun", "replay"])
def test_a_rerun_and_a_replay_know_their_key_too(harness: Harness, what: str) -> None:
    ended = harness.start()
    harness.drain()
    path = f"/pipelines/{what}/{ORG}/{ended}"
    body = CONTROL if what == "replay" else {**CONTROL, "step": "only"}
    first = run_id(ask(harness, path, body, "again"))
    assert run_id(ask(harness, path, body, "again")) == first
    assert ask(harness, path, {**body, "queue": True}, "again").status_code == 409


@pytest.mark.parametrize("key", ["a b", "k\u00e4se", "x" * 256])
def test_a_key_that_can_be_none_is_refused(harness: Harness, key: str) -> None:
    answer = ask(harness, RUN, {}, key)
    assert answer.status_code == 422 and count(harness) == 0
    assert json.loads(answer.data)["errors"][0]["field"] == "Idempotency-Key"
