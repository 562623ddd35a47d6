"""Rows written by real attempts through the real commit, then tampered with: each tampering is named."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.domain.messages import AttemptSucceeded
from common.domain.model import Run, RunRequest, RunStatus, Step, StepSpec, StepStatus, WriteSpec
from common.platform.errors import NotFoundError, PermanentError, TransientError
from common.platform.settings import Settings
from common.ports.store import HistoryQuery, RunPage
from common.processors.base import Params, StepContext, TableParams
from common.runs.attempt import AttemptRunner
from common.writes.batch import Batch
from common.writes.spool import hashing_v1
from common.writes.verify import Report, Verifier
from tests.conftest import PROJECT
from tests.fakes import FakeClock

D1, D2 = date(2026, 11, 1), date(2026, 11, 2)
SCHEMA = """
table: costs
description: A test
columns:
  - {name: name, type: STRING, mode: REQUIRED}
  - {name: cost, type: BIGNUMERIC}
  - {name: at, type: TIMESTAMP}
  - {name: day, type: DATE}
  - {name: tags, type: JSON}
  - {name: n, type: INT64}
  - {name: flag, type: BOOL}
"""
ROWS: list[dict[str, Any]] = [
    {
        "name": "ünï'\"\n`;--\\",
        "cost": Decimal("12345678901234567890.123456789012345678"),
        "at": datetime(2026, 11, 1, 23, 59, 59, 123456, tzinfo=UTC),
        "day": D2,
        "tags": '{"b": [1.0, {"c": null}], "a": 0.1, "t": true}',
        "n": -(2**63),
        "flag": False,
        "x_pipeline_run_date": D1,
    },
    {"name": "", "cost": Decimal("-1.50"), "tags": '"text"', "x_pipeline_run_date": D1},
    {"name": "b", "cost": Decimal("1E+3"), "tags": "null", "flag": True, "x_pipeline_run_date": D2},
    {"name": "c", "cost": Decimal(0), "tags": "[]", "n": 0, "x_pipeline_run_date": D2},
]
numbers = itertools.count()


class Runs:
    """A store that is only read."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}

    def load(self, run_id: str) -> Run:
        if run_id not in self.runs:
            raise NotFoundError(f"There is no run {run_id!r}.")
        return self.runs[run_id]

    def history(self, query: HistoryQuery) -> RunPage:
        """One run a page, so that every reader has to ask for the next one."""
        found = [run for run in self.runs.values() if run.request.org_slug == query.org_slug][::-1]
        place = int(query.cursor or 0)
        following = str(place + 1) if place + 1 < len(found) else None
        return RunPage(tuple(found[place : place + 1]), following)


class Yielding:
    """Gives the rows of the test."""

    params_type: ClassVar[type[Params]] = TableParams
    needs_credential: ClassVar[bool] = False
    rows: ClassVar[list[dict[str, Any]]] = []

    def run(self, context: StepContext, params: Any) -> Iterator[Batch]:
        yield Batch(self.rows)


