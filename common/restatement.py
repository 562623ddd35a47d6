"""Which days a run covers that nobody has dated: yesterday, and those before it that its provider may still correct."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta

from common.config.providers import Provider


def default_days(now: datetime, restatement_days: int = 0) -> tuple[date, date]:
    """Return the first and the last day of a run without dates, both inclusive, in UTC.

    The last is yesterday, the last whole day. Providers correct what they have reported (late usage, re-rating), so as
    many days before it as the registry says are read again: their rows are replaced, as those of any day of a run.
    """
    last = now.date() - timedelta(days=1)
    return last - timedelta(days=restatement_days), last


def restatement_days(providers: Mapping[str, Provider], provider: str) -> int:
    """Return how many days before yesterday a provider may still correct, 0 for one that is not registered."""
    return providers[provider].restatement_days if provider in providers else 0
