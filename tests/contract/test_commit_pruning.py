"""The DELETE of a commit reads the partitions that the ledger names: the plan, from the emulator's own data.

The emulator keeps its tables in DuckLake, one file or more a write. A copy of its catalog, opened beside it, tells
which files a predicate reads. BigQuery itself can't be asked here: its documents say that such a predicate prunes.
"""

import shutil
from datetime import timedelta
from pathlib import Path

from common.adapters.bigquery.commit_sql import doomed, script
from infra.local.emulator import BigQueryEmulator
from tests.conftest import PROJECT
from tests.contract.writes import AT, D1, D2, Target, row

PARTITIONS = "x_ingestion_date BETWEEN v_oldest AND v_newest"


def plan(emulator: BigQueryEmulator, folder: Path, table: str, predicate: str) -> str:
    """Return how DuckDB reads the table under this predicate."""
    import duckdb

    data = emulator.log_path.parent / "data"
    for file in data.glob(f"{PROJECT}.ducklake*"):
        shutil.copy(file, folder)
    with duckdb.connect() as connection:
        connection.execute("LOAD ducklake")
        connection.execute(
            f"ATTACH 'ducklake:{folder}/{PROJECT}.ducklake' AS lake"
            f" (READ_ONLY, DATA_PATH '{data}/{PROJECT}', OVERRIDE_DATA_PATH true)"
        )
        lines = connection.execute(f"EXPLAIN ANALYZE SELECT * FROM lake.{table} WHERE {predicate}").fetchall()
        return "\n".join(line[1] for line in lines)


def test_the_delete_reads_the_files_of_the_ledgers_partitions_alone(
    target: Target, bigquery_emulator: BigQueryEmulator, tmp_path: Path
) -> None:
    for n in range(10):  # ten ingestion days; the key's days D1..D2 came in on the fourth and the fifth of them
        pipeline = "pipe" if n in (3, 4) else f"other{n}"
        day = D2 if n == 4 else D1
        target.write([row("x", day)], (day, day), ingested_at=AT + timedelta(days=n), pipeline_id=pipeline)

    assert doomed("replace_key", "", ()).startswith(f"{PARTITIONS} AND ")
    order = target.order(target.stage([]))
    assert f"WHERE {PARTITIONS} AND x_org_slug = @org" in script([order])

    known = target.sql(
        f"SELECT MIN(oldest_partition) lo, MAX(newest_partition) hi FROM `{target.table_id}__commits`"
        " WHERE x_pipeline_id = 'pipe'"
    )[0]
    predicate = PARTITIONS.replace("v_oldest", f"DATE '{known['lo']}'").replace("v_newest", f"DATE '{known['hi']}'")
    table = target.table_id.partition(".")[2]
    whole, pruned = (plan(bigquery_emulator, tmp_path, table, where) for where in ("1 = 1", predicate))
    print(f"\n{predicate}\n{pruned}")  # noqa: T201
    assert "Total Files Read: 10" in whole and "Total Files Read: 2" in pruned
