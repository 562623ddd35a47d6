"""A transition in the making: the run as it changes, with what is to be logged, sent and asked."""

from collections.abc import Iterable, Iterator
from copy import replace
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from common.domain import plan
from common.domain.commands import AnnounceRunFinished, Command, DispatchStep, MoveInQueue, SettleReservation
from common.domain.model import Receipt, Run, RunStatus, Step, StepStatus
from common.domain.plan import RUN_END

RESEND_AFTER = timedelta(seconds=120)
"""A message that led to nothing for this long is sent again: it may be lost, and a repeat is harmless."""

RETRY_GRACE = timedelta(seconds=5)
"""What a message has after its time before the sweep sends it. A bus that can't delay leaves all of them to it."""


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
class Ask:
    """``target`` may start or end if all of ``needs`` have ended, which the loaded part of the run can't tell."""

    target: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transition:
    """The run after an event, what it wants done, and what is to be logged.

    ``touched`` names the steps whose record changes, ``header`` whether the run's own does: the store writes those
    and compares their versions, no other.
    """

    run: Run
    commands: tuple[Command, ...] = ()
    changes: tuple[Change, ...] = ()
    touched: tuple[str, ...] = ()
    header: bool = False
    asks: tuple[Ask, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether there is anything to store."""
        return self.header or bool(self.touched)


class Draft:
    """Collects one transition of ``run`` at ``now``. Mutable, and never outlives the call that made it."""

    def __init__(self, run: Run, now: datetime) -> None:
        self._steps = dict(run.steps)
        self.run = replace(run, steps=self._steps)
        self.now = now
        self._commands: list[Command] = []
        self._changes: list[Change] = []
        self._touched: dict[str, None] = {}
        self._asks: list[Ask] = []
        self._header = False

    def done(self) -> Transition:
        """Return what was collected."""
        return Transition(
            self.run,
            tuple(self._commands),
            tuple(self._changes),
            tuple(self._touched),
            self._header,
            tuple(self._asks),
        )

    def fill(self) -> None:
        """Take it that steps which were not loaded have not begun."""
        for spec in self.run.specs:
            self._steps.setdefault(spec.step_id, plan.unstarted(self.run, spec))

    def each(self) -> Iterator[Step]:
        """Yield every loaded step as it is by then; what is done to one may end others."""
        return (self._steps[step_id] for step_id in list(self._steps))

    def move_run(self, status: RunStatus, reason: str, **fields: Any) -> None:
        """Give the run a new status."""
        self.log("", 0, self.run.status, status, reason)
        self.set_run(status=status, reason=reason, since=self.now, **fields)

    def set_run(self, **fields: Any) -> None:
        """Change fields of the run without a logged transition."""
        self.run = replace(self.run, **fields)
        self._header = True

    def move(
        self, step: Step, status: StepStatus, reason: str, deadline: datetime | None = None, **fields: Any
    ) -> Step:
        """Give a step a new status; its other fields are to be as ``step`` and ``fields`` say."""
        before = self._steps.get(step.step_id)
        self.log(step.step_id, step.attempt, before.status if before else StepStatus.WAITING, status, reason)
        ended = self.now if status.is_terminal else None
        fields |= {"status": status, "reason": reason, "since": self.now, "deadline": deadline, "ended_at": ended}
        return self.put(replace(step, **fields))

    def put(self, step: Step) -> Step:
        """Store a step without a logged transition."""
        self._steps[step.step_id] = step
        self._touched[step.step_id] = None
        return step

    def log(self, step_id: str, attempt: int, before: str, after: str, reason: str) -> None:
        """Note a change."""
        self._changes.append(Change(self.now, step_id, attempt, before, after, reason))

    def note(self, change: Change) -> None:
        """Note a change that happened at another time."""
        self._changes.append(change)

    def send(self, command: Command) -> None:
        """Want something done."""
        self._commands.append(command)

    def end(self, step: Step, status: StepStatus, reason: str, **fields: Any) -> None:
        """End a step, and settle what waited for it."""
        self.move(step, status, reason, owner="", not_before=None, waits_on="", give_up_at=None, **fields)
        self.settle(plan.unlocked_by(self.run, step.step_id))

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
        spec = plan.spec_of(self.run, step_id)
        if spec is None:
            return
        verdict = plan.verdict(self.run, step_id)
        step = Step(spec, since=self.now)
        match verdict.kind:
            case "queue":
                self.send(DispatchStep(plan.queued(step, self.now)))
            case "ask":
                base = plan.map_of(step_id)
                self._asks.append(Ask(step_id, verdict.unknown if base else spec.depends_on))
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
        self.settle(plan.item_id(step.step_id, index) for index in range(first))

    def _try_end_map(self, step: Step) -> None:
        items = tuple(plan.item_ids(step))
        is_open, unknown = plan.not_ended(self.run, items)
        if is_open:
            return
        if unknown:
            self._asks.append(Ask(step.step_id, items))
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

    def _try_end_run(self) -> None:
        last = plan.sinks(self.run)
        is_open, unknown = plan.not_ended(self.run, last)
        if is_open:
            return
        if unknown or not self._sees_how_it_went(last):
            self._asks.append(Ask(RUN_END, last))
            return
        failed = [s for s in self._steps.values() if s.status is StepStatus.FAILED and not s.is_tolerated]
        failed = [s for s in failed if plan.map_of(s.step_id) is None]
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
        """End the run and whatever of it is still open, so that no step of it can be claimed any more."""
        for step in list(self._steps.values()):
            if not step.status.is_terminal:
                fields: dict[str, Any] = {"owner": "", "not_before": None, "waits_on": "", "give_up_at": None}
                self.move(step, StepStatus.CANCELLED, f"the run ended: {reason}", **fields)
        # The sweep goes on to look at the run until its end is announced: that message may be lost like any other.
        wake_at = self.now + RESEND_AFTER
        waited_for = self.run.waits_for
        self.move_run(status, reason, error=error, ended_at=self.now, wake_at=wake_at, expires_at=None, waits_for="")
        if waited_for:
            self.send(MoveInQueue(self.run.run_id, waited_for, ""))
        else:
            self.send(SettleReservation(self.run.run_id, status))
        self.send(AnnounceRunFinished(self.run.run_id))
