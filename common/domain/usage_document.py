"""An organisation's whole quota as one value, for stores that keep it in one document: Firestore, and memory."""

from collections.abc import Iterable, Mapping
from copy import replace
from dataclasses import dataclass, field
from datetime import datetime

from common.domain.model import Run
from common.domain.queueing import Place, Waiting, next_turn
from common.domain.quota import (
    CostKnown,
    Counted,
    Demand,
    Limits,
    Outcomes,
    QueueMoved,
    QuotaChange,
    ReservationExtended,
    ReservationFreed,
    Usage,
    day_of,
    from_micro_usd,
    month_of,
    wider,
)


@dataclass(frozen=True, slots=True)
class Reservation:
    """A slot that a run of this pipeline holds until ``expires_at``."""

    route: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Deployment:
    """What all organisations share: how many runs hold a slot of the deployment, and how many wait for one."""

    live: int = 0
    ahead: int = 0


NO_DEPLOYMENT = Deployment()


@dataclass(frozen=True, slots=True)
class UsageDocument:
    """An organisation's counters by period and name, the slots that its runs hold, its queue and its turn there, and
    the cost of each pipeline's last run in millionths of a US dollar."""

    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    queue: Mapping[str, Waiting] = field(default_factory=dict)
    turn: int = 0
    costs: Mapping[str, int] = field(default_factory=dict)

    def usage(self, now: datetime) -> Usage:
        """Return what counts at ``now``."""
        day, month = self.counts.get(day_of(now), {}), self.counts.get(month_of(now), {})
        of_month, of_day = _outcomes(month), _outcomes(day)
        return Usage(
            day.get("admitted", 0),
            month.get("admitted", 0),
            self.live(now),
            of_month.completed,
            of_month.failed,
            of_month.cancelled,
            from_micro_usd(month.get("spent", 0)),
            from_micro_usd(month.get("reserved", 0)),
            len(self.queue),
            ended_today=of_day,
        )

    def usage_for(self, demand: Demand, deployment: Deployment) -> Usage:
        """Return what this run's demand is checked against."""
        return replace(
            self.usage(demand.at),
            pipeline=self.live(demand.at, demand.route),
            global_concurrent=deployment.live,
            ahead={
                "pipeline": self.waiting_for("pipeline", demand.route),
                "concurrent": self.waiting_for("concurrent"),
                "global": deployment.ahead,
            },
        )

    def live(self, now: datetime, route: str | None = None) -> int:
        """Return how many runs hold a slot, of one pipeline or of all."""
        return sum(slot.expires_at > now and route in (None, slot.route) for slot in self.reservations.values())

    def waiting_for(self, scope: str, route: str | None = None) -> int:
        """Return how many waiting runs will need a slot of this scope, of one pipeline or of all."""
        scopes = wider(scope)
        return sum(run.waits_for in scopes and route in (None, run.route) for run in self.queue.values())

    def admitted(self, demand: Demand, limits: Limits) -> "UsageDocument":
        """Return the document with this demand met: out of the queue, and without expired reservations."""
        held = self.without_expired(demand.at).reservations
        held = {**held, demand.run_id: Reservation(demand.route, demand.expires_at)}
        queue = {run_id: run for run_id, run in self.queue.items() if run_id != demand.run_id}
        turn = next_turn(self.turn, limits.weight) if demand.waited else self.turn
        taken = replace(self, reservations=held, queue=queue, turn=turn)
        for counted in demand.counts:
            taken = taken._counted(counted)
        return taken

    def without_expired(self, now: datetime) -> "UsageDocument":
        """Return the document without expired reservations."""
        held = {run_id: slot for run_id, slot in self.reservations.items() if slot.expires_at > now}
        return replace(self, reservations=held)

    def changed(self, run: Run, changes: Iterable[QuotaChange]) -> "UsageDocument":
        """Return the document with these changes of one of its runs."""
        changed = self
        for change in changes:
            changed = changed._changed(run, change)
        return changed

    def _changed(self, run: Run, change: QuotaChange) -> "UsageDocument":
        run_id, request = run.run_id, run.request
        match change:
            case Counted():
                return self._counted(change)
            case ReservationExtended(expires_at):
                if run_id not in self.reservations:  # expired and dropped: its slot may be taken
                    return self
                moved = Reservation(request.route, expires_at)
                return replace(self, reservations={**self.reservations, run_id: moved})
            case ReservationFreed():
                held = {name: slot for name, slot in self.reservations.items() if name != run_id}
                return replace(self, reservations=held)
            case CostKnown(micro_usd):
                return replace(self, costs={**self.costs, request.route: micro_usd})
            case QueueMoved(_, after):
                queue = {name: other for name, other in self.queue.items() if name != run_id}
                if after:
                    queue[run_id] = Waiting(run_id, request.route, after, request.backfill, request.requested_at)
                return replace(self, queue=queue)

    def _counted(self, counted: Counted) -> "UsageDocument":
        counts = dict(self.counts)
        for period in counted.periods:
            row = dict(counts.get(period, {}))
            for name, amount in counted.amounts.items():
                row[name] = row.get(name, 0) + amount
            counts[period] = row
        return replace(self, counts=counts)

    def place(self, run_id: str) -> Place | None:
        """Return where the run stands in the queue."""
        run = self.queue.get(run_id)
        if run is None:
            return None
        return Place(1 + sum(other.order < run.order for other in self.queue.values()), len(self.queue))


def _outcomes(row: Mapping[str, int]) -> Outcomes:
    return Outcomes(row.get("completed", 0), row.get("failed", 0), row.get("cancelled", 0))
