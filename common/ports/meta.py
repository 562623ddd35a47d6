"""The archive of ended runs, and what it needs from the warehouse."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from common.domain.messages import JobsCost
from common.domain.model import Run
from common.domain.state import Change
from common.tables.contract import MetaTable

Changes = Callable[[], Sequence[Change]]
"""Reads the run's transitions; a function, because an archive that keeps nothing needs no read."""


class RunArchive(Protocol):
    """Keeps ended runs. ``parts`` are the steps it wants loaded (None: all)."""

    parts: Collection[str] | None

    def keep(self, run: Run, changes: Changes) -> JobsCost | None:
        """Keep the ended run exactly once, for repeated and concurrent calls too; return the cost of its jobs, None if
        it is unknown.

        Raises TransientError or PermanentError if it could not be kept: call again, what was written does not count.
        """


class NoArchive:
    """Without a warehouse nothing is kept but what the store has."""

    parts: Collection[str] | None = ()

    def keep(self, run: Run, changes: Changes) -> JobsCost | None:
        """Do nothing; what the jobs have cost is not known."""
        return None


@dataclass(frozen=True, slots=True)
class JobStats:
    """BigQuery's statistics of a job that has ended; None where it gives none."""

    job_id: str
    job_type: str
    statement_type: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    bytes_processed: int | None = None
    bytes_billed: int | None = None
    slot_ms: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MetaRows:
    """Rows for one meta table, as JSON data; a column that is left out is NULL. ``target`` is the table's full id."""

    target: str
    table: MetaTable
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class MetaWrite:
    """Rows about one run, written together or not at all, unless ``marker`` has a row of the run already.

    ``job_id`` names the write: a repeat writes nothing.
    """

    run_id: str
    run_ended_at: datetime
    marker: str
    parts: Sequence[MetaRows]
    job_id: str
    labels: Mapping[str, str]


class MetaWarehouse(Protocol):
    """The part of the warehouse that meta tables need."""

    def append(self, write: MetaWrite) -> None:
        """Write the rows, exactly once for repeated calls. Raises TransientError or PermanentError."""

    def job_stats(self, job_id: str) -> JobStats | None:
        """Return what is known of a job, or None if there is none of that id."""
