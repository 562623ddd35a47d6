"""AWS's Cost and Usage Reports as FOCUS: what each kind of line item becomes. Figures are worked out by hand."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.platform.errors import PermanentError
from common.processors.clouds.aws.cur_layout import AwsCur
from tests.processors.layouts import check_prices, read_bill, total, write_bill

PLAN = "arn:aws:savingsplans::1:savingsplan/sp-1"


def line(line_type: str, cost: str, **more: str) -> dict[str, str]:
    """A line item of the legacy report; names of ``more`` are those of 2.0, without their slashes."""
    return {
        "bill/PayerAccountId": "100000000001",
        "bill/BillingPeriodStartDate": "2026-10-01T00:00:00Z",
        "bill/BillingPeriodEndDate": "2026-11-01T00:00:00Z",
        "lineItem/UsageAccountId": "200000000002",
        "lineItem/LineItemType": line_type,
        "lineItem/UsageStartDate": "2026-10-05T10:00:00Z",
        "lineItem/UsageEndDate": "2026-10-05T11:00:00Z",
        "lineItem/ProductCode": "AmazonEC2",
        "lineItem/UsageType": "BoxUsage:t3.large",
        "lineItem/CurrencyCode": "USD",
        "lineItem/UnblendedCost": cost,
        "pricing/unit": "Hrs",
        "product/sku": "SKU1",
        **more,
    }


def read(tmp_path: Path, *lines: dict[str, str], **config: Any) -> list[dict[str, Any]]:
    rows = read_bill(write_bill(tmp_path / "cur.csv", lines), layout="aws_cur", **config)
    check_prices(rows)
    return rows


def test_usage_has_its_list_price_and_what_was_paid(tmp_path: Path) -> None:
    """2.5 hours at 0.0832 are 0.208; paid 0.08 an hour are 0.2."""
    rates = {"pricing/publicOnDemandRate": "0.0832", "lineItem/UnblendedRate": "0.08", "lineItem/UsageAmount": "2.5"}
    (row,) = read(tmp_path, line("Usage", "0.2", **rates, **{"resourceTags/user:Team": "search", "foo/Bar": "x"}))
    expected = {
        "BilledCost": Decimal("0.2"),
        "EffectiveCost": Decimal("0.2"),
        "ListCost": Decimal("0.208"),
        "ContractedCost": Decimal("0.2"),
        "ConsumedQuantity": Decimal("2.5"),
        "ConsumedUnit": "Hours",
        "ServiceCategory": "Compute",
        "ServiceSubcategory": "Virtual Machines",
        "PricingCategory": "Standard",
        "ChargePeriodEnd": datetime(2026, 10, 5, 11, tzinfo=UTC),
        "Tags": '{"Team": "search"}',
        "extra": '{"foo/Bar": "x"}',
        "x_pipeline_run_date": date(2026, 10, 5),
    }
    assert {name: row[name] for name in expected} == expected


def test_usage_without_a_price_is_one_charge_and_keeps_its_amount(tmp_path: Path) -> None:
    (row,) = read(tmp_path, line("Usage", "-0.37", **{"lineItem/UsageAmount": "-3"}))
    assert (row["PricingQuantity"], row["ListUnitPrice"], row["ListCost"]) == (-1, Decimal("0.37"), Decimal("-0.37"))
    assert (row["ConsumedQuantity"], row["PricingUnit"]) == (Decimal(-3), "Charges")


def test_a_usage_of_nothing_costs_nothing_and_is_kept(tmp_path: Path) -> None:
    (row,) = read(tmp_path, line("Usage", "0", **{"lineItem/UsageAmount": "0", "pricing/publicOnDemandRate": "0.5"}))
    assert (row["BilledCost"], row["ListCost"], row["ConsumedQuantity"]) == (0, 0, 0)


def test_what_a_savings_plan_covers_costs_what_was_committed_and_adds_up_with_its_negation(tmp_path: Path) -> None:
    """1.00 on demand, taken back, and 0.60 of the plan; the plan's fee of 1.00 leaves 0.40 unused."""
    plan = {"savingsPlan/SavingsPlanARN": PLAN}
    covered = line(
        "SavingsPlanCoveredUsage",
        "1.00",
        **plan,
        **{
            "savingsPlan/SavingsPlanEffectiveCost": "0.60",
            "lineItem/UsageAmount": "10",
            "pricing/publicOnDemandRate": "0.1",
        },
    )
    fee = {"savingsPlan/TotalCommitmentToDate": "1.00", "savingsPlan/UsedCommitment": "0.60"}
    rows = read(
        tmp_path,
        covered,
        line("SavingsPlanNegation", "-1.00", **plan),
        line("SavingsPlanRecurringFee", "1.00", **plan, **fee),
    )
    assert [(r["ChargeCategory"], r["BilledCost"], r["EffectiveCost"]) for r in rows] == [
        ("Usage", 0, Decimal("0.60")),
        ("Adjustment", 0, 0),
        ("Purchase", Decimal("1.00"), 0),
        ("Usage", 0, Decimal("0.40")),
    ]
    assert [r.get("CommitmentDiscountStatus") for r in rows] == ["Used", None, None, "Unused"]
    # 10 hours at 0.1; the negation takes no list price back, or the plan would seem to save a negative amount.
    assert [r["ListCost"] for r in rows[:2]] == [Decimal("1.00"), 0]
    assert (total(rows), total(rows, "EffectiveCost")) == (Decimal("1.00"), Decimal("1.00"))


