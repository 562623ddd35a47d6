"""Tables: made, widened, dropped. API calls, not jobs, but for a new ledger, which one query makes and fills."""

import random
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from common.adapters.bigquery.commit_sql import ledger_of, make_ledger
from common.adapters.bigquery.errors import translated
from common.adapters.bigquery.jobs import CALL_TIMEOUT_S, Connection, Jobs, patience
from common.adapters.bigquery.names import checked
from common.errors import PermanentError, TransientError
from common.table import DATA_DATE, LINEAGE, Column, Table

if TYPE_CHECKING:
    from google.cloud import bigquery

STAGING_LIFETIME = timedelta(hours=24)
CLUSTERED_BY = ("x_org_slug", "x_pipeline_id", "x_credential_id", DATA_DATE)
PARTITIONED_BY = "x_ingestion_date"
LEDGER_TRIES = 5

TYPE_NAMES = {"INTEGER": "INT64", "BOOLEAN": "BOOL", "DECIMAL": "NUMERIC", "BIGDECIMAL": "BIGNUMERIC"}

QUARANTINE: tuple[tuple[str, str], ...] = (
    ("reason", "STRING"),
    ("column", "STRING"),
    ("source", "STRING"),
    ("row", "STRING"),
    ("x_org_slug", "STRING"),
    ("x_pipeline_id", "STRING"),
    ("x_credential_id", "STRING"),
    ("x_run_id", "STRING"),
    ("step_id", "STRING"),
    ("attempt", "INT64"),
    ("x_ingested_at", "TIMESTAMP"),
    ("x_ingestion_date", "DATE"),
)


class Tables:
    """Makes what is missing, once a process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ensured: set[tuple[str, ...]] = set()
        # Held while something is made: threads that all find a table missing would make it against each other.
        self._making = threading.Lock()

    def ensure(self, target: str, table: Table) -> None:
        """Make dataset and table, or add what the table lacks of its contract."""
        fields = [*fields_of(table.columns), *_plain(LINEAGE)]
        self._once(target, fields, table.description, CLUSTERED_BY)

    def ensure_quarantine(self, quarantine: str) -> list["bigquery.SchemaField"]:
        """Make a table's quarantine; return its columns."""
        fields = _plain(QUARANTINE)
        self._once(quarantine, fields, "Rows that were left out, and why.", CLUSTERED_BY[:3])
        return fields

    def ensure_ledger(self, target: str, jobs: Jobs) -> None:
        """Make the table's ledger, filled from the rows that are there. Cheap when it is there: one call a process."""
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
        for tried in range(LEDGER_TRIES):
            try:
                with translated(f"make the ledger of {target}"):
                    list(jobs.rows(jobs.query(make_ledger(target))))
                return
            except TransientError:  # another process makes it at this moment: then the next try finds it
                if tried == LEDGER_TRIES - 1:
                    raise
                time.sleep(random.uniform(0.0, 0.5))

    def forget_ledger(self, target: str) -> None:
        """Look for the table's ledger again next time: somebody has dropped it."""
        with self._making:
            self._ensured.discard((ledger_of(target),))

    def create_staging(self, target: str, table: Table, name: str, *, keep: bool) -> str:
        """Make an empty table that expires; with ``keep`` one that is there stays as it is."""
        from google.cloud import bigquery

        # A table id has no hyphen; in the name of an attempt an underscore in its place stays unique.
        staging = checked(f"{target}__stage_{name.replace('-', '_')}")
        org = bigquery.SchemaField("x_org_slug", "STRING", description="What SQL may fill: whose row it was.")
        made = bigquery.Table(staging, schema=[*staged_fields(table), org])
        made.expires = datetime.now(UTC) + STAGING_LIFETIME
        with translated(f"make staging table {staging}"):
            if not keep:
                self._delete(staging)
            self._connection.client.create_table(made, exists_ok=True, retry=patience(), timeout=CALL_TIMEOUT_S)
        return staging

    def drop(self, table_id: str) -> None:
        """Delete a table if it is there."""
        with translated(f"drop {table_id}"):
            self._delete(checked(table_id))

    def _delete(self, table_id: str) -> None:
        client = self._connection.client
        client.delete_table(table_id, not_found_ok=True, retry=patience(), timeout=CALL_TIMEOUT_S)

    def _once(
        self, table_id: str, fields: Sequence["bigquery.SchemaField"], description: str, clustered: Sequence[str]
    ) -> None:
        key = (table_id, *(f"{f.name} {f.field_type} {f.mode}" for f in fields))
        with self._making:
            if key not in self._ensured:
                self._make(table_id, fields, description, clustered)
                self._ensured.add(key)

    def _make(
        self, table_id: str, fields: Sequence["bigquery.SchemaField"], description: str, clustered: Sequence[str]
    ) -> None:
        from google.cloud import bigquery

        client = self._connection.client
        wanted = bigquery.Table(checked(table_id), schema=list(fields))
        wanted.description = description
        wanted.time_partitioning = bigquery.TimePartitioning(field=PARTITIONED_BY)
        wanted.clustering_fields = list(clustered)
        times: dict[str, Any] = {"retry": patience(), "timeout": CALL_TIMEOUT_S}
        with translated(f"make table {table_id}"):
            dataset = bigquery.Dataset(table_id.rpartition(".")[0])
            dataset.location = self._connection.location
            client.create_dataset(dataset, exists_ok=True, **times)
            found = client.create_table(wanted, exists_ok=True, **times)
            if len(found.schema) != len(fields) or found.etag is None:
                found = client.get_table(table_id, **times)
            self._extend(found, fields)

    def _extend(self, found: "bigquery.Table", wanted: Sequence["bigquery.SchemaField"]) -> None:
        """Add missing columns as NULLABLE; refuse a column of another type: nothing is ever narrowed or retyped."""
        from google.cloud import bigquery

        there = {field.name.lower(): field for field in found.schema}
        differ = [
            f"{field.name} is {_type(there[field.name.lower()])}, the contract says {_type(field)}"
            for field in wanted
            if field.name.lower() in there and _type(there[field.name.lower()]) != _type(field)
        ]
        if differ:
            raise PermanentError(
                f"Table {found.table_id} does not fit its contract: {'; '.join(differ)}. "
                "Change the contract back, or move the table away."
            )
        missing = [field for field in wanted if field.name.lower() not in there]
        if missing:
            added = [bigquery.SchemaField(f.name, f.field_type) for f in missing]
            found.schema = [*found.schema, *added]
            self._connection.client.update_table(found, ["schema"], retry=patience(), timeout=CALL_TIMEOUT_S)


def fields_of(columns: Sequence[Column]) -> list["bigquery.SchemaField"]:
    """Return the columns of a contract as BigQuery's."""
    from google.cloud import bigquery

    return [bigquery.SchemaField(c.name, c.type, mode=c.mode, description=c.description) for c in columns]


def staged_fields(table: Table) -> list["bigquery.SchemaField"]:
    """Return the columns of a spooled file."""
    from google.cloud import bigquery

    return [*fields_of(table.columns), bigquery.SchemaField(DATA_DATE, "DATE", mode="REQUIRED")]


def _plain(columns: Sequence[tuple[str, str]]) -> list["bigquery.SchemaField"]:
    from google.cloud import bigquery

    return [bigquery.SchemaField(name, kind) for name, kind in columns]


def _type(field: "bigquery.SchemaField") -> str:
    return TYPE_NAMES.get(field.field_type, field.field_type)
