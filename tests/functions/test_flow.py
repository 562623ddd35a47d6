"""Conditions, maps, tolerated failures, clean-up steps, suspended steps and dead letters, through the functions."""

from typing import Any

import pytest

from common.adapters.sql.sqlite.bus import MAX_DELIVERIES
from common.domain.model import ErrorKind, RunStatus
from common.platform.errors import PermanentError, TransientError
from tests.fakes import Suspending
from tests.harness import ORG, Harness, step


def fail(_context: Any, _params: Any) -> None:
    raise PermanentError("bad data")


def put_out(name: str, value: Any) -> Any:
    return lambda context, _params: context.put_out(name, value)


def statuses(harness: Harness, run_id: str) -> dict[str, str]:
    return {name: str(s.status) for name, s in harness.run(run_id).steps.items()}


@pytest.mark.parametrize(("number", "then"), [(3, "succeeded"), (0, "skipped")])
def test_a_condition_on_an_output_decides_whether_a_step_runs(harness: Harness, number: int, then: str) -> None:
    harness.script("count", put_out("n", number))
    harness.pipeline(
        step("a", script="count"), step("b", "a", condition="steps.a.outputs.n > 0"), step("c", "b"), step("d", "a")
    )
    run_id = harness.start()
    harness.drain()
    assert statuses(harness, run_id) == {"a": "succeeded", "b": then, "c": "succeeded", "d": "succeeded"}
    assert harness.run(run_id).status is RunStatus.COMPLETED


def test_a_condition_that_can_not_be_answered_fails_its_step_in_words(harness: Harness) -> None:
    harness.pipeline(step("a"), step("b", "a", condition="steps.a.outputs.n > 0"))
    run_id = harness.start()
    harness.drain()
    assert statuses(harness, run_id) == {"a": "succeeded", "b": "failed"}
    assert "steps.a.outputs.n" in harness.run(run_id).error


def test_a_map_runs_once_for_each_item_and_never_more_at_once_than_it_may(harness: Harness) -> None:
    seen: list[str] = []
    harness.script("list", put_out("names", ["x", "y", "z", "u", "v"]))
    harness.script("each", lambda _context, params: seen.append(params.note))
    over = {"over": "a.outputs.names", "max_parallel": 2}
    harness.pipeline(step("a", script="list"), step("m", "a", script="each", note="{item}", map=over), step("c", "m"))
    run_id = harness.start()
    most = 0
    while found := harness.bus.pull(1):
        harness.deliver(found[0])
        harness.bus.ack(found[0])
        at_work = [n for n, s in statuses(harness, run_id).items() if n.startswith("m[") and s == "queued"]
        most = max(most, len(at_work))
    assert sorted(seen) == sorted("xyzuv") and most == 2
    assert harness.run(run_id).status is RunStatus.COMPLETED
    assert statuses(harness, run_id)["m[4]"] == "succeeded"


def test_a_map_over_nothing_succeeds_at_once(harness: Harness) -> None:
    harness.script("list", put_out("names", []))
    harness.pipeline(step("a", script="list"), step("m", "a", map={"over": "a.outputs.names"}), step("c", "m"))
    run_id = harness.start()
    harness.drain()
    assert statuses(harness, run_id) == {"a": "succeeded", "m": "succeeded", "c": "succeeded"}


def test_a_map_fails_if_an_item_does_after_all_items_have_had_their_turn(harness: Harness) -> None:
    def odd(_context: Any, params: Any) -> None:
        if params.note == "y":
            raise PermanentError("no y")

    harness.script("list", put_out("names", ["x", "y", "z"]))
    harness.script("odd", odd)
    over = {"over": "a.outputs.names", "max_parallel": 1}
    harness.pipeline(step("a", script="list"), step("m", "a", script="odd", note="{item}", map=over), step("c", "m"))
    run_id = harness.start()
    harness.drain()
    found = statuses(harness, run_id)
    assert [found[f"m[{n}]"] for n in range(3)] == ["succeeded", "failed", "succeeded"]
    assert (found["m"], found["c"]) == ("failed", "omitted")
    assert harness.run(run_id).error == "m: 1 of 3 items failed, the first: m[1]: no y"


def test_a_map_over_days_runs_each_item_for_its_day_alone(harness: Harness) -> None:
    days: list[tuple[str, str]] = []
    harness.script("list", put_out("days", ["2026-11-01", "2026-11-02"]))
    harness.script("each", lambda c, _params: days.append((c.start_date.isoformat(), c.end_date.isoformat())))
    over = {"over": "a.outputs.days", "dates": True}
    harness.pipeline(step("a", script="list"), step("m", "a", script="each", map=over))
    harness.start({"start_date": "2026-11-01", "end_date": "2026-11-02"})
    harness.drain()
    assert sorted(days) == [("2026-11-01", "2026-11-01"), ("2026-11-02", "2026-11-02")]