def test_a_reservation_is_bought_used_and_partly_left_unused(tmp_path: Path) -> None:
    """0.70 a day of fee: 0.50 is used, 0.15 + 0.05 is not."""
    arn = {"reservation/ReservationARN": "arn:aws:ec2:eu-west-1:1:reserved-instances/ri-1"}
    used = {"reservation/EffectiveCost": "0.50", "lineItem/UsageAmount": "24", "pricing/publicOnDemandRate": "0.04"}
    left = {
        "reservation/UnusedAmortizedUpfrontFeeForBillingPeriod": "0.15",
        "reservation/UnusedRecurringFee": "0.05",
        "lineItem/UsageAmount": "34",
    }
    rows = read(tmp_path, line("DiscountedUsage", "0", **arn, **used), line("RIFee", "0.70", **arn, **left))
    assert [(r["ChargeCategory"], r["BilledCost"], r["EffectiveCost"]) for r in rows] == [
        ("Usage", 0, Decimal("0.50")),
        ("Purchase", Decimal("0.70"), 0),
        ("Usage", 0, Decimal("0.20")),
    ]
    assert {r["CommitmentDiscountCategory"] for r in rows} == {"Usage"}
    assert rows[0]["PricingCategory"] == "Committed" and rows[0]["ListCost"] == Decimal("0.96")


@pytest.mark.parametrize(
    ("line_type", "category", "correction"),
    [
        ("Tax", "Tax", None),
        ("Credit", "Credit", None),
        ("EdpDiscount", "Adjustment", None),
        ("SomethingNew", "Adjustment", None),
    ],
)
def test_money_that_is_no_usage_keeps_its_kind_and_has_no_price(
    tmp_path: Path, line_type: str, category: str, correction: str | None
) -> None:
    (row,) = read(tmp_path, line(line_type, "-1.25"))
    assert (row["ChargeCategory"], row["ChargeClass"], row["BilledCost"]) == (category, correction, Decimal("-1.25"))


RESERVED = "arn:aws:ec2:us-east-1:200000000002:reserved-instances/ri-1"


@pytest.mark.parametrize("where", ["reservation/ReservationARN", "lineItem/ResourceId"])
def test_a_fee_that_refers_to_a_reservation_covers_later_usage_and_another_fee_does_not(
    tmp_path: Path, where: str
) -> None:
    """365.00 are paid for a year, of which 1.00 is used on the first day; a domain name is cost at once."""
    rows = read(
        tmp_path,
        line("Fee", "365.00", **{where: RESERVED, "lineItem/UsageAmount": "1"}),
        line("Fee", "12.00", **{"lineItem/ProductCode": "AmazonRegistrar"}),
        line("DiscountedUsage", "0", **{"reservation/ReservationARN": RESERVED, "reservation/EffectiveCost": "1.00"}),
    )
    assert [
        (r["ChargeCategory"], r["BilledCost"], r["EffectiveCost"], r.get("CommitmentDiscountId")) for r in rows
    ] == [
        ("Purchase", 365, 0, RESERVED),
        ("Purchase", 12, 12, None),
        ("Usage", 0, 1, RESERVED),
    ]


def test_the_unused_part_of_a_reservation_has_its_unused_quantity(tmp_path: Path) -> None:
    """Of 744 hours 743 were not used, which costs 74.30 of the 74.40 that the month has of the fee."""
    fee = {"reservation/UnusedAmortizedUpfrontFeeForBillingPeriod": "74.30", "reservation/UnusedQuantity": "743"}
    _, unused = read(
        tmp_path, line("RIFee", "0", **{"reservation/ReservationARN": RESERVED, "lineItem/UsageAmount": "744"}, **fee)
    )
    assert (unused["EffectiveCost"], unused["CommitmentDiscountQuantity"]) == (Decimal("74.30"), 743)
    assert unused["CommitmentDiscountStatus"] == "Unused"


