"""Runs that meet a limit: they are refused, or wait and are let in by turn. On the real engine."""

from dataclasses import replace
from typing import Any

import pytest

from common import bootstrap
from common.domain.model import Run, RunStatus
from common.platform.errors import (
    ConflictingStateError,
    ForbiddenPlanError,
    InvalidFieldsError,
    QuotaExceededError,
    TransientError,
)
from tests.functions.limited import OTHER, ask, place, plan, shown, statuses, waits_for
from tests.harness import ORG, ROUTE, Harness, step


def test_a_run_that_meets_a_limit_waits_says_so_and_is_started_when_a_slot_is_free(harness: Harness) -> None:
    plan(harness)
    first, second = ask(harness), ask(harness)
    assert (second.status, second.waits_for, second.admitted_at) == (RunStatus.PENDING, "concurrent", None)
    view = shown(harness, second)
    assert "waits for a slot: the concurrent limit of 1 runs is used up" in view["reason"]
    assert view["queue"] == {
        "waits_for": "concurrent",
        "place": 1,
        "of": 1,
        "backfill": False,
        "until": "2026-11-22T06:00:02Z",
    }
    harness.drain()
    assert statuses(harness, first, second) == ["completed", "completed"]
    assert shown(harness, second)["queue"] is None and shown(harness, second)["admitted_at"]
    told = [change.reason for change in harness.engine.store.changes(second.run_id)]
    assert "waits for a slot" in told[0] and told[1].startswith("admitted after ")
    assert harness.engine.store.usage(ORG, harness.clock.now).daily == 2


def test_a_run_that_does_not_ask_to_wait_is_refused(harness: Harness) -> None:
    plan(harness)
    ask(harness)
    with pytest.raises(QuotaExceededError, match="concurrent limit of 1"):
        ask(harness, queue=False)


@pytest.mark.parametrize("limit", ["daily", "monthly"])
def test_no_run_waits_for_a_new_day_or_month_from_the_start(harness: Harness, limit: str) -> None:
    plan(harness, **{limit: 1})
    ask(harness)
    with pytest.raises(QuotaExceededError, match=limit):
        ask(harness)


def test_live_work_goes_before_backfills_and_then_the_oldest(harness: Harness) -> None:
    plan(harness)
    order = list[str]()
    harness.script("ok", lambda context, _params: order.append(context.run_id))
    first, backfill = ask(harness), ask(harness, backfill=True)
    early, late = ask(harness), ask(harness)
    assert [place(harness, run) for run in (early, late, backfill)] == [(1, 3), (2, 3), (3, 3)]
    harness.drain()
    assert order == [run.run_id for run in (first, early, late, backfill)]


def test_a_freed_slot_belongs_to_whoever_waits_for_it(harness: Harness) -> None:
    plan(harness, concurrent=2)
    ask(harness)
    second = ask(harness)
    third = ask(harness)
    harness.engine.cancel(harness.run(second.run_id), who="me", why="so")
    assert waits_for(harness, third) == [""]
    with pytest.raises(QuotaExceededError):
        ask(harness, queue=False)


def test_a_pipelines_concurrency_keeps_its_runs_apart_and_nobody_elses(harness: Harness) -> None:
    plan(harness, concurrent=3)
    harness.pipeline(step("only"), concurrency=1)
    harness.pipeline(step("only"), route=OTHER)
    ask(harness)
    second = ask(harness)
    assert second.waits_for == "pipeline" and "pipeline limit of 1 runs" in second.reason
    assert ask(harness, route=OTHER, queue=False).waits_for == ""
    assert ask(harness, org="globex", queue=False).waits_for == ""
    harness.drain()
    assert statuses(harness, second) == ["completed"]


def test_a_wrong_concurrency_fails_its_runs_and_limits_nothing(harness: Harness) -> None:
    harness.pipeline(step("only"), concurrency="two")
    run = ask(harness, queue=False)
    harness.drain()
    assert "concurrency" in harness.run(run.run_id).error


