"""The quota part of the run store on Firestore: what is held, counted and spent, and who waits.

``usage/{org_slug}`` holds all of an organisation. ``deployment/slots`` holds what all of them share, and is written
only where there is a limit for the whole deployment: every run then meets in it. Quota is taken by compare-and-set on
what was read; what gives it back or moves a queue is a blind merge in the batch of the run's own transition.

Queries need the automatic indexes of ``usage``'s fields ``waiting`` and ``turn``, and none of its other fields.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

from common.adapters.google.firestore_client import Firestore, standard_time, unchanged_since, version, where
from common.domain.messages import MoveInQueue, SettleMoney, SettleReservation
from common.domain.model import Run, RunStatus
from common.domain.queueing import Place, Queue, Waiting, heads, joining_turn, next_turn
from common.domain.quota import (
    RESERVATION_GRACE,
    Limits,
    Usage,
    day_of,
    exceeded,
    from_micro_usd,
    month_of,
    queue_full,
    to_micro_usd,
    wider,
)
from common.domain.state import Transition
from common.platform.errors import QuotaExceededError

KEPT_DAYS = 62
KEPT_MONTHS = 24

Fill = Callable[[Any], None]
"""Adds writes to a batch."""


@dataclass(frozen=True, slots=True)
class Slots:
    """What the whole deployment shares: until when each run holds a slot of it, and which runs wait for one."""

    reservations: Mapping[str, datetime]
    queue: Mapping[str, bool]

    @classmethod
    def read(cls, snapshot: Any | None) -> Self:
        """Return the slots of a document, or none."""
        data: dict[str, Any] = snapshot.to_dict() if snapshot is not None else {}
        return cls(data.get("reservations", {}), data.get("queue", {}))

    def admitting(self, run: Run) -> dict[str, Any]:
        """Return the document with this run's slot held, and without what is stale."""
        assert run.admitted_at is not None
        held = {run_id: until for run_id, until in self.reservations.items() if until > run.admitted_at}
        queue = {run_id: True for run_id in self.queue if run_id != run.run_id}
        return {"reservations": {**held, run.run_id: _until(run)}, "queue": queue, "waiting": len(queue)}


NO_SLOTS = Slots({}, {})


@dataclass(frozen=True, slots=True)
class Book:
    """An organisation's usage: admitted runs a day; admitted and ended runs and money a month, in millionths of a US
    dollar; the slots that are held; its queue and turn; what each pipeline's last run has cost."""

    days: Mapping[str, int]
    months: Mapping[str, Mapping[str, int]]
    reservations: Mapping[str, Mapping[str, Any]]
    queue: Mapping[str, Mapping[str, Any]]
    turn: int
    costs: Mapping[str, int]

    @classmethod
    def read(cls, snapshot: Any | None) -> Self:
        """Return the book of a document, or an empty one."""
        data: dict[str, Any] = snapshot.to_dict() if snapshot is not None else {}
        days, months, held, queue = (data.get(name, {}) for name in ("days", "months", "reservations", "queue"))
        return cls(days, months, held, queue, data.get("turn", 0), data.get("costs", {}))

    def usage(self, now: datetime, route: str = "", slots: Slots = NO_SLOTS) -> Usage:
        """Return what counts at ``now``; with ``route`` also what one of its runs is checked against."""
        month = self.months.get(month_of(now), {})
        live = [slot for slot in self.reservations.values() if slot["until"] > now]
        ended = (month.get(str(status), 0) for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED))
        completed, failed, cancelled = ended
        return Usage(
            self.days.get(day_of(now), 0),
            month.get("admitted", 0),
            len(live),
            completed,
            failed,
            cancelled,
            from_micro_usd(month.get("spent", 0)),
            from_micro_usd(month.get("reserved", 0)),
            len(self.queue),
            sum(slot["route"] == route for slot in live),
            sum(until > now for until in slots.reservations.values()),
            {
                "pipeline": self._ahead("pipeline", route),
                "concurrent": self._ahead("concurrent"),
                "global": len(slots.queue),
            },
        )

    def _ahead(self, scope: str, route: str = "") -> int:
        wide = wider(scope)
        return sum(one["waits_for"] in wide and route in ("", one["route"]) for one in self.queue.values())

    def admitting(self, run: Run) -> Self:
        """Return the book with this run counted and its slot held, and without what is stale or long past."""
        now = run.admitted_at
        assert now is not None
        day, month = day_of(now), month_of(now)
        counts = {"admitted": 0, "reserved": 0, **self.months.get(month, {})}
        counts["admitted"] += 1
        counts["reserved"] += to_micro_usd(run.estimate.usd) if run.estimate else 0
        held = {run_id: slot for run_id, slot in self.reservations.items() if slot["until"] > now}
        return replace(
            self,
            days=_latest({**self.days, day: self.days.get(day, 0) + 1}, KEPT_DAYS),
            months=_latest({**self.months, month: counts}, KEPT_MONTHS),
            reservations=held | _held(run),
            queue={run_id: one for run_id, one in self.queue.items() if run_id != run.run_id},
        )

    def counted(self) -> dict[str, Any]:
        """Return the fields that an admission changes."""
        return {"days": self.days, "months": self.months, "reservations": self.reservations}

    def queued(self) -> dict[str, Any]:
        """Return the fields that a queue changes."""
        return {"queue": self.queue, "waiting": len(self.queue), "turn": self.turn}

    def waiting(self) -> list[Waiting]:
        """Return the runs that wait."""
        return [
            Waiting(run_id, one["route"], one["waits_for"], one["backfill"], standard_time(one["since"]))
            for run_id, one in self.queue.items()
        ]


