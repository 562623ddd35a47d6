"""The quota part of the memory run store: slots, counts, money and queues. Its caller holds the lock."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from common.domain.messages import Command, MoveInQueue, SettleMoney, SettleReservation
from common.domain.model import Run, RunStatus
from common.domain.queueing import Place, Queue, Waiting, heads, joining_turn, next_turn
from common.domain.quota import (
    RESERVATION_GRACE,
    SCOPES,
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
from common.platform.errors import QuotaExceededError


@dataclass
class _Slot:
    """A held slot of an organisation, of its pipeline and of the deployment."""

    org_slug: str
    route: str
    expires_at: datetime


class MemoryQuota:
    """What is held and counted, and who waits."""

    def __init__(self) -> None:
        self._slots: dict[str, _Slot] = {}
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._queues: dict[str, dict[str, Waiting]] = {}
        self._turns: dict[str, int] = {}
        self._costs: dict[tuple[str, str], int] = {}

    def hold(self, run: Run, limits: Limits, *, waited: bool) -> None:
        """Check all limits and take what they allow, or raise QuotaExceededError."""
        now, org, route = run.admitted_at, run.request.org_slug, run.request.route
        assert now is not None and run.expires_at is not None
        self._slots = {key: slot for key, slot in self._slots.items() if slot.expires_at > now}
        cost = run.estimate.usd if run.estimate else Decimal(0)
        hit = exceeded(limits, self.usage(org, now, route), now, cost_usd=cost, waited=waited)
        if hit is not None:
            raise QuotaExceededError(**hit._asdict())
        for period in (day_of(now), month_of(now)):
            self._counts[org, period, "admitted"] += 1
        self._counts[org, month_of(now), "reserved"] += to_micro_usd(cost)
        self._slots[run.run_id] = _Slot(org, route, run.expires_at + RESERVATION_GRACE)
        if waited:
            self._turns[org] = next_turn(self._turns[org], limits.weight)

    def check_queue(self, org_slug: str) -> None:
        """Raise QuotaExceededError if the organisation's queue is full."""
        hit = queue_full(len(self._queues.get(org_slug, ())))
        if hit is not None:
            raise QuotaExceededError(**hit._asdict())

    def extend(self, run: Run) -> None:
        """Keep the run's slot in step with the run."""
        if run.expires_at is not None and run.run_id in self._slots:
            self._slots[run.run_id].expires_at = run.expires_at + RESERVATION_GRACE

    def carry_out(self, run: Run, commands: Iterable[Command]) -> None:
        """Do what is for the quota to do."""
        org, month = run.request.org_slug, month_of(run.admitted_at or run.request.requested_at)
        for command in commands:
            match command:
                case SettleReservation(run_id, outcome):
                    self._slots.pop(run_id, None)
                    self._counts[org, month, outcome] += 1
                case SettleMoney(_, estimated, cost, known):
                    self._counts[org, month, "reserved"] -= to_micro_usd(estimated)
                    self._counts[org, month, "spent"] += to_micro_usd(cost)
                    if known:
                        self._costs[org, run.request.route] = to_micro_usd(cost)
                case MoveInQueue(_, before, after):
                    self._move(run, before, after)

    def _move(self, run: Run, before: str, after: str) -> None:
        request = run.request
        queue = self._queues.setdefault(request.org_slug, {})
        if not before and not queue:
            waiting = [self._turns[org] for org, others in self._queues.items() if others]
            own = self._turns.get(request.org_slug, 0)
            self._turns[request.org_slug] = joining_turn(own, waiting, self._turns.values())
        queue.pop(run.run_id, None)
        if after:
            queue[run.run_id] = Waiting(run.run_id, request.route, after, request.backfill, request.requested_at)

    def usage(self, org_slug: str, now: datetime, route: str = "") -> Usage:
        """Return what counts; with ``route`` also what one of its runs is checked against."""
        month = month_of(now)
        live = [slot for slot in self._slots.values() if slot.expires_at > now]
        mine = [slot for slot in live if slot.org_slug == org_slug]
        ended = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)
        counts = [self._counts[org_slug, month, what] for what in ("admitted", *ended)]
        return Usage(
            self._counts[org_slug, day_of(now), "admitted"],
            counts[0],
            len(mine),
            *counts[1:],
            spent_usd=from_micro_usd(self._counts[org_slug, month, "spent"]),
            reserved_usd=from_micro_usd(self._counts[org_slug, month, "reserved"]),
            waiting=len(self._queues.get(org_slug, ())),
            pipeline=sum(slot.route == route for slot in mine),
            global_concurrent=len(live) if route else 0,
            ahead={scope: self._ahead(scope, org_slug, route) for scope in SCOPES} if route else {},
        )

    def _ahead(self, scope: str, org_slug: str, route: str) -> int:
        everyone = ((org, one) for org, queue in self._queues.items() for one in queue.values())
        return sum(
            one.waits_for in wider(scope)
            and (scope == "global" or org == org_slug)
            and (scope != "pipeline" or one.route == route)
            for org, one in everyone
        )

    def queues(self, ended: Run | None) -> Sequence[Queue]:
        """Return the queues that have runs in them."""
        every = ended is None or ended.global_slot
        return [
            Queue(org, self._turns[org], heads(queue.values()))
            for org, queue in sorted(self._queues.items())
            if queue and (every or (ended and ended.request.org_slug == org))
        ]

    def place(self, run: Run) -> Place | None:
        """Return where the run stands."""
        queue = self._queues.get(run.request.org_slug, {})
        mine = queue.get(run.run_id)
        return mine and Place(1 + sum(one.order < mine.order for one in queue.values()), len(queue))

    def last_cost(self, org_slug: str, route: str) -> Decimal | None:
        """Return what the pipeline's last run has cost."""
        micros = self._costs.get((org_slug, route))
        return None if micros is None else from_micro_usd(micros)
