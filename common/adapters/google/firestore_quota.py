"""The quota part of the run store on Firestore: its documents, and the code that writes them.

``usage/{org_slug}`` holds everything of one organisation. ``deployment/slots`` holds what all share, and is written
only if the deployment has a limit, because every run contends for it. Quota is taken by compare-and-set on what was
read; it is given back, and queues are moved, by a blind merge in the batch of the run's own transition.

A run that was admitted while the deployment had no limit has no slot in ``deployment/slots`` and does not count once
the deployment gets one: finding such runs would mean reading all organisations.

Queries need the automatic indexes of ``usage``'s fields ``waiting`` and ``turn``, and none of its other fields: without
the exemptions of ``infra/firestore.indexes.json``, a full queue alone would make 8,000 index entries with each write.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

from common.adapters.google.firestore_client import Firestore, standard_time, unchanged_since, version, where
from common.domain.messages import MoveInQueue, SettleReservation
from common.domain.model import Run
from common.domain.queueing import Place, Queue, Waiting, heads, joining_turn
from common.domain.quota import (
    CostKnown,
    Counted,
    Demand,
    Limits,
    QueueMoved,
    QuotaChange,
    ReservationExtended,
    ReservationFreed,
    Usage,
    changes,
    from_micro_usd,
    queue_full,
)
from common.domain.state import Transition
from common.domain.usage_document import NO_DEPLOYMENT, Deployment, Reservation, UsageDocument
from common.platform.errors import QuotaExceededError

KEPT_DAYS = 62
KEPT_MONTHS = 24
"""A document may hold 1 MiB, so it drops periods that no limit is checked against any more."""

DAY_LENGTH = len("2026-11-21")

Fill = Callable[[Any], None]
"""Adds writes to a batch."""


def read_usage(snapshot: Any | None) -> UsageDocument:
    """Return an organisation's document, empty if there is none.

    ``days`` counts the runs admitted on each day, ``outcomes`` how those of a day ended, ``months`` both.
    """
    data: dict[str, Any] = snapshot.to_dict() if snapshot is not None else {}
    counts = {day: {"admitted": admitted} for day, admitted in data.get("days", {}).items()}
    for day, outcomes in data.get("outcomes", {}).items():
        counts[day] = {**counts.get(day, {}), **outcomes}
    counts |= data.get("months", {})
    # An entry without a route extended a reservation that had already been dropped: see ``_own_merge``.
    held = {run_id: one for run_id, one in data.get("reservations", {}).items() if "route" in one}
    queue = data.get("queue", {})
    return UsageDocument(
        counts,
        {run_id: Reservation(one["route"], one["until"]) for run_id, one in held.items()},
        {run_id: _waiting(run_id, one) for run_id, one in queue.items()},
        data.get("turn", 0),
        data.get("costs", {}),
    )


def counted_fields(document: UsageDocument) -> dict[str, Any]:
    """Return the fields that an admission changes, without periods that are long past."""
    days = _latest({period: row for period, row in document.counts.items() if len(period) == DAY_LENGTH}, KEPT_DAYS)
    months = {period: row for period, row in document.counts.items() if len(period) < DAY_LENGTH}
    outcomes = {day: {name: n for name, n in row.items() if name != "admitted"} for day, row in days.items()}
    return {
        "days": {day: row.get("admitted", 0) for day, row in days.items()},
        "outcomes": {day: row for day, row in outcomes.items() if row},
        "months": _latest(months, KEPT_MONTHS),
        "reservations": {
            run_id: {"route": one.route, "until": one.expires_at} for run_id, one in document.reservations.items()
        },
    }


def queued_fields(document: UsageDocument) -> dict[str, Any]:
    """Return the fields that a change of the queue writes. ``waiting`` is for queries."""
    entries = {
        one.run_id: {"route": one.route, "waits_for": one.waits_for, "backfill": one.backfill, "since": one.since}
        for one in document.queue.values()
    }
    return {"queue": entries, "waiting": len(entries), "turn": document.turn}


def _waiting(run_id: str, entry: Mapping[str, Any]) -> Waiting:
    return Waiting(run_id, entry["route"], entry["waits_for"], entry["backfill"], standard_time(entry["since"]))


@dataclass(frozen=True, slots=True)
class Slots:
    """What the whole deployment shares: when each run's slot expires, and which runs wait for one."""

    reservations: Mapping[str, datetime]
    queue: Mapping[str, bool]

    @classmethod
    def read(cls, snapshot: Any | None) -> Self:
        """Return the slots of a document, empty if there is none."""
        data: dict[str, Any] = snapshot.to_dict() if snapshot is not None else {}
        # ``extended`` holds later expiries, written blindly. It does not revive a reservation dropped meanwhile.
        extended = data.get("extended", {})
        held = {run_id: extended.get(run_id, until) for run_id, until in data.get("reservations", {}).items()}
        return cls(held, data.get("queue", {}))

    def deployment(self, now: datetime) -> Deployment:
        """Return what counts at ``now``."""
        return Deployment(sum(until > now for until in self.reservations.values()), len(self.queue))

    def admitted(self, demand: Demand) -> dict[str, Any]:
        """Return the document with this run's slot added and expired ones removed."""
        held = {run_id: until for run_id, until in self.reservations.items() if until > demand.at}
        queue = {run_id: True for run_id in self.queue if run_id != demand.run_id}
        held[demand.run_id] = demand.expires_at
        return {"reservations": held, "extended": {}, "queue": queue, "waiting": len(queue)}


