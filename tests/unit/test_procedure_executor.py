"""The procedure step: what it deploys, what it calls, what it refuses."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from common.platform.errors import PermanentError
from common.processors.sql.procedure_executor import ProcedureExecutor, ProcedureParams
from tests.processors.context import NOW, make_context


class RecordingWarehouse:
    """Keeps what it was asked to do."""

    def __init__(self) -> None:
        self.deployed: list[tuple[str, str]] = []
        self.called: list[tuple[str, tuple[Any, ...], str]] = []
        self.jobs: dict[str, str] = {}

    def ensure_procedure(self, procedure: str, ddl: str) -> None:
        self.deployed.append((procedure, ddl))

    def start_call(self, procedure: str, args: Any, *, job_id: str) -> None:
        self.called.append((procedure, tuple(args), job_id))
        self.jobs.setdefault(job_id, "done")

    def job_done(self, job_id: str, wait_s: float) -> bool | None:
        state = self.jobs.get(job_id)
        if state == "failed":
            raise PermanentError("the job failed")
        return None if state is None else state == "done"


@pytest.fixture
def sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tests.processors.context.CONFIGS", tmp_path)
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "sp_do.sql").write_text("CREATE OR REPLACE PROCEDURE `{dataset}.sp_do`() BEGIN END")
    return tmp_path / "sql"


def test_the_procedure_is_deployed_and_called_with_the_runs_key_and_dates(sql: Path) -> None:
    warehouse = RecordingWarehouse()
    context = make_context(
        warehouse=warehouse,
        dataset="project-x.acme_local",
        table=lambda name: f"project-x.acme_local.{name}",
        staging=lambda: "project-x.acme_local.t__stage_1",
        org_slug="acme",
        pipeline_id="pipe",
        credential_id="cred",
        run_id="run_1",
        step_id="unify",
        attempt=2,
        start_date=date(2026, 11, 1),
        end_date=date(2026, 11, 2),
    )
    params = ProcedureParams(procedure="sp_do", source_table="costs", destination_table="t", arguments=("x", 1, True))
    assert list(ProcedureExecutor().run(context, params)) == []
    ddl = "CREATE OR REPLACE PROCEDURE `project-x.acme_local.sp_do`() BEGIN END"
    assert warehouse.deployed == [("project-x.acme_local.sp_do", ddl)]
    (called,) = warehouse.called
    assert called == (
        "project-x.acme_local.sp_do",
        (
            "project-x.acme_local.costs",
            "project-x.acme_local.t__stage_1",
            "acme",
            "pipe",
            "cred",
            date(2026, 11, 1),
            date(2026, 11, 2),
            "x",
            1,
            True,
        ),
        "run_1_unify_2_call",
    )


def look(warehouse: RecordingWarehouse, attempt: int = 1, waiting_on: str = "", table: str | None = None) -> list[Any]:
    fields = {"run_id": "run_1", "step_id": "s", "attempt": attempt, "waiting_on": waiting_on}
    params = ProcedureParams(procedure="sp_do", destination_table=table)
    return list(ProcedureExecutor().run(make_context(warehouse=warehouse, **fields), params))


def test_a_job_that_takes_long_is_waited_for_without_a_function(sql: Path) -> None:
    warehouse = RecordingWarehouse()
    warehouse.jobs["run_1_s_1_call"] = "running"
    (waiting,) = look(warehouse)
    assert waiting.job == "run_1_s_1_call" and (waiting.look_at - NOW).total_seconds() == 30
    assert look(warehouse, waiting_on=waiting.job) == [waiting]
    warehouse.jobs[waiting.job] = "done"
    assert look(warehouse, waiting_on=waiting.job) == []
    assert len(warehouse.called) == 1


def test_the_failure_of_a_job_that_was_waited_for_is_told(sql: Path) -> None:
    warehouse = RecordingWarehouse()
    warehouse.jobs["job"] = "failed"
    with pytest.raises(PermanentError, match="the job failed"):
        look(warehouse, waiting_on="job")


@pytest.mark.parametrize(("state", "started"), [("running", 0), ("done", 0), ("failed", 1)])
def test_a_further_attempt_goes_on_with_the_job_of_a_lost_one(sql: Path, state: str, started: int) -> None:
    warehouse = RecordingWarehouse()
    warehouse.jobs["run_1_s_1_call"] = state
    look(warehouse, attempt=2)
    assert len(warehouse.called) == started


def test_a_further_attempt_that_stages_rows_starts_a_job_of_its_own(sql: Path) -> None:
    """The job of the lost attempt fills the staging table of that attempt."""
    warehouse = RecordingWarehouse()
    warehouse.jobs["run_1_s_1_call"] = "running"
    look(warehouse, attempt=2, table="t")
    assert [job_id for _, _, job_id in warehouse.called] == ["run_1_s_2_call"]


def test_a_procedure_without_a_file_is_refused_with_the_nearest_one(sql: Path) -> None:
    with pytest.raises(PermanentError, match="Did you mean 'sp_do'"):
        list(ProcedureExecutor().run(make_context(warehouse=RecordingWarehouse()), ProcedureParams(procedure="sp_doo")))


@pytest.mark.parametrize("name", ["sp;drop", "../sp_do", "Sp", "a.b", "`x`", ""])
def test_what_is_no_identifier_is_refused_before_anything_runs(name: str) -> None:
    for field in ("procedure", "source_table", "destination_table"):
        with pytest.raises(ValidationError):
            ProcedureParams(**{"procedure": "sp_do", field: name})


def test_a_procedure_that_may_change_anything_is_not_called_in_a_preview(sql: Path) -> None:
    warehouse = RecordingWarehouse()
    with pytest.raises(PermanentError, match="sp_do can't be previewed"):
        list(
            ProcedureExecutor().run(make_context(warehouse=warehouse, preview=True), ProcedureParams(procedure="sp_do"))
        )
    assert warehouse.called == []
