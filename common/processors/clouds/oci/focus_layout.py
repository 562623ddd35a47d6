"""Converts Oracle's FOCUS reports, whose columns have names of FOCUS drafts, to rows of FOCUS.

Reports of different ages have different columns; each is looked up under its name and its draft name.
"""

from collections.abc import Mapping
from pathlib import Path

from common.processors.bills.expressions import (
    AnyOf,
    Case,
    Columns,
    Expression,
    First,
    IsNull,
    Mapped,
    Needed,
    Not,
    Read,
    Shape,
    Times,
    day_of,
    either,
    is_,
    needed,
    time,
)
from common.processors.bills.focus_units import focus_unit
from common.processors.bills.layout import DESTINATION
from common.processors.bills.table_rows import OWN_COLUMNS
from common.tables.contract import load_table

START_NAME = "ChargePeriodStart"

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


START = needed(time(START_NAME))


def _category(value: str) -> str:
    return PRICING.get(value, value)


def _unit(value: str) -> str:
    return focus_unit(value) if value else value


class OciFocus:
    """A line is a row."""

    provider = "oci"
    needed = ((START_NAME,), ("BilledCost",), ("BillingCurrency",), ("BillingPeriodStart",), ("BillingPeriodEnd",))
    currency = None
    partial = ""
    day = day_of(START)
    period = (time("BillingPeriodStart"), time("BillingPeriodEnd"))

    def __init__(self, configs: Path) -> None:
        row: dict[str, Expression] = {
            column.name: Read(column.type, (column.name, *([DRAFTS[column.name]] if column.name in DRAFTS else [])))
            for column in load_table(configs, DESTINATION).columns
            if column.name not in (*OWN_COLUMNS, "extra")
        }
        cost = Needed(row["BilledCost"], ("BilledCost",))
        # The columns that FOCUS requires and the drafts lack are filled.
        filled: Columns = {
            "PricingCategory": Mapped("STRING", row["PricingCategory"], _category),
            "PricingUnit": Mapped("STRING", row["PricingUnit"], _unit),
            "ConsumedUnit": Mapped("STRING", row["ConsumedUnit"], _unit),
            "RegionName": either(row["RegionName"], row["RegionId"]),
            "EffectiveCost": First((row["EffectiveCost"], cost)),
        }
        self.shapes = (Shape({**row, **filled, **_prices(row, cost)}, reads=(*row.values(), cost)),)

    @staticmethod
    def plain_name(own: str) -> str:
        """Column names are those of FOCUS or of a draft."""
        return own


def _prices(row: Columns, cost: Expression) -> Columns:
    """Return price columns with cost = price x quantity. Drafts lack contracted prices: list prices replace them."""
    is_priced = is_(row["ChargeCategory"], "Usage", "Purchase")
    listed, quantity = row["ListUnitPrice"], row["PricingQuantity"]
    contracted = First((row["ContractedUnitPrice"], listed))
    has_price = Not(AnyOf((IsNull(listed), IsNull(quantity))))
    priced: Columns = {
        "ContractedUnitPrice": Case(((has_price, contracted),), row["ContractedUnitPrice"]),
        "ListCost": Case(((has_price, Times(listed, quantity)),), row["ListCost"]),
        "ContractedCost": Case(((has_price, Times(contracted, quantity)),), row["ContractedCost"]),
        "SkuPriceId": either(row["SkuPriceId"], row["SkuId"]),
    }
    unpriced: Columns = {name: First((row[name], cost)) for name in ("ListCost", "ContractedCost")}
    return {name: Case(((is_priced, of),), unpriced.get(name, row[name])) for name, of in priced.items()}
