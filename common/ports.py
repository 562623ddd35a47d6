"""What the engine needs from the world. Adapters implement it; nothing here imports one.

Each docstring is a promise that ``tests/contract`` checks on every adapter of the port.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from common.domain.draft import Change, Transition
from common.domain.model import Receipt, Run, Step, WriteSpec
from common.domain.queueing import Place, Queue
from common.domain.quota import Limits, Usage
from common.ports.meta import MetaWarehouse
from common.ports.warehouse import Tables
from common.tables.contract import Table


@dataclass(frozen=True, slots=True)
class Message:
    """One message for a topic. ``data`` is plain JSON; ``key`` names what it is about, for logs and traces.

    A bus that can delay does not deliver before ``not_before``; one that can't leaves it to the sweep to send it then.
    ``source`` is the topic that a dead letter was sent to.
    """

    topic: str
    key: str
    data: Mapping[str, Any]
    not_before: datetime | None = None
    source: str = ""


class EventBus(Protocol):
    """Publishes messages. Delivery is at least once, in any order."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Return once the messages are safe: they are delivered even if this process dies right after."""


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, newest first, and the cursor of the next page (None on the last)."""

    runs: tuple[Run, ...]
    next_cursor: str | None


class RunStore(Protocol):
    """Where runs, their steps, their transitions and their reservations live.

    A run and each of its steps are records of their own, so that steps at work side by side never wait for one
    another. What a transition leaves alone is not written and not compared.
    """

    def create(self, new: Transition, limits: Limits) -> None:
        """Hold quota and store the new run, its kept steps, its changes and its messages: all of it or nothing.

        Checks every limit and takes what it checks in one step: counts the run in its day and month, reserves its
        estimate in the month's money, and a slot of its pipeline, its organisation and the deployment (``global_slot``)
        until the run's ``expires_at``, which ``commit`` keeps in step with the run. Stale reservations go first. A run
        that waits (``waits_for``) takes nothing but its place in the queue, as long as less than ``QUEUE_LIMIT`` wait.

        Raises ConflictingStateError if there is a run of that id, whatever is left of the quota; QuotaExceededError.
        """

    def load(self, run_id: str, step_ids: Collection[str] | None = None) -> Run:
        """Return the whole run, or with ``step_ids`` the run and the records of these steps, as far as they exist.

        Raises NotFoundError if there is no such run.
        """

    def commit(self, transition: Transition) -> Run:
        """Store what the transition changed, and its messages, together or nothing; return it with new versions.

        Settles reservation and money, and moves the run in the queue, when the transition commands it. The messages
        reach the bus at least once, even if the process dies right after, or the sweep derives them from what was
        stored. Raises StaleRunError if a record that the transition changes is no longer at the version it was read
        with (0: it must not exist).
        """

    def admit(self, transition: Transition, limits: Limits) -> Run:
        """Commit the transition that admits a waiting run, and hold its quota from ``admitted_at`` on, as one step.

        Moves the organisation's turn on. Those that wait beside it don't count against it. Raises StaleRunError,
        QuotaExceededError.
        """

    def queues(self, ended: Run | None = None) -> Sequence[Queue]:
        """Return the queues that have runs in them: all, or those that may get what the end of this run has freed.

        The caller has just committed that end.
        """

    def place(self, run: Run) -> Place | None:
        """Return where the run stands in its organisation's queue, None if it does not wait."""

    def last_cost(self, org_slug: str, route: str) -> Decimal | None:
        """Return what the organisation's last run of the pipeline whose cost became known has cost, in US dollars."""

    def holds(self, run_id: str, step: Step) -> bool:
        """Return whether the step's record is still at the version of ``step``."""

    def all_ended(self, run_id: str, step_ids: Collection[str]) -> bool:
        """Return whether each of these steps has a record that has ended, without reading the records one by one."""

    def due(self, now: datetime, limit: int) -> Sequence[str]:
        """Return ids of runs that the sweep has to look at: their ``wake_at`` or the deadline of a step has come."""

    def active(self) -> Sequence[str]:
        """Return ids of the runs that the sweep still looks at, oldest first; all that have not ended are."""

    def history(
        self,
        org_slug: str,
        *,
        limit: int,
        cursor: str | None = None,
        route: str | None = None,
        status: str | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
    ) -> RunPage:
        """Return one page of the organisation's runs, of those asked for from ``since`` on and earlier than ``before``.

        A page never shifts when new runs come in, and takes no longer when there are many.
        """

    def changes(self, run_id: str) -> Sequence[Change]:
        """Return the run's transitions in the order they were committed."""

    def usage(self, org_slug: str, now: datetime) -> Usage:
        """Return what counts against the organisation's limits at ``now``."""


