"""Clouds and subscriptions, from their rows to FOCUS 1.3 on the emulator: what comes out, and that it adds up."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.processors.base import TableParams
from common.processors.subscription_cost import SubscriptionCost
from tests.conftest import PROJECT
from tests.contract.focus_dataset import FOCUS, Dataset, numbers
from tests.processors.context import make_context


@pytest.fixture
def dataset(warehouse: BigQueryWarehouse, tmp_path: Path) -> Iterator[Dataset]:
    yield Dataset(warehouse, tmp_path, f"{PROJECT}.cloud{next(numbers)}")


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
            assert row["ListCost"] == row["ListUnitPrice"] * row["PricingQuantity"]
            assert row["ContractedCost"] == row["ContractedUnitPrice"] * row["PricingQuantity"]
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
    monkeypatch.setattr("common.processors.subscription_cost.configs_dir", lambda: tmp_path / "configs")
    days = date(2026, 4, 1), date(2026, 4, 30)
    context = make_context(org_slug="acme", start_date=days[0], end_date=days[1])
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
