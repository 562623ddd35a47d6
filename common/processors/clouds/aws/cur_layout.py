"""Converts AWS's Cost and Usage Reports, 2.0 and legacy, to rows of FOCUS.

Facts: AWS's data dictionary, see docs/providers-cloud.md. A legacy name (``lineItem/UnblendedCost``) and that of 2.0
(``line_item_unblended_cost``) differ in spelling only.
"""

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from common.config.regions import region_names
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
    Extracted,
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
    """How FOCUS sees a type of line item. ``commitment``: it is Used, or Bought, by its type alone."""

    category: str
    frequency: str
    commitment: str = ""


USAGE = Kind("Usage", "Usage-Based")
KINDS = {
    "Usage": USAGE,
    "DiscountedUsage": Kind("Usage", "Usage-Based", "Used"),
    "SavingsPlanCoveredUsage": Kind("Usage", "Usage-Based", "Used"),
    "SavingsPlanNegation": Kind("Adjustment", "One-Time"),
    "Fee": Kind("Purchase", "One-Time"),
    "FlatRateSubscription": Kind("Purchase", "Recurring"),
    "RIFee": Kind("Purchase", "Recurring", "Bought"),
    "SavingsPlanRecurringFee": Kind("Purchase", "Recurring", "Bought"),
    "SavingsPlanUpfrontFee": Kind("Purchase", "One-Time", "Bought"),
    "Tax": Kind("Tax", "One-Time"),
    "Credit": Kind("Credit", "One-Time"),
    # Money back has the category of what it is for, with a negative amount: FOCUS says so of refunds. A refund that
    # refers to a commitment is a Purchase.
    "Refund": USAGE,
}
DISCOUNT = Kind("Adjustment", "One-Time")
"""EdpDiscount, PrivateRateDiscount, BundledDiscount, ... and types that AWS may add: none may be dropped."""


def _types(commitment: str) -> tuple[str, ...]:
    """Return the types of line items whose Kind has this role in a commitment."""
    return tuple(name for name, kind in KINDS.items() if kind.commitment == commitment)


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

IS_USED, IS_BOUGHT = is_(LINE_TYPE, *_types("Used")), is_(LINE_TYPE, *_types("Bought"))
IS_REFUND = is_(LINE_TYPE, "Refund")
MAY_REFER = AnyOf((IS_USED, IS_BOUGHT, is_(LINE_TYPE, "Fee", "Refund")))

# What a line item refers to decides whether it is a commitment's purchase, not its type: a Fee may also be a domain
# name, and a refund may be for anything.
DESCRIBED = text("line_item_line_item_description")
_PLAN_ID = r"Savings Plan ID: ([0-9A-Za-z-]+)"
_ARN_OF_COMMITMENT = r":reserved-|:ri:|:savingsplan/"
REFERENCE = Case(
    (
        (
            MAY_REFER,
            either(
                text("savings_plan_savings_plan_a_r_n"),
                text("reservation_reservation_a_r_n"),
                Case(((Matches(RESOURCE, _ARN_OF_COMMITMENT), RESOURCE),), NO_TEXT),
                # A refund of a Savings Plan names it in its description alone. The ARN is that of its purchase.
                Case(
                    (
                        (
                            Matches(DESCRIBED, _PLAN_ID),
                            Joined(("arn:aws:savingsplans::", OWNER, ":savingsplan/", Extracted(DESCRIBED, _PLAN_ID))),
                        ),
                    ),
                    NO_TEXT,
                ),
                Case(
                    ((AnyOf((IS_USED, IS_BOUGHT)), text("reservation_subscription_id")),),
                    NO_TEXT,
                ),
            ),
        ),
    ),
    NO_TEXT,
)
HAS_REFERENCE = Not(AnyOf((IsNull(REFERENCE), is_(REFERENCE, ""))))
IS_COMMITMENT_PURCHASE = AnyOf((IS_BOUGHT, All((is_(LINE_TYPE, "Fee", "Refund"), HAS_REFERENCE))))
HAS_COMMITMENT = AnyOf((IS_USED, IS_COMMITMENT_PURCHASE))
IS_PLAN = AnyOf((Matches(LINE_TYPE, r"^SavingsPlan"), Matches(REFERENCE, r":savingsplan/")))
# Without an ARN (a report made without that column) the line still is a commitment's.
COMMITMENT = either(REFERENCE, Case(((IS_PLAN, constant("unknown savings plan")),), constant("unknown reservation")))
COMMITMENT_NAME = AfterLast(COMMITMENT)

