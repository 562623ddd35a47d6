"""Every layout of bills that the product reads, on the bills of ``tests/data_fixtures`` with their hand-added sums."""

import csv
import json
from pathlib import Path
from typing import Any, get_args

import pytest

from common.platform.paths import CONFIGS
from common.processors.bills.file_extractor import ExternalFileParams, date_span
from common.processors.bills.layout import LayoutName
from common.processors.genai.payg_usage import GenaiPaygUsage, GenaiPaygUsageParams
from tests.bills import BILLS, FILES, FOLDER, Bill, deepseek_export
from tests.contract.test_lift_versions import COLUMNS, lacking
from tests.processors.context import make_context
from tests.processors.layouts import check_prices, read_bill, total


@pytest.mark.parametrize("bill", FILES, ids=str)
def test_a_bill_has_the_rows_and_the_sums_that_were_added_up_by_hand(bill: Bill) -> None:
    rows = read_bill(bill.path, **bill.config)
    assert len({row["source_row"] for row in rows}) == bill.lines
    assert len(rows) == bill.rows
    assert {column: total(rows, column) for column in bill.sums} == bill.sums


@pytest.mark.parametrize("bill", [bill for bill in FILES if bill.layout != "table"], ids=str)
def test_what_a_layout_makes_of_a_bill_keeps_the_price_rules_of_focus(bill: Bill) -> None:
    check_prices(read_bill(bill.path, **bill.config))


@pytest.mark.parametrize("bill", FILES, ids=str)
def test_the_days_of_a_bill_are_found_in_the_file(bill: Bill) -> None:
    params = ExternalFileParams.model_validate({"destination_table": "cloud_focus_export", **bill.config})
    assert date_span(bill.path, params, CONFIGS) == bill.days


def test_every_layout_has_a_bill() -> None:
    assert {bill.layout for bill in FILES} == set(get_args(LayoutName))


def test_every_bill_has_its_sums_and_every_sum_its_bill() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.name != "SUMS.yml"} == set(BILLS)


def header(bill: Bill) -> list[str]:
    with bill.path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file))


@pytest.mark.parametrize("version", ["1.0", "1.2", "1.3"])
def test_a_focus_bill_has_the_columns_of_its_version_and_no_later_one(version: str) -> None:
    """Column names of a version are facts; what begins with x_ is the provider's own."""
    names = header(BILLS[f"focus_{version.replace('.', '_')}.csv"])
    assert {name for name in names if not name.startswith("x_")} == COLUMNS.keys() - lacking(version)


@pytest.mark.parametrize("name", ["focus_1_0.csv", "focus_1_2.csv"])
def test_a_providers_own_columns_of_a_focus_bill_are_kept(name: str) -> None:
    bill = BILLS[name]
    with bill.path.open(encoding="utf-8", newline="") as file:
        own = [{k: v for k, v in line.items() if k.startswith("x_") and v} for line in csv.DictReader(file)]
    assert any(own)
    assert [json.loads(row.get("extra") or "{}") for row in read_bill(bill.path, **bill.config)] == own


def deepseek(folder: Path, report: str) -> list[dict[str, Any]]:
    bill, path = BILLS["deepseek"], deepseek_export(folder)
    params = GenaiPaygUsageParams.model_validate({"destination_table": "t", "provider": "deepseek", "report": report})
    context = make_context(start_date=bill.days[0], end_date=bill.days[1], landing=folder, source=path.name)
    return [dict(row) for batch in GenaiPaygUsage().run(context, params) for row in batch.rows]


def test_deepseeks_export_has_the_tokens_and_the_money_that_were_added_up_by_hand(tmp_path: Path) -> None:
    sums = BILLS["deepseek"].sums
    usage, costs = deepseek(tmp_path, "usage"), deepseek(tmp_path, "cost")
    assert len(usage) + len(costs) == BILLS["deepseek"].rows
    assert total(usage, "quantity") == sums["quantity"]
    assert sum(row["quantity"] * row["stated_price"] for row in usage) == sums["cost"]
    assert total(costs, "amount") == sums["amount"]
    assert sum(row["amount"] + (row["credit"] or 0) for row in costs) == sums["BilledCost"]
