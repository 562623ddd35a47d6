"""The quota rule: what an organisation's plan admits, and how its days, months, money, slots and queue are counted.

Every store carries out this rule. The SQL stores check and take in one ``UPDATE`` whose ``WHERE`` clauses express
``exceeded``, Firestore by compare-and-set on what it has read; the explanation of a refusal always comes from
``exceeded``. One table of cases (``tests/contract/quota_cases.py``) tests them all.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple, Self

from common.domain.dates import next_month
from common.domain.messages import Command, MoveInQueue, SettleMoney, SettleReservation
from common.domain.model import Run

ADMITTED_STATUSES = frozenset({"ACTIVE", "TRIAL"})
"""Subscription statuses that may run pipelines (FR-PIP-001, step 2)."""

SCOPES = ("pipeline", "concurrent", "global")
"""Limits on runs that are live at the same time, the narrowest first. A run may wait for these only."""

RESERVATION_GRACE = timedelta(minutes=5)
"""A reservation outlives its run's ``expires_at`` by some sweeps: otherwise its slot would be given away before the
sweep has ended the run and settled it."""

QUEUE_LIMIT = 1_000
"""Runs of one organisation that may wait: Firestore keeps them in one document, which holds 1 MiB."""

MICROS = 1_000_000
"""Stores count money in whole millionths of a US dollar, so that sums are exact; rounded up, once per run."""


@dataclass(frozen=True, slots=True)
class Limits:
    """An organisation's limits: runs admitted a UTC day, a UTC month, and live at the same time.

    ``money_usd`` is what its runs of a UTC month may cost, ``pipeline`` how many of its runs of the pipeline in
    question may be live, ``global_concurrent`` how many of all organisations; None: no such limit. ``weight`` is its
    share of the slots that come free while others wait too. ``as_of`` is when they were read, if their source has been
    away since; None: they are current.
    """

    status: str
    daily: int
    monthly: int
    concurrent: int
    money_usd: Decimal | None = None
    weight: int = 1
    pipeline: int | None = None
    global_concurrent: int | None = None
    as_of: datetime | None = None

    @property
    def slots(self) -> dict[str, int | None]:
        """How many runs may be live in each scope, the narrowest first; None: any number."""
        return {"pipeline": self.pipeline, "concurrent": self.concurrent, "global": self.global_concurrent}


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How the runs that were admitted in a period ended."""

    completed: int = 0
    failed: int = 0
    cancelled: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What counts against an organisation's limits now, how the runs of its month and day ended, and how many wait.

    ``spent_usd`` is the cost of the month's settled runs, ``reserved_usd`` the estimated cost of the others.
    ``pipeline``, ``global_concurrent`` and ``ahead`` are set only when a run is checked: live runs of its pipeline and
    of all organisations, and by scope the waiting runs that will take a slot of it before a new run may.
    """

    daily: int
    monthly: int
    concurrent: int
    completed: int
    failed: int
    cancelled: int
    spent_usd: Decimal = Decimal(0)
    reserved_usd: Decimal = Decimal(0)
    waiting: int = 0
    pipeline: int = 0
    global_concurrent: int = 0
    ahead: Mapping[str, int] = field(default_factory=dict)
    ended_today: Outcomes = Outcomes()


class LimitExceeded(NamedTuple):
    """A limit that leaves no room: its value and use, the seconds until there may be room, how many runs wait for it,
    and when the limit was read (see ``Limits``). Stores raise it as ``QuotaExceededError``."""

    limit: str
    value: int | Decimal
    used: int | Decimal
    retry_after_s: int
    waiting: int = 0
    as_of: datetime | None = None


def day_of(now: datetime) -> str:
    """Return the counting period of a day, e.g. ``2026-11-21``."""
    return now.astimezone(UTC).date().isoformat()


def month_of(now: datetime) -> str:
    """Return the counting period of a month, e.g. ``2026-11``."""
    return day_of(now)[:7]


def to_micro_usd(usd: Decimal) -> int:
    """Return an amount as stores count it, rounded up: a run that costs anything must not count as free."""
    return int((usd * MICROS).to_integral_value(ROUND_CEILING))


def from_micro_usd(micros: int) -> Decimal:
    """Return a store's amount in US dollars."""
    return Decimal(micros) / MICROS


def wider(scope: str) -> tuple[str, ...]:
    """Return the scopes whose waiting runs will also need a slot of this one: itself and those around it."""
    return SCOPES[SCOPES.index(scope) :]


