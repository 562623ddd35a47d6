"""The FOCUS procedures, called for real on the emulator: what comes out, and that it adds up."""

import csv
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.focus.missing_prices import missing_prices
from common.focus.reconcile import reconcile
from common.platform.paths import CONFIGS
from common.processors.bills.file_extractor import ExternalFileExtractor, ExternalFileParams, date_span
from infra.local.focus_export import write_focus_export
from tests.conftest import PROJECT
from tests.contract.focus import DAY, FOCUS, Dataset, cost, export, numbers, reported
from tests.loaded import dropped
from tests.processors.bill_files import rows_of
from tests.processors.context import make_context


@pytest.fixture
def dataset(warehouse: BigQueryWarehouse, tmp_path: Path) -> Iterator[Dataset]:
    with dropped(warehouse, f"{PROJECT}.focus{next(numbers)}") as name:
        yield Dataset(warehouse, tmp_path, name)


def test_usage_becomes_one_row_per_project_model_token_type_and_variant(dataset: Dataset) -> None:
    """Two API keys of one project are one charge: 600 + 400 tokens at 0.0000025 are 0.0025 (by hand)."""
    dataset.fill(
        "genai_payg_cost",
        [
            cost("input_text", "600", "0.0000025", api_key_id="key_1"),
            cost("input_text", "400", "0.0000025", api_key_id="key_2"),
            cost("input_text", "1000", "0.00000125", price_variant="batch", batch=True),
            cost("output_text", "500", "0.00001"),
        ],
    )
    rows = dataset.call("sp_convert_to_focus", "genai_payg_cost")
    assert [(r["ChargeDescription"], r["PricingQuantity"], r["BilledCost"]) for r in rows] == [
        ("gpt-4o input_text", Decimal(1000), Decimal("0.0025")),
        ("gpt-4o input_text batch", Decimal(1000), Decimal("0.00125")),
        ("gpt-4o output_text", Decimal(500), Decimal("0.005")),
    ]


def test_a_usage_row_has_what_focus_demands(dataset: Dataset) -> None:
    dataset.fill("genai_payg_cost", [cost("output_text", "500", "0.00001")])
    (row,) = dataset.call("sp_convert_to_focus", "genai_payg_cost")
    for column in FOCUS.columns:
        assert column.mode == "NULLABLE" or row[column.name] is not None, column.name
    expected = {
        "BillingPeriodStart": datetime(2026, 10, 1, tzinfo=UTC),
        "BillingPeriodEnd": datetime(2026, 11, 1, tzinfo=UTC),
        "ChargePeriodStart": datetime(2026, 10, 5, tzinfo=UTC),
        "ChargePeriodEnd": datetime(2026, 10, 6, tzinfo=UTC),
        "ServiceProviderName": "OpenAI",
        "ServiceName": "OpenAI API",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "SkuId": "gpt-4o/output_text",
        "SkuPriceId": "gpt-4o/output_text/standard",
        "SkuPriceDetails": {"x_TokenType": "output_text"},
        "SubAccountType": "Project",
        "x_FocusVersion": "1.3",
        "x_pipeline_run_date": DAY,
    }
    assert {name: row[name] for name in expected} == expected
    assert row["BilledCost"] == row["ListUnitPrice"] * row["PricingQuantity"] == row["ListCost"]


def test_a_negotiated_price_stands_beside_the_list_price(dataset: Dataset) -> None:
    """1,000,000 tokens: list 2.50, paid 2.00 (by hand)."""
    paid = cost("input_text", "1000000", "0.000002", list_unit_price=Decimal("0.0000025"), list_cost=Decimal("2.5"))
    dataset.fill("genai_payg_cost", [paid | {"region": "us", "price_date": date(2026, 9, 1)}])
    (row,) = dataset.call("sp_convert_to_focus", "genai_payg_cost")
    assert (row["ListCost"], row["ListUnitPrice"]) == (Decimal("2.5"), Decimal("0.0000025"))
    assert (row["ContractedCost"], row["ContractedUnitPrice"]) == (Decimal(2), Decimal("0.000002"))
    assert (row["BilledCost"], row["EffectiveCost"]) == (Decimal(2), Decimal(2))
    assert (row["RegionId"], row["RegionName"], row["x_PriceDate"]) == ("us", "United States", date(2026, 9, 1))


