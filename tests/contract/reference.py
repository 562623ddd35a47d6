"""What Google's reference implementation makes of rows that the emulator has, for comparing the two value by value."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from common.adapters.googlesql import analyze
from common.adapters.googlesql.configs import DATASET, PROJECT, dataset_catalog, procedure_call
from common.adapters.googlesql.evaluation import Rows, inserted
from common.platform.paths import CONFIGS
from common.processors.sql.procedure_executor import ProcedureParams
from common.tables.contract import Table, load_table
from tests.contract.golden_rows import Call, GoldenWorld, _plain

Row = dict[str, Any]
KEY = {"x_org_slug": "acme", "x_pipeline_id": "pipe", "x_credential_id": "cred"}


def rows_of(contract: Table, rows: Sequence[Mapping[str, Any]]) -> Rows:
    """Return rows as a table with all columns of its contract; JSON as text."""
    columns = tuple((column.name, column.type) for column in contract.all_columns)
    return columns, [{name: given(row.get(name), kind) for name, kind in columns} for row in rows]


def given(value: Any, kind: str) -> Any:
    """Return a value as the spool would write it into a column of that type."""
    if value is None or kind != "JSON":
        return Decimal(value) if kind == "BIGNUMERIC" and value is not None else value
    return value if isinstance(value, str) else json.dumps(value, default=str)


def source_tables(world: GoldenWorld) -> dict[str, Rows]:
    """Return the tables that the golden cases have filled, by full name."""
    return {
        f"{PROJECT}.{DATASET}.{name}": rows_of(load_table(CONFIGS, name), [row | KEY for row in rows])
        for name, rows in world.filled.items()
    }


def reference_rows(call: Call, tables: Mapping[str, Rows]) -> list[Row]:
    """Return the rows that the procedure would stage."""
    path = CONFIGS / "sql" / f"{call.params.procedure}.sql"
    days = [day.isoformat() for day in call.days]
    sql = procedure_call(path, call.params.model_dump(), tuple(KEY.values()), days)
    catalog = dataset_catalog(CONFIGS)
    report = analyze(sql, catalog)
    assert (report.problems, report.open) == ([], [])
    return [
        row
        for dynamic in report.dynamic
        for row in inserted(dynamic.sql, tables, parameters=dynamic.arguments, catalog=catalog)
    ]


def comparable(row: Mapping[str, Any], params: ProcedureParams) -> Row:
    """Return a row with every column of its contract, in values that are equal if they mean the same."""
    assert params.destination_table is not None
    contract = load_table(CONFIGS, params.destination_table)
    kinds = {column.name: column.type for column in contract.all_columns}
    names = (*contract.names, "x_pipeline_run_date", "x_org_slug")
    return {name: _same(row.get(name), kinds[name]) for name in names}


def _same(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "JSON":
        return _plain(json.loads(value) if isinstance(value, str) else value)
    if kind == "BIGNUMERIC":
        return Decimal(value).normalize()
    return value.astimezone() if isinstance(value, datetime) else value
