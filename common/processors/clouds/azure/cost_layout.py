"""Converts Azure's cost details (ActualCost, AmortizedCost; EA, MCA and older pay-as-you-go files) to rows of FOCUS.

Facts: MicrosoftDocs, "Understand usage details fields"; headers as found in published files: their case differs, and
translated ones have the English name in brackets. Quantities and prices are per block of the unit of measure.
"""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from common.config.azure_open_data import azure_regions, azure_services
from common.config.service_categories import service_categories
from common.domain.dates import next_month
from common.processors.bills.cells import UnlikeError, timestamp
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
    Condition,
    Expression,
    Extracted,
    First,
    IsNull,
    Joined,
    Less,
    Mapped,
    Matches,
    Needed,
    Not,
    Read,
    Same,
    Shape,
    Times,
    constant,
    day_of,
    either,
    is_,
    needed,
    number,
    only,
    text,
)
from common.processors.bills.focus_prices import charged, price_columns
from common.processors.bills.focus_units import focus_unit

# The cost in the billing currency, as files of MCA, EA and the older pay-as-you-go call it.
COSTS = ("costinbillingcurrency", "cost", "pretaxcost")
CURRENCIES = ("billingcurrency", "billingcurrencycode", "currency")
DAYS = ("date", "usagedatetime", "usagedate")
SUBSCRIPTIONS = ("subscriptionid", "subscriptionguid")

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

PRICING = {"spot": "Dynamic", "": "Standard", "ondemand": "Standard"}
"""PricingCategory of a pricing model; that of the others is Committed."""

_US_DAY = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})", re.ASCII)
_BRACKETS = re.compile(r"\(([A-Za-z0-9 ]+)\)\s*$")
_TYPE = r"(?i)/providers/([^/]+)/([^/]+)"
_NESTED_TYPE = re.compile(r"/providers/([^/]+)/([^/]+)((?:/[^/]*/[^/]+)*)", re.IGNORECASE)


def _moment(value: Any) -> datetime:
    """Read ``09/22/2023``, which Azure writes in every language, or an ISO 8601 time."""
    american = _US_DAY.fullmatch(value) if isinstance(value, str) else None
    if american is None:
        return timestamp(value)
    month, day, year = map(int, american.groups())
    try:
        return datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        raise UnlikeError("a day such as 09/22/2023") from None


def _time(*names: str) -> Read:
    return Read("TIMESTAMP", names, _moment)


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _next_day(moment: datetime) -> datetime:
    return moment + timedelta(days=1)


def _first_of_month(moment: datetime) -> datetime:
    return _midnight(moment).replace(day=1)


def _day_of_month(moment: datetime) -> str:
    return str(moment.day)


def _word(value: str) -> str:
    return value.replace(" ", "").lower()


def _resource_type(resource: str) -> str:
    """Return ``microsoft.sql/servers/databases`` of a resource's id, or an empty text."""
    *_, last = [None, *_NESTED_TYPE.finditer(resource)]
    if last is None:
        return ""
    nested = last[3].split("/")[2::2]  # names and types take turns
    return "/".join((last[1], last[2], *nested)).lower()


def _tags(value: str) -> str | None:
    """Return tags: a JSON object, in EA's files without its braces."""
    tags = json.loads(value if value.lstrip().startswith("{") else f"{{{value}}}")
    kept = {key: value if isinstance(value, str) else json.dumps(value) for key, value in tags.items()}
    return json.dumps(kept, ensure_ascii=False, sort_keys=True) if kept else None


COST, CURRENCY, DAY = needed(number(*COSTS)), text(*CURRENCIES), Needed(_time(*DAYS), DAYS)
BEGINS, LAST_DAY = _time("billingperiodstartdate"), _time("billingperiodenddate")
# Files give the end as the last day, or as the first day after it: then it is the same day of a month as the beginning.
IS_LAST = All(
    (
        Not(IsNull(BEGINS)),
        Not(IsNull(LAST_DAY)),
        Not(Same(Mapped("STRING", BEGINS, _day_of_month), Mapped("STRING", LAST_DAY, _day_of_month))),
    )
)
ENDS = Case(((IS_LAST, Mapped("TIMESTAMP", LAST_DAY, _next_day)),), LAST_DAY)
START = Mapped("TIMESTAMP", DAY, _midnight)
PERIOD_START = First((BEGINS, Mapped("TIMESTAMP", START, _first_of_month)))