def test_a_day_adds_up_to_what_the_provider_reports_to_the_last_digit(dataset: Dataset) -> None:
    """0.0025 priced, 0.00250000000000001 reported; 0.3 of images without a price; a search priced a cent too high."""
    priced = [cost("input_text", "1000", "0.0000025"), cost("images", "3", None, model="gpt-image-1")]
    searches = cost("web_searches", "5", "0.01", endpoint="web_search_calls", unit="Calls")
    dataset.fill("genai_payg_cost", [*priced, searches])
    lines = [
        reported("0.00250000000000001"),
        reported("0.3", "gpt-image-1"),
        reported("0.04", None, meter="web_searches"),
    ]
    dataset.fill("genai_reported_cost", lines)
    rows = dataset.call("sp_convert_to_focus", "genai_payg_cost", "genai_reported_cost")
    assert billed(rows) == Decimal("0.34250000000000001")
    differences = {r["ChargeDescription"].split(":")[0]: r for r in rows if r["ChargeCategory"] == "Adjustment"}
    assert {subject: row["BilledCost"] for subject, row in differences.items()} == {
        "gpt-4o": Decimal("0.00000000000000001"),
        "gpt-image-1": Decimal("0.3"),
        "web_searches": Decimal("-0.01"),
    }
    for row in differences.values():
        assert row["BilledCost"] == row["EffectiveCost"] == row["ListCost"] == row["ContractedCost"]
        assert (row["SkuPriceId"], row["PricingQuantity"], row["PricingCategory"]) == (None, None, None)
        for column in FOCUS.columns:
            assert column.mode == "NULLABLE" or row[column.name] is not None, column.name


def test_a_day_that_the_provider_has_not_reported_keeps_its_estimate(dataset: Dataset) -> None:
    dataset.fill("genai_payg_cost", [cost("input_text", "1000", "0.0000025")])
    dataset.fill("genai_reported_cost", [reported("1", account_id="org-2")])
    rows = dataset.call("sp_convert_to_focus", "genai_payg_cost", "genai_reported_cost")
    assert [(r["BillingAccountId"], r["ChargeCategory"], r["BilledCost"]) for r in rows] == [
        ("org-1", "Usage", Decimal("0.0025")),
        ("org-2", "Adjustment", Decimal(1)),
    ]


def test_where_both_agree_there_is_no_difference_and_what_credits_pay_is_a_credit(dataset: Dataset) -> None:
    dataset.fill("genai_payg_cost", [cost("input_text", "1000", "0.0000025")])
    dataset.fill("genai_reported_cost", [reported("0.0025", credit=Decimal("-0.001"))])
    rows = dataset.call("sp_convert_to_focus", "genai_payg_cost", "genai_reported_cost")
    assert [(r["ChargeCategory"], r["BilledCost"]) for r in rows] == [
        ("Usage", Decimal("0.0025")),
        ("Credit", Decimal("-0.001")),
    ]


def test_usage_without_a_price_is_left_out_and_never_a_zero(dataset: Dataset) -> None:
    dataset.fill("genai_payg_cost", [cost("images", "3", None), cost("output_text", "1", "0.00001")])
    rows = dataset.call("sp_convert_to_focus", "genai_payg_cost")
    assert [r["SkuMeter"] for r in rows] == ["output_text"]


def test_a_meter_without_a_model_is_named_by_its_endpoint(dataset: Dataset) -> None:
    dataset.fill("genai_payg_cost", [cost("sessions", "2", "0.03", model=None, project_id=None, endpoint="code")])
    (row,) = dataset.call("sp_convert_to_focus", "genai_payg_cost")
    assert (row["SkuId"], row["SubAccountId"], row["SubAccountType"]) == ("code/sessions", None, None)


