"""What becomes of an ended run in the meta tables, and what its jobs cost."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.config.bigquery_prices import PRICES_FILE, BigQueryPrices, load_prices
from common.config.check import validate_tree
from common.config.problems import InvalidFileError
from common.domain.messages import JobsCost
from common.domain.model import Receipt, RetryPolicy, Run, RunRequest, RunStatus, Step, StepSpec, StepStatus
from common.domain.state import Change
from common.meta.archive import ROWS_PER_JOB, WarehouseArchive
from common.meta.costs import TIB, cost_usd
from common.meta.rows import COSTS, META_TABLES, RUNS, STEPS, TRANSITIONS, Pricing, jobs_cost, jobs_of, rows_of
from common.platform.paths import CONFIGS
from common.platform.settings import Settings
from common.ports.meta import JobStats, MetaWrite
from common.processors.registry import REGISTRY
from common.tables.contract import load_meta_table

NOW = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
DAY = date(2026, 11, 20)
PRICES = BigQueryPrices(source="a page", read_on="2026-11-21", usd_per_tib={"US": "6.25"})  # type: ignore[arg-type]
PRICING = Pricing(PRICES, "US", 38)
LOAD, SCRIPT = JobStats("load", "load"), JobStats("commit", "query", "SCRIPT", bytes_billed=20 * 2**20)


def step(name: str, status: str = "succeeded", **more: Any) -> Step:
    spec = StepSpec(name.partition("[")[0], "test.noop", retry=RetryPolicy(3))
    return Step(replace(spec, step_id=name), StepStatus(status), attempt=1, ended_at=NOW, **more)


def receipt(rows: int, *jobs: str, at: datetime = NOW) -> Receipt:
    return Receipt(rows, "p.d.t", jobs, "hash", at, bad_rows=1)


def run_of(*steps: Step, **more: Any) -> Run:
    request = RunRequest("run_1", "acme", "a/b/c", DAY, DAY, NOW - timedelta(minutes=5))
    specs = tuple(step.spec for step in steps)
    made: dict[str, Any] = {"status": RunStatus.COMPLETED, "ended_at": NOW, "pipeline_id": "pipe", "specs": specs}
    return Run(request, steps={step.step_id: step for step in steps}, **made | more)


@pytest.mark.parametrize(
    ("billed", "expected"),
    [
        (TIB, "6.25"),
        (10 * 2**20, "0.000059604644775390625"),  # 10 MiB x 6.25 / 2^40 = 62.5 / 2^20
        (1, "0.00000000000568434188608080148697"),  # 6.25 / 2^40 = 5.684341886080801486968994140625e-12
        (0, "0"),
    ],
)
def test_a_query_costs_what_it_is_billed_for_exactly(billed: int, expected: str) -> None:
    known = Decimal(expected)
    decimals = max(-int(known.as_tuple().exponent), 2)
    assert cost_usd(JobStats("j", "query", bytes_billed=billed), Decimal("6.25"), decimals) == known


def test_a_cost_is_rounded_once_half_even() -> None:
    price = Decimal(TIB) / 1000  # so that a byte costs 0.001
    costs = [cost_usd(JobStats("j", "query", bytes_billed=n), price, 2) for n in (5, 15, 25, 35)]
    assert [str(cost) for cost in costs] == ["0.00", "0.02", "0.02", "0.04"]


@pytest.mark.parametrize("kind", ["load", "copy", "extract"])
def test_loads_cost_nothing_whatever_they_read(kind: str) -> None:
    assert cost_usd(JobStats("j", kind, bytes_billed=TIB), Decimal("6.25"), 18) == 0
    assert cost_usd(JobStats("j", kind), None, 18) == 0


def test_what_has_no_price_or_no_bytes_has_no_cost_rather_than_none_at_all() -> None:
    assert cost_usd(JobStats("j", "query", bytes_billed=1), None, 18) is None
    assert cost_usd(JobStats("j", "query"), Decimal("6.25"), 18) is None
    assert Pricing(PRICES, "mars-north1", 18).usd_per_tib is None and Pricing(None, "US", 18).usd_per_tib is None


def test_the_price_in_the_repository_is_the_list_price() -> None:
    prices = load_prices(CONFIGS)
    assert prices is not None and prices.usd_per_tib["US"] == Decimal("6.25")
    assert "cloud.google.com/bigquery/pricing" in prices.named


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "source: s\nread_on: '2026-11-21'\nusd_per_tib: {US: 6.25}\n",
            "3: usd_per_tib.US: must be a number in quotes",
        ),
        ("source: s\nread_on: '2026-11-21'\nusd_per_tib: {US: '-1'}\n", "3: usd_per_tib.US: must be greater than or"),
        ("source: s\nread_on: never\nusd_per_tib: {}\n", "2: read_on: must be a valid date"),
        ("sauce: s\n", "1: sauce: unknown key. Did you mean 'source'?"),
    ],
)
def test_mistakes_in_the_prices_are_named(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "system").mkdir()
    assert load_prices(tmp_path) is None
    (tmp_path / PRICES_FILE).write_text(text)
    with pytest.raises(InvalidFileError, match="system/bigquery_prices.yml:") as caught:
        load_prices(tmp_path)
    assert any(f"bigquery_prices.yml:{expected}" in str(problem) for problem in caught.value.problems)
    (result,) = validate_tree(tmp_path, REGISTRY, tmp_path / PRICES_FILE)
    assert not result.ok


def test_every_row_has_columns_of_its_contract_and_all_that_are_required() -> None:
    full = step("load", receipt=receipt(7, "load", "commit"), started_at=NOW, error="e", reason="r")
    changes = [Change(NOW, "", 0, "", "pending", "asked"), Change(NOW, "load", 1, "queued", "running", "claimed")]
    stats = {"load": LOAD, "commit": replace(SCRIPT, labels={"a": "b"}, started_at=NOW, slot_ms=3)}
    rows = rows_of(run_of(full, error="x", reason="y"), changes, stats, PRICING)
    assert tuple(rows) == META_TABLES and META_TABLES[-1] == RUNS
    for name, every in rows.items():
        table = load_meta_table(CONFIGS, name)
        required = {column.name for column in table.columns if column.mode == "REQUIRED"}
        for row in every:
            assert required <= row.keys() <= set(table.names), name


def test_a_run_counts_its_steps_and_rows_and_leaves_out_the_items_of_maps() -> None:
    items = [step(f"each[{n}]", receipt=receipt(5, f"job{n}")) for n in range(2)]
    mapped = step("each", receipt=receipt(10), items=("a", "b"))
    rows = rows_of(run_of(step("one", "failed", error="why"), mapped, *items), [], {}, PRICING)
    (run,) = rows[RUNS]
    assert (run["steps"], run["steps_failed"], run["rows_written"]) == ("2", "1", "10")
    assert [(row["step_id"], row.get("map_step_id")) for row in rows[STEPS]] == [
        ("one", None),
        ("each", None),
        ("each[0]", "each"),
        ("each[1]", "each"),
    ]
    assert {row["job_id"]: row["step_id"] for row in rows[COSTS]} == {"job0": "each[0]", "job1": "each[1]"}


def test_what_a_rerun_kept_is_not_written_or_paid_twice() -> None:
    kept = step("old", receipt=receipt(5, "old_job", at=NOW - timedelta(hours=1)))
    run = run_of(kept, step("new", receipt=receipt(3, "new_job")))
    rows = rows_of(run, [], {}, PRICING)
    assert jobs_of(run) == {"new_job": "new"}
    assert rows[RUNS][0]["rows_written"] == "3"
    assert [row["is_kept"] for row in rows[STEPS]] == [True, False]


def test_a_job_that_bigquery_does_not_know_is_kept_without_figures() -> None:
    (row,) = rows_of(run_of(step("s", receipt=receipt(1, "gone"))), [], {"gone": None}, PRICING)[COSTS]
    assert row["job_id"] == "gone" and "cost_usd" not in row and "job_type" not in row


def test_transitions_are_numbered_and_those_of_the_run_name_no_step() -> None:
    changes = [Change(NOW, "", 0, "", "pending", "asked"), Change(NOW, "s", 2, "queued", "running", "")]
    first, second = rows_of(run_of(), changes, {}, PRICING)[TRANSITIONS]
    assert (first["seq"], second["seq"]) == ("1", "2")
    assert "step_id" not in first and "attempt" not in first and second["attempt"] == "2"
    assert first["run_ended_at"] == "2026-11-21T12:00:00.123456+00:00"


class FakeWarehouse:
    """Takes what it is given."""

    decimal_digits = (38, 18)

    def __init__(self) -> None:
        self.made: list[str] = []
        self.written: list[MetaWrite] = []
        self.asked: list[str] = []

    @property
    def meta(self) -> "FakeWarehouse":
        return self

    def ensure_table(self, target: str, _table: Any) -> None:
        self.made.append(target)

    def append(self, write: MetaWrite) -> None:
        self.written.append(write)

    def job_stats(self, job_id: str) -> JobStats:
        self.asked.append(job_id)
        return JobStats(job_id, "load")


def kept(run: Run, changes: list[Change]) -> FakeWarehouse:
    warehouse: Any = FakeWarehouse()
    WarehouseArchive(Settings(project_id="proj-ect", location="US"), lambda: warehouse).keep(run, lambda: changes)
    found: FakeWarehouse = warehouse
    return found


def test_a_run_is_written_by_one_job_whose_id_is_the_runs() -> None:
    warehouse = kept(run_of(step("s", receipt=receipt(1, "j"))), [Change(NOW, "", 0, "", "pending", "")])
    (write,) = warehouse.written
    assert (write.job_id, write.marker) == ("meta_run_1_0", f"proj-ect.acme_local.{RUNS}")
    assert [part.target.rpartition(".")[2] for part in write.parts] == list(META_TABLES)
    assert sorted(warehouse.made) == sorted(f"proj-ect.acme_local.{name}" for name in META_TABLES)
    assert warehouse.asked == ["j"]


def test_a_large_run_is_split_alike_each_time_and_its_own_row_comes_last() -> None:
    changes = [Change(NOW, "", 0, "", "running", "x" * n) for n in range(2 * ROWS_PER_JOB)]
    first, again = (kept(run_of(step("s")), changes).written for _ in range(2))
    assert first == again
    assert [write.job_id for write in first] == ["meta_run_1_0", "meta_run_1_1", "meta_run_1_2"]
    assert [sum(len(part.rows) for part in write.parts) for write in first] == [ROWS_PER_JOB, ROWS_PER_JOB, 2]
    assert [part.table.table for part in first[-1].parts] == [STEPS, RUNS]


def test_a_run_that_has_not_ended_is_not_kept() -> None:
    assert kept(run_of(ended_at=None, status=RunStatus.RUNNING), []).written == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, False),
        ({"bigquery_url": "http://127.0.0.1:1"}, True),
        ({"bigquery_url": "http://127.0.0.1:1", "archive": False}, False),
        ({"store": "google"}, True),
        ({"store": "google", "firestore_host": "127.0.0.1:1"}, False),
        ({"store": "google", "archive": False}, False),
    ],
)
def test_runs_are_kept_where_there_is_a_warehouse(settings: dict[str, Any], expected: bool) -> None:
    assert Settings(**settings).keeps_runs is expected


def billed(job_id: str, gib: int | None) -> JobStats:
    return JobStats(job_id, "query", bytes_billed=None if gib is None else gib * 2**30)


def done(name: str, *jobs: str, **more: Any) -> Step:
    return replace(step(name, receipt=receipt(1, *jobs), started_at=NOW), **more)


def test_what_a_run_has_cost_is_the_sum_of_its_jobs() -> None:
    run = run_of(done("a", "j1", "j2"), done("b", "j3"))
    stats = {"j1": billed("j1", 512), "j2": JobStats("j2", "load"), "j3": billed("j3", 1536)}
    assert jobs_cost(run, stats, PRICING) == JobsCost(Decimal("12.5"), complete=True)


@pytest.mark.parametrize(
    ("more", "stats"),
    [
        ({}, {"j1": None}),
        ({}, {"j1": billed("j1", None)}),
        ({"attempt": 2}, {}),
        ({"status": StepStatus.FAILED}, {}),
        ({"status": StepStatus.CANCELLED}, {}),
        ({"receipt": receipt(1, *(f"j{n}" for n in range(100)))}, {}),
    ],
)
def test_what_a_run_has_cost_is_not_known_by_half(more: dict[str, Any], stats: dict[str, JobStats | None]) -> None:
    run = run_of(done("a", "j1", **more), done("b", "other"))
    known = {job_id: billed(job_id, 1024) for job_id in jobs_of(run)}
    found = jobs_cost(run, {**known, **stats}, PRICING)
    assert not found.complete and found.usd >= Decimal("6.25")


def test_jobs_of_a_kept_step_and_steps_that_never_began_cost_this_run_nothing() -> None:
    kept_step = done("kept", "old", attempt=2, receipt=receipt(1, "old", at=NOW - timedelta(hours=1)))
    run = run_of(kept_step, step("left", "omitted"), done("a", "j1"))
    assert jobs_cost(run, {"j1": billed("j1", 1024)}, PRICING) == JobsCost(Decimal("6.25"), complete=True)


def test_without_a_price_at_the_location_no_cost_is_known() -> None:
    run = run_of(done("a", "j1"))
    assert not jobs_cost(run, {"j1": billed("j1", 1)}, Pricing(PRICES, "mars-east1", 38)).complete


def test_whoever_keeps_a_run_is_told_what_it_has_cost() -> None:
    warehouse: Any = FakeWarehouse()
    mine = WarehouseArchive(Settings(project_id="proj-ect", location="US"), lambda: warehouse)
    assert mine.keep(run_of(done("a", "j1")), list) == JobsCost(Decimal(0), complete=True)  # loads are free
    assert mine.keep(run_of(done("a", "j1"), ended_at=None), list) is None
