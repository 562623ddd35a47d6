"""The values the core works on. Frozen, standard library only, no I/O.

Times are aware UTC datetimes; dates are data dates (the day a cost belongs to).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Self

NO_CREDENTIAL = "none"
"""``credential_id`` of a run whose pipeline uses none: the composite key must never hold a NULL."""


class RunStatus(StrEnum):
    """Where a run is. The last two are terminal."""

    PENDING = "pending"
    VALIDATING = "validating"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        return self in (RunStatus.COMPLETED, RunStatus.FAILED)


class StepStatus(StrEnum):
    """Where a step is. The last three are terminal."""

    WAITING = "waiting"  # for the steps it depends on
    QUEUED = "queued"  # its attempt is on its topic
    RUNNING = "running"  # an attempt holds the lease
    RETRYING = "retrying"  # the next attempt is on its topic, due at `not_before`
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"  # something it depends on did not succeed

    @property
    def is_terminal(self) -> bool:
        return self in (StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.SKIPPED)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a step is tried, and how long it rests between two attempts (see ``common/domain/retry.py``)."""

    max_attempts: int = 1
    backoff_seconds: float = 0.0
    backoff_multiplier: float = 1.0
    max_backoff_seconds: float = 600.0
    jitter: float = 0.0
    retry_on: tuple[str, ...] = ()
    """Kinds of failures that are tried again (``ErrorKind`` of ``common/errors.py``); empty: every transient one."""


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A step that runs once for each item of a list that a step before it has put out.

    ``over`` is ``<step_id>.outputs.<name>``. With ``dates``, the items are ISO dates and each item's run covers that
    day alone, so that items may write one table side by side.
    """

    over: str
    max_parallel: int = 10
    dates: bool = False


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step as its pipeline's YAML declares it, templates resolved.

    ``timeout_seconds`` bounds the time a function is held, ``max_wait_seconds`` that of a job waited for without one.
    ``always`` (YAML: ``run_if: always``) starts the step once all it depends on has ended, however it ended.
    """

    step_id: str
    ps_type: str
    depends_on: tuple[str, ...] = ()
    timeout_seconds: int = 300
    retry: RetryPolicy = RetryPolicy()
    max_wait_seconds: int = 21_600
    condition: str = ""
    map: MapSpec | None = None
    allow_failure: bool = False
    always: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A validated pipeline. ``config_hash`` is the SHA-256 of the file it was read from."""

    pipeline_id: str
    provider: str
    steps: tuple[StepSpec, ...]
    config_hash: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a step left behind: rows in its target table, the jobs that wrote them, warnings by text."""

    rows: int = 0
    table: str = ""
    job_ids: tuple[str, ...] = ()
    content_hash: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one run.

    ``attempt`` counts from 1 once queued; it is the fence: a result of any other attempt changes nothing.
    ``deadline`` is when the sweep acts on a step that is still in this state; ``reason`` says what it waits for.
    """

    spec: StepSpec
    status: StepStatus = StepStatus.WAITING
    attempt: int = 0
    owner: str = ""
    since: datetime | None = None
    not_before: datetime | None = None
    deadline: datetime | None = None
    reason: str = ""
    error: str = ""
    receipt: Receipt = Receipt()
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What somebody asked for. ``route`` is ``provider/domain/pipeline``; both dates are inclusive."""

    run_id: str
    org_slug: str
    route: str
    start_date: date
    end_date: date
    requested_at: datetime
    trigger: str = "api"
    credential_id: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run and its steps, in the order of the pipeline's file. ``version`` is the store's, for compare-and-set.

    ``deadline`` is when the sweep looks at a run that is not yet running; ``expires_at`` is when it fails whatever
    has not ended by then.
    """

    request: RunRequest
    status: RunStatus = RunStatus.PENDING
    version: int = 0
    pipeline_id: str = ""
    credential_id: str = ""
    config_hash: str = ""
    steps: tuple[Step, ...] = ()
    reason: str = ""
    error: str = ""
    since: datetime | None = None
    deadline: datetime | None = None
    expires_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def run_id(self) -> str:
        return self.request.run_id

    @property
    def wake_at(self) -> datetime | None:
        """When the sweep has to look at the run, or None once it has ended."""
        if self.status.is_terminal:
            return None
        times = [self.deadline, self.expires_at, *(s.deadline for s in self.steps if not s.status.is_terminal)]
        return min((t for t in times if t is not None), default=None)

    def step(self, step_id: str) -> Step | None:
        """Return the step of that id, or None."""
        return next((s for s in self.steps if s.spec.step_id == step_id), None)

    def with_steps(self, *changed: Step) -> Self:
        """Return the run with these steps in the place of those with the same ids."""
        by_id = {s.spec.step_id: s for s in changed}
        return replace(self, steps=tuple(by_id.get(s.spec.step_id, s) for s in self.steps))
