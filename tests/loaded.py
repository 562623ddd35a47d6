"""Rows put into a table of a warehouse in one load job, as if a step had committed them.

A commit is a script of twenty statements, which takes the emulator a second; a load takes it a fifth of that. Tests of
what reads rows need them there, and how they got there is the business of the tests of commits.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from google.cloud import bigquery

from common.adapters.bigquery import BigQueryWarehouse
from common.adapters.bigquery.tables import fields_of
from common.domain.model import DEFAULT_WRITE
from common.ports.warehouse import Lineage
from common.tables.contract import Column, Table
from common.writes.batch import Batch
from common.writes.spool import Spool

numbers = itertools.count()
written: set[tuple[str, str, str, str]] = set()
"""Table and key of what was loaded: what comes once more replaces it."""


@contextmanager
def dropped(warehouse: BigQueryWarehouse, dataset: str) -> Iterator[str]:
    """Give the dataset for the time of the block: the emulator gets slower with every table it has."""
    yield dataset
    warehouse.connection.client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)


def load_rows(
    warehouse: BigQueryWarehouse,
    folder: Path,
    table_id: str,
    contract: Table,
    rows: Sequence[Mapping[str, Any]],
    days: tuple[date, date],
    lineage: Lineage,
) -> None:
    """Bring the rows through the spool, which holds them to the contract, into the table; those of one key replace."""
    warehouse.ensure_table(table_id, contract)
    key = (table_id, lineage.org_slug, lineage.pipeline_id, lineage.credential_id)
    if key in written:
        where = "x_org_slug = @org AND x_pipeline_id = @pipeline AND x_credential_id = @credential"
        of_key = dict(zip(("org", "pipeline", "credential"), key[1:], strict=True))
        list(warehouse.query(f"DELETE FROM `{table_id}` WHERE {where}", of_key))
    written.add(key)
    path = folder / f"loaded{next(numbers)}.parquet"
    spool = Spool(path, contract, *days, warehouse.decimal_digits, write=DEFAULT_WRITE, org_slug=lineage.org_slug)
    spool.write(Batch([dict(row) for row in rows]))
    if not spool.close().rows:
        return
    pq.write_table(stamped(pq.read_table(path), lineage), path)
    load_file(warehouse, table_id, contract.all_columns, path)


def load_file(warehouse: BigQueryWarehouse, table_id: str, columns: Sequence[Column], path: Path) -> None:
    """Append a spooled file to a table; JSON goes by way of text, as BigQuery loads none from Parquet."""
    as_text = [c.model_copy(update={"type": "STRING"}) if c.type == "JSON" else c for c in columns]
    texts = [f"PARSE_JSON(`{c.name}`, wide_number_mode => 'round') AS `{c.name}`" for c in columns if c.type == "JSON"]
    into = f"{table_id}_loaded{next(numbers)}" if texts else table_id
    config = bigquery.LoadJobConfig(source_format=bigquery.SourceFormat.PARQUET, schema=fields_of(as_text))
    with path.open("rb") as file:
        warehouse.connection.client.load_table_from_file(file, into, job_config=config).result()
    if texts:
        names = ", ".join(f"`{c.name}`" for c in columns)
        rows = f"SELECT {names} FROM (SELECT * REPLACE ({', '.join(texts)}) FROM `{into}`)"
        list(warehouse.query(f"INSERT INTO `{table_id}` ({names}) {rows}"))
        warehouse.drop(into)


def stamped(table: pa.Table, lineage: Lineage) -> pa.Table:
    """Add the columns that a commit adds."""
    texts = {
        "x_org_slug": lineage.org_slug,
        "x_pipeline_id": lineage.pipeline_id,
        "x_credential_id": lineage.credential_id,
        "x_run_id": lineage.run_id,
    }
    values: dict[str, tuple[Any, pa.DataType]] = {name: (text, pa.string()) for name, text in texts.items()}
    values["x_ingested_at"] = (lineage.ingested_at, pa.timestamp("us", "UTC"))
    values["x_ingestion_date"] = (lineage.ingested_at.date(), pa.date32())
    for name, (value, kind) in values.items():
        table = table.append_column(name, pa.array([value] * len(table), kind))
    return table
