"""Converts daily sums of a provider's summary API to rows of FOCUS.

Such a sum has no price and often no unit, so its row is priced as one charge (``focus_prices.py``). The rows go into
the table ``cloud_focus_export``, like those of exports.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from common.config.service_categories import service_categories
from common.domain.dates import next_month
from common.processors.base import Params
from common.processors.bills.expressions import constant
from common.processors.bills.focus_prices import lump_columns
from common.processors.bills.focus_units import focus_unit
from common.processors.bills.row_values import values_of
from common.tables.contract import DATA_DATE


class SummaryParams(Params):
    """Parameters common to the summary APIs of all providers."""

    destination_table: Literal["cloud_focus_export"] = Field(description="Table in the organisation's dataset.")


@dataclass(frozen=True, slots=True)
class Cloud:
    """A provider: its key, its name, who issues its invoices, and what it calls accounts."""

    key: str
    name: str
    issuer: str
    account_type: str
    sub_account_type: str


@dataclass(frozen=True, slots=True)
class Summary:
    """One sum. ``category`` is a ChargeCategory; ``dimensions`` are what it was grouped by, in the provider's words."""

    day: date
    currency: str
    billed: Decimal
    effective: Decimal
    account: str
    service: str
    category: str = "Usage"
    frequency: str = ""
    sub_account: str | None = None
    region: str | None = None
    sku: str | None = None
    description: str | None = None
    quantity: Decimal | None = None
    unit: str | None = None
    dimensions: Mapping[str, str] | None = None
    unused: str = ""
    """Of a sum of unused commitments: what they are called. A summary API names none of them."""


def focus_row(configs: Path, cloud: Cloud, source: str, number: int, its: Summary) -> dict[str, Any]:
    """Return the sum's row. ``source`` names the API, ``number`` is the sum's position in its responses."""
    start = datetime(its.day.year, its.day.month, its.day.day, tzinfo=UTC)
    month = start.replace(day=1)
    category, subcategory = service_categories(configs, cloud.key).of(its.service)
    sku = its.sku or its.service
    row: dict[str, Any] = {
        DATA_DATE: its.day,
        "source_file": source,
        "source_row": number,
        "provider": cloud.key,
        "ProviderName": cloud.name,
        "PublisherName": cloud.name,
        "HostProviderName": cloud.name,
        "InvoiceIssuerName": cloud.issuer,
        "BillingAccountId": its.account,
        "BillingAccountType": cloud.account_type,
        "SubAccountId": its.sub_account,
        "SubAccountType": None if its.sub_account is None else cloud.sub_account_type,
        "BillingCurrency": its.currency,
        "BillingPeriodStart": month,
        "BillingPeriodEnd": next_month(month),
        "ChargePeriodStart": start,
        "ChargePeriodEnd": start + timedelta(days=1),
        "ChargeCategory": its.category,
        "ChargeFrequency": its.frequency or ("Usage-Based" if its.category == "Usage" else "One-Time"),
        "ChargeDescription": its.description or its.service,
        "ServiceName": its.service,
        "ServiceCategory": category,
        "ServiceSubcategory": subcategory,
        "RegionId": its.region,
        "RegionName": its.region,
        "BilledCost": its.billed,
        "EffectiveCost": its.effective,
        "extra": dict(its.dimensions) if its.dimensions else None,
    }
    if its.category not in ("Usage", "Purchase"):
        return row | {"ListCost": its.billed, "ContractedCost": its.billed}
    row |= {"SkuId": sku, "SkuMeter": its.description or sku, "PricingCategory": "Standard"}
    row |= values_of(lump_columns(constant(its.billed), constant(sku)))
    if its.unused:
        return row | {
            "PricingCategory": "Committed",
            "CommitmentDiscountId": its.unused,
            "CommitmentDiscountCategory": "Spend",
            "CommitmentDiscountType": "Commitment",
            "CommitmentDiscountStatus": "Unused",
            "CommitmentDiscountQuantity": its.effective,
            "CommitmentDiscountUnit": its.currency,
        }
    if its.category == "Usage":
        # A sum over several units has no quantity that means anything, and FOCUS requires one of usage.
        known = its.quantity is not None and its.unit is not None
        row |= {
            "ConsumedQuantity": its.quantity if known else Decimal(1),
            "ConsumedUnit": focus_unit(its.unit) if its.unit and known else "Charges",
        }
    return row