class FirestoreQuota:
    """Takes quota, gives it back, and tells who waits."""

    def __init__(self, firestore: Firestore) -> None:
        self._firestore = firestore
        self._local = threading.local()

    def hold(self, run: Run, limits: Limits, *, waited: bool) -> Fill:
        """Return the writes that take the run's quota: refused if it has changed by then. Raises QuotaExceededError."""
        now, own, shared = run.admitted_at, self._usage(run.request.org_slug), self._slots()
        assert now is not None
        found = self._firestore.get(own, *[shared] * (limits.global_concurrent is not None))
        book, slots = Book.read(found.get(own.path)), Slots.read(found.get(shared.path))
        cost, usage = run.estimate.usd if run.estimate else Decimal(0), book.usage(now, run.request.route, slots)
        hit = exceeded(limits, usage, now, cost_usd=cost, waited=waited)
        if hit is not None:
            raise QuotaExceededError(**hit._asdict())
        taken = book.admitting(run)
        fields = taken.counted()
        if waited:
            fields |= replace(taken, turn=next_turn(book.turn, limits.weight)).queued()

        def fill(batch: Any) -> None:
            _put(batch, own, found.get(own.path), fields)
            if limits.global_concurrent is not None:
                _put(batch, shared, found.get(shared.path), slots.admitting(run))

        return fill

    def enqueue(self, run: Run) -> Fill:
        """Return the writes that put the run in its queue: refused if that has changed by then.

        Raises QuotaExceededError if the queue is full.
        """
        request, own = run.request, self._usage(run.request.org_slug)
        stored = self._firestore.get(own).get(own.path)
        book = Book.read(stored)
        hit = queue_full(len(book.queue))
        if hit is not None:
            raise QuotaExceededError(**hit._asdict())
        turn = book.turn if book.queue else joining_turn(book.turn, *self._turns())
        entry = {
            "route": request.route,
            "waits_for": run.waits_for,
            "backfill": request.backfill,
            "since": request.requested_at,
        }
        fields = replace(book, queue={**book.queue, run.run_id: entry}, turn=turn).queued()

        def fill(batch: Any) -> None:
            _put(batch, own, stored, fields)
            if run.waits_for == "global":
                batch.set(self._slots(), _waits(run.run_id, 1), merge=True)

        return fill

    def _turns(self) -> tuple[list[int], list[int]]:
        """Return the turns of the organisations that wait, and the highest of all there are if none does."""
        waiting = self._firestore.query(self._who_waits().select(["turn"]))
        if waiting:
            return [one.get("turn") for one in waiting], []
        highest = self._firestore.collection("usage").order_by("turn", direction="DESCENDING").limit(1)
        return [], [one.get("turn") for one in self._firestore.query(highest.select(["turn"]))]

    def leave(self, batch: Any, run: Run, transition: Transition, limits: Limits) -> None:
        """Add what is left to write when a run is admitted that waited for a limit which is no more."""
        moves = [command for command in transition.commands if isinstance(command, MoveInQueue)]
        if limits.global_concurrent is None and any(move.before == "global" for move in moves):
            batch.set(self._slots(), _waits(run.run_id, -1), merge=True)

    def carry_out(self, batch: Any, transition: Transition) -> Callable[[Sequence[Any]], None]:
        """Add the blind writes that the transition commands; return what is to be told the batch's results."""
        run = transition.run
        own, shared = _merged(transition)
        asked: list[int] = []
        for reference, fields in ((self._usage(run.request.org_slug), own), (self._slots(), shared)):
            if fields:
                asked.append(len(batch))
                batch.set(reference, fields, merge=True)
        settles = any(isinstance(command, SettleReservation) for command in transition.commands)

        def told(results: Sequence[Any]) -> None:
            # The last of the transformed fields is ``waiting``, in order of their names: how many wait by then.
            nobody = settles and not any(results[index].transform_results[-1].integer_value for index in asked)
            self._local.nobody_after = run.run_id if nobody else ""

        return told

    def usage(self, org_slug: str, now: datetime) -> Usage:
        """Return what counts against the organisation's limits."""
        return self._book(org_slug).usage(now)

    def queues(self, ended: Run | None) -> Sequence[Queue]:
        """Return the queues that have runs in them. After an end that this thread has just stored, that often costs
        nothing: the answer to that write told how many wait."""
        nobody_after, self._local.nobody_after = getattr(self._local, "nobody_after", ""), ""
        if ended is not None and nobody_after == ended.run_id:
            return ()
        if ended is None or ended.global_slot:
            found = self._firestore.query(self._who_waits().select(["queue", "turn"]))
        else:
            found = list(self._firestore.get(self._usage(ended.request.org_slug)).values())
        books = ((one.id, Book.read(one)) for one in found)
        return [Queue(org, book.turn, heads(book.waiting())) for org, book in books if book.queue]

    def place(self, run: Run) -> Place | None:
        """Return where the run stands in its organisation's queue."""
        waiting = self._book(run.request.org_slug).waiting()
        mine = next((one.order for one in waiting if one.run_id == run.run_id), None)
        return None if mine is None else Place(1 + sum(one.order < mine for one in waiting), len(waiting))

    def last_cost(self, org_slug: str, route: str) -> Decimal | None:
        """Return what the pipeline's last run of known cost has cost."""
        micros = self._book(org_slug).costs.get(route)
        return None if micros is None else from_micro_usd(micros)

    def _book(self, org_slug: str) -> Book:
        reference = self._usage(org_slug)
        return Book.read(self._firestore.get(reference).get(reference.path))

    def _who_waits(self) -> Any:
        return where(self._firestore.collection("usage"), "waiting", ">", 0)

    def _usage(self, org_slug: str) -> Any:
        return self._firestore.document("usage", org_slug)

    def _slots(self) -> Any:
        return self._firestore.document("deployment", "slots")


