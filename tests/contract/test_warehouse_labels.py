"""Every job that a step causes has its labels, and its id is told: counted on the emulator's own list of jobs."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.domain.messages import AttemptFailed, AttemptSucceeded
from common.domain.model import Run, RunRequest, RunStatus, Step, StepSpec, StepStatus, WriteSpec
from common.platform.settings import Settings
from common.processors.base import Params, StepContext, TableParams
from common.runs.attempt import AttemptRunner
from common.writes.batch import Batch
from tests.conftest import PROJECT
from tests.contract.writes import D1, NEVER, numbers

SCHEMA = "table: costs\ndescription: d\ncolumns:\n  - {name: name, type: STRING, mode: REQUIRED}\n"
DDL = """
CREATE OR REPLACE PROCEDURE `{dataset}.sp_add`(p_staging STRING, p_org STRING)
BEGIN
  EXECUTE IMMEDIATE FORMAT("INSERT INTO `%s` (name, x_pipeline_run_date, x_org_slug) VALUES ('a', '2026-11-01', '%s')",
    p_staging, p_org);
END
"""


class Does:
    """Writes as the test says."""

    params_type: ClassVar[type[Params]] = TableParams
    needs_credential: ClassVar[bool] = False
    what: ClassVar[str] = "yields"
    names: ClassVar[list[str]] = ["a", "b"]

    def run(self, context: StepContext, params: Any) -> Iterator[Batch]:
        if self.what == "yields":
            yield Batch([{"name": name, "x_pipeline_run_date": D1} for name in self.names])
        elif self.what == "calls":
            context.warehouse.ensure_procedure(f"{context.dataset}.sp_add", DDL.format(dataset=context.dataset))
            job_id = f"{context.run_id}_call"
            org = "globex" if self.names == ["theirs"] else context.org_slug
            context.warehouse.start_call(f"{context.dataset}.sp_add", (context.staging_table, org), job_id=job_id)
            context.warehouse.job_done(job_id, 30)
        else:
            assert list(context.warehouse.query("SELECT 1 AS one")) == [{"one": 1}]
            yield Batch([{"name": "a", "x_pipeline_run_date": D1}])


class World:
    def __init__(self, warehouse: BigQueryWarehouse, folder: Path) -> None:
        (folder / "schemas").mkdir()
        (folder / "schemas" / "costs.yml").write_text(SCHEMA)
        self.warehouse, self.folder, self.org = warehouse, folder, f"org{next(numbers)}"

    def attempt(self, **write: Any) -> AttemptSucceeded | AttemptFailed:
        fence, now = next(numbers), datetime.now(UTC)
        spec = StepSpec("load", "test", config={"destination_table": "costs"}, write=WriteSpec(**write))
        step = Step(spec, StepStatus.RUNNING, attempt=1, fence=fence, lease_until=NEVER)
        request = RunRequest(f"run_{fence}", self.org, "a/b/c", D1, D1, now)
        run = Run(request, RunStatus.RUNNING, pipeline_id="pipe", credential_id="cred", specs=(spec,))
        runner = AttemptRunner(
            settings=Settings(state_dir=self.folder, configs=self.folder, project_id=PROJECT),
            warehouse=lambda: self.warehouse,
            credentials=None,  # type: ignore[arg-type]
            logs=type("Logs", (), {"append": lambda *_: None})(),
            now=lambda: datetime.now(UTC),
            provider_url=str,
        )
        result = runner.run(run, step, lambda: True)
        assert isinstance(result, AttemptSucceeded | AttemptFailed)
        return result

    def jobs(self) -> dict[str, dict[str, str]]:
        """Every job whose labels are of this organisation."""
        every = self.warehouse.connection.client.list_jobs(all_users=True, max_results=500)
        return {job.job_id: job.labels for job in every if job.labels.get("org") == self.org}


@pytest.fixture
def world(warehouse: BigQueryWarehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("common.runs.attempt.processor", lambda _ps_type: Does())
    monkeypatch.setattr(Does, "what", "yields")
    monkeypatch.setattr(Does, "names", ["a", "b"])
    return World(warehouse, tmp_path)


@pytest.mark.parametrize("mode", ["replace_key", "merge", "append_once", "truncate_partition"])
def test_a_write_takes_two_jobs_whatever_its_mode_and_a_new_ledger_takes_one_more(world: World, mode: str) -> None:
    counts = []
    for _ in range(2):
        before = set(world.jobs())
        result = world.attempt(mode=mode, keys=("name",))
        assert isinstance(result, AttemptSucceeded), result
        counts.append(len(set(world.jobs()) - before))
        assert len(result.receipt.job_ids) == counts[-1]
    print(f"\n{mode}: {counts} jobs, the first write makes the ledger")  # noqa: T201
    assert counts == [3, 2]


@pytest.mark.parametrize("what", ["yields", "calls", "queries"])
def test_every_job_of_a_step_has_its_labels_and_stands_on_its_receipt(
    world: World, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Does, "what", what)
    result = world.attempt()
    assert isinstance(result, AttemptSucceeded), result
    jobs = world.jobs()
    assert sorted(result.receipt.job_ids) == sorted(jobs)
    labels = {
        "org": world.org,
        "pipeline": "pipe",
        "run": result.receipt.job_ids[-1].partition("_load")[0],
        "step": "load",
    }
    assert all(given == labels for given in jobs.values()), jobs


def test_what_a_procedure_read_of_another_organisation_fails_the_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Does, "what", "calls")
    monkeypatch.setattr(Does, "names", ["theirs"])
    result = world.attempt()
    assert isinstance(result, AttemptFailed) and not result.kind
    assert f"1 staged rows are of another organisation than {world.org}" in result.error


def test_the_jobs_of_one_step_are_not_told_to_another(warehouse: BigQueryWarehouse) -> None:
    mine, theirs = list[str](), list[str]()
    first = warehouse.labelled({"org": "a"}, mine.append)
    second = warehouse.labelled({"org": "b"}, theirs.append)
    assert list(first.query("SELECT 1 AS n")) == [{"n": 1}] and list(second.query("SELECT 2 AS n")) == [{"n": 2}]
    assert len(mine) == len(theirs) == 1 and mine != theirs
    assert json.dumps(warehouse.connection.client.get_job(mine[0]).labels) == '{"org": "a"}'
