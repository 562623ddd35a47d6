"""The procedure step: what it deploys, what it calls, what it refuses."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from common.errors import PermanentError
from common.processors.procedure_executor import ProcedureExecutor, ProcedureParams
from tests.processors.context import make_context


class RecordingWarehouse:
    """Keeps what it was asked to do."""

    def __init__(self) -> None:
        self.deployed: list[tuple[str, str]] = []
        self.called: list[tuple[str, tuple[Any, ...], str]] = []

    def ensure_procedure(self, procedure: str, ddl: str) -> None:
        self.deployed.append((procedure, ddl))

    def call(self, procedure: str, args: Any, *, job_id: str) -> None:
        self.called.append((procedure, tuple(args), job_id))


@pytest.fixture
def sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIPELINE_OPS_CONFIGS", str(tmp_path))
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "sp_do.sql").write_text("CREATE OR REPLACE PROCEDURE `{dataset}.sp_do`() BEGIN END")
    return tmp_path / "sql"


def test_the_procedure_is_deployed_and_called_with_the_runs_key_and_dates(sql: Path) -> None:
    warehouse = RecordingWarehouse()
    context = make_context(
        warehouse=warehouse,
        dataset="project-x.acme_local",
        staging_table="project-x.acme_local.t__stage_1",
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


def test_a_procedure_without_a_file_is_refused_with_the_nearest_one(sql: Path) -> None:
    with pytest.raises(PermanentError, match="Did you mean 'sp_do'"):
        list(ProcedureExecutor().run(make_context(warehouse=RecordingWarehouse()), ProcedureParams(procedure="sp_doo")))


@pytest.mark.parametrize("name", ["sp;drop", "../sp_do", "Sp", "a.b", "`x`", ""])
def test_what_is_no_identifier_is_refused_before_anything_runs(name: str) -> None:
    for field in ("procedure", "source_table", "destination_table"):
        with pytest.raises(ValidationError):
            ProcedureParams(**{"procedure": "sp_do", field: name})
