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
    All,
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
    Needed,
    Not,
    Same,
    Shape,
    Tags,
    constant,
    day_of,
    either,
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
# Overage is a part of the cost and of the quantity, not beside them: in Oracle's lines with overageFlag Y both columns
# have the same value, and the cost is price x quantity. Where only the overage is given, it is all there is.
COST = Needed(number(COST_NAME, "cost/myCostOverage"), (COST_NAME,))
OVER, OVER_PRICE = number("usage/billedQuantityOverage"), number("cost/unitPriceOverage")
AMOUNT = First((number("usage/billedQuantity"), OVER, ZERO))
OWN_PRICE = number("cost/unitPrice")
CURRENCY = text("cost/currencyCode")
IS_FREE = Not(AnyOf((Less(COST, ZERO), Less(ZERO, COST))))
UNIT = Mapped("STRING", either(text("cost/skuUnitDescription"), "Units"), focus_unit)
SKU = either(text("cost/productSku"), "unknown")
DESCRIBED = either(text("product/Description"), SKU)
COMPARTMENT = text("product/compartmentId")
# An amount that is partly overage has two prices, so none of its own.
HAS_TWO_PRICES = All((Not(IsNull(OVER_PRICE)), Not(IsNull(OWN_PRICE)), Not(Same(OVER_PRICE, OWN_PRICE))))
PRICE = Case(((All((HAS_TWO_PRICES, Not(Same(OVER, AMOUNT)))), NO_NUMBER),), First((OWN_PRICE, OVER_PRICE)))


class OciCost:
    """A line is a row. A correction is a line of its own, with its own amount."""

    provider = "oci"
    needed = ((START_NAME,), (COST_NAME,), ("cost/currencyCode",), ("lineItem/tenantId",))
    partial = ""
    day = day_of(START)
    currency = CURRENCY
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
            # A line of cost 0 may have no currency: it is the file's (``layout.py``).
            "BillingCurrency": Case(((IS_FREE, CURRENCY),), needed(CURRENCY)),
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
            # lineItem/isCorrection stays a column of its own: FOCUS's Correction is one of an earlier invoice, and the
            # report names no invoice. Its line is in the month of the usage that it corrects.
            "ChargeClass": NO_TEXT,
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
        self.shapes = (
            Shape(columns, reads=(COST, number("cost/myCostOverage"), OVER, AMOUNT, START, END, PRICE, OVER_PRICE)),
        )

    @staticmethod
    def plain_name(own: str) -> str:
        """Column names are the same in every report; a tag's column is named by its key."""
        return own


def _resource(service: Expression) -> Columns:
    name = text("product/resourceId")
    is_ocid = Matches(name, r"^ocid1\.")
    kind = Case(((is_ocid, Extracted(name, r"^ocid1\.([^.]*)")),), service)
    return {"ResourceId": name, **only(Not(IsNull(name)), {"ResourceName": name, "ResourceType": kind})}
