"""What a transition wants done. Imperative; stored together with the new run, carried out after."""

from dataclasses import dataclass

from common.domain.model import RunStatus, Step


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
class AnnounceRunFinished:
    """Tell whoever listens that the run has ended."""

    run_id: str


Command = StartRun | DispatchStep | SettleReservation | AnnounceRunFinished
