"""The contract between the engine and the work of a step.

A processor fetches and shapes. Retries, leases, lineage, the write to BigQuery and the run's state belong to the
engine. It fills its staging table in one of two ways:

- it yields batches of rows, which the engine spools, loads and commits; or
- it runs SQL of its own that inserts into ``context.staging_table`` (and yields nothing).

Either way each row carries ``x_pipeline_run_date``, the day it belongs to, and none of the other six x_* lineage
fields: those are stamped by the engine when it commits. A day outside the run's dates fails the step: nothing is
dropped in silence.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import Field

from common.domain.model import Run
from common.platform.errors import ConfigError, StepTimeoutError
from common.platform.stop import Stop
from common.platform.strict import StrictModel
from common.ports.google import GoogleCloud
from common.ports.http import Calls
from common.ports.warehouse import Warehouse
from common.writes.batch import Batch, Waiting
from common.writes.parts import PartRead, WholeDelivery


class Params(StrictModel):
    """Base of every processor's ``config:`` block: strict, so that a misspelt key is an error."""


class TableParams(Params):
    """``config:`` of a processor that writes a table."""

    destination_table: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,127}$",
        description="Table in the organisation's dataset; its contract is configs/schemas/<table>.yml.",
    )


def no_google() -> GoogleCloud:
    """Raise ConfigError: the default of a stack without Google Cloud."""
    raise ConfigError("this stack is not wired to Google Cloud: common/bootstrap.py does that.")


@dataclass(frozen=True, slots=True)
class StepContext:
    """Everything an attempt may know and use. ``dataset`` is the organisation's ``project.dataset``.

    ``configs`` is the folder that the run was validated against; processors read no other.

    ``table(name)`` is the full id of a table to read; in a ``preview``, of the shadow that an earlier step wrote.
    ``put_out(name, value)`` passes a small JSON value to the conditions and maps of later steps.
    """

    org_slug: str
    pipeline_id: str
    credential_id: str
    run_id: str
    step_id: str
    attempt: int
    start_date: date
    end_date: date
    source: str | None
    project_id: str
    dataset: str
    configs: Path
    table: Callable[[str], str]
    staging: Callable[[], str]
    landing: Path
    deadline: datetime
    warehouse: Warehouse
    provider_url: Callable[[str], str]
    secret: Callable[[], str]
    info: Callable[[str], None]
    warn: Callable[[str], None]
    put_out: Callable[[str, Any], None]
    sleep: Callable[[float], None]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    waiting_on: str = ""
    preview: bool = False
    google: Callable[[], GoogleCloud] = no_google
    stop: Stop = field(default_factory=Stop)

    @property
    def staging_table(self) -> str:
        """The id of the staging table, for SQL to fill; empty if the step writes no table. Made on first use."""
        return self.staging()

    def remaining_s(self) -> float:
        """Return the seconds left of ``timeout_seconds``, or raise StepTimeoutError. Call it between units of work.

        Raises LostLeaseError once the step was taken from the attempt, as a cancel does.
        """
        self.stop.check()
        left = (self.deadline - self.now()).total_seconds()
        if left <= 0:
            raise StepTimeoutError(
                f"Step {self.step_id!r} used up its timeout_seconds. Raise timeout_seconds, or run fewer days at once."
            )
        return left

    def interrupts(self, call: Callable[[], None]) -> AbstractContextManager[None]:
        """Have ``call`` called, by another thread, if the step is taken from the attempt while the block runs."""
        return self.stop.calls(call)


class Caller(Calls, Protocol):
    """The user of a credential: a step's attempt, or a check of stored credentials without a run."""

    @property
    def google(self) -> Callable[[], GoogleCloud]:
        """Google Cloud, authenticated with a key."""

    @property
    def configs(self) -> Path:
        """The folder of contracts and columns that steps are checked against."""


class Processor(Protocol):
    """The work of a step. One class per ``ps_type``, registered in ``common/processors/registry.py``.

    ``params_type`` validates the step's ``config:``. ``needs_credential`` makes the engine look one up for the
    pipeline's provider at validation, so that a missing one fails the run early, with a clear message.
    """

    params_type: ClassVar[type[Params]]
    needs_credential: ClassVar[bool]

    def run(self, context: StepContext, params: Any) -> Iterator[Batch | Waiting | PartRead | WholeDelivery]:
        """Do the work of one attempt; yield Waiting to suspend the step until a job is done.

        PartRead after the batches stages them as a part of a delivery, WholeDelivery instead of batches commits it.

        Raise TransientError or PermanentError; anything else counts as transient.
        """
        ...


@runtime_checkable
class CountsCalls(Protocol):
    """A processor that can estimate its calls of a provider's API, because such a call may cost money."""

    params_type: ClassVar[type[Params]]

    def calls(self, params: Any, days: int) -> Mapping[str, int]:
        """Return about how many calls a step of ``days`` days makes, by key of ``configs/system/providers.yml``."""
        ...


@runtime_checkable
class TriesCredential(Protocol):
    """A processor that can try a stored credential without a run, for ``main.py validate --online``.

    A cloud's credential may be for one of several sources, such as a bucket or an API. ``credential_field`` is a field
    that every credential for this processor has; empty if any of the provider's credentials fits.
    """

    params_type: ClassVar[type[Params]]
    credential_field: ClassVar[str]

    def try_credential(self, caller: Caller, secret: str, configured: Sequence[Params]) -> str:
        """Make the cheapest call that proves a secret, and return in a few words what it opens.

        ``configured`` are the params of all steps of the provider's pipelines. Raises what ProviderClient raises.
        """
        ...


@runtime_checkable
class CallsProcedure(Protocol):
    """A processor that CALLs a stored procedure, which BigQuery can check in advance (a dry run)."""

    params_type: ClassVar[type[Params]]

    def procedure_call(self, run: Run, params: Any, dataset: str) -> tuple[str, Sequence[Any]]:
        """Return the procedure's id and the arguments that this run would call it with."""
        ...
