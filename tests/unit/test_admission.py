"""A run that waits: nothing starts it but its admission, and it leaves the queue once."""

from copy import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from common.domain import state
from common.domain.messages import (
    AnnounceRunFinished,
    CancelRequested,
    Event,
    JobsCost,
    MoveInQueue,
    RunAdmitted,
    RunAnnounced,
    RunKeptWaiting,
    RunRejected,
    RunValidated,
    SettleMoney,
    SettleReservation,
    StartRun,
    Swept,
)
from common.domain.model import Estimate, Pipeline, Run, RunRequest, RunStatus, StepSpec
from common.domain.state import Transition

T0 = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
DAY = date(2026, 11, 20)
DAY_LONG = timedelta(hours=24)
COST = Estimate(Decimal("0.5"), Decimal("0.1"), "a test")


def waiting() -> Transition:
    new = state.create(RunRequest("run_1", "acme", "a/b/c", DAY, DAY, T0, queue=True))
    return state.waiting(replace(new, run=replace(new.run, estimate=COST)), "concurrent", "the limit is used up")


def tell(run: Run, event: Event, at: datetime = T0) -> Transition:
    return state.apply(run, event, at)


def test_a_new_run_that_waits_holds_nothing_starts_nothing_and_says_for_what_and_until_when() -> None:
    new = waiting()
    assert new.commands == (MoveInQueue("run_1", "", "concurrent"),)
    assert (new.run.waits_for, new.run.admitted_at, new.run.global_slot) == ("concurrent", None, False)
    assert new.run.reason == "waits for a slot: the limit is used up" and new.run.expires_at == T0 + DAY_LONG
    assert new.changes[0].reason == "requested by api; waits for a slot: the limit is used up"


@pytest.mark.parametrize(
    "event",
    [
        RunValidated(Pipeline("p", "x", (StepSpec("a", "noop"),), "hash"), "cred"),
        RunRejected("no"),
        Swept(),
        RunAnnounced(),
        RunKeptWaiting("concurrent", "the limit is used up"),
    ],
)
def test_nothing_starts_or_ends_it_before_its_time(event: Event) -> None:
    assert not tell(waiting().run, event, T0 + DAY_LONG - timedelta(seconds=1)).writes


def test_an_admitted_run_is_to_be_started_as_a_new_one_is() -> None:
    at = T0 + timedelta(hours=3)
    admitted = tell(waiting().run, RunAdmitted(global_slot=True), at)
    assert admitted.commands == (MoveInQueue("run_1", "concurrent", ""), StartRun("run_1"))
    usual = state.create(RunRequest("run_1", "acme", "a/b/c", DAY, DAY, at)).run
    same = ("status", "reason", "since", "wake_at", "expires_at", "admitted_at", "waits_for")
    assert [getattr(admitted.run, name) for name in same] == [getattr(usual, name) for name in same]
    assert admitted.run.global_slot and admitted.changes[0].reason == "admitted after 10800 s"


@pytest.mark.parametrize("event", [RunAdmitted(False), RunKeptWaiting("daily", "the day is over")])
def test_a_run_that_does_not_wait_is_not_admitted_again(event: Event) -> None:
    admitted = tell(waiting().run, RunAdmitted(False)).run
    assert not tell(admitted, event).writes


def test_it_waits_for_another_limit_once_that_is_what_keeps_it() -> None:
    kept = tell(waiting().run, RunKeptWaiting("daily", "the day is over"))
    assert kept.commands == (MoveInQueue("run_1", "concurrent", "daily"),)
    assert (kept.run.waits_for, kept.run.reason) == ("daily", "waits for a slot: the day is over")
    assert kept.run.expires_at == T0 + DAY_LONG


@pytest.mark.parametrize(
    ("event", "status", "error"),
    [
        (Swept(), RunStatus.FAILED, "no slot within 24 h (it waits for a slot: the limit is used up)"),
        (CancelRequested("ana", "why not"), RunStatus.CANCELLED, "cancelled by ana: why not"),
    ],
)
def test_one_that_ends_leaves_the_queue_and_settles_nothing(event: Event, status: RunStatus, error: str) -> None:
    ended = tell(waiting().run, event, T0 + DAY_LONG)
    assert ended.run.status is status and error in ended.run.error and ended.run.waits_for == ""
    assert ended.commands == (MoveInQueue("run_1", "concurrent", ""), AnnounceRunFinished("run_1"))
    told = tell(ended.run, RunAnnounced(JobsCost(Decimal(9), True)))
    assert told.commands == () and told.run.cost_usd is None


def ended(estimate: Estimate | None = COST) -> Run:
    new = state.create(RunRequest("run_1", "acme", "a/b/c", DAY, DAY, T0))
    rejected = tell(replace(new.run, estimate=estimate), RunRejected("no"))
    assert any(isinstance(command, SettleReservation) for command in rejected.commands)
    return rejected.run


@pytest.mark.parametrize(
    ("jobs", "cost", "known"),
    [
        (JobsCost(Decimal("0.2"), True), "0.3", True),
        (JobsCost(Decimal("0.2"), False), "0.6", False),
        (JobsCost(Decimal("2"), False), "2.1", False),
        (None, "0.6", False),
    ],
)
def test_what_is_known_by_half_takes_nothing_off_the_estimate(jobs: JobsCost | None, cost: str, known: bool) -> None:
    told = tell(ended(), RunAnnounced(jobs))
    assert told.commands == (SettleMoney("run_1", Decimal("0.6"), Decimal(cost), known),)
    assert told.run.cost_usd == Decimal(cost) and cost in told.changes[0].reason
    assert ("not all" in told.changes[0].reason) is not known
    assert not tell(told.run, RunAnnounced(jobs)).writes


def test_a_run_without_an_estimate_settles_no_money() -> None:
    told = tell(ended(None), RunAnnounced(JobsCost(Decimal(1), True)))
    assert told.commands == () and told.changes == ()
