"""What happened. Past tense; each is applied to a run by ``transitions.apply``."""

from dataclasses import dataclass

from common.domain.model import Pipeline, Receipt


@dataclass(frozen=True, slots=True)
class ValidationStarted:
    """The start function has picked the run up."""


@dataclass(frozen=True, slots=True)
class RunValidated:
    """The config was read, resolved and found right. From here on the run never looks at the file again."""

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
class AttemptSucceeded:
    """An attempt's rows are committed."""

    step_id: str
    attempt: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt ended without a commit. ``retry_after_s`` is the rest the other side asked for."""

    step_id: str
    attempt: int
    error: str
    retryable: bool
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class OwnerLost:
    """The process that held leases is known to be dead (the embedded stack knows when it starts)."""

    owner: str


@dataclass(frozen=True, slots=True)
class Swept:
    """The sweep looked at the run: whatever is past its deadline is sent again or ended."""


Event = (
    ValidationStarted
    | RunValidated
    | RunRejected
    | AttemptClaimed
    | AttemptSucceeded
    | AttemptFailed
    | OwnerLost
    | Swept
)
