"""The tables at the top of the state machine, walked whole: nothing happens that is in no row of them."""

from copy import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import get_args

import pytest

from common.domain import state
from common.domain.messages import (
    AttemptClaimed,
    AttemptFailed,
    AttemptStopped,
    AttemptSucceeded,
    AttemptSuspended,
    CancelRequested,
    Event,
    MessageDied,
    OwnerLost,
    PreviewSettled,
    RunAdmitted,
    RunAnnounced,
    RunKeptWaiting,
    RunRejected,
    RunValidated,
    SkipRequested,
    StepsEnded,
    Swept,
)
from common.domain.model import Pipeline, PreviewEnd, Receipt, Run, RunRequest, RunStatus, Step, StepSpec, StepStatus
from common.domain.state import RUN_ACCEPTS, RUN_MOVES, STEP_ACCEPTS, STEP_MOVES, Draft, IllegalMoveError
from infra import state_diagrams

T0 = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
DAY = date(2026, 11, 20)
SPEC = StepSpec("extract", "noop", (), 100)

EVENTS: dict[type[Event], Event] = {
    type(event): event
    for event in (
        RunAdmitted(False),
        RunKeptWaiting("global", "full"),
        RunValidated(Pipeline("p", "openai", (SPEC,), "hash"), "cred"),
        RunRejected("no"),
        AttemptClaimed("extract", 1, "me"),
        AttemptSuspended("extract", 1, "job", T0 + timedelta(seconds=30)),
        AttemptSucceeded("extract", 1, Receipt(rows=1)),
        AttemptFailed("extract", 1, "boom"),
        AttemptStopped("extract", 1),
        StepsEnded(("extract", "")),
        OwnerLost("me"),
        MessageDied("extract", 1, "dead"),
        Swept(),
        RunAnnounced(),
        CancelRequested("ana", "wrong"),
        SkipRequested("extract", "ana", "not needed"),
        PreviewSettled(PreviewEnd.DISCARDED, {}, "ana", "no"),
    )
}


def run_in(status: RunStatus, step: StepStatus = StepStatus.RUNNING) -> Run:
    """A run of one step at attempt 1 whose every time limit is over."""
    past = T0 - timedelta(days=1)
    its = Step(SPEC, step, version=1, attempt=1, owner="me", since=past, lease_until=past)
    request = RunRequest("run_1", "acme", "a/b/c", DAY, DAY, past, preview=True)
    return Run(request, status, 1, "p", "cred", specs=(SPEC,), steps={"extract": its}, since=past, wake_at=past)


def test_every_event_has_a_row() -> None:
    assert set(RUN_ACCEPTS) == set(EVENTS) == set(get_args(Event))


@pytest.mark.parametrize(("status", "event"), list(product(RunStatus, EVENTS)), ids=str)
def test_an_event_that_the_runs_status_does_not_accept_changes_nothing(status: RunStatus, event: type[Event]) -> None:
    if status not in RUN_ACCEPTS[event]:
        transition = state.apply(run_in(status), EVENTS[event], T0)
        assert not transition.writes and transition.commands == () and transition.ready_checks == ()


@pytest.mark.parametrize(("status", "event"), list(product(StepStatus, STEP_ACCEPTS)), ids=str)
def test_an_event_that_the_steps_status_does_not_accept_leaves_the_step_alone(
    status: StepStatus, event: type[Event]
) -> None:
    transition = state.apply(run_in(RunStatus.RUNNING, status), EVENTS[event], T0)
    assert ("extract" in transition.touched) == (status in STEP_ACCEPTS[event])


@pytest.mark.parametrize(("before", "after"), list(product(RunStatus, RunStatus)), ids=str)
def test_a_run_moves_along_the_rows_of_its_table_alone(before: RunStatus, after: RunStatus) -> None:
    draft = Draft(run_in(before), T0)
    if after in RUN_MOVES[before]:
        draft.move_run(after, "because")
        assert draft.run.status is after
    else:
        with pytest.raises(IllegalMoveError, match=f"run_1: {before} -> {after}"):
            draft.move_run(after, "because")


@pytest.mark.parametrize(("before", "after"), list(product(StepStatus, StepStatus)), ids=str)
def test_a_step_moves_along_the_rows_of_its_table_alone(before: StepStatus, after: StepStatus) -> None:
    run = run_in(RunStatus.RUNNING, before)
    draft = Draft(run, T0)
    if after in STEP_MOVES[before]:
        assert draft.move(run.steps["extract"], after, "because").status is after
    else:
        with pytest.raises(IllegalMoveError, match=f"extract of run_1: {before} -> {after}"):
            draft.move(run.steps["extract"], after, "because")


def test_what_has_ended_never_moves_again() -> None:
    assert all(not RUN_MOVES[status] for status in RunStatus if status.is_terminal)
    assert all(not STEP_MOVES[status] for status in StepStatus if status.is_terminal)
    assert set(RUN_MOVES) == set(RunStatus) and set(STEP_MOVES) == set(StepStatus)


def test_a_step_has_a_lease_or_a_resend_time_and_never_both() -> None:
    run = run_in(RunStatus.RUNNING, StepStatus.QUEUED)
    claimed = state.apply(run, EVENTS[AttemptClaimed], T0).run
    waits = state.apply(claimed, EVENTS[AttemptSuspended], T0).run.steps["extract"]
    assert claimed.steps["extract"].lease_until == T0 + timedelta(seconds=100) + state.LEASE_MARGIN
    assert (claimed.steps["extract"].resend_at, waits.lease_until) == (None, None)
    assert waits.resend_at == T0 + timedelta(seconds=30) + state.RETRY_GRACE == waits.due_at
    assert replace(waits, resend_at=None).due_at is None


def test_the_pages_diagrams_are_those_of_the_tables() -> None:
    assert state_diagrams.PAGE.read_text("utf-8") == state_diagrams.page(), "stale: run `make docs`"
