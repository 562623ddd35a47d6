"""Runs in the meta tables of a real emulator: written once, whole, and as the queries of docs/meta.md find them."""

import itertools
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.domain.model import Receipt, Run, RunRequest, RunStatus, Step, StepSpec, StepStatus
from common.domain.state import Change
from common.meta import archive as archive_module
from common.meta.archive import WarehouseArchive
from common.meta.rows import META_TABLES, RUNS
from common.platform.errors import PipelineOpsError
from common.platform.paths import CONFIGS
from common.platform.settings import Settings
from common.ports.meta import JobStats
from infra.local.emulator import BigQueryEmulator
from tests.conftest import PROJECT

END = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
D1 = date(2026, 11, 20)
TEXT = "ünï'\"\n`;--\\ ${x}"
numbers = itertools.count()


def settings() -> Settings:
    return Settings(project_id=PROJECT, location="US", environment=f"meta{next(numbers)}")


def dataset(chosen: Settings) -> str:
    return f"{PROJECT}.{chosen.dataset('acme')}"


def run_of(run_id: str = "run_1", pipeline: str = "pipe", *steps: Step, **more: Any) -> Run:
    # the ids of jobs are made of it, and all tests share one emulator
    request = RunRequest(f"{run_id}_{uuid4().hex[:12]}", "acme", "a/b/c", D1, D1, END - timedelta(minutes=9))
    made: dict[str, Any] = {"status": RunStatus.COMPLETED, "ended_at": END, "pipeline_id": pipeline}
    return Run(request, steps={step.step_id: step for step in steps}, **made | more)


def step(name: str, seconds: float = 1, status: str = "succeeded", **more: Any) -> Step:
    spec = StepSpec(name, "test.noop")
    started = END - timedelta(minutes=5)
    times = {"started_at": started, "ended_at": started + timedelta(seconds=seconds)}
    return Step(spec, StepStatus(status), attempt=2, **{**times, **more})


CHANGES = [
    Change(END - timedelta(minutes=9), "", 0, "", "pending", "asked for"),
    Change(END, "load", 2, "running", "succeeded", TEXT),
]


def counts(warehouse: BigQueryWarehouse, chosen: Settings) -> list[int]:
    queries = (f"SELECT COUNT(*) AS n FROM `{dataset(chosen)}.{name}`" for name in META_TABLES)
    return [next(warehouse.query(sql))["n"] for sql in queries]


def rows(warehouse: BigQueryWarehouse, chosen: Settings, name: str) -> list[dict[str, Any]]:
    return list(warehouse.query(f"SELECT * FROM `{dataset(chosen)}.{name}` ORDER BY run_id"))


def test_what_was_kept_is_found_value_by_value(warehouse: BigQueryWarehouse) -> None:
    chosen = settings()
    warehouse.ensure_table(f"{dataset(chosen)}.org_meta_costs", archive(chosen, warehouse)._tables["org_meta_costs"])
    list(warehouse.query("SELECT 1"))
    job_id = f"job_{dataset(chosen).replace('.', '_')}"
    jobs = warehouse._jobs.labelled({"org": "acme"}, lambda _job_id: None)
    list(jobs.rows(jobs.query("SELECT 1", job_id=job_id)))
    receipt = Receipt(7, f"{PROJECT}.d.t", (job_id,), "hash", END, ("a", TEXT), bad_rows=3, drift={"new": ["x"]})
    run = run_of("run_1", "pipe", step("load", receipt=receipt, error=TEXT), error=TEXT, credential_id="cred")
    archive(chosen, warehouse).keep(run, lambda: CHANGES)

    its_job = warehouse.connection.client.get_job(f"meta_{run.run_id}_0_0")
    assert its_job.labels == {"org": "acme", "pipeline": "pipe", "run": run.run_id, "step": "run_finished"}
    (kept,) = rows(warehouse, chosen, RUNS)
    assert (kept["error_message"], kept["rows_written"], kept["start_date"], kept["run_ended_at"]) == (TEXT, 7, D1, END)
    assert kept["started_at"] is None and kept["rerun_of"] is None
    (its_step,) = rows(warehouse, chosen, "org_meta_step_runs")
    assert its_step["warnings"] == ["a", TEXT] and its_step["drift"] == {"new": ["x"]} and its_step["is_kept"] is False
    assert (its_step["bad_rows"], its_step["attempts"], its_step["ingested_at"]) == (3, 2, END)
    first, second = sorted(rows(warehouse, chosen, "org_meta_transitions"), key=lambda row: row["seq"])
    assert (first["step_id"], first["state_before"], first["state_after"]) == (None, None, "pending")
    assert second["reason"] == TEXT
    (cost,) = rows(warehouse, chosen, "org_meta_costs")
    assert (cost["job_id"], cost["job_type"], cost["step_id"]) == (job_id, "query", "load")
    assert (cost["bytes_billed"], cost["cost_usd"], cost["usd_per_tib"]) == (0, Decimal(0), Decimal("6.25"))
    assert cost["labels"] == {"org": "acme"} and cost["ended_at"] >= cost["started_at"]


