"""The state machine of runs and steps. Nothing else changes a run.

Theory of operation
===================

Rule 1: everything that decides how a run or a step changes is in this file. For the order of
steps it queries ``graph.py``, which changes nothing.

``apply(run, event, now)`` returns a ``Transition``: the run after the event, what has to be done about it
(commands), and what is logged. It is pure: no clock, no I/O, no randomness, so the same run, event and time always give
the same transition, and a seed replays a simulated year.

Rule 2: an event that no longer applies to the run changes nothing. Pub/Sub repeats, delays and reorders
messages, and processes die anywhere, so this is the normal case and no error. ``RUN_ACCEPTS`` and ``STEP_ACCEPTS`` say
which events a status accepts at all; a handler then compares the attempt.

Rule 3: a status changes only along ``RUN_MOVES`` and ``STEP_MOVES``. Any other move is a bug here and raises.

Rule 4: whatever is open has a time at which the sweep acts on it (``lease_until``, ``resend_at``, ``wake_at``,
``expires_at``; the limits are just below). So no lost message and no dead process can leave a run between two states.

Rule 5: what a person decides about work under way takes effect when that work has ended, and its slot is free only
then. A cancelled run is ``cancelling``, its steps at work (and a skipped one) are ``stopping``, until their attempts
report how they ended. If a commit came first, its receipt stays: no record calls a step cancelled whose rows are in.

The run may be loaded in part: an attempt's event needs its step (of an item also its map), nothing else. Whether steps
that were not loaded have ended is left to the store (``Transition.ready_checks``). ``StepsEnded``, ``Swept``,
``OwnerLost``, ``MessageDied`` and what people request need the whole run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import replace
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any, assert_never

from common.domain import graph
from common.domain.graph import RUN_END
from common.domain.messages import (
    AnnounceRunFinished,
    AttemptClaimed,
    AttemptFailed,
    AttemptStopped,
    AttemptSucceeded,
    AttemptSuspended,
    CancelRequested,
    Command,
    DispatchStep,
    Event,
    JobsCost,
    MessageDied,
    MoveInQueue,
    OwnerLost,
    PreviewSettled,
    RunAdmitted,
    RunAnnounced,
    RunKeptWaiting,
    RunRejected,
    RunValidated,
    SettleMoney,
    SettleReservation,
    SkipRequested,
    StartRun,
    StepsEnded,
    Swept,
)
from common.domain.model import (
    ErrorKind,
    Pipeline,
    Receipt,
    Run,
    RunRequest,
    RunStatus,
    Step,
    StepSpec,
    StepStatus,
)
from common.domain.retry import longest_rests_seconds, rest_seconds

# Time limits.

WAIT_AT_MOST = timedelta(hours=24)
"""A run that gets no slot for this long fails, and counts against no limit."""

LEASE_MARGIN = timedelta(seconds=60)
"""A lease outlives ``timeout_seconds`` by this much: an attempt that ends just in time still has to report it, and must
not find that its step went to another one."""

RESEND_AFTER = timedelta(seconds=120)
"""A message that led to nothing for this long is sent again: it may be lost, and a repeat is harmless. If it
were much shorter, every cold start would get a second message."""

LOOKS_LATER = 20
"""A suspended step is looked at no earlier than after another 1/20 of the time that it has waited: some 120 looks in a
day. Each look adds two changes to the step's record, and every 30 seconds they would fill it (1 MiB in Firestore)."""

RETRY_GRACE = timedelta(seconds=5)
"""How long after its due time a delayed message is left to the bus before the sweep sends it. A bus that can't delay
(Pub/Sub) leaves all of them to the sweep."""

START_WITHIN = timedelta(hours=1)
"""A run that was not validated within this time fails; otherwise it would hold its slot for ever."""

RUN_SLACK = timedelta(hours=6)
"""Time for waiting on messages, on top of what all steps of a run may take one after another."""

# Which status may follow which. docs/states.md draws these tables (`make docs`); a test fails when it is stale.

RUN_MOVES: Mapping[RunStatus, frozenset[RunStatus]] = {
    RunStatus.PENDING: frozenset({RunStatus.VALIDATING, RunStatus.FAILED, RunStatus.CANCELLED}),
    RunStatus.VALIDATING: frozenset({RunStatus.RUNNING, RunStatus.FAILED}),
    RunStatus.RUNNING: frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLING, RunStatus.CANCELLED}),
    RunStatus.CANCELLING: frozenset({RunStatus.CANCELLED}),
    RunStatus.COMPLETED: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
}

