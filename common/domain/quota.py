"""What an organisation's plan admits, and how its days and months are counted."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

ADMITTED_STATUSES = frozenset({"ACTIVE", "TRIAL"})
"""Subscription statuses that may run pipelines (FR-PIP-001, step 2)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """An organisation's limits: runs admitted a UTC day, a UTC month, and live at the same time."""

    status: str
    daily: int
    monthly: int
    concurrent: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What counts against the limits now, and how the month's runs ended."""

    daily: int
    monthly: int
    concurrent: int
    completed: int
    failed: int
    cancelled: int


def day_of(now: datetime) -> str:
    """Return the counting period of a day, e.g. ``2026-11-21``."""
    return now.astimezone(UTC).date().isoformat()


def month_of(now: datetime) -> str:
    """Return the counting period of a month, e.g. ``2026-11``."""
    return day_of(now)[:7]


def exceeded(limits: Limits, usage: Usage, now: datetime) -> tuple[str, int, int, int] | None:
    """Return (limit, value, used, seconds until it may pass) of the first limit that is used up, or None."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    next_month = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    for name, value, used, free_at in (
        ("monthly", limits.monthly, usage.monthly, next_month),
        ("daily", limits.daily, usage.daily, midnight + timedelta(days=1)),
        ("concurrent", limits.concurrent, usage.concurrent, now + timedelta(seconds=30)),
    ):
        if used >= value:
            return name, value, used, max(1, round((free_at - now).total_seconds()))
    return None