@dataclass
class World:
    """One organisation, its table and its runs."""

    warehouse: BigQueryWarehouse
    folder: Path
    org: str = field(default_factory=lambda: f"verify{next(numbers)}")
    store: Runs = field(default_factory=Runs)
    clock: FakeClock = field(default_factory=FakeClock)

    @property
    def table(self) -> str:
        return f"{PROJECT}.{self.org}_local.costs"

    def run(self, rows: list[dict[str, Any]], days: tuple[date, date] = (D1, D2), status: str = "succeeded") -> str:
        """Run one attempt for real and record it as succeeded, or as anything else; return the run's id."""
        self.clock.tick(60)
        run_id = f"run_{len(self.store.runs) + 1}_{self.org}"
        write = WriteSpec(on_empty="replace")
        spec = StepSpec("load", "test.yielding", write=write, config={"destination_table": "costs"})
        request = RunRequest(run_id, self.org, "a/b/c", *days, self.clock())
        fence = int(self.clock().timestamp() * 1_000_000)
        lease = datetime(2100, 1, 1, tzinfo=UTC)
        step = Step(spec, StepStatus.RUNNING, attempt=1, fence=fence, lease_until=lease)
        run = Run(request, RunStatus.RUNNING, pipeline_id="pipe", credential_id="cred", specs=(spec,))
        Yielding.rows = rows
        runner = AttemptRunner(
            settings=Settings(state_dir=self.folder, configs=self.folder, project_id=PROJECT),
            warehouse=lambda: self.warehouse,
            credentials=None,  # type: ignore[arg-type]
            logs=None,  # type: ignore[arg-type]
            now=self.clock,
            provider_url=str,
        )
        self.clock.tick(1.000001)
        result = runner.run(run, step, lambda: True)
        assert isinstance(result, AttemptSucceeded), result
        self.clock.tick(1)
        step = replace(step, status=StepStatus(status), ended_at=self.clock())
        if status == "succeeded":
            step = replace(step, receipt=result.receipt)
        self.store.runs[run_id] = replace(run, status=RunStatus.COMPLETED, steps={"load": step})
        return run_id

    def tamper(self, statement: str, **params: Any) -> None:
        list(self.warehouse.query(statement.format(table=f"`{self.table}`"), params))

    def verifier(self) -> Verifier:
        return Verifier(self.store, self.warehouse, lambda org, name: f"{PROJECT}.{org}_local.{name}")  # type: ignore[arg-type]

    def verified(self, run_id: str) -> list[tuple[str, str, int, int]]:
        return brief(self.verifier().run(run_id))

    def all_verified(self) -> list[tuple[str, str, int, int]]:
        return brief(self.verifier().organisation(self.org, lambda _runs: None))


def brief(report: Report) -> list[tuple[str, str, int, int]]:
    return sorted((f.kind, f.run_id.partition("_verify")[0], f.expected, f.found) for f in report.findings)


@pytest.fixture
def world(warehouse: BigQueryWarehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "costs.yml").write_text(SCHEMA)
    monkeypatch.setattr("common.runs.attempt.processor", lambda _ps_type: Yielding())
    return World(warehouse, tmp_path)


def test_what_was_written_is_found_again_value_by_value(world: World) -> None:
    run_id = world.run(ROWS)
    assert world.verifier().run(run_id) == (1, [])
    assert world.verifier().organisation(world.org, lambda _runs: None) == (1, [])


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM {table} WHERE name = 'b'", [("missing", "run_1", 4, 3)]),
        ("INSERT INTO {table} SELECT * FROM {table} WHERE name = 'b'", [("doubled", "run_1", 4, 5)]),
        (
            "UPDATE {table} SET x_ingested_at = TIMESTAMP_ADD(x_ingested_at, INTERVAL 1 SECOND) WHERE name = 'b'",
            [("missing", "run_1", 4, 3), ("stale attempt", "run_1", 0, 1)],
        ),
        (
            "UPDATE {table} SET x_run_id = 'run_ghost' WHERE name = 'b'",
            [("foreign", "run_ghost", 0, 1), ("missing", "run_1", 4, 3)],
        ),
        ("UPDATE {table} SET cost = cost + 0.000001 WHERE name = 'c'", [("content", "run_1", 4, 4)]),
        ("UPDATE {table} SET flag = NULL WHERE name = 'b'", [("content", "run_1", 4, 4)]),
        ("UPDATE {table} SET x_pipeline_run_date = DATE '2026-11-01' WHERE name = 'b'", [("content", "run_1", 4, 4)]),
        ("DROP TABLE {table}", [("missing", "run_1", 4, 0)]),
    ],
)
def test_each_tampering_is_named(world: World, statement: str, expected: list[tuple[str, str, int, int]]) -> None:
    run_id = world.run(ROWS)
    world.tamper(statement)
    assert world.verified(run_id) == expected
    assert world.all_verified() == expected


def test_a_run_that_another_has_replaced_is_right_even_if_that_one_brought_nothing(world: World) -> None:
    first = world.run(ROWS)
    assert world.verified(first) == []
    second = world.run([], days=(D1, D2))
    assert world.verified(first) == [("replaced", "run_1", 0, 0)]
    assert world.verified(second) == []
    assert world.all_verified() == [("replaced", "run_1", 0, 0)]


def test_a_row_of_a_replaced_run_that_comes_back_is_doubled(world: World) -> None:
    first = world.run(ROWS)
    stamp = world.store.runs[first].steps["load"].receipt.ingested_at
    second = world.run(ROWS)
    world.tamper(
        "INSERT INTO {table} SELECT * REPLACE (@run AS x_run_id, @stamp AS x_ingested_at)"
        " FROM {table} WHERE name = 'b'",
        stamp=stamp,
        run=first,
    )
    left_over = ("doubled", "run_1", 0, 1)
    assert world.verified(first) == [left_over, ("replaced", "run_1", 0, 0)]
    assert world.verified(second) == [left_over]