def _merged(transition: Transition) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a transition changes in its organisation's document and in the deployment's."""
    run, own, shared = transition.run, dict[str, Any](), dict[str, Any]()
    for command in transition.commands:
        match command:
            case SettleReservation(run_id, outcome):
                freed = {"reservations": {run_id: _delete()}, "waiting": _plus(0)}
                own = {**freed, "months": {_month(run): {str(outcome): _plus(1)}}}
                shared = freed if run.global_slot else {}
            case SettleMoney(_, estimated, cost, known):
                sums = {"reserved": _plus(-to_micro_usd(estimated)), "spent": _plus(to_micro_usd(cost))}
                own = {"months": {_month(run): sums}}
                own |= {"costs": {run.request.route: to_micro_usd(cost)}} if known else {}
            case MoveInQueue(run_id, before, after):
                own = {"queue": {run_id: {"waits_for": after} if after else _delete()}}
                own |= {} if after else {"waiting": _plus(-1)}
                if "global" in (before, after):
                    shared = _waits(run_id, 1 if after == "global" else -1)
    if _moves_reservation(transition):
        own = {"reservations": _held(run)}
        shared = {"reservations": {run.run_id: _until(run)}} if run.global_slot else {}
    return own, shared


def _moves_reservation(transition: Transition) -> bool:
    """Return whether this transition of an admitted run may have moved its ``expires_at``.

    The run's own transitions do, and those that let a step rest. A sweep that only sets its next time does not, and
    spares the write.
    """
    run = transition.run
    if not transition.header or run.expires_at is None or run.admitted_at is None:
        return False
    steps = (run.steps[step_id] for step_id in transition.touched)
    return any(not change.step_id for change in transition.changes) or any(step.not_before for step in steps)


def _put(batch: Any, reference: Any, stored: Any | None, fields: Mapping[str, Any]) -> None:
    if stored is None:
        batch.create(reference, fields)
    else:
        batch.update(reference, fields, option=unchanged_since(version(stored.update_time)))


def _held(run: Run) -> dict[str, dict[str, Any]]:
    return {run.run_id: {"route": run.request.route, "until": _until(run)}}


def _until(run: Run) -> datetime:
    assert run.expires_at is not None
    return run.expires_at + RESERVATION_GRACE


def _waits(run_id: str, change: int) -> dict[str, Any]:
    """Return the update of the deployment's document by which a run begins (1) or ceases (-1) to wait for a slot."""
    return {"queue": {run_id: True if change > 0 else _delete()}, "waiting": _plus(change)}


def _month(run: Run) -> str:
    assert run.admitted_at is not None
    return month_of(run.admitted_at)


def _latest[T](periods: Mapping[str, T], count: int) -> dict[str, T]:
    return {period: periods[period] for period in sorted(periods)[-count:]}


def _plus(number: int) -> Any:
    from google.cloud.firestore import Increment

    increment: Any = Increment  # untyped
    return increment(number)


def _delete() -> Any:
    from google.cloud.firestore import DELETE_FIELD

    return DELETE_FIELD
