"""Generates an AWS bill as a FOCUS 1.2 export, for ``make demo``: the same for the same seed, on every machine.

It has what real bills have and parsers get wrong: discounts, negative credits, tax, a commitment that is bought and
used, tags as JSON, up to eleven decimals (as many as AWS writes), and descriptions with commas, quotes and line breaks.
"""

import csv
import gzip
import io
import json
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from common.domain.dates import next_month

Values = dict[str, str]

SERVICES = (
    ("Amazon Elastic Compute Cloud", "Compute", "Virtual Machines", "Hours", "0.0961"),
    ("Amazon Simple Storage Service", "Storage", "Object Storage", "GB-Months", "0.023125"),
    ("AWS Lambda", "Compute", "Serverless Compute", "Requests", "0.0000002"),
    ("Amazon Relational Database Service", "Databases", "Relational Databases", "Hours", "0.1850"),
    ("Amazon Bedrock", "AI and Machine Learning", "Generative AI", "Tokens", "0.000003"),
)
REGIONS = (("eu-west-1", "EU (Ireland)"), ("us-east-1", "US East (N. Virginia)"))
TEAMS = ("platform", "search", 'data, and "BI"')
PLAN = "arn:aws:savingsplans::100000000001:savingsplan/demo-plan"


def write_focus_export(path: Path, *, seed: int, first_day: date, days: int, rows_per_day: int) -> Decimal:
    """Write the export (gzip if the name ends in .gz) and return SUM(BilledCost), exactly."""
    chance, total = random.Random(f"{seed} {first_day}"), Decimal(0)
    text = io.StringIO(newline="")
    writer: csv.DictWriter[str] | None = None
    for row in _rows(chance, first_day, days, rows_per_day):
        if writer is None:
            writer = csv.DictWriter(text, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
        total += Decimal(row["BilledCost"])
    data = text.getvalue().encode()
    # mtime 0: the same bill is the same file, so landing it again keeps one copy.
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return total


def _rows(chance: random.Random, first_day: date, days: int, rows_per_day: int) -> Iterator[Values]:
    for number in range(days):
        yield from focus_rows(chance, first_day + timedelta(days=number), rows_per_day)


def focus_rows(chance: random.Random, day: date, count: int) -> Iterator[Values]:
    """Yield one day's rows, all columns as text: ``count`` rows of usage and one of each other category."""
    for _ in range(count):
        yield _usage(chance, day)
    yield _covered(day)
    yield _purchase(day)
    yield _credit(chance, day)
    yield _tax(chance, day)


def _usage(chance: random.Random, day: date) -> Values:
    service, category, subcategory, unit, price = chance.choice(SERVICES)
    region, region_name = chance.choice(REGIONS)
    quantity = Decimal(chance.randint(1, 40_000)) / (1 if unit in ("Tokens", "Requests") else 1000)
    list_cost = quantity * Decimal(price)
    contracted = Decimal(price) * Decimal("0.95") if chance.random() < 0.3 else Decimal(price)
    cost = quantity * contracted
    sku = f"SKU{SERVICES.index((service, category, subcategory, unit, price)):03d}"
    texts = f"{price} per {unit}, first tier", f'"{service}"\nin {region_name}', f"{unit} of {service}"
    return _row(
        day,
        "Usage",
        "Usage-Based",
        cost,
        ChargeDescription=chance.choice(texts),
        EffectiveCost=_plain(cost),
        ListCost=_plain(list_cost),
        ContractedCost=_plain(cost),
        ListUnitPrice=price,
        ContractedUnitPrice=_plain(contracted),
        PricingCategory="Standard",
        PricingQuantity=_plain(quantity),
        PricingUnit=unit,
        ConsumedQuantity=_plain(quantity),
        ConsumedUnit=unit,
        ServiceName=service,
        ServiceCategory=category,
        ServiceSubcategory=subcategory,
        SkuId=sku,
        SkuMeter=unit,
        SkuPriceId=f"{sku}.{region}",
        RegionId=region,
        RegionName=region_name,
        Tags=json.dumps({"team": chance.choice(TEAMS), "env": "prod"}),
        x_Operation="RunInstances",
    )


def _covered(day: date) -> Values:
    """Return compute usage covered by the savings plan: BilledCost is 0, EffectiveCost is not."""
    service, category, subcategory, unit, price = SERVICES[0]
    quantity, effective = Decimal(24), Decimal(24) * Decimal("0.05")
    cost = quantity * Decimal(price)
    return _row(
        day,
        "Usage",
        "Usage-Based",
        Decimal(0),
        ChargeDescription="Compute covered by a savings plan",
        EffectiveCost=_plain(effective),
        ListCost=_plain(cost),
        ContractedCost=_plain(cost),
        ListUnitPrice=price,
        ContractedUnitPrice=price,
        PricingCategory="Committed",
        PricingQuantity=_plain(quantity),
        PricingUnit=unit,
        ConsumedQuantity=_plain(quantity),
        ConsumedUnit=unit,
        ServiceName=service,
        ServiceCategory=category,
        ServiceSubcategory=subcategory,
        SkuId="SKU000",
        SkuMeter=unit,
        SkuPriceId="SKU000.plan",
        CommitmentDiscountId=PLAN,
        CommitmentDiscountName="demo-plan",
        CommitmentDiscountCategory="Spend",
        CommitmentDiscountType="Savings Plan",
        CommitmentDiscountStatus="Used",
        CommitmentDiscountQuantity=_plain(effective),
        CommitmentDiscountUnit="USD",
        Tags="{}",
    )


def _purchase(day: date) -> Values:
    cost = Decimal("1.2")
    return _row(
        day,
        "Purchase",
        "Recurring",
        cost,
        ChargeDescription="Savings plan, no upfront",
        EffectiveCost="0",
        ListCost=_plain(cost),
        ContractedCost=_plain(cost),
        ListUnitPrice="1",
        ContractedUnitPrice="1",
        PricingCategory="Standard",
        PricingQuantity=_plain(cost),
        PricingUnit="USD",
        ServiceName=SERVICES[0][0],
        ServiceCategory="Compute",
        ServiceSubcategory="Virtual Machines",
        SkuId="SKUPLAN",
        SkuMeter="Commitment",
        SkuPriceId="SKUPLAN.1yr",
        CommitmentDiscountId=PLAN,
        CommitmentDiscountName="demo-plan",
        CommitmentDiscountCategory="Spend",
        CommitmentDiscountType="Savings Plan",
        CommitmentDiscountQuantity=_plain(cost),
        CommitmentDiscountUnit="USD",
        Tags="{}",
    )


def _credit(chance: random.Random, day: date) -> Values:
    return _one_time_charge(day, "Credit", -Decimal(chance.randint(1, 99)) / 100, "Promotional credit")


def _tax(chance: random.Random, day: date) -> Values:
    return _one_time_charge(day, "Tax", Decimal(chance.randint(1, 999)) / 1000, "VAT")


def _one_time_charge(day: date, category: str, cost: Decimal, description: str) -> Values:
    amount = _plain(cost)
    return _row(
        day,
        category,
        "One-Time",
        cost,
        ChargeDescription=description,
        EffectiveCost=amount,
        ListCost=amount,
        ContractedCost=amount,
        ServiceName="AWS Billing",
        ServiceCategory="Other",
        ServiceSubcategory="Other (Other)",
        Tags="{}",
    )


def _row(day: date, category: str, frequency: str, billed: Decimal, **more: str) -> Values:
    """Return a row with every column of the export, in order; columns that are not given are empty."""
    month = day.replace(day=1)
    values = {
        "ProviderName": "AWS",
        "PublisherName": "AWS",
        "InvoiceIssuerName": "Amazon Web Services, Inc.",
        "InvoiceId": f"INV-{month:%Y-%m}",
        "BillingAccountId": "100000000001",
        "BillingAccountName": "Demo payer",
        "BillingAccountType": "Payer Account",
        "SubAccountId": "200000000002",
        "SubAccountName": "Demo workloads",
        "SubAccountType": "Linked Account",
        "BillingPeriodStart": _utc(month),
        "BillingPeriodEnd": _utc(next_month(month)),
        "ChargePeriodStart": _utc(day),
        "ChargePeriodEnd": _utc(day + timedelta(days=1)),
        "ChargeCategory": category,
        "ChargeClass": "",
        "ChargeFrequency": frequency,
        "BilledCost": _plain(billed),
        "BillingCurrency": "USD",
        "PricingCurrency": "USD",
    }
    return {name: {**values, **more}.get(name, "") for name in COLUMNS}


def _utc(day: date) -> str:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(value: Decimal) -> str:
    return f"{value:f}"


COLUMNS = (
    *("ProviderName", "PublisherName", "InvoiceIssuerName", "InvoiceId", "BillingAccountId", "BillingAccountName"),
    *("BillingAccountType", "SubAccountId", "SubAccountName", "SubAccountType", "BillingPeriodStart"),
    *("BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd", "ChargeCategory", "ChargeClass"),
    *("ChargeDescription", "ChargeFrequency", "BilledCost", "EffectiveCost", "ListCost", "ContractedCost"),
    *("ListUnitPrice", "ContractedUnitPrice", "PricingCategory", "PricingQuantity", "PricingUnit", "PricingCurrency"),
    *("BillingCurrency", "ConsumedQuantity", "ConsumedUnit", "ServiceName", "ServiceCategory", "ServiceSubcategory"),
    *("SkuId", "SkuMeter", "SkuPriceId", "RegionId", "RegionName", "CommitmentDiscountId", "CommitmentDiscountName"),
    *("CommitmentDiscountCategory", "CommitmentDiscountType", "CommitmentDiscountStatus"),
    *("CommitmentDiscountQuantity", "CommitmentDiscountUnit", "Tags", "x_Operation"),
)
