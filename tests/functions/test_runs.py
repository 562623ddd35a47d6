"""Whole runs through the real functions: events in, events out, with time standing still."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from common.bootstrap import build
from common.domain import graph, state
from common.domain.messages import Event
from common.domain.model import Run, RunStatus, StepStatus
from common.platform.errors import PermanentError, StaleRunError, TransientError
from functions.authorization import TOKEN_HEADER
from tests.harness import INVOKER_TOKEN, ORG, ROUTE, Harness, step


def flaky(times: int, error: Exception) -> Any:
    """Fail so many times, then succeed; counts its calls."""
    calls: list[int] = []

    def does(context: Any, _params: Any) -> None:
        calls.append(context.attempt)
        if len(calls) <= times:
            raise error

    does.calls = calls  # type: ignore[attr-defined]
    return does


def test_steps_run_in_the_order_of_their_dependencies(harness: Harness) -> None:
    order: list[str] = []
    harness.script("note", lambda context, _params: order.append(context.step_id))
    names = ("a", "b", "c", "d")
    after = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    harness.pipeline(*(step(n, *after[n], script="note") for n in names))
    run = harness.finish(harness.start())
    assert run.status is RunStatus.COMPLETED
    assert order[0] == "a" and order[-1] == "d" and sorted(order) == list(names)


def test_templates_are_resolved_with_the_runs_values(harness: Harness) -> None:
    seen: list[str] = []
    harness.script("note", lambda _context, params: seen.append(params.note))
    note = "{org_slug} ${project_id} ${org_dataset} ${start_date} ${end_date} ${credential_id} ${pipeline_id} ${run_id}"
    harness.pipeline(step("only", script="note", note=note))
    run_id = harness.start({"start_date": "2026-11-01", "end_date": "2026-11-02"})
    harness.finish(run_id)
    assert seen == [
        f"acme_corp pipeline-ops-local acme_corp_local 2026-11-01 2026-11-02 cred_openai test_demo_pipeline {run_id}"
    ]


def test_a_pipeline_that_templates_make_too_large_for_a_run_is_refused_and_says_so(harness: Harness) -> None:
    harness.pipeline(step("only", note="{run_id}" * 25_000))
    run = harness.finish(harness.start())
    assert run.status is RunStatus.FAILED
    assert "bytes once its templates are filled in, and a run holds 800,000. Split it" in run.error


def test_a_transient_error_is_retried_not_before_its_backoff(harness: Harness) -> None:
    script = flaky(1, TransientError("busy"))
    harness.script("flaky", script)
    harness.pipeline(step("only", script="flaky", attempts=2, backoff=30))
    run_id = harness.start()
    harness.drain()
    harness.clock.tick(29.9)
    harness.drain()
    assert script.calls == [1]
    harness.clock.tick(0.1)
    harness.drain()
    assert script.calls == [1, 2] and harness.run(run_id).status is RunStatus.COMPLETED


def test_an_early_delivery_of_a_retry_is_refused_and_comes_back(harness: Harness) -> None:
    script = flaky(1, TransientError("busy"))
    harness.script("flaky", script)
    harness.pipeline(step("only", script="flaky", attempts=2, backoff=30))
    run_id = harness.start()
    harness.drain()
    with pytest.raises(TransientError, match="is due at"):
        run = harness.run(run_id)
        harness.engine.run_step(graph.work_order(run, run.steps["only"]), run.steps["only"])
    assert script.calls == [1]


def test_an_undeclared_error_is_retried_and_named_by_its_type_alone(harness: Harness) -> None:
    harness.script("bug", flaky(9, KeyError("sk-secret")))
    harness.pipeline(step("only", script="bug", attempts=2))
    run = harness.finish(harness.start())
    assert run.status is RunStatus.FAILED and run.steps["only"].attempt == 2
    assert "KeyError" in run.error and "sk-secret" not in run.error


def test_a_permanent_error_ends_the_step_at_once(harness: Harness) -> None:
    script = flaky(9, PermanentError("bad data"))
    harness.script("bad", script)
    harness.pipeline(step("only", script="bad", attempts=5), step("next", "only"))
    run = harness.finish(harness.start())
    assert script.calls == [1]
    assert [s.status for s in run.steps.values()] == [StepStatus.FAILED, StepStatus.OMITTED]


def test_a_message_delivered_many_times_does_its_work_once(harness: Harness) -> None:
    calls: list[str] = []
    harness.script("count", lambda context, _params: calls.append(context.step_id))
    harness.pipeline(step("a", script="count"), step("b", "a", script="count"))
    run_id = harness.start()
    while found := harness.bus.pull(1):
        for _ in range(3):
            assert harness.deliver(found[0]) == 200
        harness.bus.ack(found[0])
    assert calls == ["a", "b"] and harness.run(run_id).status is RunStatus.COMPLETED
    assert harness.engine.store.usage(ORG, harness.clock.now).completed == 1


def test_every_message_lost_once_does_not_strand_a_run(harness: Harness) -> None:
    """The first message of each kind and step is dropped; a lost result costs its step an attempt."""
    harness.pipeline(step("a", attempts=2), step("b", "a", attempts=2))
    run_id, lost = harness.start(), set()
    for _ in range(600):
        while found := harness.bus.pull(1):
            seen = found[0].message
            name = seen.topic, str(seen.data.get("step", {}).get("spec"))
            if name in lost:
                harness.deliver(found[0])
            lost.add(name)
            harness.bus.ack(found[0])
        if harness.run(run_id).status.is_terminal:
            break
        harness.clock.tick(60)
        harness.engine.sweep()
    assert harness.run(run_id).status is RunStatus.COMPLETED


def test_a_config_changed_during_a_run_does_not_change_the_run(harness: Harness) -> None:
    harness.pipeline(step("a"), step("b", "a", note="old"))
    seen: list[str] = []
    harness.script("ok", lambda _context, params: seen.append(params.note))
    run_id = harness.start()
    start = harness.bus.pull(1)[0]
    harness.deliver(start)
    harness.bus.ack(start)
    pinned = harness.run(run_id).config_hash
    harness.pipeline(step("a"), step("b", "a", note="new"))
    harness.finish(run_id)
    assert seen == ["", "old"] and harness.run(run_id).config_hash == pinned


def test_a_broken_config_fails_the_run_with_file_line_and_field(harness: Harness) -> None:
    run_id = harness.start()
    harness.pipeline(step("only", "nobody"))
    run = harness.finish(run_id)
    assert run.status is RunStatus.FAILED
    assert "pipeline.yml:" in run.error and "depends_on" in run.error and "nobody" in run.error


def test_without_a_credential_the_run_fails_and_says_how_to_add_one(harness: Harness) -> None:
    harness.engine.credentials.remove(ORG, "cred_openai")
    run = harness.finish(harness.start())
    assert "main.py credentials add acme_corp openai" in run.error


def test_with_two_credentials_the_run_asks_which(harness: Harness) -> None:
    first = harness.engine.credentials.list(ORG)[0]
    from dataclasses import replace

    harness.engine.credentials.add(replace(first, credential_id="cred_second"), "x")
    assert "name one of them as credential_id" in harness.finish(harness.start()).error
    run = harness.finish(harness.start({"credential_id": "cred_second"}))
    assert run.status is RunStatus.COMPLETED and run.credential_id == "cred_second"


def test_a_process_that_dies_at_work_loses_its_attempt_at_the_next_start(harness: Harness) -> None:
    class Killed(BaseException):
        """Stands for SIGKILL: nothing of the process's own may run after it."""

    def die(_context: Any, _params: Any) -> None:
        raise Killed

    harness.script("work", die)
    harness.pipeline(step("only", script="work", attempts=2))
    run_id = harness.start()
    start = harness.bus.pull(1)[0]
    harness.deliver(start)
    harness.bus.ack(start)
    with pytest.raises(Killed):
        harness.deliver(harness.bus.pull(1)[0])
    assert harness.run(run_id).steps["only"].status is StepStatus.RUNNING
    harness.script("work", lambda _context, _params: None)
    harness.restart()
    harness.bus.release()
    assert harness.engine.recover() == 1
    harness.drain()
    run = harness.run(run_id)
    assert run.status is RunStatus.COMPLETED and run.steps["only"].attempt == 2