CATEGORY = Case(
    ((All((IS_REFUND, IS_COMMITMENT_PURCHASE)), constant("Purchase")),),
    Mapped("STRING", LINE_TYPE, lambda line_type: KINDS.get(line_type, DISCOUNT).category),
)
FREQUENCY = Case(
    ((All((IS_REFUND, IS_COMMITMENT_PURCHASE)), constant("One-Time")),),
    Mapped("STRING", LINE_TYPE, lambda line_type: KINDS.get(line_type, DISCOUNT).frequency),
)
IS_USAGE = is_(CATEGORY, "Usage")
IS_PRICED = is_(CATEGORY, "Usage", "Purchase")

# Some line items end when they begin; FOCUS requires an end that is later.
CHARGE_END = Case(((Less(START, END), END),), Mapped("TIMESTAMP", START, _hour_later))
PERIOD_START = First((BEGINS, Mapped("TIMESTAMP", START, _month)))
IS_LATE_REFUND = All((IS_REFUND, Not(Less(PERIOD_START, CHARGE_END))))

# Under a discount agreement the net column is what is paid; it is empty, or not there, without one.
PAID_COST = First((number("line_item_net_unblended_cost"), COST))
IS_COVERED = is_(LINE_TYPE, "SavingsPlanCoveredUsage")
# The plan's fee is billed. The on-demand cost of what the plan covers and its negation, which cancel each other in the
# report, are not (FOCUS, Discount Handling): as rows with and without tags they would change each team's bill.
BILLED = Case(((AnyOf((IS_COVERED, is_(LINE_TYPE, "SavingsPlanNegation"))), After((COST,), ZERO)),), PAID_COST)
PLAN_COST = number("savings_plan_net_savings_plan_effective_cost", "savings_plan_savings_plan_effective_cost")
PLAN_TOTAL = number("savings_plan_total_commitment_to_date")
EFFECTIVE = Case(
    (
        (IS_COMMITMENT_PURCHASE, ZERO),
        (IS_COVERED, First((PLAN_COST, COST))),
        (
            is_(LINE_TYPE, "DiscountedUsage"),
            First((number("reservation_net_effective_cost", "reservation_effective_cost"), PAID_COST)),
        ),
    ),
    BILLED,
)
# What a row costs for which the report has no list price.
LUMP = Case(((IS_COVERED, COST), (is_(LINE_TYPE, "DiscountedUsage"), EFFECTIVE)), BILLED)

# A savings plan commits to money, a reservation to use: so one's quantity is in currency, the other's in units.
BOUGHT_MONEY = After((PLAN_COST,), number("savings_plan_total_commitment_to_date", COST_NAME))
COMMITTED = Case(((All((IS_PLAN, IS_COMMITMENT_PURCHASE)), BOUGHT_MONEY), (IS_PLAN, PLAN_COST)), AMOUNT)

# The cost of the part of a commitment that was unused in the period of its fee, and how much that part is.
UNUSED_FEE = Plus(
    First(
        (
            number(
                "reservation_net_unused_amortized_upfront_fee_for_billing_period",
                "reservation_unused_amortized_upfront_fee_for_billing_period",
            ),
            ZERO,
        )
    ),
    First((number("reservation_net_unused_recurring_fee", "reservation_unused_recurring_fee"), ZERO)),
)
UNUSED_PLAN = First(
    (
        Minus(PLAN_TOTAL, Case(((IsNull(PLAN_TOTAL), ZERO),), First((number("savings_plan_used_commitment"), ZERO)))),
        ZERO,
    )
)
UNUSED = Case(((is_(LINE_TYPE, "RIFee"), UNUSED_FEE), (is_(LINE_TYPE, "SavingsPlanRecurringFee"), UNUSED_PLAN)), ZERO)
UNUSED_QUANTITY = Case(((IS_PLAN, UNUSED_PLAN),), First((number("reservation_unused_quantity"), ZERO)))

SKU = either(text("product_sku"), USAGE_TYPE, "unknown")
METER = either(USAGE_TYPE, SKU)
LIST_PRICE = number("pricing_public_on_demand_rate")
# The rate of covered usage is after the commitment's discount; FOCUS's ContractedUnitPrice is before it.
PAID = Case(((is_(LINE_TYPE, "Usage"), number("line_item_net_unblended_rate", "line_item_unblended_rate")),), NO_NUMBER)


CONSUMED = First((Case(((IS_REFUND, After((AMOUNT,), ZERO)),), AMOUNT), ZERO))
RESERVATION_STATUS = Mapped(
    "STRING",
    First((text("capacity_reservation_capacity_reservation_status"), constant("Used"))),
    lambda status: "Unused" if status == "Unused" else "Used",
)
RESERVED = text("capacity_reservation_capacity_reservation_arn")