def exceeded(
    limits: Limits, usage: Usage, now: datetime, *, cost_usd: Decimal = Decimal(0), waited: bool = False
) -> LimitExceeded | None:
    """Return the first limit that leaves no room for one more run of that cost, or None.

    A new run comes after those that wait for the same slot; one that has ``waited`` is the next of them, so they don't
    count. Money is used up if the run would exceed it, or nothing of it is left.
    """
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    month_end = next_month(midnight)
    # Monthly first: of two limits that are used up, its Retry-After is the longer one.
    for limit, value, used, free_at in (
        ("monthly", limits.monthly, usage.monthly, month_end),
        ("daily", limits.daily, usage.daily, midnight + timedelta(days=1)),
    ):
        if used >= value:
            return LimitExceeded(limit, value, used, _seconds(free_at - now), as_of=limits.as_of)
    if limits.money_usd is not None:
        spent = usage.spent_usd + usage.reserved_usd
        if to_micro_usd(spent) + max(to_micro_usd(cost_usd), 1) > to_micro_usd(limits.money_usd):
            return LimitExceeded("money", limits.money_usd, spent, _seconds(month_end - now), as_of=limits.as_of)
    live = {"pipeline": usage.pipeline, "concurrent": usage.concurrent, "global": usage.global_concurrent}
    for scope, slots in limits.slots.items():
        ahead = 0 if waited else usage.ahead.get(scope, 0)
        if slots is not None and live[scope] + ahead >= slots:
            # 30 s is a guess: when a run will end and free its slot is not known.
            return LimitExceeded(scope, slots, live[scope], 30, ahead, limits.as_of)
    return None


def queue_full(waiting: int) -> LimitExceeded | None:
    """Return the limit that refuses another waiting run to an organisation with so many, or None."""
    return LimitExceeded("queue", QUEUE_LIMIT, waiting, 60) if waiting >= QUEUE_LIMIT else None


def _seconds(span: timedelta) -> int:
    return max(1, round(span.total_seconds()))  # Retry-After: 0 would invite a retry at once


@dataclass(frozen=True, slots=True)
class Demand:
    """What one run takes from its quota: at ``at`` a run of its day and month, money, and a slot until ``expires_at``.

    ``waited`` says that it comes out of the queue.
    """

    org_slug: str
    run_id: str
    route: str
    at: datetime
    expires_at: datetime
    estimate_usd: Decimal = Decimal(0)
    waited: bool = False

    @classmethod
    def of(cls, run: Run, *, waited: bool) -> Self:
        """Return the demand of a run that is being admitted. Raises ValueError for any other run."""
        if run.admitted_at is None or run.expires_at is None:
            raise ValueError(f"Run {run.run_id} is not one that is being admitted.")
        request, estimate = run.request, run.estimate.usd if run.estimate else Decimal(0)
        until = run.expires_at + RESERVATION_GRACE
        return cls(request.org_slug, run.run_id, request.route, run.admitted_at, until, estimate, waited)

    @property
    def cost_micro_usd(self) -> int:
        """The estimate as stores count it."""
        return to_micro_usd(self.estimate_usd)

    @property
    def counts(self) -> "tuple[Counted, Counted]":
        """What is counted once the run is admitted."""
        day, month = day_of(self.at), month_of(self.at)
        return Counted((day, month), {"admitted": 1}), Counted((month,), {"reserved": self.cost_micro_usd})

    def refused(self, limits: Limits, usage: Usage) -> LimitExceeded | None:
        """Return the limit that leaves no room for it, or None."""
        return exceeded(limits, usage, self.at, cost_usd=self.estimate_usd, waited=self.waited)


@dataclass(frozen=True, slots=True)
class Counted:
    """In each of these periods (a UTC day, a UTC month), these of the organisation's counters grow by these amounts."""

    periods: tuple[str, ...]
    amounts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ReservationExtended:
    """The run's reservation expires at this time, if the run still has one.

    It is not created anew: an admission may have dropped it as expired and taken its slot.
    """

    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ReservationFreed:
    """The run holds no slot any more."""


@dataclass(frozen=True, slots=True)
class CostKnown:
    """The cost of this pipeline's last run whose cost is known."""

    micro_usd: int


@dataclass(frozen=True, slots=True)
class QueueMoved:
    """The run waits for another limit. ``before`` or ``after`` is empty when it joins or leaves the queue."""

    before: str
    after: str


QuotaChange = Counted | ReservationExtended | ReservationFreed | CostKnown | QueueMoved


def changes(run: Run, commands: Iterable[Command], *, extends: bool) -> Iterator[QuotaChange]:
    """Return what a stored transition changes in its organisation's quota, apart from what an admission takes.

    ``extends`` says that the transition may have moved the run's ``expires_at``. A run's end and its money are counted
    in the day and month in which it was admitted, however late they come.
    """
    # A run that waits holds no reservation, and one that has ended gives its back.
    if extends and run.expires_at is not None and not run.waits_for:
        yield ReservationExtended(run.expires_at + RESERVATION_GRACE)
    for command in commands:
        match command:
            case SettleReservation(_, outcome):
                yield ReservationFreed()
                yield Counted((day_of(_admitted_at(run)), month_of(_admitted_at(run))), {outcome.value: 1})
            case SettleMoney(_, estimated, cost, known):
                sums = {"reserved": -to_micro_usd(estimated), "spent": to_micro_usd(cost)}
                yield Counted((month_of(_admitted_at(run)),), sums)
                if known:
                    yield CostKnown(to_micro_usd(cost))
            case MoveInQueue(_, before, after):
                yield QueueMoved(before, after)


def _admitted_at(run: Run) -> datetime:
    # Runs that were stored before there was a queue have no ``admitted_at``: they were admitted when requested.
    return run.admitted_at or run.request.requested_at