SEVERITIES = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
"""Those of Cloud Logging that lines have, from the least to the worst."""


def severities_from(least: str | None) -> tuple[str, ...]:
    """Return this severity and all that are worse; every one for None."""
    return SEVERITIES if least is None else SEVERITIES[SEVERITIES.index(least) :]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a run's log. ``severity`` is one of ``SEVERITIES``; ``place`` is where its store keeps it."""

    at: datetime
    severity: str
    message: str
    step_id: str = ""
    attempt: int = 0
    place: str = field(default="", compare=False)


class RunLogs(Protocol):
    """The log lines of runs, kept for people; the same lines go to standard output as JSON."""

    settles_s: float
    """For so many seconds after a line was kept, another one may still come in before it."""

    def append(self, run_id: str, line: LogLine) -> None:
        """Keep one line."""

    def read(
        self, run_id: str, *, step_id: str | None = None, severity: str | None = None, after: str = ""
    ) -> Iterator[LogLine]:
        """Yield the run's lines in order, with a page of them in memory at a time; nothing is locked meanwhile.

        ``severity`` leaves out the less severe. ``after`` is the ``place`` of a line: only what follows it is
        yielded. Raises RequestError if no line can have that place.
        """


class PlanLimits(Protocol):
    """Where an organisation's plan is known."""

    def limits(self, org_slug: str) -> Limits:
        """Return the organisation's limits; raise NotFoundError, or TransientError if they can't be known now."""


@dataclass(frozen=True, slots=True)
class Record:
    """A small JSON document. ``version`` says only whether it is still the same: no name ever has one twice."""

    name: str
    version: int
    body: Mapping[str, Any]


class Records(Protocol):
    """Small documents (some kB of JSON) by kind, organisation and name.

    All three are ASCII letters, digits, ``_`` and ``-``; what is none of that is not there. Whoever stores makes sure
    of it.
    """

    def get(self, kind: str, org_slug: str, name: str) -> Record | None:
        """Return the document as the last ``put`` left it, None if there is none."""

    def put(
        self, kind: str, org_slug: str, name: str, body: Mapping[str, Any], *, expected: int | None = None
    ) -> Record:
        """Store a document whole, safe against a power cut; return it with its new version.

        ``expected`` is the version that it must still have (0: it must not be there; None: whatever it has). Raises
        StaleRecordError, and has then stored nothing.
        """

    def list(
        self,
        kind: str,
        org_slug: str,
        *,
        limit: int | None = None,
        after: str | None = None,
        newest: bool = False,
    ) -> Sequence[Record]:
        """Return documents in order of their names (``newest``: the last name first), those behind ``after`` alone."""

    def delete(self, kind: str, org_slug: str, name: str) -> bool:
        """Delete a document; return whether there was one."""


@dataclass(frozen=True, slots=True)
class CredentialInfo:
    """What may be shown of a credential: never the secret."""

    org_slug: str
    credential_id: str
    provider: str
    created_at: datetime


class Credentials(Protocol):
    """Provider credentials, encrypted at rest."""

    def add(self, info: CredentialInfo, secret: str) -> None:
        """Store (or replace) a credential."""

    def list(self, org_slug: str) -> Sequence[CredentialInfo]:
        """Return the organisation's credentials in order of their ids."""

    def remove(self, org_slug: str, credential_id: str) -> None:
        """Delete a credential, or raise NotFoundError."""

    def secret(self, org_slug: str, credential_id: str) -> str:
        """Decrypt one credential of that organisation, or raise NotFoundError.

        Only a step calls this, and whoever checks credentials on this machine (``main.py validate --online``).
        """


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
    if SQL filled the staging table. ``wait_s`` is how many seconds there are to wait for other writers. With
    ``of_days`` the staging table has lineage of its own, and only its rows of the key and days are taken.
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


