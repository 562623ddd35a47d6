"""The whole state machine: ``apply(run, event, now)`` and nothing else changes a run.

Pub/Sub repeats, delays and reorders messages, and processes die anywhere, so each handler first asks whether the
event still concerns the run as it is; one that does not changes nothing. Standard library only, no clock, no I/O,
no randomness: the same run, event and time always give the same transition.

A run: ``pending``, where it may wait for a slot, → ``validating`` → ``running`` → ``completed`` | ``failed`` |
``cancelled``.
A step: ``waiting`` → ``queued`` → ``running`` → ``succeeded`` | ``failed``, by way of ``retrying`` or ``suspended``;
or ``skipped``, ``omitted``, ``cancelled``.

The run may be loaded in part: an attempt's event needs its step (of an item also its map), nothing else. What the
loaded part can't tell is asked (``Transition.asks``). ``StepsEnded``, ``Swept``, ``OwnerLost``, ``MessageDied`` and
what people ask for need the whole run.
"""

from collections.abc import Callable, Mapping
from copy import replace
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from common.domain import plan
from common.domain.admission import on_admitted, on_kept_waiting, pending, settle_money, waited_too_long, waiting
from common.domain.commands import AnnounceRunFinished, DispatchStep, StartRun
from common.domain.draft import RESEND_AFTER, RETRY_GRACE, Ask, Change, Draft, Transition
from common.domain.events import (
    AttemptClaimed,
    AttemptFailed,
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
from common.domain.model import Pipeline, Run, RunRequest, RunStatus, Step, StepSpec, StepStatus
from common.domain.plan import RUN_END
from common.domain.retry import longest_rests_seconds, rest_seconds

__all__ = ["RESEND_AFTER", "Ask", "Change", "Transition", "apply", "create", "rerun", "waiting"]

LEASE_MARGIN = timedelta(seconds=60)
"""A lease outlives ``timeout_seconds`` by this much, so that an attempt which ends in time never loses its step."""

RUN_SLACK = timedelta(hours=6)
"""What a running run may wait for its messages beyond the time its steps may take, all in a row."""

CLAIMABLE = (StepStatus.QUEUED, StepStatus.RETRYING, StepStatus.SUSPENDED)


def create(request: RunRequest) -> Transition:
    """Return the new, pending run of a request."""
    return pending(Run(request), f"requested by {request.trigger}")


def rerun(old: Run, request: RunRequest, only: str | None = None, *, who: str, why: str) -> Transition:
    """Return a new, pending run of an ended one, with its pinned pipeline; what has succeeded there is kept.

    ``only`` names the single step to run: the new run has it and what it depends on. Without it all that did not
    succeed is run, with what depends on it; a preview runs everything. A step that is run has only such behind it.
    """
    specs = tuple(spec for spec in old.specs if only is None or spec.step_id in _before(old, only))
    again = {only} if only else {spec.step_id for spec in specs} if request.preview else _unfinished(old)
    kept: dict[str, Step] = {}
    for step in old.steps.values():
        base = plan.map_of(step.step_id)
        spec = plan.spec_of(old, base[0] if base else step.step_id)
        if spec is None or spec not in specs or spec.step_id in again:
            continue
        # A map is kept with all its items, those that failed too: one that is missing would be run again.
        if old.steps[spec.step_id].is_done:
            kept[step.step_id] = replace(step, version=0, reason=f"kept from {old.run_id}")
        elif not base:
            kept[step.step_id] = Step(step.spec, StepStatus.SKIPPED, reason=f"only {only} is run again")
    run = Run(
        request,
        pipeline_id=old.pipeline_id,
        credential_id=old.credential_id,
        config_hash=old.config_hash,
        specs=specs,
        steps=kept,
    )
    what = "preview" if request.preview else "rerun"
    new = pending(run, f"{what} of {old.run_id} by {who}: {why}")
    return replace(new, touched=tuple(kept))


def _before(run: Run, step_id: str) -> set[str]:
    """The step and all that it depends on, directly or not: with these alone it is the last step of its run."""
    before, size = {step_id}, 0
    while size != len(before):
        size = len(before)
        before |= {name for spec in run.specs if spec.step_id in before for name in spec.depends_on}
    return before


def _unfinished(old: Run) -> set[str]:
    """The steps that did not succeed, and all that depends on them."""
    again = {spec.step_id for spec in old.specs if not (step := old.steps[spec.step_id]).is_done or step.is_tolerated}
    size = -1
    while size != len(again):
        size = len(again)
        again |= {spec.step_id for spec in old.specs if again.intersection(spec.depends_on)}
    return again


def apply(run: Run, event: Event, now: datetime) -> Transition:
    """Return what the event makes of the run at ``now``."""
    draft = Draft(run, now)
    if run.status.is_terminal:
        _after_end(draft, event)
        return draft.done()
    HANDLERS[type(event)](draft, event)
    return draft.done()


def _after_end(draft: Draft, event: Event) -> None:
    """Nothing changes an ended run; its end is announced until somebody says that it was, or that nobody can.

    Only a preview waits for somebody's word, once.
    """
    if isinstance(event, PreviewSettled):
        _on_preview_settled(draft, event)
        return
    wake_at = draft.run.wake_at
    if wake_at is None:
        return
    if isinstance(event, RunAnnounced) or (isinstance(event, MessageDied) and not event.step_id):
        draft.set_run(wake_at=None)  # a dead letter is kept for people to look at; more of them would tell no more
        settle_money(draft, event.jobs if isinstance(event, RunAnnounced) else None)
    elif isinstance(event, Swept) and draft.now >= wake_at:
        draft.set_run(wake_at=draft.now + RESEND_AFTER)
        draft.send(AnnounceRunFinished(draft.run.run_id))


def _on_announced(_draft: Draft, _event: RunAnnounced) -> None:
    """A run that has not ended can't have been announced."""


def _on_validated(draft: Draft, event: RunValidated) -> None:
    if draft.run.status is not RunStatus.PENDING or draft.run.waits_for:
        return
    now, pipeline = draft.now, event.pipeline
    draft.move_run(RunStatus.VALIDATING, "its config is read and checked")
    draft.move_run(
        RunStatus.RUNNING,
        "its steps are at work",
        pipeline_id=pipeline.pipeline_id,
        credential_id=event.credential_id,
        config_hash=pipeline.config_hash,
        specs=pipeline.steps,
        started_at=now,
        wake_at=now + RESEND_AFTER,
        expires_at=now + _longest(pipeline) + RUN_SLACK,
    )
    draft.fill()
    draft.settle((*(spec.step_id for spec in pipeline.steps), RUN_END))


def _on_rejected(draft: Draft, event: RunRejected) -> None:
    if draft.run.status is RunStatus.PENDING and not draft.run.waits_for:
        draft.move_run(RunStatus.VALIDATING, "its config is read and checked")
        draft.end_run(RunStatus.FAILED, event.error, error=event.error)


def _on_claimed(draft: Draft, event: AttemptClaimed) -> None:
    step, now = draft.run.step(event.step_id), draft.now
    if step is None or step.attempt != event.attempt or step.status not in CLAIMABLE:
        return
    if step.not_before and now < step.not_before:
        return
    if step.version == 0:
        queued = Change(step.since or now, step.step_id, 1, StepStatus.WAITING, StepStatus.QUEUED, step.reason)
        draft.note(queued)
    lease = now + timedelta(seconds=step.spec.timeout_seconds) + LEASE_MARGIN
    fence = max(step.fence + 1, int(now.timestamp() * 1_000_000))  # more than before, even if a clock went back
    fields = {"owner": event.owner, "fence": fence, "started_at": step.started_at or now, "not_before": None}
    draft.move(step, StepStatus.RUNNING, f"attempt {step.attempt} is at work", lease, **fields)


def _on_suspended(draft: Draft, event: AttemptSuspended) -> None:
    step, now = _current(draft.run, event.step_id, event.attempt), draft.now
    if step is None:
        return
    give_up_at = step.give_up_at or now + timedelta(seconds=step.spec.max_wait_seconds)
    if now >= give_up_at:
        error = f"job {event.job} was not done within max_wait_seconds ({step.spec.max_wait_seconds} s)"
        _fail_attempt(draft, step, AttemptFailed(step.step_id, step.attempt, error, "timeout"))
        return
    look_at = max(now, min(event.look_at, give_up_at))
    _let_live_until(draft, give_up_at)
    waiting = replace(step, owner="", not_before=look_at, waits_on=event.job, give_up_at=give_up_at)
    moved = draft.move(waiting, StepStatus.SUSPENDED, f"waits for job {event.job}", look_at + RETRY_GRACE)
    draft.send(DispatchStep(moved))


def _on_succeeded(draft: Draft, event: AttemptSucceeded) -> None:
    step = _current(draft.run, event.step_id, event.attempt)
    if step is not None:
        draft.end(step, StepStatus.SUCCEEDED, f"{event.receipt.rows} rows", receipt=event.receipt, error="")


def _on_failed(draft: Draft, event: AttemptFailed) -> None:
    step = _current(draft.run, event.step_id, event.attempt)
    if step is not None:
        _fail_attempt(draft, step, event)


def _on_owner_lost(draft: Draft, event: OwnerLost) -> None:
    for step in draft.each():
        if step.status is StepStatus.RUNNING and step.owner == event.owner:
            error = "the process that ran it ended"
            _fail_attempt(draft, step, AttemptFailed(step.step_id, step.attempt, error, "lost"))


def _on_message_died(draft: Draft, event: MessageDied) -> None:
    if not event.step_id:
        if draft.run.status is RunStatus.PENDING:
            draft.end_run(RunStatus.FAILED, event.error, error=event.error)
        return
    step = draft.run.step(event.step_id)
    if step and step.attempt == event.attempt and not step.status.is_terminal and step.spec.map is None:
        draft.end(step, StepStatus.FAILED, event.error, error=event.error)


def _on_steps_ended(draft: Draft, event: StepsEnded) -> None:
    draft.settle(event.targets)


def _on_cancel(draft: Draft, event: CancelRequested) -> None:
    reason = f"cancelled by {event.who}: {event.why}"
    draft.end_run(RunStatus.CANCELLED, reason, error=reason)


def _on_preview_settled(draft: Draft, event: PreviewSettled) -> None:
    run = draft.run
    if not run.request.preview or not run.status.is_terminal or run.preview_end is not None:
        return
    draft.log("", 0, run.status, run.status, f"{event.end} by {event.who}: {event.why}")
    draft.set_run(preview_end=event.end)
    for step_id, receipt in event.receipts.items():
        draft.put(replace(run.steps[step_id], receipt=receipt))


def _on_skip(draft: Draft, event: SkipRequested) -> None:
    step = draft.run.step(event.step_id)
    if step is None or step.status.is_terminal or step.status is StepStatus.WAITING or step.items:
        return
    draft.end(step, StepStatus.SKIPPED, f"skipped by {event.who}: {event.why}")


def _on_swept(draft: Draft, _event: Swept) -> None:
    run, now = draft.run, draft.now
    if run.expires_at and now >= run.expires_at:
        error = f"not finished within its time (it was {run.status}: {_open_reason(run)})"
        if run.waits_for:
            error = waited_too_long(run)
        draft.end_run(RunStatus.FAILED, error, error=error)
    elif run.status is RunStatus.PENDING:
        if run.wake_at and now >= run.wake_at:
            draft.log("", 0, run.status, run.status, "start sent again")
            draft.set_run(wake_at=now + RESEND_AFTER)
            draft.send(StartRun(run.run_id))
    else:
        _sweep_steps(draft)


def _sweep_steps(draft: Draft) -> None:
    """Do what is overdue; then start what nobody started, because a process died between two of its steps."""
    now = draft.now
    for step in draft.each():
        if step.deadline and now >= step.deadline and not step.status.is_terminal:
            _sweep_step(draft, step)
    for step in draft.each():
        # The message of a queued step was sent when its turn came: it is lost only if it led to nothing for long.
        fresh = step.status is StepStatus.QUEUED and step.since and now < step.since + RESEND_AFTER
        if not step.status.is_terminal and not fresh:
            if step.status is StepStatus.QUEUED:
                draft.log(step.step_id, 1, step.status, step.status, "attempt sent again")
            draft.settle((step.step_id,))
    draft.settle((RUN_END,))
    if not draft.run.status.is_terminal:
        open_steps = [s for s in draft.run.steps.values() if not s.status.is_terminal]
        queued = [s.since + RESEND_AFTER for s in open_steps if s.status is StepStatus.QUEUED and s.since]
        draft.set_run(wake_at=min([now + RESEND_AFTER, *(at for at in queued if at > now)]))


def _sweep_step(draft: Draft, step: Step) -> None:
    if step.status is StepStatus.RUNNING:
        error = f"no result within timeout_seconds ({step.spec.timeout_seconds} s) and its margin"
        _fail_attempt(draft, step, AttemptFailed(step.step_id, step.attempt, error, "lost"))
        return
    draft.log(step.step_id, step.attempt, step.status, step.status, "attempt sent again")
    draft.send(DispatchStep(draft.put(replace(step, deadline=draft.now + RESEND_AFTER))))


def _current(run: Run, step_id: str, attempt: int) -> Step | None:
    """Return the step if this attempt is the one in flight: results of any other change nothing."""
    step = run.step(step_id)
    if step is None or step.attempt != attempt or step.status is not StepStatus.RUNNING:
        return None
    return step


def _fail_attempt(draft: Draft, step: Step, event: AttemptFailed) -> None:
    """Queue the next attempt, or end the step when none is left or none would help."""
    policy = step.spec.retry
    wanted = bool(event.kind) and (not policy.retry_on or event.kind in policy.retry_on)
    if not wanted or step.attempt >= policy.max_attempts:
        draft.end(step, StepStatus.FAILED, event.error, error=event.error)
        return
    name = f"{draft.run.run_id} {step.step_id}"
    rest = rest_seconds(policy, step.attempt, asked_s=event.retry_after_s, name=name)
    not_before = draft.now + timedelta(seconds=rest)
    _let_live_until(draft, not_before)
    retry = replace(
        step,
        attempt=step.attempt + 1,
        error=event.error,
        owner="",
        not_before=not_before,
        waits_on="",
        give_up_at=None,
    )
    reason = f"attempt {step.attempt} of {policy.max_attempts} failed: {event.error}"
    draft.send(DispatchStep(draft.move(retry, StepStatus.RETRYING, reason, not_before + RETRY_GRACE)))


def _let_live_until(draft: Draft, at: datetime) -> None:
    """Move the run's end, if it comes too soon after a rest that others asked for."""
    if draft.run.expires_at and at + RUN_SLACK > draft.run.expires_at:
        draft.set_run(expires_at=at + RUN_SLACK)


def _open_reason(run: Run) -> str:
    waiting = [f"{s.step_id} {s.status}" for s in run.steps.values() if not s.status.is_terminal]
    return ", ".join(waiting[:20]) or run.reason


def _longest(pipeline: Pipeline) -> timedelta:
    """The time the steps may take if each fails until its last attempt, one after the other."""
    return timedelta(seconds=sum(_longest_step(spec) for spec in pipeline.steps))


def _longest_step(spec: StepSpec) -> float:
    attempts = spec.retry.max_attempts * (spec.timeout_seconds + LEASE_MARGIN.total_seconds())
    rounds = ceil(plan.MAX_ITEMS / spec.map.max_parallel) if spec.map else 1
    return rounds * (attempts + longest_rests_seconds(spec.retry))


HANDLERS: Mapping[type[Event], Callable[[Draft, Any], None]] = {
    RunAdmitted: on_admitted,
    RunKeptWaiting: on_kept_waiting,
    RunValidated: _on_validated,
    RunRejected: _on_rejected,
    AttemptClaimed: _on_claimed,
    AttemptSuspended: _on_suspended,
    AttemptSucceeded: _on_succeeded,
    AttemptFailed: _on_failed,
    StepsEnded: _on_steps_ended,
    OwnerLost: _on_owner_lost,
    MessageDied: _on_message_died,
    Swept: _on_swept,
    RunAnnounced: _on_announced,
    CancelRequested: _on_cancel,
    SkipRequested: _on_skip,
    PreviewSettled: _on_preview_settled,
}
