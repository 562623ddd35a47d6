"""Tables of FOCUS rows for tests: filled as the engine fills them, read as files that the focus-validator takes."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from common.adapters.bigquery import BigQueryWarehouse
from common.platform.paths import CONFIGS
from common.ports.warehouse import Lineage, Warehouse
from common.tables.contract import DATA_DATE, Table, load_table
from tests.loaded import load_rows

FOCUS = load_table(CONFIGS, "cost_data_standard_1_3")
AT = datetime(2026, 10, 6, tzinfo=UTC)

ARROW = {
    "STRING": pa.string(),
    "JSON": pa.string(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "BIGNUMERIC": pa.decimal128(38, 18),
}
"""Types of the file. Eighteen decimals are what the emulator keeps, and fit what DuckDB and polars read."""


def fill(
    warehouse: BigQueryWarehouse,
    folder: Path,
    table_id: str,
    contract: Table,
    rows: Sequence[dict[str, Any]],
    *,
    org: str = "acme",
    pipeline: str = "pipe",
    credential: str = "cred",
) -> None:
    """Write rows as a step of that pipeline would; those of one key replace each other."""
    days: list[date] = [row[DATA_DATE] for row in rows]
    lineage = Lineage(org, pipeline, credential, "run", AT)
    load_rows(warehouse, folder, table_id, contract, rows, (min(days), max(days)), lineage)


def relaxed(contract: Table) -> Table:
    """Return the contract with no column required: what a table holds that was widened later, or made by hand."""
    columns = tuple(column.model_copy(update={"mode": "NULLABLE"}) for column in contract.columns)
    return contract.model_copy(update={"columns": columns})


def export(warehouse: Warehouse, table_id: str, path: Path, *, where: str = "TRUE") -> int:
    """Write the FOCUS columns of a table's rows to a Parquet file; return how many rows."""
    import json

    columns = [c for c in FOCUS.columns if not c.name.startswith("x_")]
    rows = list(warehouse.query(f"SELECT {', '.join(c.name for c in columns)} FROM `{table_id}` WHERE {where}"))
    arrays = []
    for column in columns:
        values = [row[column.name] for row in rows]
        if column.type == "JSON":
            values = [None if value is None else json.dumps(value) for value in values]
        arrays.append(pa.array(values, ARROW[column.type]))
    pq.write_table(pa.table(arrays, names=[c.name for c in columns]), path)
    return len(rows)