class FirestoreQuota:
    """Takes quota, gives it back, and lists the queues."""

    def __init__(self, firestore: Firestore) -> None:
        self._firestore = firestore
        self._local = threading.local()

    def hold(self, run: Run, limits: Limits, *, waited: bool) -> Fill:
        """Return the writes that take the run's quota; they fail if it has changed since. Raises QuotaExceededError."""
        demand, own, shared = Demand.of(run, waited=waited), self._usage(run.request.org_slug), self._slots()
        has_shared = limits.global_concurrent is not None
        stored = self._firestore.get(own, *[shared] * has_shared)
        document, slots = read_usage(stored.get(own.path)), Slots.read(stored.get(shared.path))
        deployment = slots.deployment(demand.at) if has_shared else NO_DEPLOYMENT
        refused = demand.refused(limits, document.usage_for(demand, deployment))
        if refused is not None:
            raise QuotaExceededError(**refused._asdict())
        taken = document.admitted(demand, limits)
        fields = counted_fields(taken)
        if waited:
            fields |= queued_fields(taken)

        def fill(batch: Any) -> None:
            _put(batch, own, stored.get(own.path), fields)
            if has_shared:
                _put(batch, shared, stored.get(shared.path), slots.admitted(demand))

        return fill

    def enqueue(self, run: Run) -> Fill:
        """Return the writes that put the run in its queue; they fail if the queue has changed since.

        Raises QuotaExceededError if the queue is full.
        """
        own = self._usage(run.request.org_slug)
        stored = self._firestore.get(own).get(own.path)
        document = read_usage(stored)
        refused = queue_full(len(document.queue))
        if refused is not None:
            raise QuotaExceededError(**refused._asdict())
        turn = document.turn if document.queue else joining_turn(document.turn, *self._turns())
        joined = document.changed(run, [QueueMoved("", run.waits_for)])
        fields = queued_fields(replace(joined, turn=turn))

        def fill(batch: Any) -> None:
            _put(batch, own, stored, fields)
            if run.waits_for == "global":
                batch.set(self._slots(), _waits(run.run_id, 1), merge=True)

        return fill

    def _turns(self) -> tuple[list[int], list[int]]:
        """Return the turns of the organisations that wait, and, only if none does, the highest turn of all."""
        waiting = self._firestore.query(self._who_waits().select(["turn"]))
        if waiting:
            return [one.get("turn") for one in waiting], []
        highest = self._firestore.collection("usage").order_by("turn", direction="DESCENDING").limit(1)
        return [], [one.get("turn") for one in self._firestore.query(highest.select(["turn"]))]

    def leave(self, batch: Any, run: Run, transition: Transition, limits: Limits) -> None:
        """Take an admitted run out of the deployment's queue if the limit that it waited for no longer exists.

        Otherwise ``hold`` does so: it writes that document anyway.
        """
        moves = [command for command in transition.commands if isinstance(command, MoveInQueue)]
        if limits.global_concurrent is None and any(move.before == "global" for move in moves):
            batch.set(self._slots(), _waits(run.run_id, -1), merge=True)

    def carry_out(self, batch: Any, transition: Transition) -> Callable[[Sequence[Any]], None]:
        """Add the blind writes that the transition commands; return the callback for the batch's results."""
        run = transition.run
        changed = list(changes(run, transition.commands, extends=_may_extend(transition)))
        own, shared = self._usage(run.request.org_slug), self._slots()
        asked: list[int] = []
        for reference, fields in ((own, _own_merge(run, changed)), (shared, _deployment_merge(run, changed))):
            if fields:
                asked.append(len(batch))
                batch.set(reference, fields, merge=True)
        settles = any(isinstance(command, SettleReservation) for command in transition.commands)

        def note_results(results: Sequence[Any]) -> None:
            # Firestore returns the transformed fields in order of name, and the last is ``waiting``: the number of
            # waiting runs after this write, without a read.
            nobody = settles and not any(results[index].transform_results[-1].integer_value for index in asked)
            self._local.nobody_after = run.run_id if nobody else ""

        return note_results

    def usage(self, org_slug: str, now: datetime) -> Usage:
        """Return what counts against the organisation's limits."""
        return self._document(org_slug).usage(now)

    def queues(self, ended: Run | None) -> Sequence[Queue]:
        """Return the queues that are not empty. After an end that this thread has just stored, this often costs no
        read: the response to that write says how many runs wait."""
        nobody_after, self._local.nobody_after = getattr(self._local, "nobody_after", ""), ""
        if ended is not None and nobody_after == ended.run_id:
            return ()
        if ended is None or ended.global_slot:
            snapshots = self._firestore.query(self._who_waits().select(["queue", "turn"]))
        else:
            snapshots = list(self._firestore.get(self._usage(ended.request.org_slug)).values())
        documents = ((one.id, read_usage(one)) for one in snapshots)
        return [Queue(org, one.turn, heads(one.queue.values())) for org, one in documents if one.queue]

    def place(self, run: Run) -> Place | None:
        """Return the run's place in its organisation's queue, None if it does not wait."""
        return self._document(run.request.org_slug).place(run.run_id)

    def last_cost(self, org_slug: str, route: str) -> Decimal | None:
        """Return the cost in USD of the pipeline's last run whose cost is known."""
        micros = self._document(org_slug).costs.get(route)
        return None if micros is None else from_micro_usd(micros)

    def _document(self, org_slug: str) -> UsageDocument:
        reference = self._usage(org_slug)
        return read_usage(self._firestore.get(reference).get(reference.path))

    def _who_waits(self) -> Any:
        return where(self._firestore.collection("usage"), "waiting", ">", 0)

    def _usage(self, org_slug: str) -> Any:
        return self._firestore.document("usage", org_slug)

    def _slots(self) -> Any:
        return self._firestore.document("deployment", "slots")


