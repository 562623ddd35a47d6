"""The FOCUS procedures, called for real on the emulator: what comes out, and that it adds up."""

import csv
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.processors.external_file import ExternalFileExtractor, ExternalFileParams, date_span
from infra.local.focus_export import write_focus_export
from tests.conftest import PROJECT
from tests.contract.focus_dataset import DAY, FOCUS, Dataset, numbers
from tests.processors.context import make_context


@pytest.fixture
def dataset(warehouse: BigQueryWarehouse, tmp_path: Path) -> Iterator[Dataset]:
    yield Dataset(warehouse, tmp_path, f"{PROJECT}.focus{next(numbers)}")


def cost(meter: str, quantity: str, price: str | None, **more: Any) -> dict[str, Any]:
    amount = None if price is None else Decimal(quantity) * Decimal(price)
    return {
        "provider": "openai",
        "account_id": "org-1",
        "endpoint": "completions",
        "project_id": "proj_a",
        "model": "gpt-4o",
        "meter": meter,
        "quantity": Decimal(quantity),
        "unit": "Tokens",
        "unit_price": None if price is None else Decimal(price),
        "cost": amount,
        "currency": "USD",
        "price_variant": "standard",
        "price_source": "genai-prices 0.2.3",
        **more,
    }


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


def export(billed: str, **more: Any) -> dict[str, Any]:
    """One row of a FOCUS 1.0 export: none of the later columns."""
    month = (datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
    return {
        "source_file": "x.csv",
        "source_row": 1,
        "ProviderName": "AWS",
        "PublisherName": "Seller",
        "InvoiceIssuerName": "AWS",
        "BillingAccountId": "1",
        "BillingCurrency": "EUR",
        "BillingPeriodStart": month[0],
        "BillingPeriodEnd": month[1],
        "ChargePeriodStart": month[0],
        "ChargePeriodEnd": month[1],
        "ChargeCategory": "Usage",
        "ServiceName": "EC2",
        "ServiceCategory": "Compute",
        "BilledCost": Decimal(billed),
        "EffectiveCost": Decimal(billed),
        "ListCost": Decimal(billed),
        "ContractedCost": Decimal(billed),
        "ListUnitPrice": Decimal("0.1"),
        **more,
    }


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
    days = date_span(bill, params)
    context = make_context(landing=bill.parent, start_date=days[0], end_date=days[1])
    rows = [dict(row) for batch in ExternalFileExtractor().run(context, params) for row in batch.rows]
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