def archive(chosen: Settings, warehouse: BigQueryWarehouse) -> WarehouseArchive:
    return WarehouseArchive(chosen, lambda: warehouse)


def test_many_deliveries_one_after_the_other_and_at_once_write_once(
    warehouse: BigQueryWarehouse, bigquery_emulator: BigQueryEmulator
) -> None:
    chosen, run = settings(), run_of("run_1", "pipe", step("load"))
    errors: list[Exception] = []
    start = threading.Barrier(4)
    mine = archive(chosen, warehouse)

    def deliver() -> None:
        start.wait()
        try:
            mine.keep(run, lambda: CHANGES)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=deliver) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    another_process = BigQueryWarehouse(PROJECT, location="US", emulator_url=bigquery_emulator.url)
    archive(chosen, another_process).keep(run, lambda: CHANGES)
    assert errors == [] and counts(warehouse, chosen) == [2, 1, 0, 1]


def test_runs_that_end_at_the_same_time_do_not_hinder_each_other(warehouse: BigQueryWarehouse) -> None:
    chosen = settings()
    mine = archive(chosen, warehouse)
    errors: list[Exception] = []

    def keep(number: int) -> None:
        for _ in range(8):  # the emulator cancels more than BigQuery does: there, INSERTs never conflict
            try:
                return mine.keep(run_of(f"run_{number}", "pipe", step("load")), lambda: CHANGES)
            except PipelineOpsError as error:
                last: Exception = error
        errors.append(last)

    threads = [threading.Thread(target=keep, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and counts(warehouse, chosen) == [8, 4, 0, 4]


def test_a_run_whose_rows_are_there_is_not_written_again_even_by_a_job_of_another_id(
    warehouse: BigQueryWarehouse,
) -> None:
    chosen, run = settings(), run_of()
    archive(chosen, warehouse).keep(run, lambda: CHANGES)
    written: list[Any] = []
    taken = archive(chosen, warehouse)
    original = warehouse.meta.append
    try:
        warehouse.meta.append = written.append  # type: ignore[method-assign]
        taken.keep(run, lambda: CHANGES)
    finally:
        warehouse.meta.append = original  # type: ignore[method-assign]
    warehouse.meta.append(replace(written[0], job_id=f"other_{next(numbers)}_{dataset(chosen).replace('.', '_')}"))
    assert counts(warehouse, chosen) == [2, 0, 0, 1]


@pytest.mark.wrong_sql
def test_a_write_that_failed_leaves_nothing_and_succeeds_once_its_cause_is_mended(
    warehouse: BigQueryWarehouse,
) -> None:
    chosen, run = settings(), run_of("run_1", "pipe", step("load"))
    mine = archive(chosen, warehouse)
    mine.keep(run_of("run_0"), lambda: CHANGES)
    list(warehouse.query(f"ALTER TABLE `{dataset(chosen)}.{RUNS}` DROP COLUMN reason"))
    for _ in range(2):
        with pytest.raises(PipelineOpsError, match="could not keep run run_1_"):
            mine.keep(run, lambda: CHANGES)
    assert counts(warehouse, chosen) == [2, 0, 0, 1]
    list(warehouse.query(f"ALTER TABLE `{dataset(chosen)}.{RUNS}` ADD COLUMN reason STRING"))
    for _ in range(2):
        mine.keep(run, lambda: CHANGES)
    assert counts(warehouse, chosen) == [4, 1, 0, 2]


def test_a_run_that_takes_several_jobs_is_there_with_the_last(
    warehouse: BigQueryWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "ROWS_PER_JOB", 2)
    chosen, run = settings(), run_of("run_1", "pipe", *(step(f"s{n}") for n in range(3)))
    real = warehouse.meta.append
    calls: list[str] = []

    def dies_at_the_second(write: Any) -> None:
        calls.append(write.job_id)
        if len(calls) == 2:
            raise ConnectionError
        real(write)

    monkeypatch.setattr(warehouse.meta, "append", dies_at_the_second)
    mine = archive(chosen, warehouse)
    with pytest.raises(ConnectionError):
        mine.keep(run, lambda: CHANGES)
    assert counts(warehouse, chosen) == [2, 0, 0, 0]
    for _ in range(2):
        mine.keep(run, lambda: CHANGES)
    assert counts(warehouse, chosen) == [2, 3, 0, 1]


def test_nothing_is_known_of_a_job_that_there_is_not(warehouse: BigQueryWarehouse) -> None:
    assert warehouse.meta.job_stats(f"job_{next(numbers)}_nowhere") is None


GIB = 2**30
BILLED = {"big": 512 * GIB, "small": 512 * GIB // 5, "other": 10 * 2**20, "load": None}


def stats(job_id: str) -> JobStats:
    kind = "load" if job_id == "load" else "query"
    return JobStats(job_id, kind, bytes_billed=BILLED[job_id])


def of(*jobs: str) -> Receipt:
    return Receipt(1, "p.d.t", jobs, "", END)


def queries() -> dict[str, str]:
    text = (CONFIGS.parent / "docs" / "meta.md").read_text("utf-8")
    return dict(re.findall(r"## ([^\n]*)\n\n```sql\n(.*?)```", text, re.DOTALL))


@pytest.fixture(scope="module")
def looked_at(warehouse: BigQueryWarehouse) -> dict[str, Sequence[dict[str, Any]]]:
    """What each query of the docs finds in three runs."""
    chosen = settings()
    mine = archive(chosen, warehouse)
    patch = pytest.MonkeyPatch()
    patch.setattr(warehouse.meta, "job_stats", stats)
    item = step("each[0]", 90, "failed", error="boom")
    runs = [
        run_of("run_1", "dear", step("load", 1.5, receipt=of("load", "big"))),
        run_of(
            "run_2", "dear", step("load", 60.25, receipt=of("small")), step("each", 9, "failed", error="1 of 1"), item
        ),
        run_of("run_3", "cheap", step("load", 0.5, "failed", error="no answer", receipt=of("other"))),
        run_of("run_4", "cheap", step("load", 0.5, "failed", error="no answer"), ended_at=END + timedelta(hours=1)),
        run_of("run_5", "old", step("load", 9_999, "failed"), ended_at=END - timedelta(days=90)),
    ]
    try:
        for run in runs:
            mine.keep(run, lambda: CHANGES)
    finally:
        patch.undo()
    return {name: list(warehouse.query(sql.format(dataset=dataset(chosen)))) for name, sql in queries().items()}


def test_the_documents_hold_three_queries() -> None:
    assert list(queries()) == ["Cost per pipeline", "Slowest steps", "Failures by reason"]


def test_cost_per_pipeline(looked_at: dict[str, Sequence[dict[str, Any]]]) -> None:
    # half a TiB and a tenth of one at 6.25: 3.125 + 0.625, less a fraction of a byte; 10 MiB: 62.5 / 2^20
    dear, cheap = looked_at["Cost per pipeline"]
    assert (dear["pipeline_id"], dear["runs"]) == ("dear", 2)
    assert abs(dear["cost_usd"] - Decimal("3.75")) < Decimal("1e-11")
    assert (cheap["pipeline_id"], cheap["runs"], cheap["bytes_billed"]) == ("cheap", 1, 10 * 2**20)
    assert cheap["cost_usd"] == Decimal("0.000059604644775391"), "rounded to the 18 decimals of the emulator"


def test_slowest_steps(looked_at: dict[str, Sequence[dict[str, Any]]]) -> None:
    found = [
        (row["pipeline_id"], row["step_id"], float(row["slowest_s"]), row["times"])
        for row in looked_at["Slowest steps"]
    ]
    assert found == [
        ("dear", "each[0]", 90.0, 1),
        ("dear", "load", 60.25, 2),
        ("dear", "each", 9.0, 1),
        ("cheap", "load", 0.5, 2),
    ]


def test_failures_by_reason(looked_at: dict[str, Sequence[dict[str, Any]]]) -> None:
    found = [
        (row["pipeline_id"], row["step_id"], row["error_message"], row["times"])
        for row in looked_at["Failures by reason"]
    ]
    assert found == [("cheap", "load", "no answer", 2), ("dear", "each", "1 of 1", 1)]


def test_a_job_that_died_with_the_emulators_process_is_not_waited_for(tmp_path: Path) -> None:
    from common.adapters.bigquery.jobs import Connection
    from common.adapters.bigquery.meta import BigQueryMeta

    meta = BigQueryMeta(Connection(PROJECT, "US", None), is_emulator=True)

    class Job:
        state, error_result = "RUNNING", None
        created = datetime.now(UTC) - timedelta(hours=1)

    class Now(Job):
        created = datetime.now(UTC) + timedelta(hours=1)

    assert meta._has_failed(Job()) and not meta._has_failed(Now())
    cloud = BigQueryMeta(Connection(PROJECT, "US", None), is_emulator=False)
    assert not cloud._has_failed(Job()), "a job in the cloud lives on: it is waited for"
