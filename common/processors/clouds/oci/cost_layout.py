"""Converts Oracle's cost reports (``reports/cost-csv``) to rows of FOCUS.

Facts: docs.oracle.com/en-us/iaas/Content/Billing, and a published report. A quantity is in the unit of its price.
"""

from datetime import datetime, timedelta
from pathlib import Path

from common.config.service_categories import service_categories
from common.domain.dates import next_month
from common.processors.bills.expressions import (
    NO_NUMBER,
    NO_TEXT,
    ZERO,
    AnyOf,
    Case,
    Columns,
    Expression,
    Extracted,
    First,
    IsNull,
    Less,
    Mapped,
    Matches,
    Not,
    Plus,
    Shape,
    Tags,
    constant,
    day_of,
    either,
    is_,
    needed,
    number,
    only,
    text,
    time,
)
from common.processors.bills.focus_prices import price_columns
from common.processors.bills.focus_units import focus_unit

START_NAME, COST_NAME = "lineItem/intervalUsageStart", "cost/myCost"


def _hour_later(start: datetime) -> datetime:
    return start + timedelta(hours=1)


def _month(start: datetime) -> datetime:
    return start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


START, END = needed(time(START_NAME)), time("lineItem/intervalUsageEnd")
PERIOD_START = Mapped("TIMESTAMP", START, _month)
PERIOD_END = Mapped("TIMESTAMP", PERIOD_START, next_month)
COST = Plus(needed(number(COST_NAME)), First((number("cost/myCostOverage"), ZERO)))
OVER = First((number("usage/billedQuantityOverage"), ZERO))
AMOUNT = Plus(First((number("usage/billedQuantity"), ZERO)), OVER)
UNIT = Mapped("STRING", either(text("cost/skuUnitDescription"), "Units"), focus_unit)
SKU = either(text("cost/productSku"), "unknown")
DESCRIBED = either(text("product/Description"), SKU)
COMPARTMENT = text("product/compartmentId")
# Overage has another price.
PRICE = Case(((AnyOf((Less(OVER, ZERO), Less(ZERO, OVER))), NO_NUMBER),), number("cost/unitPrice"))


class OciCost:
    """A line is a row. A correction is a line of its own, with its own amount."""

    provider = "oci"
    needed = ((START_NAME,), (COST_NAME,), ("cost/currencyCode",), ("lineItem/tenantId",))
    day = day_of(START)
    period = (PERIOD_START, PERIOD_END)
    """The month of the usage: a report states no billing period."""

    def __init__(self, configs: Path) -> None:
        service = either(text("product/service"), "OCI")
        categories = service_categories(configs, "oci")
        region = text("product/region")
        prices = price_columns(
            cost=COST,
            quantity=AMOUNT,
            unit=UNIT,
            list_price=PRICE,
            contracted_price=NO_NUMBER,
            price_id=SKU,
        )
        columns: Columns = {
            **_resource(service),
            "BilledCost": COST,
            "EffectiveCost": COST,
            "BillingCurrency": needed(text("cost/currencyCode")),
            "BillingAccountId": needed(text("lineItem/tenantId")),
            "BillingAccountType": constant("Tenancy"),
            "SubAccountId": COMPARTMENT,
            **only(
                Not(IsNull(COMPARTMENT)),
                {"SubAccountName": text("product/compartmentName"), "SubAccountType": constant("Compartment")},
            ),
            "BillingPeriodStart": PERIOD_START,
            "BillingPeriodEnd": PERIOD_END,
            "ChargePeriodStart": START,
            "ChargePeriodEnd": Case(((Less(START, END), END),), Mapped("TIMESTAMP", START, _hour_later)),
            "ChargeCategory": constant("Usage"),
            # Not by backreferenceNo: in a published report, lines that correct nothing have one too.
            "ChargeClass": Case(((is_(text("lineItem/isCorrection"), "true"), constant("Correction")),), NO_TEXT),
            "ChargeFrequency": constant("Usage-Based"),
            "ChargeDescription": DESCRIBED,
            "ProviderName": constant("Oracle"),
            "PublisherName": constant("Oracle"),
            "HostProviderName": constant("Oracle"),
            "InvoiceIssuerName": constant("Oracle"),
            "ServiceName": service,
            "ServiceCategory": Mapped("STRING", service, lambda name: categories.of(name)[0]),
            "ServiceSubcategory": Mapped("STRING", service, lambda name: categories.of(name)[1]),
            "RegionId": region,
            "RegionName": region,
            "AvailabilityZone": text("product/availabilityDomain"),
            "SkuId": SKU,
            "SkuMeter": DESCRIBED,
            "PricingCategory": constant("Standard"),
            "ConsumedQuantity": AMOUNT,
            "ConsumedUnit": UNIT,
            "Tags": Tags(("tags/",), blank=True),
            **prices,
        }
        self.shapes = (Shape(columns, reads=(COST, OVER, AMOUNT, START, END, PRICE)),)

    @staticmethod
    def plain_name(own: str) -> str:
        """Column names are the same in every report; a tag's column is named by its key."""
        return own


def _resource(service: Expression) -> Columns:
    name = text("product/resourceId")
    is_ocid = Matches(name, r"^ocid1\.")
    kind = Case(((is_ocid, Extracted(name, r"^ocid1\.([^.]*)")),), service)
    return {"ResourceId": name, **only(Not(IsNull(name)), {"ResourceName": name, "ResourceType": kind})}
