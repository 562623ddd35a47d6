"""BigQuery, or the local emulator of it. ``tests/contract`` holds every adapter to these promises."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Protocol

from common.domain.model import Receipt, WriteSpec
from common.ports.meta import MetaWarehouse
from common.tables.contract import Table
from common.tables.schema_plan import ExistingColumn, ExistingTable


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
    """A staged write on its way into its target: of the days ``first_day``..``last_day`` of its key.

    ``fence`` orders attempts, ``not_after`` ends them: see docs/decisions/0009. ``rows`` is how many were spooled, None
    if SQL filled the staging table. ``wait_s`` is how many seconds to wait for other writers. With
    ``of_days`` the staging table has lineage of its own, and only its rows of the key and days are taken. ``spooled``
    is how the staging table was made (``create_staging``). ``parts`` are staging tables that are committed together;
    ``staging`` is then the first of them.
    """

    target: str
    table: Table
    staging: str
    lineage: Lineage
    first_day: date
    last_day: date
    write: WriteSpec
    step_id: str
    attempt: int
    fence: int
    not_after: datetime
    job_id: str
    rows: int | None = None
    content_hash: str = ""
    wait_s: float = 60.0
    of_days: bool = False
    spooled: bool = False
    parts: tuple[str, ...] = ()


class Interruption(Protocol):
    """Whether somebody wants the commit not to happen any more (``common/platform/stop.py``)."""

    def check(self) -> None:
        """Raise LostLeaseError if so. Called while the commit waits."""

    def hold(self) -> None:
        """Raise LostLeaseError if so; else let it not be interrupted. Called right before it is sent."""

    def release(self) -> None:
        """Let it be interrupted again: it was refused for now, and nothing was written."""


class NoInterruption:
    """Of a commit that nobody interrupts."""

    def check(self) -> None:
        """Return."""

    def hold(self) -> None:
        """Return."""

    def release(self) -> None:
        """Return."""


NO_INTERRUPTION = NoInterruption()


class Tables(Protocol):
    """Tables and datasets as such, without their rows. Ids are ``project.dataset.table``."""

    def has_dataset(self, dataset: str) -> bool:
        """Return whether the dataset (``project.dataset``) exists."""

    def make_dataset(self, dataset: str) -> None:
        """Create the dataset unless it exists."""

    def find(self, target: str) -> ExistingTable | None:
        """Return the table as it is, or None if it or its dataset does not exist."""

    def create(self, target: str, table: Table) -> None:
        """Create the table and its dataset unless they exist, or another process is creating them now."""

    def change(self, target: str, found: ExistingTable, columns: Sequence[ExistingColumn], description: str) -> bool:
        """Give the table these columns and this description; return False if it has changed since it was found."""

    def find_view(self, target: str) -> str | None:
        """Return the ``state`` that the view was made with ("" if it was not), None if nothing has that name.

        Raises PermanentError if it is the name of a table.
        """

    def make_view(self, target: str, sql: str, *, description: str, state: str) -> None:
        """Create or replace the view.

        Raises PermanentError if what it reads does not exist, or if it is the name of a table.
        """

    def expire(self, target: str, at: datetime) -> None:
        """Have BigQuery delete the table and its companion tables at that time."""

    def remove(self, target: str) -> None:
        """Delete the table and its companion tables, those that exist."""


class Warehouse(Protocol):
    """BigQuery, or the local emulator of it. Table ids are ``project.dataset.table``.

    Raises TransientError for conflicts and outages, PermanentError for what a retry can't fix.
    """

    decimal_digits: tuple[int, int]
    """(precision, scale) that a BIGNUMERIC keeps exactly: (76, 38) in BigQuery, (38, 18) in the emulator."""

    def ping(self) -> None:
        """Return if the warehouse responds within seconds; raise TransientError or PermanentError if it does not."""

    @property
    def tables(self) -> Tables:
        """Tables as such, without their rows."""

    @property
    def meta(self) -> MetaWarehouse:
        """The tables about runs, and the statistics of jobs."""

    def labelled(self, labels: Mapping[str, str], seen: Callable[[str], None]) -> "Warehouse":
        """Return a view of this warehouse whose jobs have these labels; it calls ``seen`` with each job id.

        It shares everything else. ``seen`` may be called more than once for a job.
        """

    def ensure_table(self, target: str, table: Table) -> None:
        """Create dataset and table if they are missing, or bring the table to its contract (``schema_plan.py``).

        Raises PermanentError if the contract asks for what a table can't become.
        """

    def create_staging(self, target: str, table: Table, name: str, *, keep: bool = False, spooled: bool = False) -> str:
        """Make an empty, expiring table beside the target with the contract's columns; return its id.

        It also has ``x_org_slug``, which SQL that fills it may set: a row of another organisation is refused. With
        ``keep``, an existing one stays as it is: a job of a suspended attempt fills it. With ``spooled`` it takes a
        Parquet file (``load``): JSON columns are text, which the commit parses, because BigQuery loads no JSON from
        Parquet.
        """

    def load(self, staging: str, table: Table, spool: Path, *, job_id: str) -> None:
        """Load a Parquet file into a ``spooled`` staging table. A repeat of the same job changes nothing."""

    def quarantine(self, target: str, bad_rows: Path, *, job_id: str) -> None:
        """Load a Parquet file of rows that were left out into ``<target>__quarantine``, which is created if needed.

        A repeat of the same job changes nothing.
        """

    def commit(self, write: Commit, waiting: Callable[[str], None], stop: Interruption = NO_INTERRUPTION) -> Receipt:
        """In one transaction: check the staged rows, write them as ``write.write`` says, with their lineage.

        All or nothing, and only rows of that (org, pipeline, credential) are touched. A repeat of an attempt that has
        committed changes nothing and returns the same receipt. Raises SupersededError if a later attempt has
        committed any of the days, StepTimeoutError after ``not_after``, PermanentError for rows, days or a mode that
        are not allowed, WriterBusyError when other writers are in the way for ``wait_s``; ``waiting`` is called with a
        text when it begins to wait for them, and when it ends. Raises LostLeaseError if ``stop`` says so before the
        commit is sent.
        """

    def commit_all(
        self, writes: Sequence[Commit], waiting: Callable[[str], None], stop: Interruption = NO_INTERRUPTION
    ) -> tuple[Receipt, ...]:
        """Do what ``commit`` does for each of these, in one transaction: all of them or none."""

    def seat(self, target: str) -> AbstractContextManager[bool]:
        """Yield whether one more attempt of this process may work for the table; if so, it counts for the block.

        False if so many do already that this one's rows would be old, and be refused, before it is its turn to commit.
        """

    def drop(self, table_id: str) -> None:
        """Delete a table if it exists."""

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Run one SELECT with named parameters; yield rows as dicts (BIGNUMERIC as Decimal)."""

    def start_call(self, procedure: str, args: Sequence[Any], *, job_id: str) -> None:
        """CALL a stored procedure (``project.dataset.name``) with positional arguments as query parameters.

        Returns once the job exists; it runs on by itself. A repeat with the same ``job_id`` starts no second one.
        """

    def dry_run_bytes(self, procedure: str, args: Sequence[Any]) -> int | None:
        """Return the bytes that this CALL would read at most, without running it; None if unknown."""

    def job_done(self, job_id: str, wait_s: float) -> bool | None:
        """Wait for a job, at most ``wait_s`` seconds; return whether it has succeeded, None if there is no such job.

        Raises the error of a job that failed.
        """

    def ensure_procedure(self, procedure: str, ddl: str) -> None:
        """Create or replace a stored procedure from its DDL."""
