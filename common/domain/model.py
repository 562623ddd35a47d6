"""The values the core works on. Frozen, standard library only, no I/O.

Times are aware UTC datetimes; dates are data dates (the day a cost belongs to).
"""

from collections.abc import Mapping
from copy import replace
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

NO_CREDENTIAL = "none"
"""``credential_id`` of a run whose pipeline uses none: the composite key must never hold a NULL."""


class PreviewEnd(StrEnum):
    """How a preview was settled."""

    PROMOTED = "promoted"  # its rows are those of the tables now
    DISCARDED = "discarded"


class RunStatus(StrEnum):
    """Where a run is. The last three are terminal."""

    PENDING = "pending"
    VALIDATING = "validating"
    RUNNING = "running"
    CANCELLING = "cancelling"  # a person cancelled it; steps that were at work have not stopped yet
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in _ENDED_RUNS


_ENDED_RUNS = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED})


class StepStatus(StrEnum):
    """Where a step is. The last five are terminal."""

    WAITING = "waiting"  # for the steps it depends on
    QUEUED = "queued"  # its first attempt is on its topic
    RUNNING = "running"  # an attempt holds the lease; or, of a map, its items are at work
    RETRYING = "retrying"  # the next attempt is on its topic, due at `not_before`
    SUSPENDED = "suspended"  # the attempt waits (`waits_on`: for that job) and holds nothing; resumed at `not_before`
    STOPPING = "stopping"  # a person cancelled its run or skipped it; its attempt has not ended yet
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"  # on purpose, by its condition or a person: what depends on it goes on
    OMITTED = "omitted"  # it can't start: something it depends on did not succeed
    CANCELLED = "cancelled"  # the run ended before it did

    @property
    def is_terminal(self) -> bool:
        return self in _ENDED_STEPS


_ENDED_STEPS = frozenset(
    {StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.OMITTED, StepStatus.CANCELLED}
)


class ErrorKind(StrEnum):
    """What a transient failure was, as ``retry_on`` names it in a pipeline's YAML."""

    TIMEOUT = "timeout"  # timeout_seconds is used up
    RATE_LIMIT = "rate_limit"  # the other side requests fewer calls
    UNAVAILABLE = "unavailable"  # no response, a broken one, or a 5xx
    CONFLICT = "conflict"  # a write lost against another one
    LOST = "lost"  # the process that ran the attempt is gone
    UNEXPECTED = "unexpected"  # an error that the processor does not declare


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a step is tried, and the backoff between two attempts (see ``common/domain/retry.py``)."""

    max_attempts: int = 1
    backoff_seconds: float = 0.0
    backoff_multiplier: float = 1.0
    max_backoff_seconds: float = 600.0
    jitter: float = 0.0
    retry_on: tuple[str, ...] = ()
    """The ``ErrorKind``s that are retried; empty: every transient one."""


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A step that runs once for each item of a list that an earlier step has put out.

    ``over`` is ``<step_id>.outputs.<name>``. With ``dates``, the items are ISO dates and each item's run covers that
    day alone, so that items may write one table side by side.
    """

    over: str
    max_parallel: int = 10
    dates: bool = False


NO_RETRY = RetryPolicy()


@dataclass(frozen=True, slots=True)
class WriteSpec:
    """How a step's rows come into its table (docs/decisions/0009).

    ``mode`` is one of ``replace_key``, ``merge``, ``append_once``, ``truncate_partition``; ``keys`` are the columns
    that identify a row within the composite key: ``merge`` needs them, every mode checks them. ``on_empty`` is what to
    do when there are no rows at all: ``replace`` (delete the key's rows), ``keep`` or ``fail``.
    """

    mode: str = "replace_key"
    keys: tuple[str, ...] = ()
    on_empty: str = "fail"
    max_bad_rows: int = 0


DEFAULT_WRITE = WriteSpec()


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step as its pipeline's YAML declares it, templates resolved.

    ``timeout_seconds`` limits how long an attempt holds a function, ``max_wait_seconds`` how long it may be suspended.
    ``always`` (YAML: ``run_if: always``) starts the step once all it depends on has ended, however it ended.
    """

    step_id: str
    ps_type: str
    depends_on: tuple[str, ...] = ()
    timeout_seconds: int = 300
    retry: RetryPolicy = field(default_factory=lambda: NO_RETRY)
    max_wait_seconds: int = 21_600
    condition: str = ""
    map: MapSpec | None = None
    allow_failure: bool = False
    always: bool = False
    write: WriteSpec = DEFAULT_WRITE
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A validated pipeline. ``config_hash`` is the SHA-256 of the file it was read from."""

    pipeline_id: str
    provider: str
    steps: tuple[StepSpec, ...]
    config_hash: str


MAX_JOB_IDS = 100
"""A receipt names this many jobs at most."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a step left behind: rows in its target table, the jobs that wrote them, warnings and outputs by name.

    ``outputs`` are small JSON values for the conditions and maps of later steps. ``bad_rows`` are those that went to
    the quarantine table; ``drift`` is how the rows differed from their table's contract (``common/writes/drift.py``).
    ``mode`` is how the rows came in (``WriteSpec``). Without ``ingested_at`` nothing in the table was changed.
    """

    rows: int = 0
    table: str = ""
    job_ids: tuple[str, ...] = ()
    content_hash: str = ""
    ingested_at: datetime | None = None
    warnings: tuple[str, ...] = ()
    outputs: Mapping[str, Any] = field(default_factory=dict)
    bad_rows: int = 0
    drift: Mapping[str, Any] = field(default_factory=dict)
    mode: str = ""


