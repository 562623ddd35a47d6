"""What the engine needs from the world. Adapters implement it; nothing here imports one.

Each docstring is a promise that ``tests/contract`` checks on every adapter of the port.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Protocol

from common.domain.model import Receipt
from common.table import Table


@dataclass(frozen=True, slots=True)
class Lineage:
    """Six of the seven x_* fields of FR-PIP-007; the seventh, ``x_pipeline_run_date``, is each row's own day."""

    org_slug: str
    pipeline_id: str
    credential_id: str
    run_id: str
    ingested_at: datetime


@dataclass(frozen=True, slots=True)
class Commit:
    """A staged write on its way into its target: replaces every day of ``first_day``..``last_day`` of its key."""

    target: str
    table: Table
    staging: str
    lineage: Lineage
    first_day: date
    last_day: date
    job_id: str
    labels: Mapping[str, str]


class Warehouse(Protocol):
    """BigQuery, or the local emulator of it. Table ids are ``project.dataset.table``.

    Raises TransientError for conflicts and outages, PermanentError for what a second try can't mend.
    """

    decimal_digits: tuple[int, int]
    """(precision, scale) that a BIGNUMERIC keeps exactly: (76, 38) in BigQuery, (38, 18) in the emulator."""

    def ensure_table(self, target: str, table: Table) -> None:
        """Create dataset and table if they are missing, partitioned and clustered as the contract says."""

    def create_staging(self, target: str, table: Table, name: str) -> str:
        """Make an empty, expiring table beside the target with the contract's columns; return its id."""

    def load(self, staging: str, table: Table, spool: Path, *, job_id: str) -> int:
        """Load a Parquet file into the staging table; return the rows it holds after. A repeat changes nothing."""

    def commit(self, write: Commit) -> Receipt:
        """In one transaction: delete the key's rows of those days, insert the staged rows with their lineage.

        All or nothing. Only rows of that (org, pipeline, credential) and those days are touched.
        """

    def drop(self, table_id: str) -> None:
        """Delete a table if it is there."""

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Run one SELECT with named parameters; yield rows as dicts (BIGNUMERIC as Decimal)."""

    def call(self, procedure: str, args: Sequence[Any], *, job_id: str) -> None:
        """CALL a stored procedure (``project.dataset.name``) with positional arguments as query parameters."""

    def ensure_procedure(self, procedure: str, ddl: str) -> None:
        """Create or replace a stored procedure from its DDL."""
