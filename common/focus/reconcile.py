"""Our cost of GenAI usage beside the cost that the provider itself reports, by day and model."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal
from typing import Any

from common.ports.warehouse import Warehouse

OURS, REPORTED = "genai_payg_cost", "genai_reported_cost"

LEAST = Decimal("0.01")
"""A difference of less than this is told and is no alarm: a share of nearly nothing is soon a large one."""

_EXACT = Context(prec=200)

_OF_DAYS = "x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last"

# A search is priced by the search and reported by the tool, whatever model called it.
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
    """One provider, day, currency and subject: a model, or a tool that is priced by itself.

    ``reported`` is None on a day that the provider has not reported, or never reports. ``unpriced`` is how many rows
    of ours have no price. ``is_alarm`` says whether the two differ by more than the threshold.
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
        """Ours minus theirs."""
        return None if self.reported is None else _EXACT.subtract(self.ours, self.reported)

    @property
    def percent(self) -> Decimal | None:
        """The difference as a share of what is reported, in percent; None where nothing is reported."""
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
    """Yield a line for each provider, day, currency and subject that one side has, in this order."""
    mine = {_key(row): row for row in ours}
    theirs = {_key(row): row["amount"] for row in reported}
    told = {(provider, day) for provider, day, _, _ in theirs}
    for key in sorted(mine.keys() | theirs.keys()):
        row = mine.get(key, {"amount": Decimal(0), "unpriced": 0})
        is_told = key[:2] in told
        amount = theirs.get(key, Decimal(0)) if is_told else None
        is_alarm = amount is not None and _beyond(row["amount"], amount, threshold)
        yield Line(*key, ours=row["amount"], reported=amount, unpriced=row["unpriced"], is_alarm=is_alarm)


def _key(row: Mapping[str, Any]) -> Key:
    return row["provider"], row["day"], row["currency"], row["subject"]


def _beyond(ours: Decimal, reported: Decimal, threshold: Decimal) -> bool:
    difference = abs(_EXACT.subtract(ours, reported))
    return difference >= LEAST and difference * 100 > threshold * abs(reported)
