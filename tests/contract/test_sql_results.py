"""Views and checks, evaluated by Google's reference implementation on the rows that the emulator has: equal answers.

Procedures are compared in test_golden_rows.py. No difference is allowed for: docs/sql-checks.md lists where the two do
differ, and none of that reaches an answer of these.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.adapters.bigquery.names import parameters as typed
from common.adapters.googlesql import evaluation
from common.adapters.googlesql.evaluation import Rows
from common.focus.conformance import CHARGES, COLUMNS, CheckedRows, Checks, _parameters
from common.focus.views import View, alone, load_views
from common.platform.paths import CONFIGS
from tests.conftest import PROJECT
from tests.contract.reference import rows_of
from tests.contract.test_views import spent
from tests.focus.rows import clean_rows
from tests.focus.tables import FOCUS, fill
from tests.loaded import dropped

VIEWS = load_views(CONFIGS)
CHECKS = Checks(CONFIGS, CHARGES)
DATASET = f"{PROJECT}.sql_results"
TABLE = f"{DATASET}.{FOCUS.table}"


@pytest.fixture(scope="module")
def rows(warehouse: BigQueryWarehouse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rows]:
    """FOCUS rows of many kinds, among them defects, in a table of the emulator; and as the emulator answers them."""
    today = datetime.now(UTC).date()
    made = list(clean_rows())
    costs = {today - timedelta(days=days): "9" if days == 3 else f"1.{days % 7}" for days in range(1, 40)}
    made += spent("AWS", costs)
    with dropped(warehouse, DATASET):
        fill(warehouse, tmp_path_factory.mktemp("rows"), TABLE, FOCUS, made)
        spoiled = "SET BilledCost = BilledCost + BIGNUMERIC '0.30000000000000004', ChargeClass = 'Corrected'"
        list(warehouse.query(f"UPDATE `{TABLE}` {spoiled}, InvoiceId = NULL WHERE ServiceProviderName = 'AWS'"))
        list(
            warehouse.query(f"UPDATE `{TABLE}` SET ServiceCategory = 'Other', Tags = TO_JSON('x') WHERE SkuId IS NULL")
        )
        yield rows_of(FOCUS, list(warehouse.query(f"SELECT * FROM `{TABLE}`")), stored=True)


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in values that are equal if they mean the same."""

    def value(found: Any) -> Any:
        if isinstance(found, Decimal):
            return found.normalize()
        if isinstance(found, str) and found[:1] in "{[":
            return json.loads(found, parse_float=Decimal)
        return found

    return {name: value(found) for name, found in row.items()}


def in_order(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return sorted((plain(row) for row in rows), key=repr)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_view_answers_as_google_s_reference_implementation_does(
    warehouse: BigQueryWarehouse, rows: Rows, view: View
) -> None:
    sql = f"{alone(VIEWS, view.name, DATASET)}SELECT * FROM {view.name}"
    emulated = in_order(list(warehouse.query(sql)))
    assert emulated, "rows that the view says something about"
    assert in_order(evaluation.query(sql, {TABLE: rows})) == emulated


@pytest.mark.parametrize("family", [family for family in CHECKS.catalog if family not in (COLUMNS, "sums")])
def test_a_check_answers_as_google_s_reference_implementation_does(
    warehouse: BigQueryWarehouse, rows: Rows, family: str
) -> None:
    scope = CheckedRows("acme", date(2020, 1, 1), date(2030, 1, 1))
    values = _parameters(family, scope, None, warehouse)
    given = {parameter.name: (str(parameter.type_), parameter.value) for parameter in typed(values)}
    for sql, _ in CHECKS.statements(family, TABLE, ()):
        emulated = list(warehouse.query(sql, values))
        evaluated = evaluation.query(sql, {TABLE: rows}, parameters=given)
        assert counts(evaluated) == counts(emulated)


def test_the_check_of_columns_answers_as_google_s_reference_implementation_does(
    warehouse: BigQueryWarehouse, rows: Rows
) -> None:
    view = f"{DATASET}.INFORMATION_SCHEMA.COLUMNS"
    columns = tuple((name, "STRING") for name in ("table_name", "column_name", "data_type"))
    names = "table_name, column_name, data_type"
    known = list(warehouse.query(f"SELECT {names} FROM `{DATASET}`.INFORMATION_SCHEMA.COLUMNS"))
    assert len(known) >= len(rows[0])
    for spoiled in (known, [row for row in known if row["column_name"] != "BilledCost"]):
        for sql, _ in CHECKS.statements(COLUMNS, TABLE, ()):
            evaluated = counts(evaluation.query(sql, {view: (columns, spoiled)}))
            assert evaluated == ({} if spoiled is known else {"columns.missing": 1})
            assert spoiled is not known or counts(list(warehouse.query(sql))) == evaluated


def counts(found: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many rows each check finds. Which of them are shown as examples is free: SQL does not order them."""
    return {row["name"]: row["failed"] for row in found}
