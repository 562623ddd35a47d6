"""Azure's cost details (ActualCost and AmortizedCost, EA, MCA and the older pay-as-you-go files), as rows of FOCUS.

Facts: MicrosoftDocs, "Understand usage details fields"; headers as measured in published files: their case differs, and
translated ones have the English name in brackets. A quantity is in blocks of its unit of measure, as prices are.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from common.config.service_categories import service_categories
from common.domain.dates import next_month
from common.platform.paths import configs_dir
from common.processors.bills.cells import Cells
from common.processors.bills.focus_prices import price_columns, unpriced
from common.processors.bills.focus_units import focus_unit

Row = dict[str, Any]

COST = ("costinbillingcurrency", "cost", "pretaxcost")
CURRENCY = ("billingcurrency", "billingcurrencycode", "currency")
DAY = ("date", "usagedatetime", "usagedate")
SUBSCRIPTION = ("subscriptionid", "subscriptionguid")

CATEGORIES = {
    "usage": "Usage",
    "unusedreservation": "Usage",
    "unusedsavingsplan": "Usage",
    "purchase": "Purchase",
    "refund": "Purchase",  # gives money for a purchase back: a negative one
    "tax": "Tax",
    "credit": "Credit",
}
FREQUENCIES = {"onetime": "One-Time", "recurring": "Recurring", "usagebased": "Usage-Based"}
BENEFITS = {"reservation": ("Usage", "Reservation"), "savingsplan": ("Spend", "Savings Plan")}
"""What FOCUS calls the kind of a benefit, by the pricing model of what it covers."""

_US_DAY = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})", re.ASCII)
_BRACKETS = re.compile(r"\(([A-Za-z0-9 ]+)\)\s*$")
_TYPE = re.compile(r"/providers/([^/]+)/([^/]+)", re.IGNORECASE)


class AzureActualCost:
    """Charges as they are billed: a benefit costs when it is bought, and what it covers costs nothing."""

    provider = "azure"
    needed = (COST, CURRENCY, DAY, (*SUBSCRIPTION, "billingaccountid"))

    @staticmethod
    def plain_name(own: str) -> str:
        """``Kategorie (MeterCategory)`` and ``meterCategory`` are ``metercategory``."""
        english = _BRACKETS.search(own)
        return re.sub(r"[^a-z0-9]", "", (english[1] if english else own).lower())

    def day(self, cells: Cells) -> date:
        """The day of the usage or purchase."""
        return cells.needed(_time(cells, *DAY), *DAY).date()

    def period(self, cells: Cells) -> tuple[datetime | None, datetime | None]:
        """The billing period. Its end is written as the last day, or as the first one after it."""
        begins, ends = _time(cells, "billingperiodstartdate"), _time(cells, "billingperiodenddate")
        if begins is not None and ends is not None and ends.day != begins.day:
            ends += timedelta(days=1)
        return begins, ends

    def costs(self, cost: Decimal, category: str, benefit: str | None) -> tuple[Decimal, Decimal]:
        """Return BilledCost and EffectiveCost."""
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
        category, subcategory = service_categories(configs_dir(), "azure").of(service)
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
    """Charges as they are used: what a benefit covers costs its part of the benefit, of which nothing is billed."""

    def costs(self, cost: Decimal, category: str, benefit: str | None) -> tuple[Decimal, Decimal]:
        """Return BilledCost and EffectiveCost."""
        return Decimal(0) if benefit else cost, cost


def _time(cells: Cells, *names: str) -> datetime | None:
    """Read ``09/22/2023``, which Azure writes in every language, or what ISO 8601 says."""
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
    given = FREQUENCIES.get((cells.text("frequency") or "").replace("-", "").lower())
    if given is None or (given == "Usage-Based" and category == "Purchase"):
        return "Usage-Based" if category == "Usage" else "One-Time"
    return given


def _priced(cells: Cells, cost: Decimal, category: str, model: str, status: str | None) -> Row:
    """Prices in the billing currency. Those in another one stand in the columns of the pricing currency."""
    quantity, unit = cells.number("quantity", "usagequantity"), focus_unit(cells.text("unitofmeasure") or "Units")
    list_price = cells.number("paygprice")
    paid = cells.number("unitprice", "resourcerate")
    meter = cells.text("meterid", "productid", "partnumber") or "unknown"
    foreign = cells.text("pricingcurrency") not in (None, cells.text(*CURRENCY))
    row = price_columns(
        cost=cost,
        quantity=quantity,
        unit=unit,
        list_price=None if foreign or not list_price else list_price,  # 0 stands for none
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
    if category == "Spend":
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
    type_in_id = _TYPE.search(name)
    kind = cells.text("resourcetype") or (
        "/".join(type_in_id.groups()) if type_in_id else cells.text("consumedservice")
    )
    return {
        "ResourceId": name,
        "ResourceName": cells.text("resourcename") or name.rstrip("/").rpartition("/")[2],
        "ResourceType": kind or "Resource",
    }


def _tags(cells: Cells) -> str | None:
    """Tags are a JSON object, in EA's files without its braces."""
    text = cells.text("tags")
    if text is None:
        return None
    try:
        tags = json.loads(text if text.lstrip().startswith("{") else f"{{{text}}}")
    except (ValueError, RecursionError):
        raise cells.wrong("tags", "JSON, or the inside of a JSON object") from None
    kept = {key: value if isinstance(value, str) else json.dumps(value) for key, value in tags.items()}
    return json.dumps(kept, ensure_ascii=False, sort_keys=True) if kept else None
