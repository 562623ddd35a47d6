"""The whole state machine: ``apply(run, event, now)`` and nothing else changes a run.

Pub/Sub repeats, delays and reorders messages, and processes die anywhere, so each handler first asks whether the
event still concerns the run as it is; one that does not changes nothing. Standard library only, no clock, no I/O,
no randomness: the same run, event and time always give the same transition.

A run: ``pending`` → ``validating`` → ``running`` → ``completed`` | ``failed``.
A step: ``waiting`` → ``queued`` → ``running`` → ``succeeded`` | ``failed``, by way of ``retrying``; or ``skipped``.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never

from common.domain.commands import AnnounceRunFinished, Command, DispatchStep, SettleReservation, StartRun
from common.domain.events import (
    AttemptClaimed,
    AttemptFailed,
    AttemptSucceeded,
    Event,
    OwnerLost,
    RunRejected,
    RunValidated,
    Swept,
    ValidationStarted,
)
from common.domain.model import Pipeline, Run, RunRequest, RunStatus, Step, StepStatus
from common.domain.retry import longest_rests_seconds, rest_seconds

RESEND_AFTER = timedelta(seconds=120)
"""A message that led to nothing for this long is sent again: it may be lost, and a repeat is harmless."""

LEASE_MARGIN = timedelta(seconds=60)
"""A lease outlives ``timeout_seconds`` by this much, so that an attempt which ends in time never loses its step."""

START_WITHIN = timedelta(hours=1)
"""A run that could not even be validated for this long fails."""

RUN_SLACK = timedelta(hours=6)
"""What a running run may wait for its messages beyond the time its steps may take, all in a row."""


@dataclass(frozen=True, slots=True)
class Change:
    """One logged transition: of the run (``step_id`` empty) or of a step."""

    at: datetime
    step_id: str
    attempt: int
    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class Transition:
    """The run after an event, what it wants done, and what is to be logged. Without changes: nothing to store."""

    run: Run
    commands: tuple[Command, ...] = ()
    changes: tuple[Change, ...] = ()


def create(request: RunRequest) -> Transition:
    """Return the new, pending run of a request."""
    now = request.requested_at
    reason = "waits for the start function"
    run = Run(request, reason=reason, since=now, deadline=now + RESEND_AFTER, expires_at=now + START_WITHIN)
    change = Change(now, "", 0, "", RunStatus.PENDING, f"requested by {request.trigger}")
    return Transition(run, (StartRun(run.run_id),), (change,))


def apply(run: Run, event: Event, now: datetime) -> Transition:
    """Return what the event makes of the run at ``now``."""
    if run.status.is_terminal:
        return Transition(run)
    match event:
        case ValidationStarted():
            return _on_validation_started(run, now)
        case RunValidated():
            return _on_validated(run, event, now)
        case RunRejected():
            return _on_rejected(run, event, now)
        case AttemptClaimed():
            return _on_claimed(run, event, now)
        case AttemptSucceeded():
            return _on_succeeded(run, event, now)
        case AttemptFailed():
            return _on_failed(run, event, now)
        case OwnerLost():
            return _on_owner_lost(run, event, now)
        case Swept():
            return _on_swept(run, now)
        case _:
            assert_never(event)


def _on_validation_started(run: Run, now: datetime) -> Transition:
    if run.status is not RunStatus.PENDING:
        return Transition(run)
    return _move_run(run, RunStatus.VALIDATING, "its config is read and checked", now, deadline=now + RESEND_AFTER)


def _on_validated(run: Run, event: RunValidated, now: datetime) -> Transition:
    if run.status is not RunStatus.VALIDATING:
        return Transition(run)
    pinned = replace(
        run,
        pipeline_id=event.pipeline.pipeline_id,
        credential_id=event.credential_id,
        config_hash=event.pipeline.config_hash,
        steps=tuple(Step(spec, since=now, reason=_waits_for(spec.depends_on)) for spec in event.pipeline.steps),
        started_at=now,
        expires_at=now + _longest(event.pipeline) + RUN_SLACK,
    )
    moved = _move_run(pinned, RunStatus.RUNNING, "its steps are at work", now)
    return _then(moved, _settle_steps(moved.run, now))


def _on_rejected(run: Run, event: RunRejected, now: datetime) -> Transition:
    if run.status not in (RunStatus.PENDING, RunStatus.VALIDATING):
        return Transition(run)
    return _end_run(replace(run, error=event.error), RunStatus.FAILED, event.error, now)


def _on_claimed(run: Run, event: AttemptClaimed, now: datetime) -> Transition:
    step = run.step(event.step_id)
    if step is None or step.attempt != event.attempt:
        return Transition(run)
    if step.status not in (StepStatus.QUEUED, StepStatus.RETRYING) or (step.not_before and now < step.not_before):
        return Transition(run)
    lease = now + timedelta(seconds=step.spec.timeout_seconds) + LEASE_MARGIN
    claimed = replace(step, owner=event.owner, started_at=step.started_at or now, not_before=None)
    return _move_step(run, claimed, StepStatus.RUNNING, f"attempt {step.attempt} is at work", now, deadline=lease)


def _on_succeeded(run: Run, event: AttemptSucceeded, now: datetime) -> Transition:
    step = _current(run, event.step_id, event.attempt)
    if step is None:
        return Transition(run)
    done = replace(step, receipt=event.receipt, error="", ended_at=now, not_before=None)
    moved = _move_step(run, done, StepStatus.SUCCEEDED, f"{event.receipt.rows} rows", now)
    return _then(moved, _settle_steps(moved.run, now))


def _on_failed(run: Run, event: AttemptFailed, now: datetime) -> Transition:
    step = _current(run, event.step_id, event.attempt)
    return Transition(run) if step is None else _fail_attempt(run, step, event, now)


def _on_owner_lost(run: Run, event: OwnerLost, now: datetime) -> Transition:
    result = Transition(run)
    for step in run.steps:
        if step.status is StepStatus.RUNNING and step.owner == event.owner:
            lost = AttemptFailed(step.spec.step_id, step.attempt, "the process that ran it ended", retryable=True)
            result = _then(result, _fail_attempt(result.run, step, lost, now))
    return result


def _on_swept(run: Run, now: datetime) -> Transition:
    if run.expires_at and now >= run.expires_at:
        error = f"not finished within its time (it was {run.status}: {_open_reason(run)})"
        return _end_run(replace(run, error=error), RunStatus.FAILED, error, now)
    if run.status in (RunStatus.PENDING, RunStatus.VALIDATING):
        if run.deadline is None or now < run.deadline:
            return Transition(run)
        again = replace(run, deadline=now + RESEND_AFTER)
        change = Change(now, "", 0, run.status, run.status, "start sent again")
        return Transition(again, (StartRun(run.run_id),), (change,))
    result = Transition(run)
    for step in run.steps:
        if not step.status.is_terminal and step.deadline and now >= step.deadline:
            result = _then(result, _sweep_step(result.run, step, now))
    return result


def _sweep_step(run: Run, step: Step, now: datetime) -> Transition:
    if step.status is StepStatus.RUNNING:
        error = f"no result within timeout_seconds ({step.spec.timeout_seconds} s) and its margin"
        return _fail_attempt(run, step, AttemptFailed(step.spec.step_id, step.attempt, error, retryable=True), now)
    again = replace(step, deadline=now + RESEND_AFTER)
    change = Change(now, step.spec.step_id, step.attempt, step.status, step.status, "attempt sent again")
    return Transition(run.with_steps(again), (_dispatch(run, step),), (change,))


def _current(run: Run, step_id: str, attempt: int) -> Step | None:
    """Return the step if this attempt is the one in flight: results of any other change nothing."""
    step = run.step(step_id)
    if step is None or step.attempt != attempt or step.status is not StepStatus.RUNNING:
        return None
    return step


def _fail_attempt(run: Run, step: Step, event: AttemptFailed, now: datetime) -> Transition:
    """Queue the next attempt, or end the step when none is left or none would help."""
    policy = step.spec.retry
    if event.retryable and step.attempt < policy.max_attempts:
        name = f"{run.run_id} {step.spec.step_id}"
        rest = rest_seconds(policy, step.attempt, asked_s=event.retry_after_s, name=name)
        not_before = now + timedelta(seconds=rest)
        retry = replace(step, attempt=step.attempt + 1, error=event.error, owner="", not_before=not_before)
        reason = f"attempt {step.attempt} of {policy.max_attempts} failed: {event.error}"
        moved = _move_step(run, retry, StepStatus.RETRYING, reason, now, deadline=not_before + RESEND_AFTER)
        return _then(moved, Transition(moved.run, (_dispatch(run, retry),)))
    ended = replace(step, error=event.error, ended_at=now, not_before=None)
    moved = _move_step(run, ended, StepStatus.FAILED, event.error, now)
    return _then(moved, _settle_steps(moved.run, now))


def _settle_steps(run: Run, now: datetime) -> Transition:
    """Queue what is unblocked, skip what can never run, and end the run when nothing is left to do."""
    result = Transition(run)
    for spec in (s.spec for s in run.steps if s.status is StepStatus.WAITING):
        result = _then(result, _unblock(result.run, spec.step_id, now))
    if result.changes and any(c.after == StepStatus.SKIPPED for c in result.changes):
        return _then(result, _settle_steps(result.run, now))
    if not all(s.status.is_terminal for s in result.run.steps):
        return result
    failed = [s for s in result.run.steps if s.status is StepStatus.FAILED]
    if not failed:
        return _then(result, _end_run(result.run, RunStatus.COMPLETED, "every step succeeded", now))
    error = "; ".join(f"{s.spec.step_id}: {s.error}" for s in failed)
    return _then(result, _end_run(replace(result.run, error=error), RunStatus.FAILED, error, now))


def _unblock(run: Run, step_id: str, now: datetime) -> Transition:
    step = run.step(step_id)
    assert step is not None
    needed = [s for s in run.steps if s.spec.step_id in step.spec.depends_on]
    lost = [s.spec.step_id for s in needed if s.status in (StepStatus.FAILED, StepStatus.SKIPPED)]
    if lost:
        skipped = replace(step, ended_at=now)
        return _move_step(run, skipped, StepStatus.SKIPPED, f"{', '.join(lost)} did not succeed", now)
    if any(s.status is not StepStatus.SUCCEEDED for s in needed):
        return Transition(run)
    queued = replace(step, attempt=1)
    moved = _move_step(run, queued, StepStatus.QUEUED, "waits for its function", now, deadline=now + RESEND_AFTER)
    return _then(moved, Transition(moved.run, (_dispatch(run, queued),)))


def _end_run(run: Run, status: RunStatus, reason: str, now: datetime) -> Transition:
    ended = replace(run, ended_at=now, expires_at=None)
    moved = _move_run(ended, status, reason, now)
    settle = SettleReservation(run.run_id, succeeded=status is RunStatus.COMPLETED)
    return _then(moved, Transition(moved.run, (settle, AnnounceRunFinished(run.run_id))))


def _move_run(run: Run, status: RunStatus, reason: str, now: datetime, deadline: datetime | None = None) -> Transition:
    change = Change(now, "", 0, run.status, status, reason)
    return Transition(replace(run, status=status, reason=reason, since=now, deadline=deadline), (), (change,))


def _move_step(
    run: Run, step: Step, status: StepStatus, reason: str, now: datetime, deadline: datetime | None = None
) -> Transition:
    before = run.step(step.spec.step_id)
    assert before is not None
    change = Change(now, step.spec.step_id, step.attempt, before.status, status, reason)
    moved = replace(step, status=status, reason=reason, since=now, deadline=deadline)
    return Transition(run.with_steps(moved), (), (change,))


def _then(first: Transition, second: Transition) -> Transition:
    """Join two transitions made one after the other on the same run."""
    return Transition(second.run, first.commands + second.commands, first.changes + second.changes)


def _dispatch(run: Run, step: Step) -> DispatchStep:
    return DispatchStep(run.run_id, step.spec.step_id, step.spec.ps_type, step.attempt, step.not_before)


def _waits_for(depends_on: tuple[str, ...]) -> str:
    return f"waits for {', '.join(depends_on)}"


def _open_reason(run: Run) -> str:
    waiting = [f"{s.spec.step_id} {s.status}" for s in run.steps if not s.status.is_terminal]
    return ", ".join(waiting) or run.reason


def _longest(pipeline: Pipeline) -> timedelta:
    """The time the steps may take if each fails until its last attempt, one after the other."""
    seconds = sum(
        s.retry.max_attempts * (s.timeout_seconds + LEASE_MARGIN.total_seconds()) + longest_rests_seconds(s.retry)
        for s in pipeline.steps
    )
    return timedelta(seconds=seconds)
