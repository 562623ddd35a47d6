"""Cancel, skip and rerun, through the API: each is a logged transition with who and why."""

from typing import Any

import pytest

from common.domain.model import RunStatus, StepStatus
from common.platform.errors import PermanentError
from common.runs.lease_watch import WATCH
from tests.harness import ORG, Harness, step

WHO = {"by": "ana", "reason": "wrong dates"}


def post(harness: Harness, path: str, body: Any = None, org: str = ORG) -> Any:
    action, rest = path.split("/", 1)
    return harness.http("POST", f"/pipelines/{action}/{org}/{rest}", json=WHO if body is None else body)


def fail(_context: Any, _params: Any) -> None:
    raise PermanentError("bad data")


def statuses(harness: Harness, run_id: str) -> dict[str, str]:
    return {name: str(s.status) for name, s in harness.run(run_id).steps.items()}


def deliver_one(harness: Harness) -> None:
    (delivery,) = harness.bus.pull(1)
    assert harness.deliver(delivery) == 200
    harness.bus.ack(delivery)


def test_a_cancelled_run_ends_at_once_with_who_and_why_and_frees_its_slot(harness: Harness) -> None:
    harness.pipeline(step("a"), step("b", "a"))
    run_id = harness.start()
    deliver_one(harness)
    answer = post(harness, f"cancel/{run_id}")
    assert answer.status_code == 200 and answer.json["status"] == "cancelled"
    assert "cancelled by ana: wrong dates" in answer.json["error"]
    harness.drain()
    assert statuses(harness, run_id) == {"a": "cancelled", "b": "cancelled"}
    usage = harness.engine.store.usage(ORG, harness.clock.now)
    assert (usage.concurrent, usage.cancelled, usage.failed) == (0, 1, 0)


def test_a_cancel_stops_the_work_and_the_slot_is_free_only_then(harness: Harness) -> None:
    seen: list[Any] = []

    def cancelled_meanwhile(context: Any, _params: Any) -> None:
        answer = post(harness, f"cancel/{context.run_id}")
        seen.extend((answer.status_code, answer.json["status"], answer.json["steps"][0]["status"]))
        seen.append(post(harness, f"cancel/{context.run_id}").status_code)
        seen.append(harness.engine.store.usage(ORG, harness.clock.now).concurrent)
        WATCH.look()  # as it does every few seconds
        context.remaining_s()  # as every provider's client does before each call, and at each part of a response
        seen.append("went on")

    harness.script("work", cancelled_meanwhile)
    harness.pipeline(step("a", script="work"), step("b", "a"))
    run_id = harness.start()
    harness.drain()
    assert seen == [202, "cancelling", "stopping", 202, 1]
    assert harness.run(run_id).status is RunStatus.CANCELLED
    assert statuses(harness, run_id) == {"a": "cancelled", "b": "cancelled"}
    usage = harness.engine.store.usage(ORG, harness.clock.now)
    assert (usage.concurrent, usage.cancelled) == (0, 1)


def test_a_skip_stops_the_work_and_the_run_goes_on(harness: Harness) -> None:
    def skipped_meanwhile(context: Any, _params: Any) -> None:
        answer = post(harness, f"skip/{context.run_id}/a")
        assert answer.status_code == 202 and answer.json["steps"][0]["status"] == "stopping"
        WATCH.look()
        context.sleep(60)  # a pause between two calls of a provider does not hold it either

    harness.script("work", skipped_meanwhile)
    harness.pipeline(step("a", script="work"), step("b", "a"))
    run_id = harness.start()
    harness.drain()
    assert statuses(harness, run_id) == {"a": "skipped", "b": "succeeded"}


def test_a_run_that_has_ended_can_not_be_cancelled(harness: Harness) -> None:
    run_id = harness.start()
    harness.drain()
    answer = post(harness, f"cancel/{run_id}")
    assert answer.status_code == 409 and "has ended already" in answer.json["detail"]
    assert harness.run(run_id).status is RunStatus.COMPLETED


def test_another_organisations_run_looks_like_one_that_is_not_there(harness: Harness) -> None:
    run_id = harness.start()
    for action in ("cancel", "rerun"):
        assert post(harness, f"{action}/{run_id}", org="globex").status_code == 404
    assert post(harness, f"skip/{run_id}/only", org="globex").status_code == 404
    assert harness.run(run_id).status is RunStatus.PENDING