def test_slots_of_the_deployment_go_round_by_weight(harness: Harness) -> None:
    plan(harness, concurrent=50, shared=1)
    order = list[str]()
    harness.script("ok", lambda context, _params: order.append(context.org_slug))
    harness.engine.credentials.add(replace(harness.engine.credentials.list(ORG)[0], org_slug="globex"), "sk-x")
    ask(harness)
    for _ in range(4):
        assert ask(harness).waits_for == "global"
    for _ in range(8):
        ask(harness, org="globex")
    harness.drain()
    # Three of globex for one of the other, whoever came first; and those that are left when only one waits.
    assert [order[1:9].count(org) for org in (ORG, "globex")] == [2, 6] and len(order) == 13


def test_a_run_that_gets_no_slot_for_a_day_fails_in_words_and_counts_nowhere(harness: Harness) -> None:
    plan(harness)
    first, second = ask(harness), ask(harness)
    harness.clock.tick(24 * 3600 - 10)
    plan(harness, concurrent=0)  # the first one's end must not let it in
    harness.engine.sweep()
    assert statuses(harness, second) == ["pending"]
    harness.clock.tick(20)
    harness.engine.sweep()
    late = harness.run(second.run_id)
    assert late.status is RunStatus.FAILED and "no slot within 24 h" in late.error and "request it again" in late.error
    assert harness.run(first.run_id).status is RunStatus.FAILED
    usage = harness.engine.store.usage(ORG, second.request.requested_at)
    assert (usage.monthly, usage.failed, usage.waiting) == (1, 1, 0)


def test_a_run_can_be_cancelled_while_it_waits(harness: Harness) -> None:
    plan(harness)
    first, second, third = ask(harness), ask(harness), ask(harness)
    harness.engine.cancel(harness.run(second.run_id), who="ana", why="not needed")
    assert place(harness, third) == (1, 1)
    harness.drain()
    assert statuses(harness, first, second, third) == ["completed", "cancelled", "completed"]
    usage = harness.engine.store.usage(ORG, harness.clock.now)
    assert (usage.daily, usage.cancelled, usage.completed) == (2, 0, 2)


def test_a_waiting_run_whose_day_is_used_up_says_so_and_is_let_in_on_the_next(harness: Harness) -> None:
    plan(harness, daily=1)
    first = ask(harness)
    plan(harness, daily=2)
    second = ask(harness)
    plan(harness, daily=1)
    harness.drain()
    assert statuses(harness, first, second) == ["completed", "pending"] and waits_for(harness, second) == ["daily"]
    assert "waits for a slot: the daily limit of 1 runs is used up" in harness.run(second.run_id).reason
    changes = len(harness.engine.store.changes(second.run_id))
    harness.engine.sweep()
    assert len(harness.engine.store.changes(second.run_id)) == changes  # it is said once
    harness.clock.tick(19 * 3600)
    harness.engine.sweep()
    assert harness.engine.store.usage(ORG, harness.clock.now).daily == 1
    harness.drain()
    assert statuses(harness, second) == ["completed"]


def test_a_waiting_run_of_a_lapsed_subscription_goes_on_waiting_and_says_why(harness: Harness) -> None:
    plan(harness)
    ask(harness)
    second = ask(harness)
    plan(harness, status="SUSPENDED")
    harness.drain()
    assert waits_for(harness, second) == ["plan"] and "SUSPENDED" in harness.run(second.run_id).reason
    with pytest.raises(ForbiddenPlanError):
        ask(harness)
    plan(harness)
    harness.engine.sweep()
    harness.drain()
    assert statuses(harness, second) == ["completed"]