def test_rows_of_an_attempt_whose_step_failed_are_named_after_the_run_and_beside_it(world: World) -> None:
    first = world.run(ROWS)
    failed = world.run(ROWS[:2], days=(D1, D1), status="failed")
    stale = ("stale attempt", "run_2", 0, 2)
    assert world.verified(failed) == [stale]
    assert world.verified(first) == [("missing", "run_1", 4, 2), stale]


def test_a_failed_step_that_never_made_its_table_is_right(world: World) -> None:
    failed = world.run(ROWS, status="failed")
    world.tamper("DROP TABLE {table}")
    assert world.verified(failed) == []


def test_a_run_that_there_is_not_and_a_warehouse_that_is_not_up_are_said_so(world: World) -> None:
    with pytest.raises(NotFoundError):
        world.verifier().run("run_nowhere")
    run_id = world.run(ROWS)
    world.warehouse = BigQueryWarehouse(PROJECT, location="US", emulator_url="http://127.0.0.1:9")
    with pytest.raises((TransientError, PermanentError), match="no answer"):
        world.verifier().run(run_id)


def test_rows_written_before_a_column_was_added_keep_their_hash(world: World) -> None:
    run_id = world.run(ROWS, days=(D1, D2))
    (world.folder / "schemas" / "costs.yml").write_text(SCHEMA + "  - {name: extra, type: STRING}\n")
    from common.tables.contract import load_table

    load_table.cache_clear()
    world.run([{"name": "x", "extra": "y", "x_pipeline_run_date": D2 + timedelta(1)}], days=(D2 + timedelta(1),) * 2)
    assert world.verified(run_id) == [] == world.all_verified()


class Counting:
    """A warehouse that counts the rows that its queries give."""

    def __init__(self, warehouse: BigQueryWarehouse) -> None:
        self._warehouse, self.rows = warehouse, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._warehouse, name)

    def query(self, sql: str, params: Any = None) -> Iterator[dict[str, Any]]:
        for row in self._warehouse.query(sql, params):
            self.rows += 1
            yield row


def test_bigquery_counts_and_hashes_the_rows_and_one_comes_back_for_each_commit_and_day(world: World) -> None:
    rows = [{"name": f"n{n}", "cost": Decimal(n), "x_pipeline_run_date": D1} for n in range(3_000)]
    run_id = world.run(rows, days=(D1, D1))
    counting = Counting(world.warehouse)
    world.warehouse = counting  # type: ignore[assignment]
    assert world.verified(run_id) == [] and counting.rows == 1
    assert world.all_verified() == [] and counting.rows == 2


def test_rows_whose_json_the_warehouse_prints_otherwise_are_read_before_they_are_called_changed(world: World) -> None:
    """The emulator prints 1e+15 as a number of sixteen digits."""
    run_id = world.run([{"name": "a", "tags": '{"n": 1e15}', "x_pipeline_run_date": D1}])
    counting = Counting(world.warehouse)
    world.warehouse = counting  # type: ignore[assignment]
    assert world.verified(run_id) == [] and counting.rows == 2
    world.tamper("UPDATE {table} SET name = 'b' WHERE name = 'a'")
    assert world.verified(run_id) == [("content", "run_1", 1, 1)]


def test_a_receipt_of_the_first_definition_of_the_hash_is_verified_by_that(world: World) -> None:
    run_id = world.run(ROWS)
    run = world.store.runs[run_id]
    step = run.steps["load"]
    named = f"name, cost, at, day, tags, n, flag, x_pipeline_run_date FROM `{world.table}`".replace(" at,", " `at`,")
    old = hashing_v1.content_hash(world.warehouse.query(f"SELECT {named}"))
    receipt = replace(step.receipt, content_hash=old)
    world.store.runs[run_id] = replace(run, steps={"load": replace(step, receipt=receipt)})
    assert ":" not in old and world.verified(run_id) == []
    world.tamper("UPDATE {table} SET n = 1 WHERE name = 'c'")
    assert world.verified(run_id) == [("content", "run_1", 4, 4)]