STEP_MOVES: Mapping[StepStatus, frozenset[StepStatus]] = {
    StepStatus.WAITING: frozenset(
        {
            StepStatus.QUEUED,
            StepStatus.RUNNING,  # a map: its items are at work
            StepStatus.FAILED,  # its condition, or its map's list, can't be used
            StepStatus.SKIPPED,
            StepStatus.OMITTED,
            StepStatus.CANCELLED,
        }
    ),
    StepStatus.QUEUED: frozenset({StepStatus.RUNNING, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED}),
    StepStatus.RUNNING: frozenset(
        {
            StepStatus.SUCCEEDED,
            StepStatus.FAILED,
            StepStatus.RETRYING,
            StepStatus.SUSPENDED,
            StepStatus.STOPPING,
            StepStatus.CANCELLED,
        }
    ),
    StepStatus.STOPPING: frozenset({StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.CANCELLED}),
    StepStatus.RETRYING: frozenset({StepStatus.RUNNING, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED}),
    StepStatus.SUSPENDED: frozenset({StepStatus.RUNNING, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED}),
    StepStatus.SUCCEEDED: frozenset(),
    StepStatus.FAILED: frozenset(),
    StepStatus.SKIPPED: frozenset(),
    StepStatus.OMITTED: frozenset(),
    StepStatus.CANCELLED: frozenset(),
}

# Which events a status accepts; any other event changes nothing.

_OPEN = frozenset({RunStatus.PENDING, RunStatus.VALIDATING, RunStatus.RUNNING, RunStatus.CANCELLING})
_AT_WORK = frozenset({RunStatus.RUNNING, RunStatus.CANCELLING})
_ENDED = frozenset(RunStatus) - _OPEN

RUN_ACCEPTS: Mapping[type[Event], frozenset[RunStatus]] = {
    RunAdmitted: frozenset({RunStatus.PENDING}),
    RunKeptWaiting: frozenset({RunStatus.PENDING}),
    RunValidated: frozenset({RunStatus.PENDING}),
    RunRejected: frozenset({RunStatus.PENDING}),
    AttemptClaimed: frozenset({RunStatus.RUNNING}),
    AttemptSuspended: _AT_WORK,
    AttemptSucceeded: _AT_WORK,
    AttemptFailed: _AT_WORK,
    AttemptStopped: _AT_WORK,
    StepsEnded: _AT_WORK,
    OwnerLost: _AT_WORK,
    SkipRequested: frozenset({RunStatus.RUNNING}),
    CancelRequested: _OPEN - {RunStatus.CANCELLING},
    Swept: _OPEN | _ENDED,  # of an ended run: its end has not been announced yet
    MessageDied: _OPEN | _ENDED,
    RunAnnounced: _ENDED,
    PreviewSettled: _ENDED,
}

STEP_ACCEPTS: Mapping[type[Event], frozenset[StepStatus]] = {
    AttemptClaimed: frozenset({StepStatus.QUEUED, StepStatus.RETRYING, StepStatus.SUSPENDED}),
    AttemptSuspended: frozenset({StepStatus.RUNNING, StepStatus.STOPPING}),
    AttemptSucceeded: frozenset({StepStatus.RUNNING, StepStatus.STOPPING}),
    AttemptFailed: frozenset({StepStatus.RUNNING, StepStatus.STOPPING}),
    AttemptStopped: frozenset({StepStatus.STOPPING}),
    OwnerLost: frozenset({StepStatus.RUNNING, StepStatus.STOPPING}),
    SkipRequested: frozenset({StepStatus.QUEUED, StepStatus.RUNNING, StepStatus.RETRYING, StepStatus.SUSPENDED}),
    MessageDied: frozenset(
        {StepStatus.QUEUED, StepStatus.RUNNING, StepStatus.RETRYING, StepStatus.SUSPENDED, StepStatus.STOPPING}
    ),
}


_NOT_AT_WORK: Mapping[str, Any] = {
    "owner": "",
    "not_before": None,
    "waits_on": "",
    "give_up_at": None,
    "staged": None,
}
"""Fields of a step whose attempt is over."""


