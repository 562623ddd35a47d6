"""Converts AWS's Cost and Usage Reports, 2.0 and legacy, to rows of FOCUS.

Facts: AWS's data dictionary, see docs/providers-cloud.md. A legacy name (``lineItem/UnblendedCost``) and that of 2.0
(``line_item_unblended_cost``) differ in spelling only.
"""

import json
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from common.config.service_categories import service_categories
from common.domain.dates import next_month
from common.processors.bills.cells import Cells
from common.processors.bills.focus_prices import price_columns, unpriced
from common.processors.bills.focus_units import focus_unit

Row = dict[str, Any]

COST = "line_item_unblended_cost"
START, END = "line_item_usage_start_date", "line_item_usage_end_date"
BEGINS, ENDS = "bill_billing_period_start_date", "bill_billing_period_end_date"
TAG_PREFIXES = ("resource_tags/", "resource_tags_")


class Kind(NamedTuple):
    """How FOCUS sees a type of line item. ``effective`` is the column with its amortised cost, "0" for none."""

    category: str
    frequency: str
    effective: str = COST
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


class AwsCur:
    """A line item is one row; the unused part of a commitment is another, with BilledCost 0."""

    provider = "aws"
    needed = (("line_item_line_item_type",), (COST,), (START,), ("bill_payer_account_id",))

    def __init__(self, configs: Path) -> None:
        self._configs = configs

    @staticmethod
    def plain_name(own: str) -> str:
        """``lineItem/UsageStartDate`` is ``line_item_usage_start_date``; tags keep their keys as they are."""
        group, slash, name = own.partition("/")
        if not slash:
            return own
        if group in ("resourceTags", "costCategory"):
            return f"{_snake(group)}/{name}"
        return f"{_snake(group)}_{_snake(name)}"

    def day(self, cells: Cells) -> date:
        """The UTC day on which the usage began."""
        return cells.needed(cells.time(START), START).date()

    def period(self, cells: Cells) -> tuple[datetime | None, datetime | None]:
        """The line item's billing period."""
        return cells.time(BEGINS), cells.time(ENDS)

    def rows(self, cells: Cells) -> Iterator[Row]:
        """Yield the line item and, if its fee was not used up, the unused part of its commitment."""
        line_type = cells.needed(cells.text("line_item_line_item_type"), "line_item_line_item_type")
        kind = KINDS.get(line_type, DISCOUNT)
        cost = cells.needed(cells.number(COST), COST)
        common = self._common(cells) | _period(cells)
        effective = Decimal(0) if kind.effective == "0" else cells.number(kind.effective)
        row = common | {
            "ChargeCategory": kind.category,
            "ChargeFrequency": kind.frequency,
            "ChargeClass": _correction(line_type, common),
            "ChargeDescription": cells.text("line_item_line_item_description") or line_type,
            "BilledCost": cost,
            "EffectiveCost": cost if effective is None else effective,
        }
        commitment = _commitment(cells, kind.commitment)
        if kind.category in ("Usage", "Purchase"):
            row |= self._priced(cells, kind, line_type, cost) | commitment
        else:
            row |= unpriced(cost)
        yield row
        unused = _unused(cells, line_type)
        if unused:
            yield common | _unused_row(unused, commitment, row)

    def _common(self, cells: Cells) -> Row:
        currency = cells.needed(cells.text("line_item_currency_code"), "line_item_currency_code")
        code = cells.text("line_item_product_code")
        service = cells.text("product_product_name", "product_servicename") or code or "AWS"
        category, subcategory = service_categories(self._configs, "aws").of(service)
        account = cells.needed(cells.text("bill_payer_account_id"), "bill_payer_account_id")
        owner = cells.text("line_item_usage_account_id")
        resource = cells.text("line_item_resource_id")
        region = cells.text("product_region_code", "product_region")
        is_marketplace = cells.text("bill_billing_entity") == "AWS Marketplace"
        seller = cells.text("line_item_legal_entity")
        return {
            "BillingCurrency": currency,
            "BillingAccountId": account,
            "BillingAccountName": cells.text("bill_payer_account_name"),
            "SubAccountId": owner,
            "SubAccountName": None if owner is None else cells.text("line_item_usage_account_name"),
            "InvoiceId": cells.text("bill_invoice_id"),
            "InvoiceIssuerName": cells.text("bill_invoicing_entity") or "Amazon Web Services, Inc.",
            "ProviderName": "AWS",
            "PublisherName": (seller or "AWS Marketplace") if is_marketplace else "AWS",
            "HostProviderName": "AWS",
            "ServiceName": service,
            "ServiceCategory": category,
            "ServiceSubcategory": subcategory,
            "RegionId": region,
            "RegionName": region,
            "AvailabilityZone": cells.text("line_item_availability_zone"),
            "ResourceId": resource,
            "ResourceName": resource,
            "ResourceType": None if resource is None else cells.text("product_product_family") or service,
            "Tags": _tags(cells),
        }

    def _priced(self, cells: Cells, kind: Kind, line_type: str, cost: Decimal) -> Row:
        quantity = cells.number("line_item_usage_amount")
        unit = focus_unit(cells.text("pricing_unit") or "Units")
        sku = cells.text("product_sku") or cells.text("line_item_usage_type") or "unknown"
        list_price = cells.number("pricing_public_on_demand_rate")
        # The rate of covered usage is after the commitment's discount; FOCUS's ContractedUnitPrice is before it.
        paid = cells.number("line_item_unblended_rate") if line_type == "Usage" else None
        prices = price_columns(
            cost=cost,
            quantity=quantity if kind.category == "Usage" else None,
            unit=unit,
            list_price=list_price,
            contracted_price=paid,
            price_id=cells.text("pricing_rate_code", "pricing_rate_id") or sku,
        )
        meter = cells.text("line_item_usage_type") or sku
        row = prices | {"SkuId": sku, "SkuMeter": meter, "PricingCategory": _pricing_category(kind, meter)}
        if kind.category == "Usage":
            row |= {"ConsumedQuantity": Decimal(0) if quantity is None else quantity, "ConsumedUnit": unit}
        return row


