"""dlt's and DuckDB's side of ``make bench-bill``.

python bill_dlt.py dlt|duckdb BILL ROWS EMULATOR_URL FOLDER EMULATOR_PID

Prints JSON; runs in dlt's own venv.
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import load_measure

BATCH_ROWS = 100_000
DAY = "x_pipeline_run_date"
TIMES = ("ChargePeriodStart", "ChargePeriodEnd", "BillingPeriodStart", "BillingPeriodEnd")


def main() -> None:
    who, bill, rows, url, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]
    os.environ |= {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "CRITICAL",
        "DLT_DATA_DIR": folder,
        "DATA_WRITER__DISABLE_COMPRESSION": "true",
    }
    import duckdb
    import pyarrow.parquet  # noqa: F401 - part of what is idle

    jobs = load_measure.Jobs()
    sql = typed(duckdb, bill)
    write = copied(duckdb, sql, folder) if who == "duckdb" else loaded(duckdb, sql, url, folder, jobs, rows)
    load_measure.measure(rows, jobs, int(sys.argv[6]), write)


def typed(duckdb: Any, bill: str) -> str:
    """Return SQL that reads the bill with types, and the day of each row."""
    if bill.endswith(".parquet"):
        return f"SELECT *, CAST(ChargePeriodStart AS DATE) AS {DAY} FROM read_parquet('{bill}')"
    with Path(bill).open(encoding="utf-8") as file:
        names = file.readline().strip().split(",")
    kinds = {
        name: "TIMESTAMPTZ"
        if name in TIMES
        else "DECIMAL(38, 18)"
        if name.endswith(("Cost", "Price", "Quantity"))
        else "VARCHAR"
        for name in names
    }
    columns = ", ".join(f"'{name}': '{kind}'" for name, kind in kinds.items())
    return (
        f"SELECT *, CAST(ChargePeriodStart AS DATE) AS {DAY} "
        f"FROM read_csv('{bill}', header = true, columns = {{{columns}}}, quote = '\"', escape = '\"')"
    )


def copied(duckdb: Any, sql: str, folder: str) -> Any:
    """DuckDB alone."""

    def write() -> dict[str, Any]:
        target = Path(folder) / "typed.parquet"
        duckdb.sql(f"SET TimeZone = 'UTC'; COPY ({sql}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
        return {"bytes": target.stat().st_size}

    return write


def loaded(duckdb: Any, sql: str, url: str, folder: str, jobs: load_measure.Jobs, rows: int) -> Any:
    """DuckDB reads, dlt loads and merges."""
    import dlt
    from load_dlt import emulated

    pipeline = dlt.pipeline(
        "bill", destination=emulated(url, jobs), dataset_name="dlt_bill", pipelines_dir=f"{folder}/p"
    )

    @dlt.resource(name="bill", write_disposition={"disposition": "merge", "strategy": "delete-insert"}, merge_key=DAY)
    def bill() -> Any:
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        yield from connection.sql(sql).fetch_arrow_reader(BATCH_ROWS)

    def write() -> dict[str, Any]:
        info = pipeline.run(bill(), loader_file_format="parquet")
        info.raise_on_failed_jobs()
        with pipeline.sql_client() as client, client.execute_query("SELECT COUNT(*) FROM bill") as cursor:
            kept = cursor.fetchone()[0]
        if kept != rows:
            raise SystemExit(f"dlt kept {kept} rows instead of {rows}")
        done = [job for package in info.load_packages for job in package.jobs["completed_jobs"]]
        return {"bytes": sum(job.file_size for job in done if job.file_path.endswith(".parquet"))}

    return write


if __name__ == "__main__":
    main()