def _own_merge(run: Run, changed: Iterable[QuotaChange]) -> dict[str, Any]:
    """Return what to merge into the organisation's document."""
    own, run_id = dict[str, Any](), run.run_id
    for change in changed:
        match change:
            case Counted(periods, amounts):
                for period in periods:
                    home = "outcomes" if len(period) == DAY_LENGTH else "months"
                    own.setdefault(home, {})[period] = {name: _plus(amount) for name, amount in amounts.items()}
            case ReservationExtended(expires_at):
                # A blind merge can't check that the reservation still exists. So it writes the expiry alone: if another
                # admission has dropped the reservation, an entry without a route holds no slot.
                own["reservations"] = {run_id: {"until": expires_at}}
            case ReservationFreed():
                own |= {"reservations": {run_id: _delete()}, "waiting": _plus(0)}
            case CostKnown(micro_usd):
                own["costs"] = {run.request.route: micro_usd}
            case QueueMoved(_, after):
                own["queue"] = {run_id: {"waits_for": after} if after else _delete()}
                own |= {} if after else {"waiting": _plus(-1)}
    return own


def _deployment_merge(run: Run, changed: Iterable[QuotaChange]) -> dict[str, Any]:
    """Return what to merge into the deployment's document: nothing for a run that has no slot of it and wants none."""
    shared, run_id = dict[str, Any](), run.run_id
    for change in changed:
        match change:
            case ReservationExtended(expires_at) if run.global_slot:
                shared["extended"] = {run_id: expires_at}
            case ReservationFreed() if run.global_slot:
                freed = {run_id: _delete()}
                shared |= {"reservations": freed, "extended": freed, "waiting": _plus(0)}
            case QueueMoved(before, after) if "global" in (before, after):
                shared |= _waits(run_id, 1 if after == "global" else -1)
    return shared


def _may_extend(transition: Transition) -> bool:
    """Return whether this transition may have moved its run's ``expires_at``.

    The run's own transitions do, and those after which a step backs off. A sweep that only sets its next time does not,
    which saves the write.
    """
    steps = (transition.run.steps[step_id] for step_id in transition.touched)
    moves = any(not change.step_id for change in transition.changes) or any(step.not_before for step in steps)
    return transition.header and moves


def _put(batch: Any, reference: Any, stored: Any | None, fields: Mapping[str, Any]) -> None:
    if stored is None:
        batch.create(reference, fields)
    else:
        batch.update(reference, fields, option=unchanged_since(version(stored.update_time)))


def _waits(run_id: str, change: int) -> dict[str, Any]:
    """Return the update of the deployment's document for a run that starts (1) or stops (-1) waiting for a slot."""
    return {"queue": {run_id: True if change > 0 else _delete()}, "waiting": _plus(change)}


def _latest[T](periods: Mapping[str, T], count: int) -> dict[str, T]:
    return {period: periods[period] for period in sorted(periods)[-count:]}


def _plus(number: int) -> Any:
    from google.cloud.firestore import Increment

    increment: Any = Increment  # untyped
    return increment(number)


def _delete() -> Any:
    from google.cloud.firestore import DELETE_FIELD

    return DELETE_FIELD
