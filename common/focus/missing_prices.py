"""GenAI usage whose price is unknown: rows of ``genai_payg_cost`` with a NULL cost, summed."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from common.focus.reconcile import OURS
from common.ports.warehouse import Warehouse

_MISSING = """
SELECT
  provider, model, meter, price_variant AS variant, unit, SUM(quantity) AS quantity,
  COUNT(DISTINCT x_pipeline_run_date) AS days, MIN(x_pipeline_run_date) AS first, MAX(x_pipeline_run_date) AS last
FROM `{table}`
WHERE x_org_slug = @org AND x_pipeline_run_date BETWEEN @first AND @last AND cost IS NULL
GROUP BY provider, model, meter, variant, unit
ORDER BY provider, model, meter, variant, unit
"""


@dataclass(frozen=True, slots=True)
class Missing:
    """Usage of one model and meter without a price: quantity, and number of days from ``first`` to ``last``."""

    provider: str
    model: str | None
    meter: str
    variant: str
    unit: str
    quantity: Decimal
    days: int
    first: date
    last: date

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON data; the quantity is text, because JSON readers turn numbers into floats."""
        return {**asdict(self), "quantity": f"{self.quantity:f}", "first": str(self.first), "last": str(self.last)}


def missing_prices(
    warehouse: Warehouse, table: Callable[[str], str], org: str, first: date, last: date
) -> list[Missing]:
    """Return usage without a price, by provider, model and meter. Raises what the warehouse raises."""
    rows = warehouse.query(_MISSING.format(table=table(OURS)), {"org": org, "first": first, "last": last})
    return [Missing(**row) for row in rows]
