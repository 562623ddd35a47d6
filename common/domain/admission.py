"""A run and its quota: how it begins, waits for a slot, is let in, and what it has cost in the end."""

from copy import replace
from datetime import datetime, timedelta
from typing import Any

from common.domain.commands import MoveInQueue, SettleMoney, StartRun
from common.domain.draft import RESEND_AFTER, Change, Draft, Transition
from common.domain.events import JobsCost, RunAdmitted, RunKeptWaiting
from common.domain.model import Run, RunStatus
from common.domain.queueing import WAIT_AT_MOST

START_WITHIN = timedelta(hours=1)
"""A run that could not even be validated for this long fails."""


def pending(run: Run, reason: str) -> Transition:
    """Return the new run as one that is admitted and to be started."""
    now = run.request.requested_at
    new = replace(run, since=now, admitted_at=now, **_to_be_started(now))
    change = Change(now, "", 0, "", RunStatus.PENDING, reason)
    return Transition(new, (StartRun(run.run_id),), (change,), header=True)


def waiting(new: Transition, limit: str, why: str) -> Transition:
    """Return the new run as one that waits in the queue, holds nothing and is not started: ``limit`` has no room."""
    run, (asked,) = new.run, new.changes
    until, reason = run.request.requested_at + WAIT_AT_MOST, _reason(why)
    # The sweep looks at the queue and not at each run in it, until the run's time is over.
    waits: dict[str, Any] = {
        "admitted_at": None,
        "global_slot": False,
        "waits_for": limit,
        "wake_at": until,
        "expires_at": until,
    }
    return replace(
        new,
        run=replace(run, reason=reason, **waits),
        commands=(MoveInQueue(run.run_id, "", limit),),
        changes=(replace(asked, reason=f"{asked.reason}; {reason}"),),
    )


def on_admitted(draft: Draft, event: RunAdmitted) -> None:
    """Start a run that has waited."""
    run, now = draft.run, draft.now
    if not run.waits_for:
        return
    seconds = round((now - run.request.requested_at).total_seconds())
    draft.log("", 0, run.status, run.status, f"admitted after {seconds} s")
    fields: dict[str, Any] = {"waits_for": "", "admitted_at": now, "since": now, "global_slot": event.global_slot}
    draft.set_run(**fields, **_to_be_started(now))
    draft.send(MoveInQueue(run.run_id, run.waits_for, ""))
    draft.send(StartRun(run.run_id))


def on_kept_waiting(draft: Draft, event: RunKeptWaiting) -> None:
    """Say what a run waits for by now; nothing is written while it is the same."""
    run = draft.run
    if run.waits_for in ("", event.limit):
        return
    reason = _reason(event.why)
    draft.log("", 0, run.status, run.status, reason)
    draft.set_run(waits_for=event.limit, reason=reason)
    draft.send(MoveInQueue(run.run_id, run.waits_for, event.limit))


def waited_too_long(run: Run) -> str:
    """Return the error of a run that got no slot in its time."""
    return f"no slot within {WAIT_AT_MOST // timedelta(hours=1)} h (it {run.reason}): request it again"


def settle_money(draft: Draft, jobs: JobsCost | None) -> None:
    """Count what an admitted run has cost, once. What is known by half takes nothing off the estimate."""
    run = draft.run
    if run.estimate is None or run.admitted_at is None:
        return
    complete = jobs is not None and jobs.complete
    cost = run.estimate.calls_usd + (jobs.usd if jobs else 0)
    said = "as its jobs cost"
    if not complete:
        cost, said = max(cost, run.estimate.usd), "not all that its jobs cost is known, so it is not less"
    draft.log("", 0, run.status, run.status, f"{cost:f} USD; {run.estimate.usd:f} were estimated: {said}")
    draft.set_run(cost_usd=cost)
    draft.send(SettleMoney(run.run_id, run.estimate.usd, cost, complete))


def _to_be_started(now: datetime) -> dict[str, Any]:
    return {
        "reason": "waits for the start function",
        "wake_at": now + RESEND_AFTER,
        "expires_at": now + START_WITHIN,
    }


def _reason(why: str) -> str:
    return f"waits for a slot: {why}"
