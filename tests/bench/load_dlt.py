"""dlt's side of ``make bench-load``: merge (delete-insert by day), Parquet files, a pipeline of one table.

python load_dlt.py ROWS dicts|arrow EMULATOR_URL|duckdb FOLDER EMULATOR_PID

Prints JSON; runs in dlt's own venv.
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import load_measure
import load_rows

KINDS = {
    "STRING": {"data_type": "text"},
    "JSON": {"data_type": "text"},
    "INT64": {"data_type": "bigint"},
    "BIGNUMERIC": {"data_type": "decimal", "precision": 38, "scale": 18},
    "BOOL": {"data_type": "bool"},
    "TIMESTAMP": {"data_type": "timestamp"},
    "DATE": {"data_type": "date"},
}


def main() -> None:
    rows, form, where, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    os.environ |= {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "CRITICAL",
        "DLT_DATA_DIR": folder,
        "DATA_WRITER__DISABLE_COMPRESSION": "true",
    }
    import dlt
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401 - part of what is idle

    jobs = load_measure.Jobs()
    destination = dlt.destinations.duckdb(f"{folder}/load.duckdb") if where == "duckdb" else emulated(where, jobs)
    pipeline = dlt.pipeline("load", destination=destination, dataset_name="dlt_load", pipelines_dir=f"{folder}/p")

    @dlt.resource(
        name="costs",
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
        merge_key=load_rows.DAY,
        columns={name: KINDS[kind] for name, kind in load_rows.SCHEMA.items()},
    )
    def costs() -> Any:
        yield from load_rows.dicts(rows) if form == "dicts" else load_rows.tables(rows)

    def write() -> dict[str, Any]:
        info = pipeline.run(costs(), loader_file_format="parquet")
        info.raise_on_failed_jobs()
        done = [job for package in info.load_packages for job in package.jobs["completed_jobs"]]
        return {"bytes": sum(job.file_size for job in done if job.file_path.endswith(".parquet"))}

    load_measure.measure(rows, jobs, int(sys.argv[5]), write)
    with pipeline.sql_client() as client, client.execute_query("SELECT COUNT(*) FROM costs") as cursor:
        kept = cursor.fetchone()[0]
    if kept != rows:
        raise SystemExit(f"dlt kept {kept} rows instead of {rows}")


def emulated(url: str, jobs: load_measure.Jobs) -> Any:
    """dlt's BigQuery destination, pointed at the emulator: the client reads its address from the environment."""
    os.environ["BIGQUERY_EMULATOR_HOST"] = url
    import dlt
    from dlt.common.configuration.specs import GcpServiceAccountCredentials
    from google.auth.credentials import AnonymousCredentials

    jobs.watch()

    class Anonymous(GcpServiceAccountCredentials):
        def to_native_credentials(self) -> Any:
            return AnonymousCredentials()

    credentials = Anonymous()
    credentials.project_id = "local-project"
    credentials.private_key = "none"
    credentials.client_email = "none@example.invalid"
    credentials.__is_resolved__ = True
    return dlt.destinations.bigquery(credentials=credentials, project_id="local-project")


if __name__ == "__main__":
    main()
