"""``generic.procedure_executor``: CALLs a procedure of ``configs/sql/`` that fills the step's staging table.

A procedure's signature is ``(p_source STRING, p_staging STRING, p_org_slug STRING, p_pipeline_id STRING,
p_credential_id STRING, p_start_date DATE, p_end_date DATE, …)``; what follows comes from ``arguments``. It inserts into
``p_staging`` and nowhere else: the engine commits from there, with lineage.
"""

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from common.errors import PermanentError, nearest
from common.paths import configs_dir
from common.processors.base import Batch, Params, StepContext

TABLE = r"^[a-z][a-z0-9_]{0,127}$"


class ProcedureParams(Params):
    """``config:`` of a procedure step."""

    procedure: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,127}$", description="Name of the procedure; its text is configs/sql/<name>.sql."
    )
    source_table: str | None = Field(None, pattern=TABLE, description="Table it reads, in the organisation's dataset.")
    destination_table: str | None = Field(
        None, pattern=TABLE, description="Table the engine writes what it staged to; without one it stages nothing."
    )
    arguments: tuple[str | int | bool, ...] = Field((), description="Further arguments, after the fixed seven.")


class ProcedureExecutor:
    """Deploys the procedure into the organisation's dataset when its text is new there, and calls it."""

    params_type: ClassVar[type[Params]] = ProcedureParams
    needs_credential: ClassVar[bool] = False

    def run(self, context: StepContext, params: ProcedureParams) -> Iterator[Batch]:
        procedure = f"{context.dataset}.{params.procedure}"
        context.warehouse.ensure_procedure(procedure, _ddl(params.procedure, context.dataset))
        context.remaining_s()
        source = f"{context.dataset}.{params.source_table}" if params.source_table else None
        fixed = (
            source,
            context.staging_table,
            context.org_slug,
            context.pipeline_id,
            context.credential_id,
            context.start_date,
            context.end_date,
        )
        job_id = f"{context.run_id}_{context.step_id}_{context.attempt}_call"
        context.warehouse.call(procedure, (*fixed, *params.arguments), job_id=job_id)
        yield from ()


def _ddl(name: str, dataset: str) -> str:
    folder = configs_dir() / "sql"
    path = folder / f"{name}.sql"
    if not path.is_file():
        known = [p.stem for p in folder.glob("*.sql")]
        raise PermanentError(f"There is no configs/sql/{name}.sql.{nearest(name, known)} Known: {', '.join(known)}.")
    return path.read_text("utf-8").replace("{dataset}", dataset)
