"""Months as invoices and quotas count them."""

from datetime import date, timedelta


def next_month[Day: date](day: Day) -> Day:
    """Return the first day of the month after that of ``day``; a datetime keeps its time of day."""
    # 32 days from the first of any month end in the next one, and never in the one after it.
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)