CHARGE_TYPE = Mapped("STRING", either(text("chargetype"), "Usage"), _word)
CATEGORY = Mapped("STRING", CHARGE_TYPE, lambda charge_type: CATEGORIES.get(charge_type, "Adjustment"))
IS_USAGE, IS_PURCHASE = is_(CATEGORY, "Usage"), is_(CATEGORY, "Purchase")
IS_PRICED = is_(CATEGORY, "Usage", "Purchase")
IS_UNUSED = Matches(CHARGE_TYPE, r"^unused")
STATUS = Case(((IS_UNUSED, constant("Unused")), (IS_USAGE, constant("Used"))), NO_TEXT)
RESOURCE = text("resourceid", "instanceid", "instancename")
_BENEFIT_ORDER = r"(?i)/providers/Microsoft\.(Capacity|BillingBenefits)/"

# What a row refers to decides whether it is a benefit's: its pricing model, or the benefit's id, which purchases and
# refunds may have without one. A ProductOrderId is no sign: every purchase has it.
BENEFIT = either(text("benefitid", "reservationid"), Case(((Matches(RESOURCE, _BENEFIT_ORDER), RESOURCE),), NO_TEXT))
STATED_MODEL = Mapped("STRING", First((text("pricingmodel"), constant(""))), _word)
REFERS = All((is_(STATED_MODEL, ""), Not(IsNull(Case(((is_(STATED_MODEL, ""), BENEFIT),), NO_TEXT)))))
MODEL = Case(
    (
        (All((REFERS, Matches(BENEFIT, r"(?i)savings.?plan"))), constant("savingsplan")),
        (REFERS, constant("reservation")),
    ),
    STATED_MODEL,
)
IS_BENEFIT = is_(MODEL, *BENEFITS)
IS_BENEFIT_PURCHASE = All((IS_PURCHASE, IS_BENEFIT))

AMOUNT = number("quantity", "usagequantity")
UNIT = Mapped("STRING", either(text("unitofmeasure"), "Units"), focus_unit)
METER = either(text("meterid", "productid", "partnumber"), "unknown")
# 0 means that there is no price. Those in another currency go into the columns of the pricing currency.
LIST_PRICE, PAID = number("paygprice"), number("unitprice", "resourcerate")
PRICING_CURRENCY = text("pricingcurrency")
IS_FOREIGN = Not(AnyOf((IsNull(PRICING_CURRENCY), Same(PRICING_CURRENCY, CURRENCY))))


RATE = number("exchangeratepricingtobilling")
"""From the pricing currency to the billing currency, in files of a Microsoft Customer Agreement."""


def _own(price: Expression) -> Expression:
    """Return a price in the billing currency: the file's, or that in the pricing currency at the file's rate."""
    is_price = AnyOf((Less(price, ZERO), Less(ZERO, price)))
    return Case(
        ((All((Not(IS_FOREIGN), is_price)), price), (All((IS_FOREIGN, is_price)), Times(price, RATE))), NO_NUMBER
    )


