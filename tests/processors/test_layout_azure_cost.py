"""Azure's cost details as FOCUS. Figures are worked out by hand, sums of published files are those of sums.json."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.platform.errors import PermanentError
from common.processors.bills.file_extractor import ExternalFileExtractor, ExternalFileParams
from common.processors.clouds.azure.cost_layout import AzureActualCost
from tests.processors.bill_files import rows_of
from tests.processors.context import make_context
from tests.processors.layouts import check_prices, read_bill, total, write_bill


def line(charge_type: str, cost: str, **more: str) -> dict[str, str]:
    return {
        "BillingAccountId": "8611537",
        "BillingPeriodStartDate": "09/01/2023",
        "BillingPeriodEndDate": "09/30/2023",
        "SubscriptionId": "sub-1",
        "SubscriptionName": "Production",
        "Date": "09/22/2023",
        "MeterCategory": "Virtual Machines",
        "MeterId": "m-1",
        "MeterName": "D2 v2",
        "PartNumber": "P-1",
        "Quantity": "8",
        "Cost": cost,
        "BillingCurrency": "EUR",
        "UnitOfMeasure": "1 Hour",
        "ChargeType": charge_type,
        **more,
    }


def read(tmp_path: Path, *lines: dict[str, str], layout: str = "azure_actual_cost") -> list[dict[str, Any]]:
    rows = read_bill(write_bill(tmp_path / "cost.csv", lines), layout=layout)
    check_prices(rows)
    return rows


ORDER = "/providers/Microsoft.Capacity/reservationOrders/o/reservations/r"
RESERVED = {"PricingModel": "Reservation", "ReservationId": ORDER}


def both_views(tmp_path: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """A reservation of 365.00 for a year: 3 days of 1.00 each, and an ordinary purchase of 5.00, in both views."""
    days = [{"Date": f"09/2{day}/2023"} for day in range(1, 4)]
    software = line("Purchase", "5.00")
    amortised = [*(line("Usage", "1.00", **RESERVED, **day) for day in days), software]
    bought = line("Purchase", "365.00", **RESERVED)
    actual = [bought, *(line("Usage", "0", **RESERVED, **day) for day in days), software]
    write_bill(tmp_path / "actual.csv", actual)
    write_bill(tmp_path / "amortised.csv", amortised)
    return actual, amortised


def extract(tmp_path: Path, source: str, **config: Any) -> tuple[list[dict[str, Any]], list[str]]:
    params = ExternalFileParams.model_validate({"destination_table": "cloud_focus_export", "source": source, **config})
    days = {"start_date": date(2023, 9, 21), "end_date": date(2023, 9, 23)}
    context = make_context(landing=tmp_path, source=None, **days)
    rows = [row for batch in ExternalFileExtractor().run(context, params) for row in rows_of(batch)]
    check_prices(rows)
    return rows, context.warnings


def test_amortised_and_actual_cost_together_are_the_whole_bill(tmp_path: Path) -> None:
    """Billed 365 + 5, effective 3 x 1 + 5; usage and the ordinary purchase of the actual view are not counted again."""
    both_views(tmp_path)
    rows, warnings = extract(tmp_path, "amortised.csv", layout="azure_amortised_cost", purchases_source="actual.csv")
    assert (total(rows), total(rows, "EffectiveCost"), len(rows)) == (370, 8, 5)
    assert warnings == []


@pytest.mark.parametrize(
    ("source", "lacks"), [("actual", "its EffectiveCost is too low"), ("amortised", "its BilledCost is too low")]
)
def test_one_view_alone_says_what_it_lacks(tmp_path: Path, source: str, lacks: str) -> None:
    both_views(tmp_path)
    _, warnings = extract(tmp_path, f"{source}.csv", layout=f"azure_{source}_cost")
    assert len(warnings) == 1 and lacks in warnings[0]


def test_a_view_without_commitments_lacks_nothing(tmp_path: Path) -> None:
    write_bill(tmp_path / "plain.csv", [line("Usage", "1", Date=f"09/2{day}/2023") for day in range(1, 4)])
    assert extract(tmp_path, "plain.csv", layout="azure_actual_cost")[1] == []


@pytest.mark.parametrize(
    "refers", [{"ReservationId": ORDER}, {"benefitId": ORDER}, {"ResourceId": ORDER, "ProductOrderId": "o"}]
)
def test_a_purchase_that_refers_to_a_benefit_covers_later_usage_whatever_its_pricing_model(
    tmp_path: Path, refers: dict[str, str]
) -> None:
    bought, other = read(
        tmp_path, line("Purchase", "365", **refers), line("Purchase", "5", ProductOrderId="o", ResourceId="x")
    )
    assert (bought["BilledCost"], bought["EffectiveCost"], bought["CommitmentDiscountId"]) == (365, 0, ORDER)
    assert (other["EffectiveCost"], other["CommitmentDiscountId"]) == (5, None)


def test_a_bill_in_two_currencies_is_converted_at_the_files_rate(tmp_path: Path) -> None:
    """8 hours, list 0.146 USD, agreed 0.13 USD, at 0.92: 1.168 USD are 1.07456 EUR, 1.04 USD are 0.9568 EUR."""
    prices = {"PayGPrice": "0.146", "UnitPrice": "0.13", "CostInPricingCurrency": "1.04", "PricingCurrency": "USD"}
    who = {"BillingProfileId": "PROF-1", "BillingProfileName": "Contoso DE", "PartnerName": "Crayon AS"}
    (row,) = read(tmp_path, line("Usage", "0.9568", **prices, **who, ExchangeRatePricingToBilling="0.92"))
    assert (row["ListCost"], row["ContractedCost"]) == (Decimal("1.07456"), Decimal("0.9568"))
    assert row["PricingCurrencyEffectiveCost"] == Decimal("1.04")
    assert row["PricingCurrencyListUnitPrice"] == Decimal("0.146")
    assert (row["BillingAccountId"], row["BillingAccountName"]) == ("PROF-1", "Contoso DE")
    assert row["InvoiceIssuerName"] == "Crayon AS"


def test_of_a_marketplace_charge_the_publisher_is_the_service_provider(tmp_path: Path) -> None:
    stated, own = read(
        tmp_path,
        line("Usage", "1", PublisherType="Marketplace", PublisherName="Databricks"),
        line("Usage", "1", PublisherType="Azure", PublisherName="Microsoft"),
    )
    assert (stated["ServiceProviderName"], own["ServiceProviderName"]) == ("Databricks", "Microsoft")


def test_service_category_and_region_are_those_of_microsofts_open_mapping(tmp_path: Path) -> None:
    """By consumed service and resource type, nested types too; a meter's category says what is metered, not sold."""
    names = {
        "ConsumedService": "Microsoft.Sql",
        "MeterCategory": "Advanced Data Security",
        "ResourceLocation": "EastUS2",
    }
    database = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Sql/servers/a/databases/b"
    (row,) = read(tmp_path, line("Usage", "1", ResourceId=database, **names))
    assert (row["ServiceName"], row["ServiceCategory"]) == ("Azure SQL Database", "Databases")
    assert (row["RegionId"], row["RegionName"]) == ("eastus2", "East US 2")
    assert json.loads(row["extra"])["MeterCategory"] == "Advanced Data Security"


