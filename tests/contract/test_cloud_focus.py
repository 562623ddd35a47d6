"""Clouds and subscriptions, from their rows to FOCUS 1.3 on the emulator: what comes out, and that it adds up."""

import ast
import csv
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.adapters.google.cloud import GoogleCloudAdapter
from common.config.loader import ConfigTree
from common.platform.paths import CONFIGS
from common.processors.base import TableParams
from common.processors.bills.file_extractor import ExternalFileExtractor, ExternalFileParams, date_span
from common.processors.registry import REGISTRY
from common.processors.sql.external_bq import ExternalBqExtractor, ExternalBqParams
from common.processors.sql.external_bq_days import ChangedDaysParams, ExternalBqChangedDays
from common.processors.subscriptions.cost import SubscriptionCost
from infra.local.gcp_export import Row, export_rows, write_export
from tests.bills import BILLS, FILES, google_rows
from tests.conftest import PROJECT
from tests.contract.test_focus_sql import FOCUS, Dataset, numbers
from tests.loaded import dropped
from tests.processors.bill_files import rows_of
from tests.processors.context import make_context
from tests.processors.layouts import read_bill

SUBSCRIPTION = "projects/p/regions/us-central1/commitments/c1"


def commitment_row(cost: str, sku: str, **more: Any) -> dict[str, Any]:
    hour = datetime(2026, 10, 5, 5, tzinfo=UTC)
    return {
        "billing_account_id": "010101",
        "invoice_month": "202610",
        "cost_type": "regular",
        "service_description": "Compute Engine",
        "sku_id": sku,
        "sku_description": sku,
        "usage_start_time": hour,
        "usage_end_time": hour.replace(hour=6),
        "cost": Decimal(cost),
        "currency": "EUR",
        "pricing_amount": Decimal(1),
        "pricing_unit": "hour",
        "usage_amount": Decimal(3600),
        "usage_unit": "seconds",
        **more,
    }


def discount(amount: str) -> list[dict[str, Any]]:
    return [{"id": "c1", "type": "COMMITTED_USAGE_DISCOUNT", "name": "CUD", "amount": float(amount)}]


@pytest.fixture
def dataset(warehouse: BigQueryWarehouse, tmp_path: Path) -> Iterator[Dataset]:
    with dropped(warehouse, f"{PROJECT}.cloud{next(numbers)}") as name:
        yield Dataset(warehouse, tmp_path, name)


def total(rows: list[dict[str, Any]], column: str) -> Decimal:
    return sum((row[column] for row in rows), Decimal(0))


def check_focus(rows: list[dict[str, Any]]) -> None:
    """What holds for every row of the unified table, whoever it comes from."""
    for row in rows:
        for column in FOCUS.columns:
            assert column.mode == "NULLABLE" or row[column.name] is not None, column.name
        assert row["ChargePeriodStart"] < row["ChargePeriodEnd"]
        assert row["BillingPeriodStart"] < row["BillingPeriodEnd"]
        priced = row["PricingQuantity"] is not None
        assert priced == (row["SkuPriceId"] is not None) == (row["PricingUnit"] is not None)
        if priced:
            with localcontext(prec=76):  # rounded once, where the emulator keeps fewer places
                assert row["ListCost"] == round(row["ListUnitPrice"] * row["PricingQuantity"], 18)
                assert row["ContractedCost"] == round(row["ContractedUnitPrice"] * row["PricingQuantity"], 18)
            assert row["ListUnitPrice"] >= 0
        assert priced or row["ChargeCategory"] not in ("Usage", "Purchase") or row["ChargeClass"] == "Correction"
        if row["ChargeCategory"] == "Purchase":
            assert row["ConsumedQuantity"] is None and row["ChargeFrequency"] != "Usage-Based"
        if row["ChargeCategory"] == "Tax":
            assert not priced and row["SkuId"] is None
        for name in ("Region", "SubAccount"):
            assert row[f"{name}Id"] is not None or row[f"{name}Name"] is None


