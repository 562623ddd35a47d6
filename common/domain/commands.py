"""What a transition wants done. Imperative; stored together with the new run, carried out after."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class StartRun:
    """Have the start function validate the run."""

    run_id: str


@dataclass(frozen=True, slots=True)
class DispatchStep:
    """Have the step function of ``ps_type`` make this attempt, not before ``not_before``."""

    run_id: str
    step_id: str
    ps_type: str
    attempt: int
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class SettleReservation:
    """Give the run's quota back and count its outcome."""

    run_id: str
    succeeded: bool


@dataclass(frozen=True, slots=True)
class AnnounceRunFinished:
    """Tell whoever listens that the run has ended."""

    run_id: str


Command = StartRun | DispatchStep | SettleReservation | AnnounceRunFinished