class IllegalMoveError(RuntimeError):
    """A handler moved a run or step along no row of its table: a bug in this file, never a caller's fault."""


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
class ReadyCheck:
    """``target`` may start or end once all of ``needs`` have ended, which the loaded part of the run can't show."""

    target: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transition:
    """The run after an event, its commands, and the changes to log.

    ``touched`` names the steps whose record changes, ``header`` whether the run's own does: the store writes those
    and compares their versions, and no others.
    """

    run: Run
    commands: tuple[Command, ...] = ()
    changes: tuple[Change, ...] = ()
    touched: tuple[str, ...] = ()
    header: bool = False
    ready_checks: tuple[ReadyCheck, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether there is anything to store."""
        return self.header or bool(self.touched)


class Draft:
    """One transition of ``run`` at ``now`` in the making. Mutable, and never outlives the call that made it."""

    def __init__(self, run: Run, now: datetime) -> None:
        self._steps = dict(run.steps)
        self.run = replace(run, steps=self._steps)
        self.now = now
        self._commands: list[Command] = []
        self._changes: list[Change] = []
        self._touched: dict[str, None] = {}
        self._ready_checks: list[ReadyCheck] = []
        self._header = False

    def done(self) -> Transition:
        """Return the finished transition."""
        return Transition(
            self.run,
            tuple(self._commands),
            tuple(self._changes),
            tuple(self._touched),
            self._header,
            tuple(self._ready_checks),
        )

    def fill(self) -> None:
        """Assume that steps which were not loaded have not begun."""
        for spec in self.run.specs:
            self._steps.setdefault(spec.step_id, graph.unstarted(self.run, spec))

    def each(self) -> Iterator[Step]:
        """Yield every loaded step, each in its current state: handling one may have ended others."""
        return (self._steps[step_id] for step_id in list(self._steps))

    def move_run(self, status: RunStatus, reason: str, **fields: Any) -> None:
        """Move the run to a status."""
        if status not in RUN_MOVES[self.run.status]:
            raise IllegalMoveError(f"run {self.run.run_id}: {self.run.status} -> {status} is in no row of RUN_MOVES")
        self.log("", 0, self.run.status, status, reason)
        self.set_run(status=status, reason=reason, since=self.now, **fields)

    def set_run(self, **fields: Any) -> None:
        """Change fields of the run without a logged transition."""
        self.run = replace(self.run, **fields)
        self._header = True

    def move(
        self,
        step: Step,
        status: StepStatus,
        reason: str,
        *,
        lease_until: datetime | None = None,
        resend_at: datetime | None = None,
        **fields: Any,
    ) -> Step:
        """Move a step to a status; its other fields are those of ``step`` and ``fields``."""
        known = self._steps.get(step.step_id)
        before = known.status if known else StepStatus.WAITING
        if status not in STEP_MOVES[before]:
            raise IllegalMoveError(
                f"step {step.step_id} of {self.run.run_id}: {before} -> {status} is in no row of STEP_MOVES"
            )
        self.log(step.step_id, step.attempt, before, status, reason)
        fields |= {
            "status": status,
            "reason": reason,
            "since": self.now,
            "lease_until": lease_until,
            "resend_at": resend_at,
            "ended_at": self.now if status.is_terminal else None,
        }
        return self.put(replace(step, **fields))

    def put(self, step: Step) -> Step:
        """Store a step without a logged transition."""
        self._steps[step.step_id] = step
        self._touched[step.step_id] = None
        return step

    def log(self, step_id: str, attempt: int, before: str, after: str, reason: str) -> None:
        """Log a change."""
        self._changes.append(Change(self.now, step_id, attempt, before, after, reason))

    def note(self, change: Change) -> None:
        """Log a change that happened at another time."""
        self._changes.append(change)

    def send(self, command: Command) -> None:
        """Add a command."""
        self._commands.append(command)

    def end(self, step: Step, status: StepStatus, reason: str, **fields: Any) -> None:
        """End a step, and settle the steps that waited for it."""
        self.move(step, status, reason, **_NOT_AT_WORK, **fields)
        if self.run.status is RunStatus.CANCELLING:
            self.settle((RUN_END,))  # nothing else starts any more
        else:
            self.settle(graph.unlocked_by(self.run, step.step_id))

    def settle(self, targets: Iterable[str]) -> None:
        """Start, skip, omit or end each of these, if what it waited for has ended."""
        for target in targets:
            if self.run.status.is_terminal:
                return
            step = self._steps.get(target)
            if target == RUN_END:
                self._try_end_run()
            elif step is None or (step.version == 0 and not step.status.is_terminal and target not in self._touched):
                self._start(target)
            elif step.status is StepStatus.RUNNING and step.spec.map is not None:
                self._try_end_map(step)

    def _start(self, step_id: str) -> None:
        spec = graph.spec_of(self.run, step_id)
        if spec is None:
            return
        verdict = graph.verdict(self.run, step_id)
        step = Step(spec, since=self.now)
        match verdict.kind:
            case "queue":
                self.send(DispatchStep(graph.queued(step, self.now)))
            case "unknown":
                base = graph.map_of(step_id)
                self._ready_checks.append(ReadyCheck(step_id, verdict.unknown if base else spec.depends_on))
            case "omit":
                self.end(step, StepStatus.OMITTED, verdict.reason)
            case "skip":
                self.end(step, StepStatus.SKIPPED, verdict.reason)
            case "fail":
                self.end(step, StepStatus.FAILED, verdict.reason, error=verdict.reason)
            case "expand":
                self._expand(replace(step, items=verdict.items, started_at=self.now, attempt=1), verdict.reason)

    def _expand(self, step: Step, reason: str) -> None:
        assert step.spec.map is not None
        self.move(step, StepStatus.RUNNING, reason)
        if not step.items:
            self.end(self._steps[step.step_id], StepStatus.SUCCEEDED, "no items")
            return
        first = min(step.spec.map.max_parallel, len(step.items))
        self.settle(graph.item_id(step.step_id, index) for index in range(first))

    def _try_end_map(self, step: Step) -> None:
        items = tuple(graph.item_ids(step))
        is_open, unknown = graph.not_ended(self.run, items)
        if is_open:
            return
        if unknown:
            self._ready_checks.append(ReadyCheck(step.step_id, items))
            return
        ended = [self._steps[name] for name in items]
        failed = [s for s in ended if not s.is_done]
        rows = sum(s.receipt.rows for s in ended)
        receipt = Receipt(rows=rows, table=next((s.receipt.table for s in ended if s.receipt.table), ""))
        if failed:
            error = f"{len(failed)} of {len(ended)} items failed, the first: {failed[0].step_id}: {failed[0].error}"
            self.end(step, StepStatus.FAILED, error, error=error, receipt=receipt)
        else:
            self.end(step, StepStatus.SUCCEEDED, f"{len(ended)} items, {rows} rows", receipt=receipt)

    def cancel_run(self, reason: str) -> None:
        """Cancel what is not at work, and have the rest stop; the run ends once that has ended.

        Its slot stays taken until then: a new run would otherwise work beside one that still does.
        """
        for step in self.each():
            if _is_at_work(step):
                self.stop(step, reason)
        stopping = [step.step_id for step in self.each() if step.status is StepStatus.STOPPING]
        if not stopping:
            self.end_run(RunStatus.CANCELLED, reason, error=reason)
            return
        self._cancel_open(reason)
        self.move_run(RunStatus.CANCELLING, f"{reason}; waits for {_some(stopping)} to stop", error=reason)

    def stop(self, step: Step, reason: str) -> None:
        """Take a step from its attempt, which notices by the record's version; its lease bounds the wait."""
        self.move(step, StepStatus.STOPPING, reason, lease_until=step.lease_until, error=reason)

    def stopped(self, step: Step) -> None:
        """End a stopping step as was decided: its attempt committed nothing."""
        decided = StepStatus.CANCELLED if self.run.status is RunStatus.CANCELLING else StepStatus.SKIPPED
        self.end(step, decided, step.error, error="")

    def _try_end_cancelled(self) -> None:
        if not self._is_whole():
            self._ready_checks.append(ReadyCheck(RUN_END, ()))
            return
        if any(step.status is StepStatus.STOPPING for step in self.each()):
            return
        run = self.run
        since = run.since or self.now
        ended = (s for s in self.each() if s.status is StepStatus.SUCCEEDED and s.ended_at and s.ended_at >= since)
        first = [s.step_id for s in ended if s.receipt.ingested_at]
        kept = f"; {_some(first)} had committed before, and those rows stay" if first else ""
        self.end_run(RunStatus.CANCELLED, f"{run.error}{kept}", error=f"{run.error}{kept}")

    def _is_whole(self) -> bool:
        """Whether every step of the run is loaded, items included."""
        maps = (step for step in self.each() if step.items)
        names = (*(spec.step_id for spec in self.run.specs), *(name for step in maps for name in graph.item_ids(step)))
        return all(name in self._steps for name in names)

    def _try_end_run(self) -> None:
        if self.run.status is RunStatus.CANCELLING:
            self._try_end_cancelled()
            return
        last = graph.sinks(self.run)
        is_open, unknown = graph.not_ended(self.run, last)
        if is_open:
            return
        if unknown or not self._sees_how_it_went(last):
            self._ready_checks.append(ReadyCheck(RUN_END, last))
            return
        failed = [s for s in self._steps.values() if s.status is StepStatus.FAILED and not s.is_tolerated]
        # An item's failure is its map's, which may be tolerated.
        failed = [s for s in failed if graph.map_of(s.step_id) is None]
        if failed:
            error = "; ".join(f"{s.step_id}: {s.error}" for s in failed)
            self.end_run(RunStatus.FAILED, error, error=error)
        else:
            self.end_run(RunStatus.COMPLETED, "every step succeeded")

    def _sees_how_it_went(self, last: tuple[str, ...]) -> bool:
        """Whether the loaded steps tell how the run went: all of them do, or the only last one succeeded.

        A step starts only if all before it are done, so such a success speaks for every step; not so a clean-up
        step's, which runs after failures too.
        """
        if all(spec.step_id in self._steps for spec in self.run.specs):
            return True
        only = self._steps[last[0]]
        return len(last) == 1 and only.status is StepStatus.SUCCEEDED and not any(s.always for s in self.run.specs)

    def end_run(self, status: RunStatus, reason: str, error: str = "") -> None:
        """End the run and its open steps, so that none of them can be claimed any more."""
        self._cancel_open(reason, stopping=True)
        # The sweep keeps looking at the run until its end is announced: that message may be lost like any other.
        wake_at = self.now + RESEND_AFTER
        waited_for = self.run.waits_for
        self.move_run(status, reason, error=error, ended_at=self.now, wake_at=wake_at, expires_at=None, waits_for="")
        if waited_for:  # it was never admitted, so there is no reservation to settle
            self.send(MoveInQueue(self.run.run_id, waited_for, ""))
        else:
            self.send(SettleReservation(self.run.run_id, status))
        self.send(AnnounceRunFinished(self.run.run_id))

    def _cancel_open(self, reason: str, *, stopping: bool = False) -> None:
        """Cancel the open steps; those that are ``stopping`` only if they are given up, too."""
        for step in self.each():
            if not step.status.is_terminal and (stopping or step.status is not StepStatus.STOPPING):
                self.move(step, StepStatus.CANCELLED, f"the run ended: {reason}", **_NOT_AT_WORK)


def create(request: RunRequest) -> Transition:
    """Return the new, pending run of a request."""
    return _pending(Run(request), f"requested by {request.trigger}")


def rerun(old: Run, request: RunRequest, only: str | None = None, *, who: str, why: str) -> Transition:
    """Return a new, pending run of an ended one, with its pinned pipeline; what has succeeded there is kept.

    ``only`` names the single step to run: the new run has it and what it depends on. Without it all that did not
    succeed is run, with what depends on it; a preview runs everything. What depends on a step that is run is run too.
    """
    specs = tuple(spec for spec in old.specs if only is None or spec.step_id in _before(old, only))
    again = {only} if only else {spec.step_id for spec in specs} if request.preview else _unfinished(old)
    kept: dict[str, Step] = {}
    for step in old.steps.values():
        base = graph.map_of(step.step_id)
        spec = graph.spec_of(old, base[0] if base else step.step_id)
        if spec is None or spec not in specs or spec.step_id in again:
            continue
        # A map is kept with all its items, failed ones too: an item without a record would be run again.
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
    new = _pending(run, f"{what} of {old.run_id} by {who}: {why}")
    return replace(new, touched=tuple(kept))


def _before(run: Run, step_id: str) -> set[str]:
    """Return the step and all that it depends on, directly or not."""
    before, size = {step_id}, 0
    while size != len(before):
        size = len(before)
        before |= {name for spec in run.specs if spec.step_id in before for name in spec.depends_on}
    return before


def _unfinished(old: Run) -> set[str]:
    """Return the steps that did not succeed, and all that depends on them."""
    again = {spec.step_id for spec in old.specs if not (step := old.steps[spec.step_id]).is_done or step.is_tolerated}
    size = -1
    while size != len(again):
        size = len(again)
        again |= {spec.step_id for spec in old.specs if again.intersection(spec.depends_on)}
    return again


def apply(run: Run, event: Event, now: datetime) -> Transition:
    """Return what the event makes of the run at ``now``; a transition without writes if the run does not accept it."""
    draft = Draft(run, now)
    if run.status in RUN_ACCEPTS[type(event)]:
        _handle(draft, event)
    return draft.done()


def _handle(draft: Draft, event: Event) -> None:  # noqa: C901 - one line per event is what makes it readable
    match event:
        case AttemptClaimed():
            _on_claimed(draft, event)
        case AttemptSucceeded():
            _on_succeeded(draft, event)
        case AttemptFailed():
            _on_failed(draft, event)
        case AttemptSuspended():
            _on_suspended(draft, event)
        case AttemptStopped():
            _on_stopped(draft, event)
        case StepsEnded():
            draft.settle(event.targets)
        case RunValidated():
            _on_validated(draft, event)
        case RunRejected():
            _on_rejected(draft, event)
        case RunAdmitted():
            _on_admitted(draft, event)
        case RunKeptWaiting():
            _on_kept_waiting(draft, event)
        case RunAnnounced():
            _on_announced(draft, event.jobs)
        case Swept():
            _on_swept(draft)
        case OwnerLost():
            _on_owner_lost(draft, event)
        case MessageDied():
            _on_message_died(draft, event)
        case CancelRequested():
            _on_cancel(draft, event)
        case SkipRequested():
            _on_skip(draft, event)
        case PreviewSettled():
            _on_preview_settled(draft, event)
        case _:
            assert_never(event)


def _on_validated(draft: Draft, event: RunValidated) -> None:
    if draft.run.waits_for:
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
    if not draft.run.waits_for:
        draft.move_run(RunStatus.VALIDATING, "its config is read and checked")
        draft.end_run(RunStatus.FAILED, event.error, error=event.error)


def _on_claimed(draft: Draft, event: AttemptClaimed) -> None:
    step, now = _in_flight(draft, event), draft.now
    if step is None or (step.not_before and now < step.not_before):
        return
    if step.version == 0:
        # A queued step has no record, only a message: its change is logged with the first claim.
        queued = Change(step.since or now, step.step_id, 1, StepStatus.WAITING, StepStatus.QUEUED, step.reason)
        draft.note(queued)
    lease = now + timedelta(seconds=step.spec.timeout_seconds) + LEASE_MARGIN
    # The warehouse refuses a commit whose fence is lower than one it has seen, so this attempt's must be the highest,
    # even if a clock went back.
    fence = max(step.fence + 1, int(now.timestamp() * 1_000_000))
    fields: dict[str, Any] = {
        "owner": event.owner,
        "fence": fence,
        "started_at": step.started_at or now,
        "not_before": None,
    }
    draft.move(step, StepStatus.RUNNING, f"attempt {step.attempt} is at work", lease_until=lease, **fields)


def _on_suspended(draft: Draft, event: AttemptSuspended) -> None:
    step = _in_flight(draft, event)
    if step is None:
        return
    if step.status is StepStatus.STOPPING:
        draft.stopped(step)
        return
    _suspend(draft, step, event)


def _suspend(draft: Draft, step: Step, event: AttemptSuspended) -> None:
    """Have the same attempt go on later. Waiting is not work: it has a limit of its own and uses up no attempt."""
    now = draft.now
    give_up_at = step.give_up_at or now + timedelta(seconds=step.spec.max_wait_seconds)
    if now >= give_up_at:
        within = f"within max_wait_seconds ({step.spec.max_wait_seconds} s)"
        error = f"job {event.job} was not done {within}" if event.job else f"not over {within}: {event.reason}"
        _fail_attempt(draft, step, AttemptFailed(step.step_id, step.attempt, error, ErrorKind.TIMEOUT))
        return
    waited = now - (give_up_at - timedelta(seconds=step.spec.max_wait_seconds))
    # Not after give_up_at: a job that hangs would keep the step longer than max_wait_seconds.
    look_at = max(now, min(max(event.look_at, now + waited / LOOKS_LATER), give_up_at))
    _let_live_until(draft, give_up_at)
    fields: dict[str, Any] = {"waits_on": event.job, "give_up_at": give_up_at, "staged": event.staged}
    waiting = replace(step, owner="", not_before=look_at, **fields)
    reason = f"waits for job {event.job}" if event.job else event.reason
    moved = draft.move(waiting, StepStatus.SUSPENDED, reason, resend_at=look_at + RETRY_GRACE)
    draft.send(DispatchStep(moved))


def _on_succeeded(draft: Draft, event: AttemptSucceeded) -> None:
    step = _in_flight(draft, event)
    if step is not None:
        late = f"; it had ended before it was {step.error}" if step.status is StepStatus.STOPPING else ""
        draft.end(step, StepStatus.SUCCEEDED, f"{event.receipt.rows} rows{late}", receipt=event.receipt, error="")


def _on_stopped(draft: Draft, event: AttemptStopped) -> None:
    step = _in_flight(draft, event)
    if step is not None:
        draft.stopped(step)


def _on_failed(draft: Draft, event: AttemptFailed) -> None:
    step = _in_flight(draft, event)
    if step is not None:
        _fail_attempt(draft, step, event)


def _on_owner_lost(draft: Draft, event: OwnerLost) -> None:
    for step in draft.each():
        if step.status in STEP_ACCEPTS[OwnerLost] and step.owner == event.owner:
            error = "the process that ran it ended"
            _fail_attempt(draft, step, AttemptFailed(step.step_id, step.attempt, error, ErrorKind.LOST))


def _on_message_died(draft: Draft, event: MessageDied) -> None:
    if draft.run.status.is_terminal:
        if not event.step_id:
            # The announcement itself could not be delivered. The dead letter is kept for people to look at; sending
            # the same message again would only make more of them.
            _on_announced(draft, None)
        return
    if not event.step_id:
        if draft.run.status is RunStatus.PENDING:
            draft.end_run(RunStatus.FAILED, event.error, error=event.error)
        return
    step = _in_flight(draft, event)
    if step and step.status is StepStatus.STOPPING:
        draft.stopped(step)
    elif step and step.spec.map is None:
        draft.end(step, StepStatus.FAILED, event.error, error=event.error)


def _on_cancel(draft: Draft, event: CancelRequested) -> None:
    draft.cancel_run(f"cancelled by {event.who}: {event.why}")


def _on_preview_settled(draft: Draft, event: PreviewSettled) -> None:
    run = draft.run
    if not run.request.preview or run.preview_end is not None:
        return
    draft.log("", 0, run.status, run.status, f"{event.end} by {event.who}: {event.why}")
    draft.set_run(preview_end=event.end)
    for step_id, receipt in event.receipts.items():
        draft.put(replace(run.steps[step_id], receipt=receipt))


def _on_skip(draft: Draft, event: SkipRequested) -> None:
    step = draft.run.step(event.step_id)
    if step is None or step.status not in STEP_ACCEPTS[SkipRequested] or step.items:
        return
    reason = f"skipped by {event.who}: {event.why}"
    if _is_at_work(step):
        draft.stop(step, reason)
    else:
        draft.end(step, StepStatus.SKIPPED, reason)


def _on_announced(draft: Draft, jobs: JobsCost | None) -> None:
    """Take an ended run off the sweep, and count its cost. Once: ``wake_at`` shows that this is still to be done."""
    if draft.run.wake_at is not None:
        draft.set_run(wake_at=None)
        _settle_money(draft, jobs)


def _on_swept(draft: Draft) -> None:
    run, now = draft.run, draft.now
    if run.status.is_terminal:
        if run.wake_at is not None and now >= run.wake_at:  # nobody has confirmed the announcement
            draft.set_run(wake_at=now + RESEND_AFTER)
            draft.send(AnnounceRunFinished(run.run_id))
        return
    if run.expires_at and now >= run.expires_at:
        error = f"not finished within its time (it was {run.status}: {_open_reason(run)})"
        if run.waits_for:
            error = _waited_too_long(run)
        if run.status is RunStatus.CANCELLING:
            draft.end_run(RunStatus.CANCELLED, run.error, error=run.error)
        else:
            draft.end_run(RunStatus.FAILED, error, error=error)
    elif run.status is RunStatus.PENDING:
        if run.wake_at and now >= run.wake_at:
            draft.log("", 0, run.status, run.status, "start sent again")
            draft.set_run(wake_at=now + RESEND_AFTER)
            draft.send(StartRun(run.run_id))
    else:
        _sweep_steps(draft)


def _sweep_steps(draft: Draft) -> None:
    """Do what is overdue; then start what was not started, because a process died after ending the step before."""
    now = draft.now
    for step in draft.each():
        if step.due_at and now >= step.due_at and not step.status.is_terminal:
            _sweep_step(draft, step)
    for step in draft.each():
        # The message of a queued step was sent when its turn came, and counts as lost after RESEND_AFTER only.
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
    if step.status is StepStatus.STOPPING:  # whoever had it is gone, and commits nothing after its lease
        draft.stopped(step)
        return
    if step.status is StepStatus.RUNNING:
        error = f"no result within timeout_seconds ({step.spec.timeout_seconds} s) and its margin"
        _fail_attempt(draft, step, AttemptFailed(step.step_id, step.attempt, error, ErrorKind.LOST))
        return
    draft.log(step.step_id, step.attempt, step.status, step.status, "attempt sent again")
    draft.send(DispatchStep(draft.put(replace(step, resend_at=draft.now + RESEND_AFTER))))


def _in_flight(
    draft: Draft,
    event: AttemptClaimed | AttemptSuspended | AttemptSucceeded | AttemptFailed | AttemptStopped | MessageDied,
) -> Step | None:
    """Return the event's step if it is at that attempt and accepts the event.

    This is the core's fence: the late result of an attempt that was given up changes nothing.
    """
    step = draft.run.step(event.step_id)
    if step is None or step.attempt != event.attempt or step.status not in STEP_ACCEPTS[type(event)]:
        return None
    return step


def _fail_attempt(draft: Draft, step: Step, event: AttemptFailed) -> None:
    """Queue the next attempt, or end the step when none is left or none would help."""
    if step.status is StepStatus.STOPPING:
        draft.stopped(step)
        return
    policy = step.spec.retry
    is_retried = event.kind is not None and (not policy.retry_on or event.kind in policy.retry_on)
    if is_retried and event.kind is ErrorKind.RATE_LIMIT and event.retry_after_s > 0:
        # The other side named a time: that is a wait, not a failure.
        look_at = draft.now + timedelta(seconds=event.retry_after_s)
        _suspend(draft, step, AttemptSuspended(step.step_id, step.attempt, "", look_at, event.error))
        return
    if not is_retried or step.attempt >= policy.max_attempts:
        draft.end(step, StepStatus.FAILED, event.error, error=event.error)
        return
    name = f"{draft.run.run_id} {step.step_id}"
    wait_s = rest_seconds(policy, step.attempt, asked_s=event.retry_after_s, name=name)
    not_before = draft.now + timedelta(seconds=wait_s)
    _let_live_until(draft, not_before)
    retry = replace(
        step,
        attempt=step.attempt + 1,
        error=event.error,
        **{**_NOT_AT_WORK, "not_before": not_before},
    )
    reason = f"attempt {step.attempt} of {policy.max_attempts} failed: {event.error}"
    draft.send(DispatchStep(draft.move(retry, StepStatus.RETRYING, reason, resend_at=not_before + RETRY_GRACE)))


def _let_live_until(draft: Draft, at: datetime) -> None:
    """Extend the run's expiry, if it is too close to a wait that others requested (Retry-After, a job)."""
    if draft.run.expires_at and at + RUN_SLACK > draft.run.expires_at:
        draft.set_run(expires_at=at + RUN_SLACK)


def _is_at_work(step: Step) -> bool:
    """Whether an attempt has the step. A map's own record has no attempt, only its items have."""
    return step.status is StepStatus.RUNNING and step.spec.map is None


def _some(names: Sequence[str]) -> str:
    """Return the names, the first few of many."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _open_reason(run: Run) -> str:
    waiting = [f"{s.step_id} {s.status}" for s in run.steps.values() if not s.status.is_terminal]
    return ", ".join(waiting[:20]) or run.reason


def _longest(pipeline: Pipeline) -> timedelta:
    """Return the time that the steps may take one after another, if each fails until its last attempt."""
    return timedelta(seconds=sum(_longest_step(spec) for spec in pipeline.steps))


def _longest_step(spec: StepSpec) -> float:
    attempts = spec.retry.max_attempts * (spec.timeout_seconds + LEASE_MARGIN.total_seconds())
    # The number of items is not known yet, so the longest map is assumed.
    rounds = ceil(graph.MAX_ITEMS / spec.map.max_parallel) if spec.map else 1
    return rounds * (attempts + longest_rests_seconds(spec.retry))


def _pending(run: Run, reason: str) -> Transition:
    """Return the new run as admitted and about to be started."""
    now = run.request.requested_at
    new = replace(run, since=now, admitted_at=now, **_to_be_started(now))
    change = Change(now, "", 0, "", RunStatus.PENDING, reason)
    return Transition(new, (StartRun(run.run_id),), (change,), header=True)


def waiting(new: Transition, limit: str, why: str) -> Transition:
    """Return the new run as waiting in the queue for ``limit``, without quota and not started."""
    run, (requested,) = new.run, new.changes
    until, reason = run.request.requested_at + WAIT_AT_MOST, _reason(why)
    # The sweep reads the queue, not every run in it, until the run's time is over.
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
        changes=(replace(requested, reason=f"{requested.reason}; {reason}"),),
    )


def _on_admitted(draft: Draft, event: RunAdmitted) -> None:
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


def _on_kept_waiting(draft: Draft, event: RunKeptWaiting) -> None:
    """Record which limit a run waits for now; nothing is written while it is the same."""
    run = draft.run
    if run.waits_for in ("", event.limit):
        return
    reason = _reason(event.why)
    draft.log("", 0, run.status, run.status, reason)
    draft.set_run(waits_for=event.limit, reason=reason)
    draft.send(MoveInQueue(run.run_id, run.waits_for, event.limit))


def _waited_too_long(run: Run) -> str:
    """Return the error of a run that got no slot in its time."""
    return f"no slot within {WAIT_AT_MOST // timedelta(hours=1)} h (it {run.reason}): request it again"


def _settle_money(draft: Draft, jobs: JobsCost | None) -> None:
    """Count the cost of an admitted run, once. An incomplete cost never lowers the estimate."""
    run = draft.run
    if run.estimate is None or run.admitted_at is None:
        return
    complete = jobs is not None and jobs.complete
    cost = run.estimate.calls_usd + (jobs.usd if jobs else 0)
    basis = "as its jobs cost"
    if not complete:
        cost, basis = max(cost, run.estimate.usd), "not all that its jobs cost is known, so it is not less"
    draft.log("", 0, run.status, run.status, f"{cost:f} USD; {run.estimate.usd:f} were estimated: {basis}")
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
