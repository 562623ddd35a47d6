"""Converts AWS's Cost and Usage Reports, 2.0 and legacy, to rows of FOCUS.

Facts: AWS's data dictionary, see docs/providers-cloud.md. A legacy name (``lineItem/UnblendedCost``) and that of 2.0
(``line_item_unblended_cost``) differ in spelling only.
"""

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from common.config.service_categories import service_categories
from common.domain.dates import next_month
from common.processors.bills.expressions import (
    NO_NUMBER,
    NO_TEXT,
    ZERO,
    After,
    AfterLast,
    All,
    AnyOf,
    Case,
    Columns,
    Expression,
    First,
    IsNull,
    Joined,
    Less,
    Mapped,
    Matches,
    Minus,
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
from common.processors.bills.focus_prices import charged, lump_columns, price_columns
from common.processors.bills.focus_units import focus_unit

COST_NAME = "line_item_unblended_cost"
START_NAME = "line_item_usage_start_date"


class Kind(NamedTuple):
    """How FOCUS sees a type of line item. ``effective`` is the column with its amortised cost, "0" for none."""

    category: str
    frequency: str
    effective: str = COST_NAME
    commitment: str = ""


USAGE = Kind("Usage", "Usage-Based")
KINDS = {
    "Usage": USAGE,
    "DiscountedUsage": Kind("Usage", "Usage-Based", "reservation_effective_cost", "Used"),
    "SavingsPlanCoveredUsage": Kind("Usage", "Usage-Based", "savings_plan_savings_plan_effective_cost", "Used"),
    # It cancels the on-demand cost of covered usage in the bill; in EffectiveCost that usage has its own cost already.
    "SavingsPlanNegation": Kind("Adjustment", "One-Time", "0"),
    "Fee": Kind("Purchase", "One-Time"),
    "RIFee": Kind("Purchase", "Recurring", "0", "Bought"),
    "SavingsPlanRecurringFee": Kind("Purchase", "Recurring", "0", "Bought"),
    "SavingsPlanUpfrontFee": Kind("Purchase", "One-Time", "0", "Bought"),
    "Tax": Kind("Tax", "One-Time"),
    "Credit": Kind("Credit", "One-Time"),
    "Refund": Kind("Credit", "One-Time"),
}
DISCOUNT = Kind("Adjustment", "One-Time")
"""EdpDiscount, PrivateRateDiscount, BundledDiscount, ... and types that AWS may add: none may be dropped."""


def _types(**wanted: str) -> tuple[str, ...]:
    """Return the types of line items whose Kind has these fields."""
    return tuple(name for name, kind in KINDS.items() if wanted.items() <= kind._asdict().items())


def _hour_later(start: datetime) -> datetime:
    return start + timedelta(hours=1)


def _month(start: datetime) -> datetime:
    return start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _tag(key: str) -> str:
    """``user:Team`` becomes Team; other prefixes stay."""
    return key[5:] if key.startswith(("user:", "user_")) else key


LINE_TYPE = needed(text("line_item_line_item_type"))
COST, START, END = needed(number(COST_NAME)), needed(time(START_NAME)), time("line_item_usage_end_date")
BEGINS, ENDS = time("bill_billing_period_start_date"), time("bill_billing_period_end_date")
CURRENCY = needed(text("line_item_currency_code"))
AMOUNT, USAGE_TYPE = number("line_item_usage_amount"), text("line_item_usage_type")
UNIT = Mapped("STRING", either(text("pricing_unit"), "Units"), focus_unit)
RESOURCE, OWNER = text("line_item_resource_id"), text("line_item_usage_account_id")

CATEGORY = Mapped("STRING", LINE_TYPE, lambda line_type: KINDS.get(line_type, DISCOUNT).category)
FREQUENCY = Mapped("STRING", LINE_TYPE, lambda line_type: KINDS.get(line_type, DISCOUNT).frequency)
IS_USAGE = is_(CATEGORY, "Usage")
IS_PRICED = is_(CATEGORY, "Usage", "Purchase")
IS_USED, IS_BOUGHT = is_(LINE_TYPE, *_types(commitment="Used")), is_(LINE_TYPE, *_types(commitment="Bought"))

# Some line items end when they begin; FOCUS requires an end that is later.
CHARGE_END = Case(((Less(START, END), END),), Mapped("TIMESTAMP", START, _hour_later))
PERIOD_START = First((BEGINS, Mapped("TIMESTAMP", START, _month)))
IS_LATE_REFUND = All((is_(LINE_TYPE, "Refund"), Not(Less(PERIOD_START, CHARGE_END))))

EFFECTIVE = First(
    (
        Case(
            (
                (is_(LINE_TYPE, *_types(effective="0")), ZERO),
                *(
                    (is_(LINE_TYPE, *_types(effective=column)), number(column))
                    for column in ("reservation_effective_cost", "savings_plan_savings_plan_effective_cost")
                ),
            ),
            COST,
        ),
        COST,
    )
)

# The commitment that a line item uses or buys.
PLAN = text("savings_plan_savings_plan_a_r_n")
RESERVATION = text("reservation_reservation_a_r_n", "reservation_subscription_id")
PLAN_COST, PLAN_TOTAL = (
    number("savings_plan_savings_plan_effective_cost"),
    number("savings_plan_total_commitment_to_date"),
)
COMMITMENT = After((PLAN, RESERVATION), either(PLAN, RESERVATION))
IS_PLAN = Not(AnyOf((IsNull(PLAN), is_(PLAN, ""))))
HAS_COMMITMENT = All(
    (AnyOf((IS_USED, IS_BOUGHT)), Not(IsNull(Case(((AnyOf((IS_USED, IS_BOUGHT)), COMMITMENT),), NO_TEXT))))
)
COMMITMENT_NAME = AfterLast(COMMITMENT)
# A savings plan commits to money, a reservation to use: so one's quantity is in currency, the other's in units.
BOUGHT_MONEY = After((PLAN_COST,), number("savings_plan_total_commitment_to_date", COST_NAME))
COMMITTED = Case(((All((IS_PLAN, IS_BOUGHT)), BOUGHT_MONEY), (IS_PLAN, PLAN_COST)), AMOUNT)

# The cost of the part of a commitment that was unused in the period of its fee.
UNUSED_FEE = Plus(
    First((number("reservation_unused_amortized_upfront_fee_for_billing_period"), ZERO)),
    First((number("reservation_unused_recurring_fee"), ZERO)),
)
UNUSED_PLAN = First(
    (
        Minus(PLAN_TOTAL, Case(((IsNull(PLAN_TOTAL), ZERO),), First((number("savings_plan_used_commitment"), ZERO)))),
        ZERO,
    )
)
UNUSED = Case(((is_(LINE_TYPE, "RIFee"), UNUSED_FEE), (is_(LINE_TYPE, "SavingsPlanRecurringFee"), UNUSED_PLAN)), ZERO)

SKU = either(text("product_sku"), USAGE_TYPE, "unknown")
METER = either(USAGE_TYPE, SKU)
LIST_PRICE = number("pricing_public_on_demand_rate")
# The rate of covered usage is after the commitment's discount; FOCUS's ContractedUnitPrice is before it.
PAID = Case(((is_(LINE_TYPE, "Usage"), number("line_item_unblended_rate")),), NO_NUMBER)


class AwsCur:
    """A line item is one row; the unused part of a commitment is another, with BilledCost 0."""

    provider = "aws"
    needed = (("line_item_line_item_type",), (COST_NAME,), (START_NAME,), ("bill_payer_account_id",))
    day = day_of(START)
    period = (BEGINS, ENDS)

    def __init__(self, configs: Path) -> None:
        common = _common(configs)
        prices = price_columns(
            cost=COST,
            quantity=Case(((IS_USAGE, AMOUNT),), NO_NUMBER),
            unit=UNIT,
            list_price=LIST_PRICE,
            contracted_price=PAID,
            price_id=either(text("pricing_rate_code", "pricing_rate_id"), SKU),
        )
        priced = {name: After((AMOUNT, UNIT, SKU, LIST_PRICE, PAID), of) for name, of in prices.items()}
        sku: Columns = {"SkuId": SKU, "SkuMeter": METER}
        commitment = _commitment()
        item = Shape(
            {
                **common,
                "ChargeCategory": CATEGORY,
                "ChargeFrequency": FREQUENCY,
                "ChargeClass": Case(((IS_LATE_REFUND, constant("Correction")),), NO_TEXT),
                "ChargeDescription": either(text("line_item_line_item_description"), LINE_TYPE),
                "BilledCost": COST,
                "EffectiveCost": EFFECTIVE,
                **charged(IS_PRICED, priced, COST),
                **only(IS_PRICED, {**sku, "PricingCategory": _pricing_category()}),
                **only(IS_USAGE, {"ConsumedQuantity": First((AMOUNT, ZERO)), "ConsumedUnit": UNIT}),
                **commitment,
            },
            reads=(LINE_TYPE, COST, text("line_item_legal_entity"), text("line_item_product_code")),
        )
        # BilledCost 0 because the fee has it, and no ConsumedQuantity, as FOCUS requires.
        unused = Shape(
            {
                **common,
                **commitment,
                **lump_columns(UNUSED, prices["SkuPriceId"]),
                **sku,
                "ChargeCategory": constant("Usage"),
                "ChargeFrequency": constant("Usage-Based"),
                "ChargeDescription": Joined(
                    ("Unused part of ", Case(((HAS_COMMITMENT, COMMITMENT_NAME),), constant("a commitment")))
                ),
                "CommitmentDiscountStatus": Case(((HAS_COMMITMENT, constant("Unused")),), NO_TEXT),
                "BilledCost": ZERO,
                "EffectiveCost": UNUSED,
                "PricingCategory": constant("Committed"),
            },
            when=AnyOf((Less(UNUSED, ZERO), Less(ZERO, UNUSED))),
        )
        self.shapes = (item, unused)

    @staticmethod
    def plain_name(own: str) -> str:
        """``lineItem/UsageStartDate`` is ``line_item_usage_start_date``; tags keep their keys as they are."""
        group, slash, name = own.partition("/")
        if not slash:
            return own
        if group in ("resourceTags", "costCategory"):
            return f"{_snake(group)}/{name}"
        return f"{_snake(group)}_{_snake(name)}"


def _snake(name: str) -> str:
    # As AWS itself converts them: SavingsPlanARN became savings_plan_savings_plan_a_r_n in CUR 2.0.
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _common(configs: Path) -> dict[str, Expression]:
    service = either(text("product_product_name", "product_servicename"), text("line_item_product_code"), "AWS")
    categories = service_categories(configs, "aws")
    region = text("product_region_code", "product_region")
    seller = either(text("line_item_legal_entity"), "AWS Marketplace")
    is_marketplace = is_(text("bill_billing_entity"), "AWS Marketplace")
    family = either(text("product_product_family"), service)
    return {
        "BillingCurrency": CURRENCY,
        "BillingAccountId": needed(text("bill_payer_account_id")),
        "BillingAccountName": text("bill_payer_account_name"),
        "SubAccountId": OWNER,
        "SubAccountName": Case(((IsNull(OWNER), NO_TEXT),), text("line_item_usage_account_name")),
        "InvoiceId": text("bill_invoice_id"),
        "InvoiceIssuerName": either(text("bill_invoicing_entity"), "Amazon Web Services, Inc."),
        "ProviderName": constant("AWS"),
        "PublisherName": Case(((is_marketplace, seller),), constant("AWS")),
        "HostProviderName": constant("AWS"),
        "ServiceName": service,
        "ServiceCategory": Mapped("STRING", service, lambda name: categories.of(name)[0]),
        "ServiceSubcategory": Mapped("STRING", service, lambda name: categories.of(name)[1]),
        "RegionId": region,
        "RegionName": region,
        "AvailabilityZone": text("line_item_availability_zone"),
        "ResourceId": RESOURCE,
        "ResourceName": RESOURCE,
        "ResourceType": Case(((IsNull(RESOURCE), NO_TEXT),), family),
        # Tags are in a map column, or in a column each.
        "Tags": Tags(("resource_tags/", "resource_tags_"), rename=_tag, whole="resource_tags"),
        "ChargePeriodStart": START,
        "ChargePeriodEnd": CHARGE_END,
        "BillingPeriodStart": PERIOD_START,
        "BillingPeriodEnd": First((ENDS, Mapped("TIMESTAMP", PERIOD_START, next_month))),
    }


def _pricing_category() -> Case:
    return Case(
        ((IS_USED, constant("Committed")), (Matches(METER, "SpotUsage"), constant("Dynamic"))), constant("Standard")
    )


def _commitment() -> Columns:
    """Return the columns of the commitment; FOCUS requires a status for usage only."""
    return only(
        HAS_COMMITMENT,
        {
            "CommitmentDiscountId": COMMITMENT,
            "CommitmentDiscountName": COMMITMENT_NAME,
            "CommitmentDiscountCategory": Case(((IS_PLAN, constant("Spend")),), constant("Usage")),
            "CommitmentDiscountType": Case(((IS_PLAN, constant("Savings Plan")),), constant("Reserved Instance")),
            "CommitmentDiscountStatus": Case(((IS_USED, constant("Used")),), NO_TEXT),
            "CommitmentDiscountQuantity": First((COMMITTED, ZERO)),
            "CommitmentDiscountUnit": After((CURRENCY, UNIT), Case(((IS_PLAN, CURRENCY),), UNIT)),
        },
    )