@pytest.mark.parametrize("procedure", ["sp_convert_to_focus", "sp_lift_focus_export"])
def test_rows_of_other_organisations_and_days_are_not_read(dataset: Dataset, procedure: str) -> None:
    table = {"sp_convert_to_focus": "genai_payg_cost", "sp_lift_focus_export": "cloud_focus_export"}[procedure]
    rows = [cost("output_text", "1", "1")] if "genai" in table else [export("1")]
    dataset.fill(table, rows, org="globex")
    assert dataset.call(procedure, table) == []
    dataset.fill(table, rows)
    assert len(dataset.call(procedure, table)) == 1
    assert dataset.call(procedure, table, start_date=date(2026, 10, 6), end_date=date(2026, 10, 7)) == []


def test_a_1_0_export_gets_the_columns_of_later_versions(dataset: Dataset) -> None:
    dataset.fill("cloud_focus_export", [export("1.50", SubAccountId="2", Tags='{"a": "b"}', extra='{"Id": "7"}')])
    (row,) = dataset.call("sp_lift_focus_export", "cloud_focus_export")
    expected = {
        "ServiceProviderName": "AWS",
        "HostProviderName": "AWS",
        "PublisherName": "Seller",
        "ServiceSubcategory": "Other (Compute)",
        "PricingCurrency": "EUR",
        "PricingCurrencyEffectiveCost": Decimal("1.50"),
        "PricingCurrencyListUnitPrice": Decimal("0.1"),
        "BillingAccountType": "Billing Account",
        "SubAccountType": "Sub Account",
        "ChargeFrequency": "Usage-Based",
        "Tags": {"a": "b"},
        "x_SourceColumns": {"Id": "7"},
        "x_FocusVersion": "1.3",
    }
    assert {name: row[name] for name in expected} == expected


def test_what_an_export_says_itself_is_not_overruled(dataset: Dataset) -> None:
    said = {
        "ServiceProviderName": "Marketplace",
        "HostProviderName": "Host",
        "ServiceSubcategory": "Virtual Machines",
        "PricingCurrency": "USD",
        "PricingCurrencyEffectiveCost": Decimal("1.63"),
        "BillingAccountType": "Payer",
        "ChargeFrequency": "Recurring",
    }
    dataset.fill("cloud_focus_export", [export("1.50", **said)])
    (row,) = dataset.call("sp_lift_focus_export", "cloud_focus_export")
    assert {name: row[name] for name in said} == said
    assert row["PricingCurrencyListUnitPrice"] is None, "a price in another currency is not invented"


def test_a_contracted_cost_left_empty_is_the_list_cost_and_a_frequency_gets_its_spelling(dataset: Dataset) -> None:
    """As in three Oracle rows of the published 1.0 sample."""
    said = {"ContractedCost": None, "ListCost": Decimal("0.012"), "ChargeFrequency": "Usage-based"}
    dataset.fill("cloud_focus_export", [export("0.012", **said)])
    (row,) = dataset.call("sp_lift_focus_export", "cloud_focus_export")
    assert (row["ContractedCost"], row["ChargeFrequency"]) == (Decimal("0.012"), "Usage-Based")


def test_costs_pass_through_to_the_last_digit(dataset: Dataset) -> None:
    amounts = ["0.000000000000000001", "-2.76274416600", "99999999999999999999.9", "0"]
    dataset.fill("cloud_focus_export", [export(amount) for amount in amounts])
    rows = dataset.call("sp_lift_focus_export", "cloud_focus_export")
    assert sorted(r["BilledCost"] for r in rows) == sorted(Decimal(a) for a in amounts)


def lifted(dataset: Dataset, bill: Path) -> list[dict[str, Any]]:
    """A whole bill from its file to FOCUS 1.3, as the pipeline of configs/cloud/aws/cost/billing.yml does it."""
    params = ExternalFileParams(
        destination_table="cloud_focus_export", date_column="ChargePeriodStart", extra_column="extra", source=bill.name
    )
    days = date_span(bill, params, CONFIGS)
    context = make_context(landing=bill.parent, start_date=days[0], end_date=days[1])
    rows = [row for batch in ExternalFileExtractor().run(context, params) for row in rows_of(batch)]
    dataset.fill(params.destination_table, rows, days=days)
    found = dataset.call("sp_lift_focus_export", params.destination_table, start_date=days[0], end_date=days[1])
    for row in found:
        for column in FOCUS.columns:
            assert column.mode == "NULLABLE" or row[column.name] is not None, column.name
    return found