def test_the_sweep_lets_in_whom_nobody_has_let_in(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(harness)
    first, second = ask(harness), ask(harness)
    store = type(harness.engine.store)

    def unavailable(*_asked: object) -> None:
        raise TransientError("the store does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(store, "queues", unavailable)
        harness.drain()
    assert statuses(harness, first, second) == ["completed", "pending"]
    harness.engine.sweep()
    harness.drain()
    assert statuses(harness, second) == ["completed"]


def test_a_slot_that_is_freed_while_a_run_joins_the_queue_lets_it_in(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(harness)
    first = ask(harness)
    store = type(harness.engine.store)
    real = store.create

    def create(self: Any, new: Any, limits: Any) -> None:
        if new.run.waits_for:
            harness.engine.cancel(harness.run(first.run_id), who="me", why="at this very moment")
        real(self, new, limits)

    monkeypatch.setattr(store, "create", create)
    assert ask(harness).waits_for == ""


def test_one_organisations_trouble_keeps_no_other_waiting(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(harness)
    for org in ("globex", ORG):
        ask(harness, org=org)
    theirs, ours = ask(harness, org="globex"), ask(harness)
    plans = type(harness.engine.plans)
    real = plans.limits

    def limits(self: Any, org_slug: str) -> Any:
        if org_slug == "globex":
            raise TransientError("the plans of globex can't be read")
        return real(self, org_slug)

    plan(harness, concurrent=2)
    monkeypatch.setattr(plans, "limits", limits)
    harness.engine.sweep()
    assert waits_for(harness, theirs, ours) == ["concurrent", ""]


def test_a_rerun_may_wait_too(harness: Harness) -> None:
    plan(harness)
    old = ask(harness)
    harness.drain()
    ask(harness)
    again = harness.engine.rerun(
        harness.run(old.run_id), only="only", who="me", why="so", queue=True, backfill=True, idempotency_key="k"
    )
    assert (again.waits_for, again.request.backfill) == ("concurrent", True)
    same = harness.engine.rerun(
        harness.run(old.run_id), only="only", who="other", why="words", queue=True, backfill=True, idempotency_key="k"
    )
    assert same.run_id == again.run_id
    harness.drain()
    assert statuses(harness, again) == ["completed"]


# Idempotency-Key


def test_the_same_key_and_request_are_the_same_run_whatever_is_left_of_the_quota(harness: Harness) -> None:
    plan(harness, daily=1)
    first = ask(harness, key="k1", start_date="2026-11-01")
    harness.drain()
    again = ask(harness, key="k1", start_date="2026-11-01")
    assert (again.run_id, again.status) == (first.run_id, RunStatus.COMPLETED)
    assert harness.engine.store.usage(ORG, harness.clock.now).daily == 1
    with pytest.raises(QuotaExceededError):
        ask(harness, key="k2", start_date="2026-11-01")


def test_a_repeated_request_is_answered_though_nothing_of_it_is_there_any_more(harness: Harness) -> None:
    first = ask(harness, key="k1")
    plan(harness, status="SUSPENDED")
    (harness.configs / f"{ROUTE}.yml").unlink()
    assert ask(harness, key="k1").run_id == first.run_id


@pytest.mark.parametrize("change", [{"start_date": "2026-11-02"}, {"route": OTHER}, {"queue": False}])
def test_a_key_that_was_used_for_something_else_is_refused(harness: Harness, change: dict[str, Any]) -> None:
    harness.pipeline(step("only"), route=OTHER)
    first = ask(harness, key="k1", start_date="2026-11-01")
    with pytest.raises(ConflictingStateError, match=f"another request, of run {first.run_id}"):
        ask(harness, key="k1", **{"start_date": "2026-11-01", **change})


def test_a_key_is_one_organisations_own(harness: Harness) -> None:
    assert ask(harness, key="k1").run_id != ask(harness, key="k1", org="globex").run_id


def test_yesterday_is_the_same_request_tomorrow(harness: Harness) -> None:
    first = ask(harness, key="k1")
    harness.clock.tick(24 * 3600)
    assert ask(harness, key="k1").run_id == first.run_id


def test_of_two_with_one_key_at_the_same_time_both_get_the_one_run(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(harness, key="k1")
    admission = "common.runs.admit.Admission.known"
    real, missed = bootstrap.engine()._admission.known, list[bool]()

    def known(_self: object, request: Any) -> Run | None:
        missed.append(True)
        return None if len(missed) == 1 else real(request)  # it looked just before the other one was stored

    monkeypatch.setattr(admission, known)
    assert ask(harness, key="k1").run_id == first.run_id and len(missed) == 2


@pytest.mark.parametrize("key", ["", " ", "a b", "ä", "x" * 256, "a\n"])
def test_a_key_is_visible_ascii(harness: Harness, key: str) -> None:
    with pytest.raises(InvalidFieldsError, match="Idempotency-Key"):
        ask(harness, key=key)
