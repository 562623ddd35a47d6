"""Converts Oracle's cost reports (``reports/cost-csv``) to rows of FOCUS.

Facts: docs.oracle.com/en-us/iaas/Content/Billing, and a published report. A quantity is in the unit of its price.
"""

import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

from common.config.service_categories import service_categories
from common.domain.dates import next_month
from common.processors.bills.cells import Cells
from common.processors.bills.focus_prices import price_columns
from common.processors.bills.focus_units import focus_unit

Row = dict[str, Any]
START, COST = "lineItem/intervalUsageStart", "cost/myCost"


class OciCost:
    """A line is a row. A correction is a line of its own, with its own amount."""

    provider = "oci"
    needed = ((START,), (COST,), ("cost/currencyCode",), ("lineItem/tenantId",))

    def __init__(self, configs: Path) -> None:
        self._configs = configs

    @staticmethod
    def plain_name(own: str) -> str:
        """Column names are the same in every report; a tag's column is named by its key."""
        return own

    def day(self, cells: Cells) -> date:
        """The UTC day on which the usage began."""
        return cells.needed(cells.time(START), START).date()

    def period(self, cells: Cells) -> tuple[datetime | None, datetime | None]:
        """The month of the usage: a report states no billing period."""
        start = cells.needed(cells.time(START), START)
        begins = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return begins, next_month(begins)

    def rows(self, cells: Cells) -> Iterator[Row]:
        """Yield the line."""
        with localcontext(prec=76):  # Oracle's amounts have exponents: the default of 28 digits could round a sum
            cost = cells.needed(cells.number(COST), COST) + (cells.number("cost/myCostOverage") or Decimal(0))
            over = cells.number("usage/billedQuantityOverage") or Decimal(0)
            quantity = (cells.number("usage/billedQuantity") or Decimal(0)) + over
        start, end = cells.needed(cells.time(START), START), cells.time("lineItem/intervalUsageEnd")
        begins, ends = self.period(cells)
        service = cells.text("product/service") or "OCI"
        category, subcategory = service_categories(self._configs, "oci").of(service)
        tenancy, compartment = cells.text("lineItem/tenantId"), cells.text("product/compartmentId")
        sku = cells.text("cost/productSku") or "unknown"
        described = cells.text("product/Description") or sku
        unit = focus_unit(cells.text("cost/skuUnitDescription") or "Units")
        region = cells.text("product/region")
        price = None if over else cells.number("cost/unitPrice")  # overage has another price
        yield _resource(cells, service) | {
            "BilledCost": cost,
            "EffectiveCost": cost,
            "BillingCurrency": cells.needed(cells.text("cost/currencyCode"), "cost/currencyCode"),
            "BillingAccountId": cells.needed(tenancy, "lineItem/tenantId"),
            "BillingAccountType": "Tenancy",
            "SubAccountId": compartment,
            "SubAccountName": None if compartment is None else cells.text("product/compartmentName"),
            "SubAccountType": None if compartment is None else "Compartment",
            "BillingPeriodStart": begins,
            "BillingPeriodEnd": ends,
            "ChargePeriodStart": start,
            "ChargePeriodEnd": end if end is not None and end > start else start + timedelta(hours=1),
            "ChargeCategory": "Usage",
            # Not by backreferenceNo: in a published report, lines that correct nothing have one too.
            "ChargeClass": "Correction" if cells.text("lineItem/isCorrection") == "true" else None,
            "ChargeFrequency": "Usage-Based",
            "ChargeDescription": described,
            "ProviderName": "Oracle",
            "PublisherName": "Oracle",
            "HostProviderName": "Oracle",
            "InvoiceIssuerName": "Oracle",
            "ServiceName": service,
            "ServiceCategory": category,
            "ServiceSubcategory": subcategory,
            "RegionId": region,
            "RegionName": region,
            "AvailabilityZone": cells.text("product/availabilityDomain"),
            "SkuId": sku,
            "SkuMeter": described,
            "PricingCategory": "Standard",
            "ConsumedQuantity": quantity,
            "ConsumedUnit": unit,
            "Tags": _tags(cells),
            **price_columns(
                cost=cost, quantity=quantity, unit=unit, list_price=price, contracted_price=None, price_id=sku
            ),
        }


def _resource(cells: Cells, service: str) -> Row:
    name = cells.text("product/resourceId")
    if name is None:
        return {"ResourceId": None}
    parts = name.split(".")
    is_ocid = parts[0] == "ocid1" and len(parts) > 1
    return {"ResourceId": name, "ResourceName": name, "ResourceType": parts[1] if is_ocid else service}


def _tags(cells: Cells) -> str | None:
    tags = dict(cells.prefixed("tags/"))
    return json.dumps(tags, ensure_ascii=False, sort_keys=True) if tags else None
