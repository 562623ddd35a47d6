"""The messages of the state machine: events (what happened or was requested) and commands (what has to be done).

``state.apply`` takes an event; its transition holds commands, stored together with the new run and carried out after.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from common.domain.model import ErrorKind, Pipeline, PreviewEnd, Receipt, RunStatus, Staged, Step


@dataclass(frozen=True, slots=True)
class JobsCost:
    """The cost of a run's jobs in US dollars; ``complete`` if the cost of every job is known."""

    usd: Decimal
    complete: bool


@dataclass(frozen=True, slots=True)
class RunAdmitted:
    """There is room for a run that has waited; ``global_slot``: it takes one of the deployment's slots too."""

    global_slot: bool


@dataclass(frozen=True, slots=True)
class RunKeptWaiting:
    """There is still no room for a waiting run: ``limit`` is used up, which ``why`` explains to people."""

    limit: str
    why: str


@dataclass(frozen=True, slots=True)
class RunValidated:
    """The config was read, resolved and is valid. The run never reads the file again."""

    pipeline: Pipeline
    credential_id: str


@dataclass(frozen=True, slots=True)
class RunRejected:
    """The run can't start: its config, credential or dates are wrong."""

    error: str


@dataclass(frozen=True, slots=True)
class AttemptClaimed:
    """A step function took the attempt's lease."""

    step_id: str
    attempt: int
    owner: str


@dataclass(frozen=True, slots=True)
class AttemptSuspended:
    """An attempt waits, and holds no function until ``look_at``: for a ``job`` elsewhere, or for what ``reason`` says.

    ``staged`` is what it has done so far and need not do again.
    """

    step_id: str
    attempt: int
    job: str
    look_at: datetime
    reason: str = ""
    staged: Staged | None = None


@dataclass(frozen=True, slots=True)
class AttemptSucceeded:
    """An attempt's rows are committed."""

    step_id: str
    attempt: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt ended without a commit. ``retry_after_s`` is the wait that the other side requested.

    ``kind`` is set for a failure that another attempt may fix, and None for a permanent one.
    """

    step_id: str
    attempt: int
    error: str
    kind: ErrorKind | None = None
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class AttemptStopped:
    """An attempt noticed that its step was taken from it, and ended its work without a commit."""

    step_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StepsEnded:
    """Everything that these steps waited for has ended. ``RUN_END`` is the end of the run."""

    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OwnerLost:
    """The process that held leases is known to be dead (the embedded stack knows when it starts)."""

    owner: str


@dataclass(frozen=True, slots=True)
class MessageDied:
    """The bus gave up a message: of a step's attempt, or (``step_id`` empty) of the run."""

    step_id: str
    attempt: int
    error: str


@dataclass(frozen=True, slots=True)
class Swept:
    """The sweep looked at the run: whatever is past its deadline is sent again or ended."""


@dataclass(frozen=True, slots=True)
class RunAnnounced:
    """The end of the run was announced. ``jobs`` is the cost of its jobs, None if it is unknown."""

    jobs: JobsCost | None = None


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """A person wants the run to end, as soon as its work has stopped."""

    who: str
    why: str


@dataclass(frozen=True, slots=True)
class SkipRequested:
    """A person wants the run to go on without a step."""

    step_id: str
    who: str
    why: str


@dataclass(frozen=True, slots=True)
class PreviewSettled:
    """A preview was promoted or discarded; ``receipts`` are those of its steps from now on, by step id."""

    end: PreviewEnd
    receipts: Mapping[str, Receipt]
    who: str
    why: str


Event = (
    RunAdmitted
    | RunKeptWaiting
    | RunValidated
    | RunRejected
    | AttemptClaimed
    | AttemptSuspended
    | AttemptSucceeded
    | AttemptFailed
    | AttemptStopped
    | StepsEnded
    | OwnerLost
    | MessageDied
    | Swept
    | RunAnnounced
    | CancelRequested
    | SkipRequested
    | PreviewSettled
)


@dataclass(frozen=True, slots=True)
class StartRun:
    """Have the start function validate the run."""

    run_id: str


@dataclass(frozen=True, slots=True)
class DispatchStep:
    """Have the step function of the step's ``ps_type`` make (or resume) its attempt, not before ``not_before``."""

    step: Step


@dataclass(frozen=True, slots=True)
class SettleReservation:
    """Give the run's quota back and count its outcome."""

    run_id: str
    outcome: RunStatus


@dataclass(frozen=True, slots=True)
class SettleMoney:
    """Replace the run's estimate by its cost, which is the pipeline's last known cost if ``known``."""

    run_id: str
    estimated_usd: Decimal
    cost_usd: Decimal
    known: bool


@dataclass(frozen=True, slots=True)
class MoveInQueue:
    """Have the run wait for another limit. ``before`` or ``after`` is empty when it joins or leaves the queue."""

    run_id: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class AnnounceRunFinished:
    """Announce that the run has ended."""

    run_id: str


Command = StartRun | DispatchStep | SettleReservation | SettleMoney | MoveInQueue | AnnounceRunFinished
