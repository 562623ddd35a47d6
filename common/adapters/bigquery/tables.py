"""Creates, extends and drops tables by API calls, not jobs; only a new ledger is a query, which makes and fills it."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from common.adapters.bigquery.commit_sql import fill_ledger, make_ledger
from common.adapters.bigquery.errors import translated
from common.adapters.bigquery.jobs import CALL_TIMEOUT_S, Connection, Jobs, patience
from common.adapters.bigquery.names import checked, ledger_of, safe_job_id
from common.adapters.bigquery.schema import BigQueryTables
from common.platform.errors import TransientError
from common.platform.retry import Backoff, retried
from common.tables.contract import DATA_DATE, LINEAGE_TEXTS, Column, MetaTable, Table
from common.writes.schema_sync import ensure

if TYPE_CHECKING:
    from google.cloud import bigquery

# A staging table that a crash left behind expires by itself. A suspended step's must outlive its job: up to 6 hours.
STAGING_LIFETIME = timedelta(hours=24)
LEDGER_TRIES, LEDGER_BACKOFF = 5, Backoff(0.5, 0.5)

QUARANTINE = MetaTable(
    table="quarantine",
    description="Rows that were left out of the table of the same name, and why.",
    columns=tuple(
        Column.model_validate({"name": name, "type": kind, "description": text})
        for name, kind, text in (
            ("reason", "STRING", "What is wrong with the row"),
            ("column", "STRING", "The column at fault, where there is one"),
            ("source", "STRING", "Where the row came from: file and line, or its number in the step's output"),
            ("row", "STRING", "What it held, as JSON; long values are cut"),
            ("x_org_slug", "STRING", LINEAGE_TEXTS["x_org_slug"]),
            ("x_pipeline_id", "STRING", LINEAGE_TEXTS["x_pipeline_id"]),
            ("x_credential_id", "STRING", LINEAGE_TEXTS["x_credential_id"]),
            ("x_run_id", "STRING", "Run that left the row out"),
            ("step_id", "STRING", "Its step"),
            ("attempt", "INT64", "Its attempt: an earlier one may have left out the same row"),
            ("x_ingested_at", "TIMESTAMP", "When the row was left out"),
            ("x_ingestion_date", "DATE", "Day of x_ingested_at; the table is partitioned by it"),
        )
    ),
    partition_by="x_ingestion_date",
    cluster_by=("x_org_slug", "x_pipeline_id", "x_credential_id"),
)


class Tables:
    """Creates missing tables; each is checked once per process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.schema = BigQueryTables(connection)
        self._ensured: set[tuple[str, ...]] = set()
        # Held during creation: threads that all find a table missing would create it at once and conflict.
        self._making = threading.Lock()

    def ensure(self, target: str, table: Table) -> None:
        """Create dataset and table, or bring the table to its contract."""
        self._once(target, table)

    def ensure_quarantine(self, quarantine: str) -> list["bigquery.SchemaField"]:
        """Create a table's quarantine; return its columns."""
        self._once(quarantine, QUARANTINE)
        return fields_of(QUARANTINE.columns)

    def ensure_ledger(self, target: str, jobs: Jobs) -> None:
        """Create the table's ledger, filled from the existing rows. If the ledger exists: one API call per process."""
        ledger = ledger_of(target)
        with self._making:
            if (ledger,) not in self._ensured:
                if not self._is_there(ledger):
                    self._make_ledger(target, jobs)
                self._ensured.add((ledger,))

    def _is_there(self, table_id: str) -> bool:
        from google.api_core.exceptions import NotFound

        with translated(f"look for {table_id}"):
            try:
                self._connection.client.get_table(checked(table_id), retry=patience(), timeout=CALL_TIMEOUT_S)
            except NotFound:
                return False
            return True

    def _make_ledger(self, target: str, jobs: Jobs) -> None:
        # The usual transient error is another process that is creating it: the next try finds it (IF NOT EXISTS).
        self._run(f"make the ledger of {target}", make_ledger(target), jobs)

    def fill_ledger(self, target: str, jobs: Jobs) -> None:
        """Fill a ledger that has no gate row from the existing rows."""
        self._run(f"fill the ledger of {target}", fill_ledger(target), jobs)

    @staticmethod
    def _run(what: str, sql: str, jobs: Jobs) -> None:
        def once() -> None:
            with translated(what):
                list(jobs.rows(jobs.query(sql)))

        retried(once, on=TransientError, backoff=LEDGER_BACKOFF, tries=LEDGER_TRIES)

    def forget_ledger(self, target: str) -> None:
        """Check for the table's ledger again next time, because it has been dropped."""
        with self._making:
            self._ensured.discard((ledger_of(target),))

    def create_staging(self, target: str, table: Table, name: str, *, keep: bool, spooled: bool) -> str:
        """Create an empty table that expires; with ``keep``, an existing one stays as it is."""
        from google.cloud import bigquery

        # A table id has no hyphens or brackets, which the names of a map's items contain.
        staging = checked(f"{target}__stage_{safe_job_id(name).replace('-', '_')}")
        # For a procedure that reads rows of several organisations: the commit refuses rows of any other than the run's.
        org = bigquery.SchemaField("x_org_slug", "STRING", description="What SQL may fill: whose row it was.")
        made = bigquery.Table(staging, schema=[*(spooled_fields if spooled else staged_fields)(table), org])
        made.expires = datetime.now(UTC) + STAGING_LIFETIME
        with translated(f"make staging table {staging}"):
            if not keep:
                self._delete(staging)
            self._connection.client.create_table(made, exists_ok=True, retry=patience(), timeout=CALL_TIMEOUT_S)
        return staging

    def drop(self, table_id: str) -> None:
        """Delete a table if it exists."""
        with translated(f"drop {table_id}"):
            self._delete(checked(table_id))

    def _delete(self, table_id: str) -> None:
        client = self._connection.client
        client.delete_table(table_id, not_found_ok=True, retry=patience(), timeout=CALL_TIMEOUT_S)

    def _once(self, target: str, table: Table) -> None:
        # The columns are part of the key: ``evolve`` adds columns to a table that was ensured before.
        key = (target, *(f"{c.name} {c.type} {c.mode}" for c in table.columns))
        with self._making:
            if key not in self._ensured:
                ensure(self.schema, checked(target), table)
                self._ensured.add(key)


def fields_of(columns: Sequence[Column]) -> list["bigquery.SchemaField"]:
    """Return the columns of a contract as BigQuery's."""
    from google.cloud import bigquery

    return [bigquery.SchemaField(c.name, c.type, mode=c.mode, description=c.description) for c in columns]


def staged_fields(table: Table) -> list["bigquery.SchemaField"]:
    """Return the columns of a staging table that SQL fills."""
    from google.cloud import bigquery

    return [*fields_of(table.columns), bigquery.SchemaField(DATA_DATE, "DATE", mode="REQUIRED")]


def spooled_fields(table: Table) -> list["bigquery.SchemaField"]:
    """Return the columns of a spooled file. JSON is text: BigQuery loads no JSON from Parquet."""
    columns = [c.model_copy(update={"type": "STRING"}) if c.type == "JSON" else c for c in table.columns]
    return staged_fields(table.model_copy(update={"columns": columns}))