@pytest.mark.parametrize("body", [{}, {"by": "ana"}, {"by": "", "reason": "x"}, {**WHO, "why": "x"}, [], {"by": 1}])
def test_who_and_why_must_be_told(harness: Harness, body: Any) -> None:
    run_id = harness.start()
    assert post(harness, f"cancel/{run_id}", body).status_code == 422
    assert harness.run(run_id).status is RunStatus.PENDING


def test_a_rerun_keeps_what_succeeded_and_runs_the_rest_with_the_same_config(harness: Harness) -> None:
    calls: list[str] = []
    harness.script("count", lambda context, _params: calls.append(context.step_id))
    harness.script("bad", fail)
    harness.pipeline(step("a", script="count"), step("b", "a", script="bad"), step("c", "b", script="count"))
    first = harness.start()
    harness.drain()
    assert statuses(harness, first) == {"a": "succeeded", "b": "failed", "c": "omitted"}
    harness.pipeline(step("a", script="count"), step("other", "a"))  # the file changes; the rerun does not
    harness.script("bad", lambda context, _params: calls.append(context.step_id))
    answer = post(harness, f"rerun/{first}")
    assert answer.status_code == 202
    again = answer.json["run_id"]
    harness.drain()
    assert statuses(harness, again) == {"a": "succeeded", "b": "succeeded", "c": "succeeded"}
    assert calls == ["a", "b", "c"]
    run = harness.run(again)
    assert run.request.rerun_of == first and run.config_hash == harness.run(first).config_hash
    assert run.steps["a"].reason == f"kept from {first}"
    assert harness.engine.store.changes(again)[0].reason == f"rerun of {first} by ana: wrong dates"
    assert harness.run(first).status is RunStatus.FAILED


def test_a_rerun_of_one_step_runs_that_step_alone(harness: Harness) -> None:
    calls: list[str] = []
    harness.script("count", lambda context, _params: calls.append(context.step_id))
    names = ("a", "b", "c")
    harness.pipeline(step("a", script="count"), step("b", "a", script="count"), step("c", "b", script="count"))
    first = harness.start()
    harness.drain()
    again = post(harness, f"rerun/{first}", {**WHO, "step": "b"}).json["run_id"]
    harness.drain()
    assert calls == [*names, "b"] and harness.run(again).status is RunStatus.COMPLETED


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [({**WHO, "step": "onyl"}, 404, "'only'"), (WHO, 409, "Every step"), ({**WHO, "step": "only"}, 202, "")],
)
def test_a_rerun_that_makes_no_sense_is_refused_in_words(harness: Harness, body: Any, status: int, says: str) -> None:
    run_id = harness.start()
    early = post(harness, f"rerun/{run_id}")
    assert early.status_code == 409 and "pending" in early.json["detail"]
    harness.drain()
    answer = post(harness, f"rerun/{run_id}", body)
    assert answer.status_code == status and says in answer.json.get("detail", "")


def test_a_rerun_is_admitted_by_quota_like_any_run(harness: Harness) -> None:
    harness.script("bad", fail)
    harness.pipeline(step("only", script="bad"))
    first = harness.start()
    harness.drain()
    for _ in range(5):
        assert post(harness, f"rerun/{first}").status_code == 202
    assert post(harness, f"rerun/{first}").status_code == 429


def test_a_skipped_step_lets_what_depends_on_it_go_on(harness: Harness) -> None:
    harness.pipeline(step("a"), step("b", "a"))
    run_id = harness.start()
    deliver_one(harness)
    answer = post(harness, f"skip/{run_id}/a")
    assert answer.status_code == 200
    harness.drain()
    assert statuses(harness, run_id) == {"a": "skipped", "b": "succeeded"}
    assert harness.run(run_id).status is RunStatus.COMPLETED
    assert harness.run(run_id).steps["a"].reason == "skipped by ana: wrong dates"


def test_a_step_that_waits_for_others_or_has_ended_can_not_be_skipped(harness: Harness) -> None:
    harness.pipeline(step("a"), step("b", "a"))
    run_id = harness.start()
    deliver_one(harness)
    answer = post(harness, f"skip/{run_id}/b")
    assert answer.status_code == 409 and "waits for a" in answer.json["detail"]
    harness.drain()
    assert post(harness, f"skip/{run_id}/b").status_code == 409
    assert post(harness, f"skip/{run_id}/bb").status_code == 404
    assert harness.run(run_id).steps["b"].status is StepStatus.SUCCEEDED
