"""Converts Azure's cost details (ActualCost, AmortizedCost; EA, MCA and older pay-as-you-go files) to rows of FOCUS.

Facts: MicrosoftDocs, "Understand usage details fields"; headers as found in published files: their case differs, and
translated ones have the English name in brackets. Quantities and prices are per block of the unit of measure.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from common.config.service_categories import service_categories
from common.domain.dates import next_month
from common.processors.bills.cells import Cells
from common.processors.bills.focus_prices import price_columns, unpriced
from common.processors.bills.focus_units import focus_unit

Row = dict[str, Any]

# The cost in the billing currency, as files of MCA, EA and the older pay-as-you-go call it.
COST = ("costinbillingcurrency", "cost", "pretaxcost")
CURRENCY = ("billingcurrency", "billingcurrencycode", "currency")
DAY = ("date", "usagedatetime", "usagedate")
SUBSCRIPTION = ("subscriptionid", "subscriptionguid")

CATEGORIES = {
    "usage": "Usage",
    "unusedreservation": "Usage",
    "unusedsavingsplan": "Usage",
    "purchase": "Purchase",
    "refund": "Purchase",  # money back for a purchase: a negative purchase, as FOCUS counts refunds
    "tax": "Tax",
    "credit": "Credit",
}
FREQUENCIES = {"onetime": "One-Time", "recurring": "Recurring", "usagebased": "Usage-Based"}
BENEFITS = {"reservation": ("Usage", "Reservation"), "savingsplan": ("Spend", "Savings Plan")}
"""CommitmentDiscountCategory and -Type of a benefit, by the pricing model of what it covers."""

_US_DAY = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})", re.ASCII)
_BRACKETS = re.compile(r"\(([A-Za-z0-9 ]+)\)\s*$")
_TYPE = re.compile(r"/providers/([^/]+)/([^/]+)", re.IGNORECASE)


class AzureActualCost:
    """Billed cost: a benefit is charged when it is bought, and the usage that it covers costs 0."""

    provider = "azure"
    needed = (COST, CURRENCY, DAY, (*SUBSCRIPTION, "billingaccountid"))

    def __init__(self, configs: Path) -> None:
        self._configs = configs

    @staticmethod
    def plain_name(own: str) -> str:
        """``Kategorie (MeterCategory)`` and ``meterCategory`` are ``metercategory``."""
        english = _BRACKETS.search(own)
        return re.sub(r"[^a-z0-9]", "", (english[1] if english else own).lower())

    def day(self, cells: Cells) -> date:
        """The UTC day of the usage or purchase."""
        return cells.needed(_time(cells, *DAY), *DAY).date()

    def period(self, cells: Cells) -> tuple[datetime | None, datetime | None]:
        """The billing period, end exclusive. Files give its end as the last day, or as the first day after it."""
        begins, ends = _time(cells, "billingperiodstartdate"), _time(cells, "billingperiodenddate")
        # On the same day of a month as it begins, the end is exclusive already.
        if begins is not None and ends is not None and ends.day != begins.day:
            ends += timedelta(days=1)
        return begins, ends

    def costs(self, cost: Decimal, category: str, benefit: str | None) -> tuple[Decimal, Decimal]:
        """Return BilledCost and EffectiveCost."""
        # A benefit's cost is on the usage that it covers; on the purchase it would be in EffectiveCost twice.
        return cost, Decimal(0) if category == "Purchase" and benefit else cost

    def rows(self, cells: Cells) -> Iterator[Row]:
        """Yield the charge."""
        cost = cells.needed(cells.number(*COST), *COST)
        charge_type = (cells.text("chargetype") or "Usage").replace(" ", "").lower()
        category = CATEGORIES.get(charge_type, "Adjustment")
        model = (cells.text("pricingmodel") or "").replace(" ", "").lower()
        benefit = model if model in BENEFITS else None
        billed, effective = self.costs(cost, category, benefit)
        row = self._common(cells) | {
            "ChargeCategory": category,
            "ChargeFrequency": _frequency(cells, category),
            "BilledCost": billed,
            "EffectiveCost": effective,
        }
        if category in ("Usage", "Purchase"):
            status = "Unused" if charge_type.startswith("unused") else "Used" if category == "Usage" else None
            row |= _priced(cells, cost, category, model, status)
            row |= _benefit(cells, benefit, status, effective)
        else:
            row |= unpriced(billed)
        yield row

    def _common(self, cells: Cells) -> Row:
        subscription = cells.text(*SUBSCRIPTION)
        service = cells.text("metercategory", "servicename", "consumedservice", "publishername") or "Azure"
        category, subcategory = service_categories(self._configs, "azure").of(service)
        region = cells.text("resourcelocation", "location", "meterregion")
        account = cells.text("billingaccountid") or subscription
        product = cells.text("productname", "product", "metername")
        return {
            **_resource(cells),
            **self._periods(cells),
            "BillingCurrency": cells.needed(cells.text(*CURRENCY), *CURRENCY),
            "PricingCurrency": cells.text("pricingcurrency"),
            "BillingAccountId": cells.needed(account, "billingaccountid"),
            "BillingAccountName": cells.text("billingaccountname"),
            "SubAccountId": subscription,
            "SubAccountName": cells.text("subscriptionname"),
            "SubAccountType": None if subscription is None else "Subscription",
            "InvoiceId": cells.text("invoiceid"),
            "InvoiceIssuerName": cells.text("resellername") or "Microsoft",
            "ProviderName": "Microsoft",
            "PublisherName": cells.text("publishername") or "Microsoft",
            "HostProviderName": "Microsoft",
            "ServiceName": service,
            "ServiceCategory": category,
            "ServiceSubcategory": subcategory,
            "RegionId": region,
            "RegionName": region,
            "AvailabilityZone": cells.text("availabilityzone"),
            "ChargeDescription": product or service,
            "Tags": _tags(cells),
        }

    def _periods(self, cells: Cells) -> Row:
        day = self.day(cells)
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        begins, ends = self.period(cells)
        begins = begins or start.replace(day=1)
        return {
            "ChargePeriodStart": start,
            "ChargePeriodEnd": start + timedelta(days=1),
            "BillingPeriodStart": begins,
            "BillingPeriodEnd": ends or next_month(begins),
        }


class AzureAmortisedCost(AzureActualCost):
    """Amortised cost: usage covered by a benefit carries its share of the benefit as EffectiveCost and BilledCost 0."""

    def costs(self, cost: Decimal, category: str, benefit: str | None) -> tuple[Decimal, Decimal]:
        """Return BilledCost and EffectiveCost."""
        return Decimal(0) if benefit else cost, cost


def _time(cells: Cells, *names: str) -> datetime | None:
    """Read ``09/22/2023``, which Azure writes in every language, or an ISO 8601 time."""
    text = cells.text(*names)
    american = _US_DAY.fullmatch(text or "")
    if american is None:
        return cells.time(*names)
    month, day, year = map(int, american.groups())
    try:
        return datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        raise cells.wrong(names[0], "a day such as 09/22/2023") from None


def _frequency(cells: Cells, category: str) -> str:
    frequency = FREQUENCIES.get((cells.text("frequency") or "").replace("-", "").lower())
    # FOCUS allows no purchase that is Usage-Based.
    if frequency is None or (frequency == "Usage-Based" and category == "Purchase"):
        return "Usage-Based" if category == "Usage" else "One-Time"
    return frequency


def _priced(cells: Cells, cost: Decimal, category: str, model: str, status: str | None) -> Row:
    """Return prices in the billing currency; those in another one go into the columns of the pricing currency."""
    quantity, unit = cells.number("quantity", "usagequantity"), focus_unit(cells.text("unitofmeasure") or "Units")
    list_price = cells.number("paygprice")
    paid = cells.number("unitprice", "resourcerate")
    meter = cells.text("meterid", "productid", "partnumber") or "unknown"
    foreign = cells.text("pricingcurrency") not in (None, cells.text(*CURRENCY))
    row = price_columns(
        cost=cost,
        quantity=quantity,
        unit=unit,
        list_price=None if foreign or not list_price else list_price,  # 0 means that there is none
        contracted_price=None if foreign or not paid else paid,
        price_id=f"{meter}/{cells.text('partnumber') or 'price'}",
    )
    if foreign:
        row |= {"PricingCurrencyListUnitPrice": list_price, "PricingCurrencyContractedUnitPrice": paid}
    row |= {
        "SkuId": meter,
        "SkuMeter": cells.text("metername") or meter,
        "PricingCategory": {"spot": "Dynamic", "": "Standard", "ondemand": "Standard"}.get(model, "Committed"),
    }
    if category == "Usage" and status != "Unused":
        row |= {"ConsumedQuantity": Decimal(0) if quantity is None else quantity, "ConsumedUnit": unit}
    return row


def _benefit(cells: Cells, benefit: str | None, status: str | None, effective: Decimal) -> Row:
    name = cells.text("benefitid", "reservationid", "productorderid")
    if benefit is None or name is None:
        return {}
    category, kind = BENEFITS[benefit]
    quantity, unit = cells.number("quantity"), focus_unit(cells.text("unitofmeasure") or "Units")
    if category == "Spend":  # a savings plan commits to money, so its quantity is an amount
        quantity, unit = effective, cells.needed(cells.text(*CURRENCY), *CURRENCY)
    return {
        "CommitmentDiscountId": name,
        "CommitmentDiscountName": cells.text("benefitname", "reservationname"),
        "CommitmentDiscountCategory": category,
        "CommitmentDiscountType": kind,
        "CommitmentDiscountStatus": status,
        "CommitmentDiscountQuantity": Decimal(0) if quantity is None else quantity,
        "CommitmentDiscountUnit": unit,
    }


def _resource(cells: Cells) -> Row:
    name = cells.text("resourceid", "instanceid", "instancename")
    if name is None:
        return {"ResourceId": None}
    match = _TYPE.search(name)
    kind = cells.text("resourcetype") or ("/".join(match.groups()) if match else cells.text("consumedservice"))
    return {
        "ResourceId": name,
        "ResourceName": cells.text("resourcename") or name.rstrip("/").rpartition("/")[2],
        "ResourceType": kind or "Resource",
    }


def _tags(cells: Cells) -> str | None:
    """Return tags: a JSON object, in EA's files without its braces."""
    text = cells.text("tags")
    if text is None:
        return None
    try:
        tags = json.loads(text if text.lstrip().startswith("{") else f"{{{text}}}")
    except (ValueError, RecursionError):
        raise cells.wrong("tags", "JSON, or the inside of a JSON object") from None
    kept = {key: value if isinstance(value, str) else json.dumps(value) for key, value in tags.items()}
    return json.dumps(kept, ensure_ascii=False, sort_keys=True) if kept else None