def test_usage_has_its_list_price_what_was_agreed_and_what_was_billed(tmp_path: Path) -> None:
    """8 hours: list 0.146 each is 1.168, agreed 0.13 each is 1.04."""
    resource = "/subscriptions/sub-1/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm-1"
    more = {"PayGPrice": "0.146", "UnitPrice": "0.13", "ResourceId": resource, "Tags": '"env": "prod","n": 1', "x": "y"}
    (row,) = read(tmp_path, line("Usage", "1.04", **more))
    expected = {
        "BilledCost": Decimal("1.04"),
        "EffectiveCost": Decimal("1.04"),
        "ListCost": Decimal("1.168"),
        "ContractedCost": Decimal("1.04"),
        "BillingPeriodStart": datetime(2023, 9, 1, tzinfo=UTC),
        "BillingPeriodEnd": datetime(2023, 10, 1, tzinfo=UTC),
        "ResourceName": "vm-1",
        "ResourceType": "Microsoft.Compute/virtualMachines",
        "ServiceSubcategory": "Virtual Machines",
        "Tags": '{"env": "prod", "n": "1"}',
        "extra": '{"x": "y"}',
        "x_pipeline_run_date": date(2023, 9, 22),
    }
    assert {name: row[name] for name in expected} == expected


RESERVED = {"PricingModel": "Reservation", "benefitId": "/providers/Microsoft.Capacity/r-1", "benefitName": "VMs"}


def test_a_reservation_is_billed_when_it_is_bought_and_borne_by_what_it_covers(tmp_path: Path) -> None:
    """Bought for 3.25; the amortised file says that 8 hours bore 0.49 of it and 0.11 were not used."""
    actual = read(tmp_path, line("Purchase", "3.25", **RESERVED, Frequency="Recurring"), line("Usage", "0", **RESERVED))
    assert [(r["ChargeCategory"], r["BilledCost"], r["EffectiveCost"]) for r in actual] == [
        ("Purchase", Decimal("3.25"), 0),
        ("Usage", 0, 0),
    ]
    assert actual[0]["ChargeFrequency"] == "Recurring" and actual[0]["CommitmentDiscountStatus"] is None
    lines = line("Usage", "0.49", **RESERVED), line("UnusedReservation", "0.11", **RESERVED), line("Usage", "2")
    amortised = read(tmp_path, *lines, layout="azure_amortised_cost")
    assert [(r["BilledCost"], r["EffectiveCost"], r.get("CommitmentDiscountStatus")) for r in amortised] == [
        (0, Decimal("0.49"), "Used"),
        (0, Decimal("0.11"), "Unused"),
        (2, 2, None),
    ]