class AzureActualCost:
    """Billed cost: a benefit is charged when it is bought, and the usage that it covers costs 0."""

    partial = (
        "it has the purchases of reservations and savings plans, and not what their use costs: its EffectiveCost is "
        "too low. Read the AmortizedCost file, with purchases_source: the ActualCost file."
    )

    provider = "azure"
    needed = (COSTS, CURRENCIES, DAYS, (*SUBSCRIPTIONS, "billingaccountid"))
    currency = None
    day = day_of(DAY)
    period = (BEGINS, ENDS)

    billed: Expression = COST
    # A benefit's cost is on the usage that it covers; on the purchase it would be in EffectiveCost twice.
    effective: Expression = Case(((IS_BENEFIT_PURCHASE, ZERO),), COST)
    when: Condition | None = None

    def __init__(self, configs: Path) -> None:
        prices = price_columns(
            cost=COST,
            quantity=AMOUNT,
            unit=UNIT,
            list_price=_own(LIST_PRICE),
            contracted_price=_own(PAID),
            price_id=Joined((METER, "/", either(text("partnumber"), "price"))),
        )
        foreign = only(
            IS_FOREIGN, {"PricingCurrencyListUnitPrice": LIST_PRICE, "PricingCurrencyContractedUnitPrice": PAID}
        )
        in_pricing_currency = Case(
            (
                (All((IS_FOREIGN, Same(self.effective, ZERO))), ZERO),
                (IS_FOREIGN, number("costinpricingcurrency")),
            ),
            NO_NUMBER,
        )
        sku: Columns = {
            "SkuId": METER,
            "SkuMeter": either(text("metername"), METER),
            "PricingCategory": Mapped("STRING", MODEL, lambda model: PRICING.get(model, "Committed")),
        }
        priced = {name: After((AMOUNT, UNIT, LIST_PRICE, PAID, METER), of) for name, of in prices.items()}
        is_consumed = All((IS_USAGE, Not(IS_UNUSED)))
        columns: Columns = {
            **_common(configs),
            "ChargeCategory": CATEGORY,
            "ChargeFrequency": _frequency(),
            "BilledCost": self.billed,
            "EffectiveCost": self.effective,
            "PricingCurrencyEffectiveCost": in_pricing_currency,
            **charged(IS_PRICED, priced, self.billed),
            **only(IS_PRICED, {**foreign, **sku}),
            **only(is_consumed, {"ConsumedQuantity": First((AMOUNT, ZERO)), "ConsumedUnit": UNIT}),
            **only(IS_PRICED, _benefit(self.effective)),
        }
        self.shapes = (Shape(columns, when=self.when, reads=(COST, CHARGE_TYPE, MODEL)),)

    @staticmethod
    def plain_name(own: str) -> str:
        """``Kategorie (MeterCategory)`` and ``meterCategory`` are ``metercategory``."""
        english = _BRACKETS.search(own)
        return re.sub(r"[^a-z0-9]", "", (english[1] if english else own).lower())


class AzureAmortisedCost(AzureActualCost):
    """Amortised cost: usage covered by a benefit carries its share of the benefit as EffectiveCost and BilledCost 0."""

    partial = (
        "it has what the use of reservations and savings plans costs, and not their purchases: its BilledCost is too "
        "low. Name the ActualCost file of the same days as purchases_source."
    )
    billed = Case(((IS_BENEFIT, ZERO),), COST)
    effective = COST


class AzureBenefitPurchases(AzureActualCost):
    """Of the billed cost only what buys benefits or gives them back: with the amortised cost it is the whole bill.

    Microsoft's documented way to FOCUS from the two views: learn.microsoft.com, "Convert cost data to FOCUS".
    """

    partial = ""
    when = IS_BENEFIT_PURCHASE