def test_subscriptions_are_billed_once_and_borne_daily(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """April: 300.00 on the 1st for 10 seats, 75.00 on the 16th for 5 more (150 x 15 / 30), 375.00 in all."""
    text = """
subscriptions:
  - subscription_id: chat
    vendor: Acme
    service: Acme Chat
    currency: EUR
    billing_cycle: monthly
    first_day: "2026-04-01"
    terms:
      - {first_day: "2026-04-01", plan: Team, seats: 10, price: "30"}
      - {first_day: "2026-04-16", plan: Team, seats: 15, price: "30"}
    tags: {team: data}
"""
    folder = tmp_path / "configs" / "system" / "subscriptions"
    folder.mkdir(parents=True)
    (folder / "acme.yml").write_text(text)
    days = date(2026, 4, 1), date(2026, 4, 30)
    context = make_context(org_slug="acme", start_date=days[0], end_date=days[1], configs=tmp_path / "configs")
    params = TableParams(destination_table="subscription_cost")
    rows = [dict(row) for batch in SubscriptionCost().run(context, params) for row in batch.rows]
    dataset.fill("subscription_cost", rows, days=days)
    found = dataset.call("sp_subscription_to_focus", "subscription_cost", start_date=days[0], end_date=days[1])
    check_focus(found)
    assert (len(found), total(found, "BilledCost"), total(found, "EffectiveCost")) == (32, Decimal(375), Decimal(375))
    bought = [row for row in found if row["ChargeCategory"] == "Purchase"]
    assert [(row["BilledCost"], row["EffectiveCost"], row["PricingQuantity"]) for row in bought] == [
        (Decimal("75.00"), 0, 1),
        (Decimal("300.00"), 0, 10),
    ]
    (first,) = (r for r in found if r["ChargeCategory"] == "Usage" and r["x_pipeline_run_date"] == days[0])
    expected = {
        "BilledCost": 0,
        "EffectiveCost": Decimal(10),
        "ConsumedQuantity": 10,
        "ConsumedUnit": "Seats",
        "ServiceSubcategory": "Other (Business Applications)",
        "ChargePeriodEnd": datetime(2026, 4, 2, tzinfo=UTC),
        "Tags": {"team": "data"},
    }
    assert {name: first[name] for name in expected} == expected


def test_a_commitments_fee_is_borne_by_the_usage_that_it_covers_or_is_unused(dataset: Dataset) -> None:
    """A fee of 8 covers 10 and 30 of usage: 2 and 6 are theirs. Of another fee of 5, offsets leave 1 unused."""
    priced = {f"{kind}_price": Decimal(10) for kind in ("list", "default", "effective")}
    priced |= {"pricing_quantity": Decimal(1), "list_cost": Decimal(10), "default_cost": Decimal(10)}
    rows = [
        commitment_row("8", "Commitment v1: Cpu in Americas for 1 Year", subscription_id=SUBSCRIPTION),
        commitment_row("10", "N1 Core", subscription_id=SUBSCRIPTION, credits=discount("-10"), **priced),
        commitment_row("30", "N1 Core", subscription_id=SUBSCRIPTION, credits=discount("-30")),
        commitment_row(
            "5",
            "Commitment - dollar based v1: Cloud SQL",
            subscription_id="sub-2",
            credits=[{"id": "f", "type": "FEE_UTILIZATION_OFFSET", "name": "offset", "amount": -4.0}],
        ),
        commitment_row("7", "not committed", cost_at_list=Decimal("9.5")),
        commitment_row("3", "DBU", publisher_type="PARTNER", seller_name="Databricks, Inc."),
    ]
    dataset.fill("gcp_billing_export", rows)
    found = dataset.call("sp_gcp_billing_to_focus", "gcp_billing_export")
    check_focus(found)
    names = ("ChargeCategory", "CommitmentDiscountStatus", "BilledCost", "EffectiveCost")
    by_id: dict[str | None, set[tuple[Any, ...]]] = {}
    for row in found:
        by_id.setdefault(row["CommitmentDiscountId"], set()).add(tuple(row[name] for name in names))
    assert by_id == {
        SUBSCRIPTION: {("Purchase", None, 8, 0), ("Usage", "Used", 0, 2), ("Usage", "Used", 0, 6)},
        "sub-2": {("Purchase", None, 1, 0), ("Usage", "Unused", 0, 1)},
        None: {("Usage", None, 7, 7), ("Usage", None, 3, 3)},
    }
    assert total(found, "BilledCost") == total(found, "EffectiveCost") == 8 + 1 + 7 + 3
    (fee,) = (row for row in found if row["ChargeDescription"].startswith("Commitment v1"))
    assert (fee["ChargeFrequency"], fee["CommitmentDiscountCategory"]) == ("Recurring", "Usage")
    (listed,) = (row for row in found if row["ChargeDescription"] == "not committed")
    assert (listed["ListCost"], listed["ContractedCost"]) == (Decimal("9.5"), 7)
    (sold,) = (row for row in found if row["ChargeDescription"] == "DBU")
    assert (sold["ServiceProviderName"], sold["InvoiceIssuerName"]) == ("Databricks, Inc.", "Google Cloud")


def test_a_label_and_a_tag_of_one_key_are_both_kept_and_googles_labels_are_tags(dataset: Dataset) -> None:
    row = commitment_row(
        "1",
        "usage",
        labels=[{"key": "team", "value": "search"}, {"key": "env", "value": "prod"}],
        tags=[{"key": "team", "value": "platform"}],
        system_labels=[{"key": "compute.googleapis.com/cores", "value": "2"}],
    )
    dataset.fill("gcp_billing_export", [row])
    (found,) = dataset.call("sp_gcp_billing_to_focus", "gcp_billing_export")
    assert found["Tags"] == {
        "team": "platform",
        "label/team": "search",
        "env": "prod",
        "compute.googleapis.com/cores": "2",
    }


def gcp(warehouse: BigQueryWarehouse, **more: Any) -> Any:
    """A context in which Google Cloud is the emulator, read by the real client."""
    url = warehouse.connection._emulator_url
    cloud = GoogleCloudAdapter(PROJECT, lambda: "http://127.0.0.1:1", bigquery_url=url)
    credential = json.dumps({"type": "application_default"})
    return make_context(org_slug="acme", google=lambda: cloud, secret=lambda: credential, **more)


def billing(name: str, step: str) -> dict[str, Any]:
    """A step's config of the shipped pipeline, with the table that a credential would name."""
    route = ConfigTree(CONFIGS, REGISTRY).load("gcp/cost/billing")
    (config,) = (s.config for s in route.config.steps if s.step_id == step)
    return {**config, "project": PROJECT, "dataset": name.split(".")[1], "table": "export"}


def gcp_rows(warehouse: BigQueryWarehouse, name: str, days: tuple[date, date], **more: Any) -> list[dict[str, Any]]:
    context = gcp(warehouse, start_date=days[0], end_date=days[1])
    params = ExternalBqParams.model_validate(billing(name, "extract") | more)
    return [row for batch in ExternalBqExtractor().run(context, params) for row in batch.rows.to_pylist()]  # type: ignore[union-attr]


def to_focus(dataset: Dataset, rows: list[dict[str, Any]], days: tuple[date, date]) -> list[dict[str, Any]]:
    dataset.fill("gcp_billing_export", rows, days=days)
    found = dataset.call("sp_gcp_billing_to_focus", "gcp_billing_export", start_date=days[0], end_date=days[1])
    check_focus(found)
    return found


@pytest.fixture(scope="module")
def generated(warehouse: BigQueryWarehouse) -> tuple[str, list[tuple[Row, Decimal]]]:
    made = list(export_rows(seed=7, first_day=date(2026, 10, 1), days=4, rows_per_day=60))
    name = f"{PROJECT}.billing{next(numbers)}"
    write_export(warehouse.connection.client, f"{name}.export", [row for row, _ in made])
    return name, made


OCTOBER = date(2026, 10, 1), date(2026, 10, 4)


def test_a_google_bill_adds_up_with_its_credits_and_keeps_their_kinds(
    dataset: Dataset, warehouse: BigQueryWarehouse, generated: tuple[str, list[tuple[Row, Decimal]]]
) -> None:
    name, made = generated
    found = to_focus(dataset, gcp_rows(warehouse, name, OCTOBER), OCTOBER)
    promotions = [c for row, _ in made for c in row["credits"] if c["type"] == "PROMOTION"]
    assert len(found) == len(made) + len(promotions)
    assert total(found, "BilledCost") == sum(amount for _, amount in made)
    credits = [row for row in found if row["ChargeCategory"] == "Credit"]
    assert total(credits, "BilledCost") == sum(Decimal(repr(c["amount"])) for c in promotions)
    assert {row["ChargeCategory"] for row in found} == {"Usage", "Tax", "Adjustment", "Credit"}
    corrections = [row for row in found if row["ChargeClass"] == "Correction"]
    assert {row["BillingPeriodStart"] for row in corrections} == {datetime(2026, 11, 1, tzinfo=UTC)}
    assert {(r["PricingUnit"], r["ServiceCategory"]) for r in found if r["SkuPriceId"] == "2DA5-55D3-E679/0"} == {
        ("1000000 Count", "Compute")
    }
    assert {json.dumps(r["Tags"], sort_keys=True) for r in found if r["SubAccountId"]} <= {
        json.dumps({"cost-center": "4711", "env": "live", "label/env": "prod", "team": team})
        for team in ("platform", "search")
    }, "the key is the tag's, and the label of the same key is kept beside it"


def test_only_rows_with_the_label_and_project_are_read(
    warehouse: BigQueryWarehouse, generated: tuple[str, list[tuple[Row, Decimal]]]
) -> None:
    name, made = generated
    rows = gcp_rows(warehouse, name, OCTOBER, labels={"team": ["search"]}, equal={"project.id": ["chat-prod"]})
    wanted = {"key": "team", "value": "search"}
    expected = [r for r, _ in made if wanted in r["labels"] and r.get("project", {}).get("id") == "chat-prod"]
    assert len(rows) == len(expected) > 0


def test_days_that_have_got_late_rows_are_told_and_so_is_a_day_without_any(
    warehouse: BigQueryWarehouse, generated: tuple[str, list[tuple[Row, Decimal]]]
) -> None:
    """Rows are exported 30 hours after their hour, a twentieth four days later: of the 1st's some on the 6th."""
    name, made = generated
    late = sorted(
        {r["usage_start_time"][:10] for r, _ in made if r["export_time"] >= "2026-10-05" > r["usage_start_time"]}
    )
    outputs: dict[str, Any] = {}
    context = gcp(warehouse, start_date=date(2026, 10, 5), end_date=date(2026, 10, 5), put_out=outputs.__setitem__)
    params = ChangedDaysParams.model_validate(billing(name, "days"))
    assert list(ExternalBqChangedDays().run(context, params)) == []
    assert outputs == {"days": late}
    assert date(2026, 10, 1).isoformat() in late, "else the test shows nothing"
    assert len(context.warnings) == 1 and "no rows for 2026-10-05" in context.warnings[0]


def test_the_bills_of_every_layout_add_up_in_the_unified_table(dataset: Dataset) -> None:
    """All of them together (``tests/data_fixtures``): nothing of one bill depends on another."""
    bills = [bill for bill in FILES if "BilledCost" in bill.sums]
    days = min(bill.days[0] for bill in bills), max(bill.days[1] for bill in bills)
    dataset.fill(
        "cloud_focus_export", [row for bill in bills for row in read_bill(bill.path, **bill.config)], days=days
    )
    found = dataset.call("sp_lift_focus_export", "cloud_focus_export", start_date=days[0], end_date=days[1])
    check_focus(found)
    assert len(found) == sum(bill.rows for bill in bills)
    for column in ("BilledCost", "EffectiveCost"):
        assert total(found, column) == sum(bill.sums[column] for bill in bills)


def test_googles_bill_has_the_rows_and_the_sums_that_were_added_up_by_hand(
    dataset: Dataset, warehouse: BigQueryWarehouse
) -> None:
    bill, name = BILLS["gcp_billing_export.jsonl"], f"{PROJECT}.billing{next(numbers)}"
    rows = google_rows()
    write_export(warehouse.connection.client, f"{name}.export", rows)
    found = to_focus(dataset, gcp_rows(warehouse, name, bill.days), bill.days)
    assert (len(rows), len(found)) == (bill.lines, bill.rows)
    assert {column: total(found, column) for column in bill.sums} == bill.sums


@pytest.mark.shared
def test_a_real_google_bill_adds_up(dataset: Dataset, warehouse: BigQueryWarehouse, shared_data: Path) -> None:
    """25 rows; cost 0.000032, credits -0.000032 (sums.json), all of them promotions."""
    rows = list(read_csv_export(shared_data / "gcp" / "billing_export_2020-11.csv"))
    name = f"{PROJECT}.billing{next(numbers)}"
    write_export(warehouse.connection.client, f"{name}.export", rows)
    days = date(2020, 11, 8), date(2020, 11, 11)
    found = to_focus(dataset, gcp_rows(warehouse, name, days), days)
    by_category = {c: [r for r in found if r["ChargeCategory"] == c] for c in ("Usage", "Credit")}
    assert (len(by_category["Usage"]), total(by_category["Usage"], "BilledCost")) == (25, Decimal("0.000032"))
    assert (len(by_category["Credit"]), total(by_category["Credit"], "BilledCost")) == (8, Decimal("-0.000032"))
    assert len(found) == 33


REAL_BILLS = (
    # file, layout, rows that come out, and the sum of the column, as published with the files (sums.json).
    ("aws/cur_legacy_2023_11.part_a.csv", "aws_cur", 843, "BilledCost", "1.05290839050"),
    ("azure/EA_ActualCost_Small.csv", "azure_actual_cost", 11, "BilledCost", "8.5450077867419368"),
    (
        "azure/EA_AmortizedCost_Small.csv",
        "azure_amortised_cost",
        28,
        "EffectiveCost",
        "16.2969321366366446274854190000",
    ),
    ("azure/koku_azure_v2_camel.csv", "azure_actual_cost", 4, "BilledCost", "0.000026241200000000000000"),
    ("azure/koku_costreport_v1.csv", "azure_actual_cost", 3, "BilledCost", "0.00011016"),
    ("azure/opencost_header_German.csv", "azure_actual_cost", 1, "BilledCost", "0.075"),
    ("oci/cost_report_2023_11.part_a.csv", "oci_cost", 321, "BilledCost", "1.673210844223146836"),
)


def lifted(dataset: Dataset, bill: Path, layout: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A whole bill from its file to FOCUS 1.3; what was read, and what came out."""
    params = ExternalFileParams.model_validate(
        {"destination_table": "cloud_focus_export", "layout": layout, "source": bill.name}
    )
    days = date_span(bill, params, CONFIGS)
    context = make_context(landing=bill.parent, start_date=days[0], end_date=days[1])
    rows = [row for batch in ExternalFileExtractor().run(context, params) for row in rows_of(batch)]
    dataset.fill("cloud_focus_export", rows, days=days)
    found = dataset.call("sp_lift_focus_export", "cloud_focus_export", start_date=days[0], end_date=days[1])
    return rows, found


@pytest.mark.shared
@pytest.mark.parametrize(("name", "layout", "count", "column", "expected"), REAL_BILLS)
def test_a_real_bill_adds_up_in_the_unified_table(
    dataset: Dataset, shared_data: Path, name: str, layout: str, count: int, column: str, expected: str
) -> None:
    """To the last digit that the warehouse keeps: what has more places than the emulator's 18 is rounded once."""
    rows, found = lifted(dataset, shared_data / name, layout)
    check_focus(found)
    kept = sum((round(row[column], 18) for row in rows), Decimal(0))
    assert (len(rows), len(found), total(found, column)) == (count, count, kept)
    with localcontext(prec=60):
        assert sum((row[column] for row in rows), Decimal(0)) == Decimal(expected)
        assert abs(kept - Decimal(expected)) <= Decimal("0.5e-18") * count


def read_csv_export(path: Path) -> Iterator[Row]:
    """Turn the published CSV of an export back into rows of BigQuery: dotted names are fields of records."""
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            row: Row = {}
            for name, text in line.items():
                record, _, field = name.rpartition(".")
                if field == "partition_date" or field == "ancestry_numbers":
                    continue
                value: Any = ast.literal_eval(text) if text.startswith("[") else (text or None)
                (row.setdefault(record, {}) if record else row)[field] = value
            yield row