def test_a_refund_is_a_negative_purchase_and_what_is_neither_has_no_price(tmp_path: Path) -> None:
    rows = read(tmp_path, line("Refund", "-3.25", **RESERVED), line("RoundingAdjustment", "0.01"), line("Tax", "1"))
    assert [(r["ChargeCategory"], r["BilledCost"]) for r in rows] == [
        ("Purchase", Decimal("-3.25")),
        ("Adjustment", Decimal("0.01")),
        ("Tax", 1),
    ]
    assert rows[0]["PricingQuantity"] == -1 and rows[0]["ListUnitPrice"] == Decimal("3.25")


def test_prices_in_another_currency_are_not_taken_for_those_of_the_bill(tmp_path: Path) -> None:
    (row,) = read(tmp_path, line("Usage", "0.9", pricingCurrency="USD", PayGPrice="0.146"))
    assert (row["PricingCurrency"], row["PricingCurrencyListUnitPrice"]) == ("USD", Decimal("0.146"))
    assert (row["ListUnitPrice"], row["PricingUnit"]) == (Decimal("0.9"), "Charges")


@pytest.mark.parametrize(
    ("start", "end", "ends"),
    [("09/01/2023", "09/30/2023", 10), ("08/01/2023", "09/01/2023", 9), ("08/15/2023", "09/14/2023", 9)],
)
def test_the_end_of_a_billing_period_is_the_first_day_after_it_however_it_is_written(
    tmp_path: Path, start: str, end: str, ends: int
) -> None:
    (row,) = read(tmp_path, line("Usage", "1") | {"BillingPeriodStartDate": start, "BillingPeriodEndDate": end})
    begins = row["BillingPeriodStart"]
    assert row["BillingPeriodEnd"] == datetime(2023, ends, begins.day, tzinfo=UTC)


@pytest.mark.parametrize(
    ("own", "plain"),
    [
        ("MeterCategory", "metercategory"),
        ("meterCategory", "metercategory"),
        ("Kategorie der Verbrauchseinheit (MeterCategory)", "metercategory"),
        ("Cost In Billing Currency", "costinbillingcurrency"),
    ],
)
def test_a_column_is_the_same_however_it_is_spelt(own: str, plain: str) -> None:
    assert AzureActualCost.plain_name(own) == plain


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Date": "31/12/2023"}, "column Date: '31/12/2023' is not a day such as"),
        ({"Tags": '"env": '}, "column Tags: .* is not JSON, or the inside"),
        ({"Cost": "1.2.3"}, "column Cost: '1.2.3' is not a number"),
        ({"BillingCurrency": ""}, "column BillingCurrency: it is empty, and needs a value"),
    ],
)
def test_what_can_not_be_read_is_told(tmp_path: Path, change: dict[str, str], said: str) -> None:
    path = write_bill(tmp_path / "cost.csv", [line("Usage", "1"), line("Usage", "1") | change])
    with pytest.raises((AssertionError, PermanentError), match=said):
        read_bill(path, layout="azure_actual_cost")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "layout", "count", "column", "expected"),
    [
        ("EA_ActualCost_Small.csv", "azure_actual_cost", 11, "BilledCost", "8.5450077867419368"),
        ("EA_AmortizedCost_Small.csv", "azure_amortised_cost", 28, "EffectiveCost", "16.2969321366366446274854190000"),
        ("koku_azure_v2_camel.csv", "azure_actual_cost", 4, "BilledCost", "0.000026241200000000000000"),
        ("koku_costreport_v1.csv", "azure_actual_cost", 3, "BilledCost", "0.00011016"),
        ("opencost_header_German.csv", "azure_actual_cost", 1, "BilledCost", "0.075"),
        ("opencost_header_PayAsYouGo.csv", "azure_actual_cost", 1, "BilledCost", "0.075"),
        ("opencost_header_EnterpriseCamel.csv", "azure_actual_cost", 1, "BilledCost", "0.012"),
        ("opencost_header_Enterprise.csv", "azure_actual_cost", 1, "BilledCost", "0"),
    ],
)
def test_a_published_file_adds_up_to_the_last_digit(
    shared_data: Path, name: str, layout: str, count: int, column: str, expected: str
) -> None:
    rows = read_bill(shared_data / "azure" / name, layout=layout)
    check_prices(rows)
    assert (len(rows), total(rows, column)) == (count, Decimal(expected))
    assert all(row["Tags"] is None or json.loads(row["Tags"]) for row in rows)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("opencost_MissingBrackets.csv", "no column billingcurrency or billingcurrencycode or currency"),
        ("opencost_Template.part_a.csv", "line 2: 10 fields, the header has 11; nothing for column resourcelocation"),
    ],
)
def test_a_published_file_that_is_broken_is_refused(shared_data: Path, name: str, said: str) -> None:
    with pytest.raises(PermanentError, match=said):
        read_bill(shared_data / "azure" / name, layout="azure_actual_cost")
