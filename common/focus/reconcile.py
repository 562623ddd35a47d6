"""Compares our cost of GenAI usage with the cost that the provider reports, by day and model."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal
from typing import Any

from common.ports.warehouse import Warehouse

OURS, REPORTED = "genai_payg_cost", "genai_reported_cost"

LEAST = Decimal("0.01")
"""Smallest difference that raises an alarm: of a tiny cost, any difference is a large percentage."""

_EXACT = Context(prec=200)
"""Exact for BIGNUMERIC, whose 77 digits the default context would round to 28."""

_OF_DAYS = "x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last"

# Searches have a price per search, and providers report them per tool, whichever model called it.
_OURS = """
SELECT
  provider, x_pipeline_run_date AS day, currency,
  IF(meter IN ('web_searches', 'file_searches'), meter, COALESCE(model, meter)) AS subject,
  COALESCE(SUM(cost), 0) AS amount, COUNTIF(cost IS NULL) AS unpriced
FROM `{table}` WHERE {where} GROUP BY provider, day, currency, subject
"""
_REPORTED = """
SELECT
  provider, x_pipeline_run_date AS day, currency, COALESCE(model, meter, line_item, 'other') AS subject,
  SUM(amount) AS amount
FROM `{table}` WHERE {where} GROUP BY provider, day, currency, subject
"""

Key = tuple[str, date, str, str]


@dataclass(frozen=True, slots=True)
class Line:
    """One provider, day, currency and subject: a model, or a tool with a price of its own.

    ``reported`` is None on a day without a report. ``unpriced`` is the number of our rows without a price. ``is_alarm``
    is whether the two costs differ by more than the threshold.
    """

    provider: str
    day: date
    currency: str
    subject: str
    ours: Decimal
    reported: Decimal | None
    unpriced: int
    is_alarm: bool

    @property
    def difference(self) -> Decimal | None:
        """Our cost minus the reported cost."""
        return None if self.reported is None else _EXACT.subtract(self.ours, self.reported)

    @property
    def percent(self) -> Decimal | None:
        """The difference in percent of the reported cost; None if nothing, or 0, is reported."""
        if self.difference is None or not self.reported:
            return None
        return self.difference * 100 / abs(self.reported)


def reconcile(
    warehouse: Warehouse, table: Callable[[str], str], org: str, first: date, last: date, threshold: Decimal
) -> list[Line]:
    """Read both tables and compare them. ``threshold`` is in percent. Raises what the warehouse raises."""
    params = {"org": org, "first": first, "last": last}
    ours = warehouse.query(_OURS.format(table=table(OURS), where=_OF_DAYS), params)
    reported = warehouse.query(_REPORTED.format(table=table(REPORTED), where=_OF_DAYS), params)
    return list(compare(list(ours), list(reported), threshold))


def compare(
    ours: Iterable[Mapping[str, Any]], reported: Iterable[Mapping[str, Any]], threshold: Decimal
) -> Iterator[Line]:
    """Yield a line for each provider, day, currency and subject that either side has, in this order."""
    priced = {_key(row): row for row in ours}
    amounts = {_key(row): row["amount"] for row in reported}
    # A model without a row on a reported day was reported as 0; on a day without any row, nothing is known yet.
    reported_days = {(provider, day) for provider, day, _, _ in amounts}
    for key in sorted(priced.keys() | amounts.keys()):
        row = priced.get(key, {"amount": Decimal(0), "unpriced": 0})
        amount = amounts.get(key, Decimal(0)) if key[:2] in reported_days else None
        is_alarm = amount is not None and _beyond(row["amount"], amount, threshold)
        yield Line(*key, ours=row["amount"], reported=amount, unpriced=row["unpriced"], is_alarm=is_alarm)


def _key(row: Mapping[str, Any]) -> Key:
    return row["provider"], row["day"], row["currency"], row["subject"]


def _beyond(ours: Decimal, reported: Decimal, threshold: Decimal) -> bool:
    difference = abs(_EXACT.subtract(ours, reported))
    return difference >= LEAST and difference * 100 > threshold * abs(reported)