def _common(configs: Path) -> Columns:
    subscription = text(*SUBSCRIPTIONS)
    categories, services, regions = (
        service_categories(configs, "azure"),
        azure_services(configs),
        azure_regions(configs),
    )
    consumed = Joined((either(text("consumedservice"), "-"), "|", Mapped("STRING", RESOURCE, _resource_type)))

    def known(field: int) -> Expression:
        def of(key: str) -> str | None:
            service, _, kind = key.lower().partition("|")
            its = services.get((service, kind))
            return None if its is None else its[field]

        return Mapped("STRING", consumed, of)

    service = either(known(0), text("metercategory", "servicename", "consumedservice", "publishername"), "Azure")
    region = text("resourcelocation", "location", "meterregion")
    profile = text("billingprofileid")
    seller = either(text("publishername"), "Microsoft")
    is_marketplace = Mapped("STRING", text("publishertype"), _word)
    return {
        **_resource(),
        "ChargePeriodStart": START,
        "ChargePeriodEnd": Mapped("TIMESTAMP", START, _next_day),
        "BillingPeriodStart": PERIOD_START,
        "BillingPeriodEnd": First((ENDS, Mapped("TIMESTAMP", PERIOD_START, next_month))),
        "BillingCurrency": Needed(CURRENCY, CURRENCIES),
        "PricingCurrency": PRICING_CURRENCY,
        # Of a Microsoft Customer Agreement each billing profile gets its own invoice; of others it is the account.
        "BillingAccountId": Needed(either(profile, text("billingaccountid"), subscription), ("billingaccountid",)),
        "BillingAccountName": text("billingprofilename", "billingaccountname"),
        "SubAccountId": subscription,
        "SubAccountName": text("subscriptionname"),
        "SubAccountType": Case(((IsNull(subscription), NO_TEXT),), constant("Subscription")),
        "InvoiceId": text("invoiceid"),
        "InvoiceIssuerName": either(text("partnername", "resellername"), "Microsoft"),
        "ProviderName": constant("Microsoft"),
        "ServiceProviderName": Case(((is_(is_marketplace, "marketplace"), seller),), constant("Microsoft")),
        "PublisherName": seller,
        "HostProviderName": constant("Microsoft"),
        "ServiceName": service,
        "ServiceCategory": First((known(1), Mapped("STRING", service, lambda name: categories.of(name)[0]))),
        "ServiceSubcategory": First((known(2), Mapped("STRING", service, lambda name: categories.of(name)[1]))),
        "RegionId": Mapped("STRING", region, lambda name: regions.get(name.lower(), (name, name))[0]),
        "RegionName": Mapped("STRING", region, lambda name: regions.get(name.lower(), (name, name))[1]),
        "AvailabilityZone": text("availabilityzone"),
        "ChargeDescription": either(text("productname", "product", "metername"), service),
        "Tags": Mapped("JSON", text("tags"), _tags, "tags", "JSON, or the inside of a JSON object"),
    }


def _frequency() -> Expression:
    stated = Mapped(
        "STRING", either(text("frequency"), ""), lambda word: FREQUENCIES.get(word.replace("-", "").lower())
    )
    # FOCUS allows no purchase that is Usage-Based.
    is_none = AnyOf((IsNull(stated), All((is_(stated, "Usage-Based"), IS_PURCHASE))))
    return Case(
        ((All((is_none, IS_USAGE)), constant("Usage-Based")), (is_none, constant("One-Time"))),
        stated,
    )


def _benefit(effective: Expression) -> Columns:
    """Return the columns of the reservation or the savings plan that covers or is bought."""
    name = either(BENEFIT, text("productorderid"))
    is_plan: Condition = is_(MODEL, *(model for model, (category, _) in BENEFITS.items() if category == "Spend"))
    # A savings plan commits to money, so its quantity is an amount.
    amount = After((number("quantity"), UNIT), Case(((is_plan, effective),), number("quantity")))
    unit = Case(((is_plan, CURRENCY),), UNIT)
    columns: Columns = {
        "CommitmentDiscountId": name,
        "CommitmentDiscountName": text("benefitname", "reservationname"),
        "CommitmentDiscountCategory": Mapped("STRING", MODEL, lambda model: BENEFITS.get(model, ("", ""))[0]),
        "CommitmentDiscountType": Mapped("STRING", MODEL, lambda model: BENEFITS.get(model, ("", ""))[1]),
        "CommitmentDiscountStatus": STATUS,
        "CommitmentDiscountQuantity": First((amount, ZERO)),
        "CommitmentDiscountUnit": unit,
    }
    return only(All((IS_BENEFIT, Not(IsNull(name)))), columns)


def _resource() -> Columns:
    name = RESOURCE
    by_type = Case(((Matches(name, _TYPE), Extracted(name, _TYPE)),), text("consumedservice"))
    return {
        "ResourceId": name,
        **only(
            Not(IsNull(name)),
            {
                "ResourceName": either(text("resourcename"), AfterLast(name, trimmed=True)),
                "ResourceType": either(text("resourcetype"), by_type, "Resource"),
            },
        ),
    }