def billed(rows: list[dict[str, Any]]) -> Decimal:
    return sum((row["BilledCost"] for row in rows), Decimal(0))


def test_a_whole_generated_bill_adds_up_after_the_lift(dataset: Dataset, tmp_path: Path) -> None:
    bill = tmp_path / "bill.csv.gz"
    total = write_focus_export(bill, seed=3, first_day=DAY, days=3, rows_per_day=20)
    rows = lifted(dataset, bill)
    assert (len(rows), billed(rows)) == (3 * (20 + 4), total)
    assert {row["ChargeCategory"] for row in rows} == {"Usage", "Purchase", "Credit", "Tax"}
    assert {row["x_FocusVersion"] for row in rows} == {"1.3"}
    for row in rows:  # FOCUS: cost = unit price x quantity, to the last digit
        if row["PricingQuantity"] is not None:
            assert row["ListCost"] == row["ListUnitPrice"] * row["PricingQuantity"]
            assert row["ContractedCost"] == row["ContractedUnitPrice"] * row["PricingQuantity"]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "count", "total"),
    # Row counts and sums as published with the files (SOURCES.md beside them).
    [
        ("focus_1_0_sample.part_a.csv", 661, "11.65663587019"),
        ("fdt_aws_1_2_rows100.csv", 100, "1157.48882377213324"),
        ("fdt_azure_1_3_rows100.csv", 100, "4697.14467587227460"),
        ("fdt_gcp_1_3_rows100.parquet", 100, "1587.81993053025980"),
        ("llm_handmade_1_3.csv", 4, "87.51830000000000"),
    ],
)
def test_a_published_export_of_any_version_adds_up_and_has_allowed_values_only(
    dataset: Dataset, shared_data: Path, name: str, count: int, total: str
) -> None:
    rows = lifted(dataset, shared_data / "focus" / name)
    assert (len(rows), billed(rows)) == (count, Decimal(total))
    with (shared_data.parent / "focus" / "columns_1_3.csv").open(encoding="utf-8", newline="") as file:
        published = {r["column"]: r["allowed_values"] for r in csv.DictReader(file) if r["allowed_values"]}
    for column, values in published.items():
        if column not in FOCUS.names:  # of the Contract Commitment dataset
            continue
        allowed = {value.rpartition(" > ")[2] for value in values.split("|")}
        assert {row[column] for row in rows} - {None} <= allowed, column


def test_reconcile_and_missing_prices_read_the_tables_as_they_are(dataset: Dataset) -> None:
    priced = [cost("input_text", "1000", "0.0000025"), cost("output_text", "100", "0.00001")]  # 0.0025 + 0.001
    searches = cost("web_searches", "5", "0.01", endpoint="web_search_calls", unit="Calls")
    dataset.fill("genai_payg_cost", [*priced, searches, cost("images", "3", None, model="gpt-image-1", unit="Images")])
    lines = [reported("0.0035"), reported("0.3", "gpt-image-1"), reported("0.05", None, meter="web_searches")]
    dataset.fill("genai_reported_cost", lines)

    def table(name: str) -> str:
        return f"{dataset.name}.{name}"

    found = reconcile(dataset.warehouse, table, "acme", DAY, DAY, Decimal(1))
    assert [(line.subject, line.difference, line.unpriced, line.is_alarm) for line in found] == [
        ("gpt-4o", 0, 0, False),
        ("gpt-image-1", Decimal("-0.3"), 1, True),
        ("web_searches", 0, 0, False),
    ]
    (missing,) = missing_prices(dataset.warehouse, table, "acme", DAY, DAY)
    assert (missing.model, missing.meter, missing.quantity, missing.days) == ("gpt-image-1", "images", 3, 1)
    assert reconcile(dataset.warehouse, table, "globex", DAY, DAY, Decimal(1)) == []
