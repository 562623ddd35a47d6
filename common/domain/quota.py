"""What an organisation's plan admits, and how its days, months and slots are counted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple

ADMITTED_STATUSES = frozenset({"ACTIVE", "TRIAL"})
"""Subscription statuses that may run pipelines (FR-PIP-001, step 2)."""

SCOPES = ("pipeline", "concurrent", "global")
"""Limits on runs that are live at the same time, the narrowest first. Only for these a run may wait."""

RESERVATION_GRACE = timedelta(minutes=5)
"""A reservation outlives its run's ``expires_at`` by some sweeps: the sweep that ends the run settles it."""

QUEUE_LIMIT = 1_000
"""Runs of one organisation that may wait."""

MICROS = 1_000_000
"""Stores count money in whole millionths of a US dollar, rounded up once a run."""


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


@dataclass(frozen=True, slots=True)
class Usage:
    """What counts against an organisation's limits now, how the month's runs ended, and how many wait.

    ``spent_usd`` is what the month's settled runs have cost, ``reserved_usd`` what the others are estimated to. The
    last three are known only where one run asks: live runs of its pipeline and of all organisations, and by scope the
    runs that wait and will take a slot of it, which are before a new one.
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


class Hit(NamedTuple):
    """A limit that is used up: its value and use, the seconds until it may pass, who waits for it already, and when
    the limit was read (see ``Limits``)."""

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
    """Return an amount as stores count it, rounded up."""
    return int((usd * MICROS).to_integral_value(ROUND_CEILING))


def from_micro_usd(micros: int) -> Decimal:
    """Return the amount that a store has counted, in US dollars."""
    return Decimal(micros) / MICROS


def wider(scope: str) -> tuple[str, ...]:
    """Return the scopes in which a run may wait that will take a slot of this scope: itself and those around it."""
    return SCOPES[SCOPES.index(scope) :]


def exceeded(
    limits: Limits, usage: Usage, now: datetime, *, cost_usd: Decimal = Decimal(0), waited: bool = False
) -> Hit | None:
    """Return the first limit that leaves no room for one more run of that cost, or None.

    A new run comes after those that wait for the same slot; one that has ``waited`` is the next of them, so that they
    don't count. Money is used up once the run would go beyond it, or nothing of it is left.
    """
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    next_month = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    for limit, value, used, free_at in (
        ("monthly", limits.monthly, usage.monthly, next_month),
        ("daily", limits.daily, usage.daily, midnight + timedelta(days=1)),
    ):
        if used >= value:
            return Hit(limit, value, used, _seconds(free_at - now), as_of=limits.as_of)
    if limits.money_usd is not None:
        spent = usage.spent_usd + usage.reserved_usd
        if to_micro_usd(spent) + max(to_micro_usd(cost_usd), 1) > to_micro_usd(limits.money_usd):
            return Hit("money", limits.money_usd, spent, _seconds(next_month - now), as_of=limits.as_of)
    live = {"pipeline": usage.pipeline, "concurrent": usage.concurrent, "global": usage.global_concurrent}
    most = {"pipeline": limits.pipeline, "concurrent": limits.concurrent, "global": limits.global_concurrent}
    for scope in SCOPES:
        slots, ahead = most[scope], 0 if waited else usage.ahead.get(scope, 0)
        if slots is not None and live[scope] + ahead >= slots:
            return Hit(scope, slots, live[scope], 30, ahead, limits.as_of)
    return None


def queue_full(waiting: int) -> Hit | None:
    """Return the hit of an organisation of which so many runs wait, or None if one more may."""
    return Hit("queue", QUEUE_LIMIT, waiting, 60) if waiting >= QUEUE_LIMIT else None


def _seconds(span: timedelta) -> int:
    return max(1, round(span.total_seconds()))