def _snake(name: str) -> str:
    # As AWS itself converts them: SavingsPlanARN became savings_plan_savings_plan_a_r_n in CUR 2.0.
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _period(cells: Cells) -> Row:
    start, end = cells.needed(cells.time(START), START), cells.time(END)
    month = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    begins = cells.time(BEGINS) or month
    return {
        "ChargePeriodStart": start,
        # Some line items end when they begin; FOCUS requires an end that is later.
        "ChargePeriodEnd": end if end is not None and end > start else start + timedelta(hours=1),
        "BillingPeriodStart": begins,
        "BillingPeriodEnd": cells.time(ENDS) or next_month(begins),
    }


def _correction(line_type: str, common: Row) -> str | None:
    """Return Correction for a refund of usage before the billing period: that invoice has already been issued."""
    is_late = common["ChargePeriodEnd"] <= common["BillingPeriodStart"]
    return "Correction" if line_type == "Refund" and is_late else None


def _pricing_category(kind: Kind, meter: str) -> str:
    if kind.commitment == "Used":
        return "Committed"
    return "Dynamic" if "SpotUsage" in meter else "Standard"


def _commitment(cells: Cells, status: str) -> Row:
    """Return the columns of the commitment that a line item uses or buys; FOCUS requires a status for usage only."""
    if not status:
        return {}
    plan = cells.text("savings_plan_savings_plan_a_r_n")
    reservation = cells.text("reservation_reservation_a_r_n", "reservation_subscription_id")
    name = plan or reservation
    if name is None:
        return {}
    currency, unit = cells.text("line_item_currency_code"), focus_unit(cells.text("pricing_unit") or "Units")
    # A savings plan commits to money, a reservation to use: so one's quantity is in currency, the other's in units.
    used = cells.number("savings_plan_savings_plan_effective_cost") if plan else cells.number("line_item_usage_amount")
    if status == "Bought" and plan:
        used = cells.number("savings_plan_total_commitment_to_date", COST)
    return {
        "CommitmentDiscountId": name,
        "CommitmentDiscountName": name.rpartition("/")[2],
        "CommitmentDiscountCategory": "Spend" if plan else "Usage",
        "CommitmentDiscountType": "Savings Plan" if plan else "Reserved Instance",
        "CommitmentDiscountStatus": "Used" if status == "Used" else None,
        "CommitmentDiscountQuantity": Decimal(0) if used is None else used,
        "CommitmentDiscountUnit": currency if plan else unit,
    }


def _unused(cells: Cells, line_type: str) -> Decimal:
    """Return the cost of the part of a commitment that was unused in the period of its fee."""
    if line_type == "RIFee":
        parts = ("reservation_unused_amortized_upfront_fee_for_billing_period", "reservation_unused_recurring_fee")
        return sum((cells.number(part) or Decimal(0) for part in parts), Decimal(0))
    if line_type == "SavingsPlanRecurringFee":
        whole = cells.number("savings_plan_total_commitment_to_date")
        return Decimal(0) if whole is None else whole - (cells.number("savings_plan_used_commitment") or Decimal(0))
    return Decimal(0)


def _unused_row(unused: Decimal, commitment: Row, bought: Row) -> Row:
    """Return the unused part's row: BilledCost 0 because the fee has it, and no ConsumedQuantity, as FOCUS requires."""
    prices = price_columns(
        cost=unused, quantity=None, unit=None, list_price=None, contracted_price=None, price_id=bought["SkuPriceId"]
    )
    return (
        prices
        | {name: value for name, value in commitment.items() if name != "CommitmentDiscountStatus"}
        | {
            "ChargeCategory": "Usage",
            "ChargeFrequency": "Usage-Based",
            "ChargeDescription": f"Unused part of {commitment.get('CommitmentDiscountName', 'a commitment')}",
            "CommitmentDiscountStatus": "Unused" if commitment else None,
            "BilledCost": Decimal(0),
            "EffectiveCost": unused,
            "PricingCategory": "Committed",
            "SkuId": bought["SkuId"],
            "SkuMeter": bought["SkuMeter"],
        }
    )


def _tags(cells: Cells) -> str | None:
    """Return tags from a map column or from a column each. ``user:Team`` becomes Team; other prefixes stay."""
    given: dict[str, Any] = {}
    whole = cells.text("resource_tags")
    if whole is not None:
        try:
            values = json.loads(whole)
        except (ValueError, RecursionError):
            raise cells.wrong("resource_tags", "JSON") from None
        given |= values if isinstance(values, dict) else {}
    for prefix in TAG_PREFIXES:
        given |= dict(cells.prefixed(prefix))
    tags = {_tag(key): str(value) for key, value in given.items() if value is not None and value != ""}
    return json.dumps(tags, ensure_ascii=False, sort_keys=True) if tags else None


def _tag(key: str) -> str:
    for prefix in ("user:", "user_"):
        if key.startswith(prefix):
            return key[len(prefix) :]
    return key
