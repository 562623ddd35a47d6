"""Converts Oracle's FOCUS reports, whose columns have names of FOCUS drafts, to rows of FOCUS.

Reports of different ages have different columns; each is looked up under its name and its draft name.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

from common.processors.bills.cells import Cells
from common.processors.bills.focus_prices import PLACES, unpriced
from common.processors.bills.focus_units import focus_unit
from common.processors.bills.layout import DESTINATION
from common.processors.bills.table_rows import OWN_COLUMNS
from common.tables.contract import load_table

Row = dict[str, Any]
START = "ChargePeriodStart"

DRAFTS: Mapping[str, str] = {
    "ProviderName": "Provider",
    "PublisherName": "Publisher",
    "InvoiceIssuerName": "InvoiceIssuer",
    "RegionId": "Region",
    "ConsumedQuantity": "UsageQuantity",
    "ConsumedUnit": "UsageUnit",
    "ServiceSubcategory": "ServiceSubCategory",
}
"""Columns of FOCUS 1.0 and later, and their names in the drafts."""

PRICING = {"On-Demand": "Standard", "Commitment-Based": "Committed"}
"""Draft values of PricingCategory, and those of FOCUS."""


class OciFocus:
    """A line is a row."""

    provider = "oci"
    needed = ((START,), ("BilledCost",), ("BillingCurrency",), ("BillingPeriodStart",), ("BillingPeriodEnd",))

    def __init__(self, configs: Path) -> None:
        self._configs = configs

    @staticmethod
    def plain_name(own: str) -> str:
        """Column names are those of FOCUS or of a draft."""
        return own

    def day(self, cells: Cells) -> date:
        """The UTC day on which the charge began."""
        return cells.needed(cells.time(START), START).date()

    def period(self, cells: Cells) -> tuple[datetime | None, datetime | None]:
        """The line's billing period."""
        return cells.time("BillingPeriodStart"), cells.time("BillingPeriodEnd")

    def rows(self, cells: Cells) -> Iterator[Row]:
        """Yield the line, with the columns filled that FOCUS requires and the drafts lack."""
        row: Row = {}
        for column in load_table(self._configs, DESTINATION).columns:
            if column.name in (*OWN_COLUMNS, "extra"):
                continue
            names = (column.name, *([DRAFTS[column.name]] if column.name in DRAFTS else []))
            row[column.name] = cells.value(column.type, *names)
        cost = cells.needed(row["BilledCost"], "BilledCost")
        row["PricingCategory"] = PRICING.get(row["PricingCategory"] or "", row["PricingCategory"])
        for name in ("PricingUnit", "ConsumedUnit"):
            row[name] = row[name] and focus_unit(row[name])
        row["RegionName"] = row["RegionName"] or row["RegionId"]
        row["EffectiveCost"] = cost if row["EffectiveCost"] is None else row["EffectiveCost"]
        yield row | _prices(row, cost)


def _prices(row: Row, cost: Decimal) -> Row:
    """Return price columns with cost = price x quantity. Drafts lack contracted prices: list prices replace them."""
    if row["ChargeCategory"] not in ("Usage", "Purchase"):
        return {name: row[name] if row[name] is not None else cost for name in unpriced(cost)}
    listed, quantity = row["ListUnitPrice"], row["PricingQuantity"]
    columns: Row = {"SkuPriceId": row["SkuPriceId"] or row["SkuId"]}
    if listed is None or quantity is None:
        return columns
    contracted = listed if row["ContractedUnitPrice"] is None else row["ContractedUnitPrice"]
    with localcontext(prec=76):
        return columns | {
            "ContractedUnitPrice": contracted,
            "ListCost": round(listed * quantity, PLACES),
            "ContractedCost": round(contracted * quantity, PLACES),
        }