def test_a_restart_leaves_the_leases_of_this_process_alone(harness: Harness) -> None:
    assert harness.engine.recover() == 0


def test_an_attempt_that_lost_its_step_drops_its_result(harness: Harness) -> None:
    """The sweep gives the step to attempt 2 while attempt 1 still works: attempt 1 must not count."""
    other = build(harness.engine.settings, now=harness.clock)

    def overtaken(context: Any, _params: Any) -> None:
        if context.attempt == 1:
            harness.clock.tick(3600)
            other.sweep()

    harness.script("slow", overtaken)
    harness.pipeline(step("only", script="slow", attempts=2))
    run_id = harness.start()
    run = harness.finish(run_id)
    assert run.status is RunStatus.COMPLETED and run.steps["only"].attempt == 2


def test_an_attempt_over_its_time_is_ended_with_what_to_do(harness: Harness) -> None:
    def slow(context: Any, _params: Any) -> None:
        harness.clock.tick(31)
        context.remaining_s()

    harness.script("slow", slow)
    harness.pipeline(step("only", script="slow", timeout_seconds=30))
    run = harness.finish(harness.start())
    assert run.status is RunStatus.FAILED and "Raise timeout_seconds" in run.error


def test_an_event_that_is_no_message_fails_and_is_not_acknowledged(harness: Harness) -> None:
    headers = {
        "ce-id": "1",
        "ce-source": "x",
        "ce-specversion": "1.0",
        "ce-type": "t",
        "Content-Type": "application/json",
        TOKEN_HEADER: INVOKER_TOKEN,
    }
    from werkzeug.test import Client

    for body in (
        "{}",
        '{"message": {"data": "%%%"}}',
        '{"message": {"data": "W10="}}',
        '{"message": {"data": "e30="}}',
    ):
        answer = Client(harness.app).post("/functions/advance/", data=body, headers=headers)
        assert answer.status_code == 500