class Warehouse(Protocol):
    """BigQuery, or the local emulator of it. Table ids are ``project.dataset.table``.

    Raises TransientError for conflicts and outages, PermanentError for what a second try can't mend.
    """

    decimal_digits: tuple[int, int]
    """(precision, scale) that a BIGNUMERIC keeps exactly: (76, 38) in BigQuery, (38, 18) in the emulator."""

    @property
    def tables(self) -> Tables:
        """Tables as such, for whoever plans what has to change in them."""

    @property
    def meta(self) -> MetaWarehouse:
        """The tables about runs, and what is known of jobs."""

    def labelled(self, labels: Mapping[str, str], seen: Callable[[str], None]) -> "Warehouse":
        """Return a view of this warehouse whose jobs all have these labels, and whose job ids ``seen`` is told.

        It shares all else. ``seen`` may hear of a job more than once.
        """

    def ensure_table(self, target: str, table: Table) -> None:
        """Create dataset and table if they are missing, or bring the table to its contract (``schema_plan.py``).

        Raises PermanentError if the contract asks for what a table can't become.
        """

    def create_staging(self, target: str, table: Table, name: str, *, keep: bool = False) -> str:
        """Make an empty, expiring table beside the target with the contract's columns; return its id.

        It also has ``x_org_slug``, which SQL that fills it may set: a row of another organisation is refused. With
        ``keep``, one that is there already stays as it is: a job that somebody waits for fills it.
        """

    def load(self, staging: str, table: Table, spool: Path, *, job_id: str) -> None:
        """Load a Parquet file into the staging table. A repeat of the same job changes nothing."""

    def quarantine(self, target: str, bad_rows: Path, *, job_id: str) -> None:
        """Load a Parquet file of rows that were left out into ``<target>__quarantine``, which is made if need be.

        A repeat of the same job changes nothing.
        """

    def commit(self, write: Commit, waiting: Callable[[str], None]) -> Receipt:
        """In one transaction: check the staged rows, bring them in as ``write.write`` says, with their lineage.

        All or nothing, and only rows of that (org, pipeline, credential) are touched. A repeat of an attempt that has
        committed changes nothing and returns the receipt of then. Raises SupersededError if a later attempt has
        committed any of the days, StepTimeoutError after ``not_after``, PermanentError for rows, days or a mode that
        must not be, TransientError of kind CONFLICT when other writers leave no turn for ``wait_s``; ``waiting`` is
        told that it waits for them, and when that is over.
        """

    def commit_all(self, writes: Sequence[Commit], waiting: Callable[[str], None]) -> tuple[Receipt, ...]:
        """Do what ``commit`` does for each of these, in one transaction: all of them, or nothing of any."""

    def drop(self, table_id: str) -> None:
        """Delete a table if it is there."""

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Run one SELECT with named parameters; yield rows as dicts (BIGNUMERIC as Decimal)."""

    def start_call(self, procedure: str, args: Sequence[Any], *, job_id: str) -> None:
        """CALL a stored procedure (``project.dataset.name``) with positional arguments as query parameters.

        Returns once the job is there; it goes on by itself. A repeat with the same ``job_id`` starts no second one.
        """

    def dry_run_bytes(self, procedure: str, args: Sequence[Any]) -> int | None:
        """Return the bytes that this CALL would read at most, without making it; None if that can't be told before."""

    def job_done(self, job_id: str, wait_s: float) -> bool | None:
        """Wait for a job, at most so long; return whether it has succeeded by then, None if there is no such job.

        Raises what a job that failed has to say.
        """

    def ensure_procedure(self, procedure: str, ddl: str) -> None:
        """Create or replace a stored procedure from its DDL."""
