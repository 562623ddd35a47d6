"""``generic.procedure_executor``: CALLs a procedure of ``configs/sql/`` that fills the step's staging table.

A procedure's signature is ``(p_source STRING, p_staging STRING, p_org_slug STRING, p_pipeline_id STRING,
p_credential_id STRING, p_start_date DATE, p_end_date DATE, …)``; what follows are the full names of ``further_tables``,
then ``arguments``. It inserts into ``p_staging`` and nowhere else: the engine commits from there, with lineage.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from common.domain.model import Run
from common.platform.errors import PermanentError, PipelineOpsError, nearest
from common.processors.base import Params, StepContext
from common.writes.batch import Batch, Waiting

HOLD_S = 20.0
"""How long a function is held for a job that may be done soon."""

LOOK_AGAIN = timedelta(seconds=30)

TABLE = r"^[a-z][a-z0-9_]{0,127}$"


class ProcedureParams(Params):
    """``config:`` of a procedure step."""

    procedure: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,127}$", description="Name of the procedure; its text is configs/sql/<name>.sql."
    )
    source_table: str | None = Field(None, pattern=TABLE, description="Table it reads, in the organisation's dataset.")
    further_tables: tuple[Annotated[str, StringConstraints(pattern=TABLE)], ...] = Field(
        (), description="More tables that it reads: their full names are arguments after the fixed seven."
    )
    destination_table: str | None = Field(
        None, pattern=TABLE, description="Table the engine writes what it staged to; without one it stages nothing."
    )
    arguments: tuple[str | int | bool, ...] = Field(
        (), description="Further arguments, after the fixed seven and the further tables."
    )

    @field_validator("procedure")
    @classmethod
    def _has_a_file(cls, name: str, info: ValidationInfo) -> str:
        if info.context and "configs" in info.context:
            _text(info.context["configs"], name)
        return name


class ProcedureExecutor:
    """Deploys the procedure into the organisation's dataset when its text is new there, calls it, waits for its job.

    A short job is waited for here. A longer one goes on by itself, and no function is held: the step is suspended
    and looks again. The job's id comes from the attempt, so that a repeat finds the job and never starts a second.
    """

    params_type: ClassVar[type[Params]] = ProcedureParams
    needs_credential: ClassVar[bool] = False

    def run(self, context: StepContext, params: ProcedureParams) -> Iterator[Batch | Waiting]:
        if context.preview and params.destination_table is None:
            raise PermanentError(
                f"Procedure {params.procedure} can't be previewed: without a destination_table it may change anything."
            )
        job_id = context.waiting_on or _running_job(context, params) or self._start(context, params)
        if not context.warehouse.job_done(job_id, min(HOLD_S, context.remaining_s())):
            yield Waiting(job_id, context.now() + LOOK_AGAIN)

    def _start(self, context: StepContext, params: ProcedureParams) -> str:
        procedure = f"{context.dataset}.{params.procedure}"
        context.warehouse.ensure_procedure(procedure, _ddl(context.configs, params.procedure, context.dataset))
        context.remaining_s()
        fixed = (
            context.table(params.source_table) if params.source_table else None,
            context.staging_table,
            context.org_slug,
            context.pipeline_id,
            context.credential_id,
            context.start_date,
            context.end_date,
        )
        job_id = _job_id(context, context.attempt)
        tables = tuple(context.table(name) for name in params.further_tables)
        context.warehouse.start_call(procedure, (*fixed, *tables, *params.arguments), job_id=job_id)
        return job_id

    def procedure_call(self, run: Run, params: ProcedureParams, dataset: str) -> tuple[str, Sequence[Any]]:
        """Return the call that a step of this run will make. Its staging table is not there yet."""
        request = run.request
        fixed = (
            f"{dataset}.{params.source_table}" if params.source_table else None,
            f"{dataset}.{params.destination_table or params.procedure}__staging",
            request.org_slug,
            run.pipeline_id,
            run.credential_id,
            request.start_date,
            request.end_date,
        )
        return f"{dataset}.{params.procedure}", (*fixed, *params.arguments)


def _job_id(context: StepContext, attempt: int) -> str:
    return f"{context.run_id}_{context.step_id}_{attempt}_call"


def _running_job(context: StepContext, params: ProcedureParams) -> str | None:
    """Return the job of an attempt before that is still at work or has done its work, if it will do for this one.

    It will where nothing is staged. A procedure that fills a staging table fills that of its own attempt, which
    nobody commits any more, so beside it a second one does no harm.
    """
    if params.destination_table is not None:
        return None
    for attempt in range(context.attempt - 1, 0, -1):
        job_id = _job_id(context, attempt)
        try:
            if context.warehouse.job_done(job_id, 0) is not None:
                context.info(f"Goes on with the job of attempt {attempt}.")
                return job_id
        except PipelineOpsError:
            continue  # that one failed, as its attempt has told
    return None


def _ddl(configs: Path, name: str, dataset: str) -> str:
    try:
        return _text(configs, name).read_text("utf-8").replace("{dataset}", dataset)
    except ValueError as error:
        raise PermanentError(str(error)) from error


def _text(configs: Path, name: str) -> Path:
    """Return the procedure's file. Raises ValueError."""
    folder = configs / "sql"
    path = folder / f"{name}.sql"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.sql"))
        listed = ", ".join(known[:20]) or "none"
        raise ValueError(f"there is no configs/sql/{name}.sql.{nearest(name, known)} Known: {listed}.")
    return path