def test_a_tolerated_failure_does_not_stop_the_run(harness: Harness) -> None:
    harness.script("bad", fail)
    harness.pipeline(step("a", script="bad", allow_failure=True), step("b", "a"))
    run_id = harness.start()
    harness.drain()
    assert statuses(harness, run_id) == {"a": "failed", "b": "succeeded"}
    assert harness.run(run_id).status is RunStatus.COMPLETED


def test_a_clean_up_step_runs_after_a_failure_and_the_run_has_failed_all_the_same(harness: Harness) -> None:
    harness.script("bad", fail)
    harness.pipeline(step("a", script="bad"), step("b", "a"), step("clean", "b", run_if="always"))
    run_id = harness.start()
    harness.drain()
    assert statuses(harness, run_id) == {"a": "failed", "b": "omitted", "clean": "succeeded"}
    assert harness.run(run_id).status is RunStatus.FAILED and harness.run(run_id).error == "a: bad data"


@pytest.mark.parametrize(("kind", "attempts"), [(ErrorKind.RATE_LIMIT, 3), (ErrorKind.UNAVAILABLE, 1)])
def test_only_the_kinds_of_failures_that_retry_on_names_are_tried_again(
    harness: Harness, kind: ErrorKind, attempts: int
) -> None:
    def busy(_context: Any, _params: Any) -> None:
        raise TransientError("busy", kind=kind)

    harness.script("busy", busy)
    asked = step("only", script="busy", attempts=3)
    asked["retry"]["retry_on"] = ["rate_limit"]
    harness.pipeline(asked)
    run = harness.finish(harness.start())
    assert run.steps["only"].attempt == attempts


@pytest.fixture
def suspending(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> type[Suspending]:
    from common.processors import registry
    from tests.harness import PS_TYPE

    monkeypatch.setitem(registry.PROCESSORS, PS_TYPE, "tests.fakes:Suspending")
    monkeypatch.setattr(Suspending, "looks", [])
    monkeypatch.setattr(Suspending, "done", False)
    registry.processor.cache_clear()
    return Suspending


def test_a_suspended_step_holds_no_function_and_goes_on_in_the_same_attempt(
    harness: Harness, suspending: type[Suspending]
) -> None:
    harness.pipeline(step("only"), step("next", "only"))
    run_id = harness.start()
    harness.drain()
    held = harness.run(run_id).steps["only"]
    assert str(held.status) == "suspended" and held.reason == "waits for job job-1" and not held.owner
    harness.clock.tick(29.9)
    harness.drain()
    assert suspending.looks == [""]
    suspending.done = True
    harness.clock.tick(0.2)
    harness.drain()
    assert suspending.looks[:2] == ["", "job-1"]
    run = harness.run(run_id)
    assert run.status is RunStatus.COMPLETED and run.steps["only"].attempt == 1


def test_a_step_suspended_for_too_long_fails_and_says_on_which_job(
    harness: Harness, suspending: type[Suspending]
) -> None:
    harness.pipeline(step("only", max_wait_seconds=60))
    run = harness.finish(harness.start())
    assert run.status is RunStatus.FAILED and "job job-1 was not done within max_wait_seconds (60 s)" in run.error


@pytest.mark.parametrize("topic", ["runs", "step-genai.payg_usage", "step-completed"])
def test_a_message_that_no_function_can_take_fails_its_run_with_the_reason(harness: Harness, topic: str) -> None:
    run_id = harness.start()
    for _ in range(MAX_DELIVERIES * 40):
        for found in harness.bus.pull(1):
            if found.message.topic == topic:
                harness.bus.nack(found, "broken")
            else:
                harness.deliver(found)
                harness.bus.ack(found)
        harness.clock.tick(2)
    run = harness.run(run_id)
    assert run.status is RunStatus.FAILED and f"topic {topic} became a dead letter" in run.error
    assert harness.engine.store.usage(ORG, harness.clock.now).concurrent == 0


def test_the_status_tells_what_each_open_step_waits_for_since_when_and_until_when(harness: Harness) -> None:
    harness.pipeline(step("a"), step("b"), step("c", "a", "b"))
    run_id = harness.start()
    (start,) = harness.bus.pull(1)
    harness.deliver(start)
    shown = harness.http("GET", f"/pipelines/status/{ORG}/{run_id}").json
    assert shown is not None and shown["until"]
    by_id = {s["step_id"]: s for s in shown["steps"]}
    assert by_id["c"]["blocked_by"] == ["a", "b"] and by_id["c"]["reason"] == "waits for a, b"
    assert by_id["a"]["status"] == "queued" and by_id["a"]["since"] and by_id["a"]["until"]