def test_organisations_do_not_see_each_others_credentials(harness: Harness) -> None:
    answer = harness.http("POST", f"/pipelines/run/globex/{ROUTE}", json={"credential_id": "cred_openai"})
    assert answer.status_code == 404


def test_a_run_that_cannot_be_swept_keeps_the_sweep_from_no_other(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.pipeline(step("a"))
    broken, other = harness.start(), harness.start()
    applied = state.apply

    def apply(run: Run, event: Event, now: datetime) -> state.Transition:
        if run.run_id == broken:
            raise state.IllegalMoveError("a bug")
        return applied(run, event, now)

    monkeypatch.setattr(state, "apply", apply)
    harness.clock.now += timedelta(hours=2)
    harness.engine.sweep()
    assert harness.run(other).status is RunStatus.FAILED


def test_a_second_sweep_at_the_same_time_changes_nothing(harness: Harness) -> None:
    run_id = harness.start()
    start = harness.bus.pull(1)
    harness.bus.ack(start[0])
    harness.clock.now += timedelta(seconds=130)
    assert harness.engine.sweep() == 1 and harness.engine.sweep() == 0
    assert harness.finish(run_id).status is RunStatus.COMPLETED


def test_a_result_that_can_not_be_published_is_applied_all_the_same(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    harness.script("count", lambda context, _params: calls.append(context.step_id))
    harness.pipeline(step("only", script="count"))
    publish = harness.bus.publish

    def broken(messages: Any) -> None:
        if any(m.topic == "step-completed" for m in messages):
            raise TransientError("the bus is down")
        publish(messages)

    monkeypatch.setattr(harness.bus, "publish", broken)
    run_id = harness.start()
    harness.drain()
    assert harness.run(run_id).status is RunStatus.COMPLETED and calls == ["only"]


def test_the_end_of_a_run_is_announced_again_if_its_message_is_lost(harness: Harness) -> None:
    run_id = harness.start()
    told: list[str] = []
    for _ in range(20):
        for found in harness.bus.pull(1):
            told.append(found.message.topic)
            if found.message.topic != "run-finished" or told.count("run-finished") > 1:
                harness.deliver(found)
            harness.bus.ack(found)
        harness.clock.tick(30)
        harness.engine.sweep()
    assert told.count("run-finished") == 2 and not harness.engine.store.active()
    assert harness.run(run_id).status is RunStatus.COMPLETED


def test_a_claim_that_meets_a_conflict_without_a_record_is_tried_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store may lose a race against nothing at all, as Firestore does when it aborts."""
    run_id = harness.start()
    commit, failed = harness.engine.store.commit, []

    def commit_once_stale(transition: Any) -> Any:
        if transition.touched and not failed:
            failed.append(transition)
            raise StaleRunError("aborted")
        return commit(transition)

    monkeypatch.setattr(harness.engine.store, "commit", commit_once_stale)
    harness.drain()
    assert failed and harness.run(run_id).status is RunStatus.COMPLETED