NO_RECEIPT = Receipt()


@dataclass(frozen=True, slots=True)
class Staged:
    """What a suspended attempt has in the table ``staging``, while it waits for the target's writer.

    ``receipt`` is what the commit's will be made of; its ``ingested_at`` is the time of the rows' lineage. ``fence`` is
    that of the claim which read them: the rows get no younger by waiting.
    """

    staging: str
    receipt: Receipt
    fence: int


def _changed[T](self: T, /, **changes: Any) -> T:
    """Return a copy with other values in these fields: what ``copy.replace`` calls.

    A transition makes dozens of copies, and the dataclasses' own ``replace`` is ten times as slow, because it sets and
    checks field by field. For the same reason the two classes that are copied most have a ``__dict__``.
    """
    new = object.__new__(type(self))
    object.__setattr__(new, "__dict__", self.__dict__ | changes)
    return new


@dataclass(frozen=True)
class Step:
    """One step of one run: a record of its own in the store, from its first claim on.

    ``version`` is the store's, for compare-and-set; 0 means that there is no record. ``attempt`` counts from 1 once
    queued; it is the fence: a result of any other attempt changes nothing. ``reason`` says what it waits for.
    While it is running, ``lease_until`` is when its attempt loses it; while a message is on its way to its function,
    ``resend_at`` is when that message is sent again. ``items`` are those of a map at work.
    ``fence`` orders attempts in the warehouse: microseconds since 1970 at the claim, growing with every claim.
    """

    spec: StepSpec
    status: StepStatus = StepStatus.WAITING
    version: int = 0
    attempt: int = 0
    owner: str = ""
    since: datetime | None = None
    not_before: datetime | None = None
    lease_until: datetime | None = None
    resend_at: datetime | None = None
    reason: str = ""
    error: str = ""
    receipt: Receipt = field(default_factory=lambda: NO_RECEIPT)
    waits_on: str = ""
    give_up_at: datetime | None = None
    staged: Staged | None = None
    items: tuple[Any, ...] = ()
    fence: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None

    __replace__ = _changed

    @property
    def step_id(self) -> str:
        return self.spec.step_id

    @property
    def due_at(self) -> datetime | None:
        """When the sweep acts on the step; None if only another step's end or a person can move it."""
        return self.lease_until or self.resend_at

    @property
    def is_done(self) -> bool:
        """Whether what depends on the step may go on."""
        return self.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED) or self.is_tolerated

    @property
    def is_tolerated(self) -> bool:
        """Whether the step failed and its pipeline tolerates that."""
        return self.status is StepStatus.FAILED and self.spec.allow_failure


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A request for a run. ``route`` is ``provider/domain/pipeline``; both dates are inclusive.

    A ``preview`` writes to shadow tables (``common/runs/previews.py``), so that its changes can be reviewed first.
    With ``queue`` it waits for a slot if there is none, a ``backfill`` behind live work. ``fingerprint`` is the hash of
    a request with an Idempotency-Key, whose run id derives from that key.
    """

    run_id: str
    org_slug: str
    route: str
    start_date: date
    end_date: date
    requested_at: datetime
    trigger: str = "api"
    credential_id: str | None = None
    source: str | None = None
    rerun_of: str | None = None
    preview: bool = False
    queue: bool = False
    backfill: bool = False
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A run's expected cost in US dollars; ``source`` explains to people how it is known."""

    queries_usd: Decimal
    calls_usd: Decimal
    source: str

    @property
    def usd(self) -> Decimal:
        return self.queries_usd + self.calls_usd


@dataclass(frozen=True)
class Run:
    """One run, and those of its steps that were loaded. ``version`` is the store's, for compare-and-set.

    ``specs`` is the pinned pipeline. ``steps`` holds every step after a whole load, by id; after a partial one the
    requested ones that have a record. ``wake_at`` is when the sweep looks at the run; ``expires_at`` is when it
    ends whatever has not ended by then. ``preview_end`` is how a preview was settled.

    ``admitted_at`` is when it took its quota; until then ``waits_for`` is the limit that it waits for.
    ``global_slot`` says that it holds one of the deployment's slots. ``estimate`` is what it reserves of
    its organisation's money, ``cost_usd`` what it cost in the end; None where the plan has no such limit.
    """

    request: RunRequest
    status: RunStatus = RunStatus.PENDING
    version: int = 0
    pipeline_id: str = ""
    credential_id: str = ""
    config_hash: str = ""
    specs: tuple[StepSpec, ...] = ()
    steps: Mapping[str, Step] = field(default_factory=dict)
    reason: str = ""
    error: str = ""
    since: datetime | None = None
    wake_at: datetime | None = None
    expires_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    preview_end: PreviewEnd | None = None
    admitted_at: datetime | None = None
    waits_for: str = ""
    global_slot: bool = False
    estimate: Estimate | None = None
    cost_usd: Decimal | None = None

    __replace__ = _changed

    @property
    def run_id(self) -> str:
        return self.request.run_id

    def step(self, step_id: str) -> Step | None:
        """Return the step of that id, or None if there is none or it was not loaded."""
        return self.steps.get(step_id)

    def with_step(self, step: Step) -> "Run":
        """Return the run with its step of this id replaced."""
        return replace(self, steps={**self.steps, step.spec.step_id: step})
