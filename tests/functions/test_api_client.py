"""The command line's client: what starts a run is asked for again until it is known, and starts it once."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from common.adapters.sql.sqlite.database import BUSY_TIMEOUT_S
from common.cli import client as module
from common.cli.client import ApiClient, ApiError
from common.platform.errors import PipelineOpsError
from common.ports.store import HistoryQuery
from tests.harness import OPERATOR, ORG, ROUTE, Harness

BODY = {"start_date": "2026-11-20"}
CONTROL = {"by": "ana", "reason": "because"}


class Faulty(httpx2.BaseTransport):
    """A network before the API: ``faults`` happen to the first requests, in order."""

    def __init__(self, app: Any, *faults: str) -> None:
        self._inner = httpx2.WSGITransport(app=app)
        self._faults = list(faults)
        self.keys: list[str] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.keys.append(request.headers.get("idempotency-key", ""))
        fault = self._faults.pop(0) if self._faults else ""
        if fault == "refused":
            raise httpx2.ConnectError("refused", request=request)
        if fault == "locked":
            return httpx2.Response(503, json={"title": "Try again", "detail": "The store is locked.", "status": 503})
        if fault == "proxy":
            return httpx2.Response(502, text="<html>Bad gateway</html>")
        response = self._inner.handle_request(request)
        if fault == "reply lost":
            response.read()
            raise httpx2.ReadTimeout("no answer", request=request)
        return response


@pytest.fixture
def over(harness: Harness) -> Callable[..., tuple[ApiClient, Faulty]]:
    """Return a function that makes a client over a network with these faults."""

    def made(*faults: str) -> tuple[ApiClient, Faulty]:
        network = Faulty(harness.app, *faults)
        return ApiClient("http://stack", OPERATOR, transport=network, sleep=lambda _: None), network

    return made


def runs(harness: Harness) -> list[str]:
    return [run.run_id for run in harness.engine.store.history(HistoryQuery(ORG, 50)).runs]


@pytest.mark.parametrize("fault", ["reply lost", "refused", "locked", "proxy"])
def test_a_start_that_was_not_answered_is_asked_again_and_starts_one_run(
    harness: Harness, over: Callable[..., tuple[ApiClient, Faulty]], fault: str
) -> None:
    client, network = over(fault, fault)
    run_id = client.start(ORG, ROUTE, BODY)["run_id"]
    assert runs(harness) == [run_id] and len(network.keys) == 3 and len(set(network.keys)) == 1 and network.keys[0]


def test_two_commands_are_two_runs(harness: Harness, over: Callable[..., tuple[ApiClient, Faulty]]) -> None:
    client, _ = over()
    assert client.start(ORG, ROUTE, BODY)["run_id"] != client.start(ORG, ROUTE, BODY)["run_id"]


def test_a_rerun_whose_reply_was_lost_is_made_once(
    harness: Harness, over: Callable[..., tuple[ApiClient, Faulty]]
) -> None:
    ended = harness.start(BODY)
    harness.drain()
    client, _ = over("reply lost")
    again = client.rerun(ORG, ended, {**CONTROL, "step": "only"})["run_id"]
    assert sorted(runs(harness)) == sorted([ended, again])


def test_after_the_last_try_the_error_names_the_key_with_which_a_repeat_is_safe(
    harness: Harness, over: Callable[..., tuple[ApiClient, Faulty]]
) -> None:
    client, network = over(*["reply lost"] * module.TRIES)
    with pytest.raises(PipelineOpsError, match="may have started all the same.*--idempotency-key"):
        client.start(ORG, ROUTE, BODY)
    (run_id,) = runs(harness)
    assert len(network.keys) == module.TRIES
    assert client.start(ORG, ROUTE, BODY, network.keys[0])["run_id"] == run_id and runs(harness) == [run_id]


def test_a_refusal_is_not_asked_again(harness: Harness, over: Callable[..., tuple[ApiClient, Faulty]]) -> None:
    client, network = over()
    with pytest.raises(ApiError):
        client.start(ORG, "no/such/pipeline", BODY)
    assert len(network.keys) == 1


def test_the_client_waits_longer_than_the_stack_waits_for_its_store() -> None:
    assert module.TIMEOUT_S > BUSY_TIMEOUT_S + 15
