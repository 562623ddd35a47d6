"""Finds, creates and extends tables and datasets of BigQuery and the emulator. The warehouse handles rows."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from common.adapters.bigquery.errors import ConflictError, service, translated
from common.adapters.bigquery.jobs import CALL_TIMEOUT_S, Connection, patience
from common.adapters.bigquery.names import beside, quoted
from common.platform.errors import PermanentError
from common.tables.contract import Table
from common.tables.schema_plan import ExistingColumn, ExistingTable

if TYPE_CHECKING:
    from google.cloud import bigquery

# Errors that mean another process changed the table after its etag was compared: the schema sent is then out of date.
CAME_BETWEEN = re.compile(r"cannot remove field|column with name \w+ already exists", re.IGNORECASE)

NO_DATASET = "Not found: Dataset"

STATE = "pipeline-ops-state"
"""Label with a view's source state. The view's SQL can't be compared: BigQuery may return it reformatted."""

TYPE_NAMES = {
    "INTEGER": "INT64",
    "FLOAT": "FLOAT64",
    "BOOLEAN": "BOOL",
    "DECIMAL": "NUMERIC",
    "BIGDECIMAL": "BIGNUMERIC",
    "RECORD": "STRUCT",
}
"""SQL names of types whose name in the API differs."""


class BigQueryTables:
    """The ``Tables`` port of one project."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def has_dataset(self, dataset: str) -> bool:
        from google.api_core.exceptions import NotFound

        with translated(f"look for dataset {dataset}"):
            try:
                self._connection.client.get_dataset(dataset, **_times())
            except NotFound:
                return False
        return True

    def make_dataset(self, dataset: str) -> None:
        from google.cloud import bigquery

        made = bigquery.Dataset(dataset)
        made.location = self._connection.location
        with suppress(ConflictError), _making_dataset(f"make dataset {dataset}"):
            found = self._connection.client.create_dataset(made, exists_ok=True, **_times())
            self._check_location(f"Dataset {dataset}", found.location)

    def _check_location(self, name: str, location: str | None) -> None:
        """Raise PermanentError for data in another location than the settings': no job could read it."""
        wanted = self._connection.location
        if location and self._connection.has_locations and location.lower() != wanted.lower():
            raise PermanentError(
                f"{name} is in location {location}, the settings say {wanted}, and a BigQuery job sees one location. "
                f"Set PIPELINE_OPS_LOCATION={location}, or remove the dataset and have it made in {wanted}."
            )

    def find(self, target: str) -> ExistingTable | None:
        from google.api_core.exceptions import NotFound

        with translated(f"look at table {target}"):
            try:
                found = self._connection.client.get_table(target, **_times())
            except NotFound:
                return None
        self._check_location(f"Table {target}", found.location)
        partitioning = found.time_partitioning
        return ExistingTable(
            columns=tuple(_found(field) for field in found.schema),
            description=found.description or "",
            partitioned_by=(partitioning.field or "_PARTITIONTIME") if partitioning else "",
            clustered_by=tuple(found.clustering_fields or ()),
            state=found.etag or "",
        )

    def create(self, target: str, table: Table) -> None:
        from google.api_core.exceptions import NotFound
        from google.cloud import bigquery

        schema = [_field(ExistingColumn(c.name, c.type, c.mode, c.description)) for c in table.all_columns]
        wanted = bigquery.Table(target, schema=schema)
        wanted.description = table.description
        wanted.time_partitioning = bigquery.TimePartitioning(field=table.partitioned_by)
        wanted.clustering_fields = list(table.clustered_by)
        # In the emulator, all but one of several concurrent creations fail with a conflict; the table exists by then.
        with suppress(ConflictError), translated(f"make table {target}"):
            try:
                made = self._connection.client.create_table(wanted, exists_ok=True, **_times())
            except NotFound as error:
                # Only now: an account that may not make datasets can use one that is there, and a call is saved.
                if NO_DATASET not in str(error):
                    raise
                self.make_dataset(target.rpartition(".")[0])
                made = self._connection.client.create_table(wanted, exists_ok=True, **_times())
            self._check_location(f"Table {target}", made.location)

    def change(self, target: str, found: ExistingTable, columns: Sequence[ExistingColumn], description: str) -> bool:
        from google.api_core.exceptions import GoogleAPICallError, PreconditionFailed

        with suppress(ConflictError), translated(f"change table {target}"):
            there = self._connection.client.get_table(target, **_times())
            if there.etag != found.state:
                return False
            # An existing column is changed in place, to keep what the port does not know of it, such as the fields of a
            # STRUCT or a policy tag.
            old = {field.name: field for field in there.schema}
            there.schema = [_merged(old[c.name], c) if c.name in old else _field(c) for c in columns]
            there.description = description
            try:
                self._connection.client.update_table(there, ["schema", "description"], **_times())
            except PreconditionFailed:  # the client sends the etag as If-Match
                return False
            except GoogleAPICallError as error:
                # This schema never drops a column or adds one twice, so another process changed the table after the
                # etag was compared.
                if not CAME_BETWEEN.search(str(error)):
                    raise
                return False
            return True
        return False

    def find_view(self, target: str) -> str | None:
        from google.api_core.exceptions import NotFound

        with translated(f"look at view {target}"):
            try:
                found = self._connection.client.get_table(target, **_times())
            except NotFound:
                return None
        if found.table_type != "VIEW":
            raise PermanentError(f"{target} is a {found.table_type.lower()}, no view. Rename it, or drop it.")
        return str(found.labels.get(STATE, ""))

    def make_view(self, target: str, sql: str, *, description: str, state: str) -> None:
        self.find_view(target)
        options = f"description = {_literal(description)}, labels = [('{STATE}', {_literal(state)})]"
        with translated(f"make view {target}"):
            ddl = f"CREATE OR REPLACE VIEW {quoted(target)} OPTIONS ({options}) AS\n{sql}"
            self._connection.client.query(ddl, **_times()).result(**_times())

    def expire(self, target: str, at: datetime) -> None:
        from google.api_core.exceptions import NotFound
        from google.cloud import bigquery

        for table_id in (target, *beside(target)):
            with suppress(ConflictError), translated(f"let table {table_id} expire"):
                expiring = bigquery.Table(table_id)
                expiring.expires = at
                try:
                    self._connection.client.update_table(expiring, ["expires"], **_times())
                except NotFound:
                    continue

    def remove(self, target: str) -> None:
        for table_id in (target, *beside(target)):
            with suppress(ConflictError), translated(f"drop {table_id}"):
                self._connection.client.delete_table(table_id, not_found_ok=True, **_times())


_making_dataset = replace(
    service,
    forbidden="The account may not make datasets (bigquery.datasets.create): create this one for it, or grant it "
    "roles/bigquery.user.",
).translated


def _literal(text: str) -> str:
    """Return a text as an SQL literal."""
    return json.dumps(text, ensure_ascii=False)  # JSON's escapes (quotes, backslashes, line breaks) are BigQuery's too


def _times() -> dict[str, Any]:
    return {"retry": patience(), "timeout": CALL_TIMEOUT_S}


def _found(field: "bigquery.SchemaField") -> ExistingColumn:
    return ExistingColumn(
        field.name, TYPE_NAMES.get(field.field_type, field.field_type), field.mode, field.description or ""
    )


def _field(column: ExistingColumn) -> "bigquery.SchemaField":
    from google.cloud import bigquery

    return bigquery.SchemaField(column.name, column.type, mode=column.mode, description=column.description)


def _merged(field: "bigquery.SchemaField", column: ExistingColumn) -> "bigquery.SchemaField":
    from google.cloud import bigquery

    changed = {**field.to_api_repr(), "mode": column.mode}
    if column.description:
        changed["description"] = column.description
    return bigquery.SchemaField.from_api_repr(changed)