def test_a_returned_savings_plan_costs_nothing_and_another_refund_is_negative_usage(tmp_path: Path) -> None:
    """1200 - 1200 of the plan, 100 of usage, 50 given back for it: billed 50, effective 50."""
    arn = "arn:aws:savingsplans::200000000002:savingsplan/9a8b"
    rows = read(
        tmp_path,
        line("SavingsPlanUpfrontFee", "1200", **{"savingsPlan/SavingsPlanARN": arn}),
        line(
            "Refund", "-1200", **{"lineItem/LineItemDescription": "Refund for one-time fee for Savings Plan ID: 9a8b"}
        ),
        line("Refund", "-50", **{"lineItem/UsageAmount": "10", "pricing/publicOnDemandRate": "5"}),
        line("Usage", "100"),
    )
    assert [(r["ChargeCategory"], r["EffectiveCost"], r.get("CommitmentDiscountId")) for r in rows] == [
        ("Purchase", 0, arn),
        ("Purchase", 0, arn),
        ("Usage", -50, None),
        ("Usage", 100, None),
    ]
    assert (rows[2]["ListCost"], rows[2]["ChargeClass"]) == (-50, None)  # what is given back lowers the list cost
    assert (total(rows), total(rows, "EffectiveCost")) == (50, 50)


def test_usage_that_a_savings_plan_covers_is_committed_even_without_its_arn(tmp_path: Path) -> None:
    (row,) = read(tmp_path, line("SavingsPlanCoveredUsage", "2.00", **{"savingsPlan/SavingsPlanEffectiveCost": "1.40"}))
    assert (row["BilledCost"], row["EffectiveCost"], row["ListCost"]) == (0, Decimal("1.40"), 2)
    assert (row["CommitmentDiscountStatus"], row["CommitmentDiscountCategory"]) == ("Used", "Spend")


def test_under_a_discount_agreement_the_net_columns_are_what_is_paid(tmp_path: Path) -> None:
    """100 hours at 1.00, of which 10 % are taken off; the covered hour costs 0.54 instead of 0.60."""
    rates = {"lineItem/UsageAmount": "100", "pricing/publicOnDemandRate": "1.00", "lineItem/UnblendedRate": "1.00"}
    net = {"lineItem/NetUnblendedCost": "90.00", "lineItem/NetUnblendedRate": "0.90"}
    covered = {"reservation/EffectiveCost": "0.60", "reservation/NetEffectiveCost": "0.54"}
    rows = read(
        tmp_path,
        line("Usage", "100.00", **rates, **net),
        line("DiscountedUsage", "0", **{"reservation/ReservationARN": RESERVED}, **covered),
    )
    names = ("BilledCost", "EffectiveCost", "ContractedCost", "ListCost")
    assert [rows[0][name] for name in names] == [90, 90, 90, 100]
    assert rows[1]["EffectiveCost"] == Decimal("0.54")


def test_a_flat_rate_subscription_is_a_recurring_purchase(tmp_path: Path) -> None:
    (row,) = read(tmp_path, line("FlatRateSubscription", "15.00"))
    assert (row["ChargeCategory"], row["ChargeFrequency"], row["EffectiveCost"]) == ("Purchase", "Recurring", 15)


def test_of_a_marketplace_charge_the_seller_is_the_service_provider(tmp_path: Path) -> None:
    seller = {"bill/BillingEntity": "AWS Marketplace", "lineItem/LegalEntity": "Databricks, Inc."}
    (row,) = read(tmp_path, line("Usage", "12.00", **seller, **{"bill/InvoicingEntity": "Amazon Web Services, Inc."}))
    names = ("ServiceProviderName", "PublisherName", "ProviderName", "InvoiceIssuerName")
    assert [row[name] for name in names] == ["Databricks, Inc.", "Databricks, Inc.", "AWS", "Amazon Web Services, Inc."]