class AwsCur:
    """A line item is one row; the unused part of a commitment is another, with BilledCost 0."""

    provider = "aws"
    needed = (("line_item_line_item_type",), (COST_NAME,), (START_NAME,), ("bill_payer_account_id",))
    currency = None
    partial = ""
    day = day_of(START)
    period = (BEGINS, ENDS)

    def __init__(self, configs: Path) -> None:
        common = _common(configs)
        prices = price_columns(
            cost=LUMP,
            # A refund's amount is what was used: priced by it, money back would be a cost.
            quantity=Case(((All((IS_USAGE, Not(IS_REFUND))), AMOUNT),), NO_NUMBER),
            unit=UNIT,
            list_price=LIST_PRICE,
            contracted_price=PAID,
            price_id=either(text("pricing_rate_code", "pricing_rate_id"), SKU),
        )
        priced = {name: After((AMOUNT, UNIT, SKU, LIST_PRICE, PAID), of) for name, of in prices.items()}
        details = Tags((), rename=lambda key: f"x_{key}", whole="product")  # the map of CUR 2.0, all of it
        sku: Columns = {"SkuId": SKU, "SkuMeter": METER, "SkuPriceDetails": details}
        commitment = _commitment()
        item = Shape(
            {
                **common,
                "ChargeCategory": CATEGORY,
                "ChargeFrequency": FREQUENCY,
                "ChargeClass": Case(((IS_LATE_REFUND, constant("Correction")),), NO_TEXT),
                "ChargeDescription": either(text("line_item_line_item_description"), LINE_TYPE),
                "BilledCost": BILLED,
                "EffectiveCost": EFFECTIVE,
                **charged(IS_PRICED, priced, BILLED),
                **only(IS_PRICED, {**sku, "PricingCategory": _pricing_category()}),
                **only(IS_USAGE, {"ConsumedQuantity": CONSUMED, "ConsumedUnit": UNIT}),
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
                "ChargeDescription": Joined(("Unused part of ", COMMITMENT_NAME)),
                "CommitmentDiscountStatus": constant("Unused"),
                "CommitmentDiscountQuantity": UNUSED_QUANTITY,
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
    service = either(
        text("product_product_name", "product_servicename"),
        _of_product("product_name"),
        text("line_item_product_code"),
        "AWS",
    )
    categories = service_categories(configs, "aws")
    region = either(text("product_region_code", "product_region"), _of_product("region"))
    names = region_names(configs, "aws")
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
        "ServiceProviderName": Case(((is_marketplace, seller),), constant("AWS")),
        "PublisherName": Case(((is_marketplace, seller),), constant("AWS")),
        "HostProviderName": constant("AWS"),
        "ServiceName": service,
        "ServiceCategory": Mapped("STRING", service, lambda name: categories.of(name)[0]),
        "ServiceSubcategory": Mapped("STRING", service, lambda name: categories.of(name)[1]),
        "RegionId": region,
        "RegionName": either(
            text("product_location"), _of_product("location"), Mapped("STRING", region, lambda id: names.get(id, id))
        ),
        "AvailabilityZone": text("line_item_availability_zone"),
        "ResourceId": RESOURCE,
        "ResourceName": RESOURCE,
        "ResourceType": Case(((IsNull(RESOURCE), NO_TEXT),), family),
        "CapacityReservationId": RESERVED,
        "CapacityReservationStatus": Case(((All((IS_USAGE, Not(IsNull(RESERVED)))), RESERVATION_STATUS),), NO_TEXT),
        # Tags are in a map column, or in a column each.
        "Tags": Tags(("resource_tags/", "resource_tags_"), rename=_tag, whole="resource_tags"),
        "ChargePeriodStart": START,
        "ChargePeriodEnd": CHARGE_END,
        "BillingPeriodStart": PERIOD_START,
        "BillingPeriodEnd": First((ENDS, Mapped("TIMESTAMP", PERIOD_START, next_month))),
    }


def _of_product(key: str) -> Mapped:
    """Return an entry of the map ``product`` of CUR 2.0, NULL if it has none."""
    return Mapped("STRING", text("product"), _entry(key), "product", "a JSON object")


def _entry(key: str) -> Callable[[str], str | None]:
    def entry(text: str) -> str | None:
        product = json.loads(text)
        value = product.get(key) if isinstance(product, dict) else None
        return value if isinstance(value, str) else None

    return entry


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
