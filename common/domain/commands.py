"""What a transition wants done. Imperative; stored together with the new run, carried out after."""

from dataclasses import dataclass
from decimal import Decimal

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
class SettleMoney:
    """Count what the run has cost in the place of its estimate; it is the pipeline's last known cost if ``known``."""

    run_id: str
    estimated_usd: Decimal
    cost_usd: Decimal
    known: bool


@dataclass(frozen=True, slots=True)
class MoveInQueue:
    """Have the run wait for another limit than before. Empty: it was not in the queue before, or no longer is."""

    run_id: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class AnnounceRunFinished:
    """Tell whoever listens that the run has ended."""

    run_id: str


Command = StartRun | DispatchStep | SettleReservation | SettleMoney | MoveInQueue | AnnounceRunFinished