def test_the_maps_of_2_0_have_names_of_service_and_region_and_the_capacity_reservation(tmp_path: Path) -> None:
    maps = {
        "product": '{"product_name": "Amazon Elastic Compute Cloud", "region": "us-east-1", "vcpu": "2"}',
        "capacity_reservation_capacity_reservation_arn": "arn:aws:ec2:us-east-1:2:capacity-reservation/cr-1",
        "capacity_reservation_capacity_reservation_status": "Unused",
    }
    stated, own = read(
        tmp_path, line("Usage", "1", **maps, product_location="US East (N. Virginia)"), line("Usage", "1", **maps)
    )
    assert {(r["ServiceName"], r["RegionId"], r["RegionName"]) for r in (stated, own)} == {
        ("Amazon Elastic Compute Cloud", "us-east-1", "US East (N. Virginia)")
    }
    assert own["CapacityReservationId"].endswith("/cr-1") and own["CapacityReservationStatus"] == "Unused"
    assert json.loads(own["SkuPriceDetails"])["x_vcpu"] == "2"  # the rest of the map is kept


def test_a_refund_of_usage_before_its_billing_period_is_a_correction(tmp_path: Path) -> None:
    before = {"lineItem/UsageStartDate": "2026-09-30T10:00:00Z", "lineItem/UsageEndDate": "2026-09-30T11:00:00Z"}
    (row,) = read(tmp_path, line("Refund", "-3", **before))
    assert (row["ChargeCategory"], row["ChargeClass"]) == ("Usage", "Correction")


def test_the_names_of_2_0_are_the_same_columns_and_its_tags_are_a_map(tmp_path: Path) -> None:
    legacy = line("Usage", "1.5", **{"lineItem/UsageAmount": "3", "savingsPlan/SavingsPlanARN": PLAN})
    newer = {AwsCur.plain_name(name): value for name, value in legacy.items()}
    assert "savings_plan_savings_plan_a_r_n" in newer and "line_item_unblended_cost" in newer
    tags = {"resource_tags": json.dumps({"user_team": "search", "aws_created_by": "x", "user_empty": ""})}
    (row,) = read(tmp_path, newer | tags)
    assert (row["BilledCost"], row["Tags"]) == (Decimal("1.5"), '{"aws_created_by": "x", "team": "search"}')


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lineItem/UnblendedCost": "12,50"}, "line 2, column lineItem/UnblendedCost: '12,50' is not a number"),
        ({"lineItem/UnblendedCost": ""}, "line 2, column lineItem/UnblendedCost: it is empty, and needs a value"),
        ({"lineItem/UsageStartDate": "soon"}, "line 2, column lineItem/UsageStartDate: 'soon' is not a time"),
    ],
)
def test_a_value_that_is_none_is_told_with_the_files_own_name_of_its_column(
    tmp_path: Path, change: dict[str, str], said: str
) -> None:
    path = write_bill(tmp_path / "cur.csv", [line("Usage", "1") | change])
    with pytest.raises((AssertionError, PermanentError), match=said):
        read_bill(path, layout="aws_cur")


def test_a_file_of_another_kind_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    path = write_bill(tmp_path / "x.csv", [{"ChargePeriodStart": "2026-10-01", "BilledCost": "1"}])
    with pytest.raises(PermanentError, match="no column line_item_line_item_type, .*: is it the bill that the step's"):
        read_bill(path, layout="aws_cur")


def test_two_spellings_of_one_column_are_refused(tmp_path: Path) -> None:
    path = write_bill(tmp_path / "x.csv", [line("Usage", "1") | {"line_item_unblended_cost": "1"}])
    with pytest.raises(PermanentError, match="'lineItem/UnblendedCost' and 'line_item_unblended_cost' are the same"):
        read_bill(path, layout="aws_cur")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "count", "billed"),
    [  # as published with the files (sums.json)
        ("cur_legacy_2023_11.part_a.csv", 843, "1.05290839050"),
        ("koku_local_cur_2018_06.csv.gz", 13380, "143227.763678187615017991050"),
        ("koku_cur_2022-07-01_alt_columns.csv", 2, "0"),
    ],
)
def test_a_published_report_adds_up_to_the_last_digit(shared_data: Path, name: str, count: int, billed: str) -> None:
    rows = read_bill(shared_data / "aws" / name, layout="aws_cur")
    check_prices(rows)
    assert (len(rows), total(rows)) == (count, Decimal(billed))


@pytest.mark.shared
def test_a_published_report_whose_rows_are_shorter_than_its_header_is_refused(shared_data: Path) -> None:
    with pytest.raises(PermanentError, match=r"koku_test_cur\.csv: line 2: \d+ fields, the header has 131"):
        read_bill(shared_data / "aws" / "koku_test_cur.csv", layout="aws_cur")
