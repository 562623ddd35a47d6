"""One attempt, from the processor to the commit, with a warehouse that only records."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest

from common.domain.messages import AttemptFailed, AttemptSucceeded, AttemptSuspended
from common.domain.model import (
    DEFAULT_WRITE,
    ErrorKind,
    Receipt,
    Run,
    RunRequest,
    RunStatus,
    Staged,
    Step,
    StepSpec,
    StepStatus,
    WriteSpec,
)
from common.platform.errors import LostLeaseError, PermanentError, SupersededError, TransientError, WriterBusyError
from common.platform.settings import Settings
from common.ports.logs import LogLine
from common.ports.warehouse import Commit, Interruption
from common.processors.base import Params, StepContext, TableParams
from common.runs.attempt import MAX_LINE_CHARS, MAX_WARNING_CHARS, MAX_WARNINGS, AttemptRunner, Result
from common.writes.batch import Batch, Waiting
from tests.fakes import FakeClock

DAY = date(2026, 11, 20)
LEASE = datetime(2026, 11, 21, 6, 2, tzinfo=UTC)
SCHEMA = "table: t\ndescription: d\ncolumns:\n  - {name: cost, type: BIGNUMERIC}\n"


class RecordingWarehouse:
    """Does nothing and keeps what it was asked, in order. ``jobs`` is how many each commit takes."""

    decimal_digits = (38, 18)

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.commits: list[Commit] = []
        self.files: dict[str, list[dict[str, Any]]] = {}
        self.labels: dict[str, str] = {}
        self.seen: Callable[[str], None] = lambda _job_id: None
        self.jobs = 1
        self.busy = 0
        self.is_gone = self.is_crowded = False
        self.answer = Receipt(rows=1, mode="replace_key", ingested_at=datetime(2026, 11, 21, tzinfo=UTC))

    def labelled(self, labels: Any, seen: Callable[[str], None]) -> "RecordingWarehouse":
        self.labels, self.seen = dict(labels), seen
        return self

    def ensure_table(self, target: str, table: Any) -> None:
        self.calls.append("ensure")

    def create_staging(self, target: str, table: Any, name: str, *, keep: bool = False, spooled: bool = False) -> str:
        self.calls.append("keep" if keep else "stage for a file" if spooled else "stage")
        return f"{target}__stage_{name}"

    def load(self, staging: str, table: Any, spool: Path, *, job_id: str) -> None:
        self._keep("load", spool, job_id)

    def quarantine(self, target: str, bad_rows: Path, *, job_id: str) -> None:
        self._keep("quarantine", bad_rows, job_id)

    def _keep(self, what: str, file: Path, job_id: str) -> None:
        self.calls.append(what)
        self.files[what] = pq.read_table(file).to_pylist()
        self.seen(job_id)

    @contextmanager
    def seat(self, target: str) -> Iterator[bool]:
        yield not self.is_crowded

    def find(self, target: str) -> Any:
        return None if self.is_gone else target

    @property
    def tables(self) -> "RecordingWarehouse":
        return self

    def commit(self, write: Commit, waiting: Callable[[str], None], stop: Interruption) -> Receipt:
        stop.hold()
        if self.busy:
            self.busy -= 1
            raise WriterBusyError("Other writers kept t busy (30 s, 0 lost conflicts).")
        self.calls.append("commit")
        self.commits.append(write)
        for number in range(self.jobs):
            self.seen(f"{write.job_id}_{number}")
        return replace(self.answer, table=write.target)

    def drop(self, table_id: str) -> None:
        self.calls.append("drop")


class Logs:
    def __init__(self) -> None:
        self.lines: list[LogLine] = []

    def append(self, run_id: str, line: LogLine) -> None:
        self.lines.append(line)


class Yielding:
    """Gives what the test says."""

    params_type: ClassVar[type[Params]] = TableParams
    needs_credential: ClassVar[bool] = False
    does: ClassVar[Callable[[StepContext], Iterator[Batch]]]

    def run(self, context: StepContext, params: Any) -> Iterator[Batch]:
        return type(self).does(context)


class World:
    def __init__(self, folder: Path) -> None:
        (folder / "schemas").mkdir()
        (folder / "schemas" / "t.yml").write_text(SCHEMA)
        self.warehouse, self.logs, self.clock = RecordingWarehouse(), Logs(), FakeClock()
        self.runner = AttemptRunner(
            settings=Settings(state_dir=folder, configs=folder),
            warehouse=lambda: self.warehouse,  # type: ignore[arg-type, return-value]
            credentials=None,  # type: ignore[arg-type]
            logs=self.logs,  # type: ignore[arg-type]
            now=self.clock,
            provider_url=str,
            sleep=lambda _seconds: None,
        )

    def attempt(
        self,
        does: Callable[[StepContext], Iterator[Any]],
        still_ours: bool = True,
        waits_on: str = "",
        write: WriteSpec = DEFAULT_WRITE,
        staged: Staged | None = None,
        fence: int = 7,
    ) -> Result:
        Yielding.does = staticmethod(does)  # type: ignore[assignment]
        spec = StepSpec("extract", "test.yielding", (), 60, write=write, config={"destination_table": "t"})
        step = Step(spec, StepStatus.RUNNING, attempt=2, waits_on=waits_on, fence=fence, lease_until=LEASE)
        step = replace(step, staged=staged)
        request = RunRequest("run_1", "acme", "a/b/c", DAY, DAY, datetime(2026, 11, 21, tzinfo=UTC))
        run = Run(request, RunStatus.RUNNING, pipeline_id="pipe", credential_id="cred", specs=(step.spec,))
        return self.runner.run(run, step, lambda: still_ours)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("common.runs.attempt.processor", lambda _ps_type: Yielding())
    yield World(tmp_path)


def rows(*costs: str) -> Callable[[StepContext], Iterator[Batch]]:
    def does(_context: StepContext) -> Iterator[Batch]:
        for cost in costs:
            yield Batch([{"cost": Decimal(cost), "x_pipeline_run_date": DAY}])

    return does


def test_an_attempt_stages_loads_commits_and_drops_in_this_order(world: World) -> None:
    result = world.attempt(rows("1", "2"))
    assert isinstance(result, AttemptSucceeded)
    assert world.warehouse.calls == ["ensure", "stage for a file", "load", "commit", "drop"]
    (commit,) = world.warehouse.commits
    assert (commit.first_day, commit.last_day, commit.job_id) == (DAY, DAY, "run_1_extract_2_commit")
    assert commit.lineage.run_id == "run_1" and commit.lineage.ingested_at == world.clock.now
    assert (commit.fence, commit.not_after, commit.step_id, commit.attempt) == (7, LEASE, "extract", 2)
    assert commit.rows == 2 and commit.content_hash and commit.wait_s == 50
    assert world.warehouse.labels == {"org": "acme", "pipeline": "pipe", "run": "run_1", "step": "extract"}
    assert result.receipt.job_ids == ("run_1_extract_2_load", "run_1_extract_2_commit_0")


def test_a_step_reads_the_configs_that_its_run_was_validated_against(world: World) -> None:
    seen: list[Path] = []

    def does(context: StepContext) -> Iterator[Batch]:
        seen.append(context.configs)
        yield from rows("1")(context)

    world.attempt(does)
    assert seen == [world.runner.settings.configs]


def test_an_attempt_that_lost_its_step_does_not_commit(world: World) -> None:
    with pytest.raises(LostLeaseError):
        world.attempt(rows("1"), still_ours=False)
    assert "commit" not in world.warehouse.calls and world.warehouse.calls[-1] == "drop"


def test_an_attempt_over_its_time_does_not_commit(world: World) -> None:
    def slow(context: StepContext) -> Iterator[Batch]:
        yield from rows("1")(context)
        world.clock.now += timedelta(seconds=61)

    result = world.attempt(slow)
    assert isinstance(result, AttemptFailed) and "timeout_seconds" in result.error
    assert "commit" not in world.warehouse.calls


def test_no_rows_are_committed_too_so_that_old_ones_go(world: World) -> None:
    assert isinstance(world.attempt(rows()), AttemptSucceeded)
    assert world.warehouse.calls == ["ensure", "stage", "commit", "drop"]


def test_an_attempt_that_waits_leaves_its_staging_table_to_the_job(world: World) -> None:
    def waits(context: StepContext) -> Iterator[Batch | Waiting]:
        assert context.staging_table
        if not context.waiting_on:
            yield Waiting("job", world.clock.now)

    result = world.attempt(waits)
    assert result == AttemptSuspended("extract", 2, "job", world.clock.now)
    assert world.warehouse.calls == ["ensure", "stage"]
    world.warehouse.calls.clear()
    assert isinstance(world.attempt(waits, waits_on="job"), AttemptSucceeded)
    assert world.warehouse.calls == ["ensure", "keep", "commit", "drop"]


def test_a_processor_that_gives_rows_and_fills_its_staging_table_is_refused(world: World) -> None:
    def both(context: StepContext) -> Iterator[Batch]:
        assert context.staging_table
        yield from rows("1")(context)

    result = world.attempt(both)
    assert isinstance(result, AttemptFailed) and not result.kind and "it may do one of them" in result.error
    assert world.warehouse.calls == ["ensure", "stage", "drop"]


def test_a_processor_that_waits_after_it_gave_rows_is_refused(world: World) -> None:
    def waits(context: StepContext) -> Iterator[Batch | Waiting]:
        yield from rows("1")(context)
        yield Waiting("job", world.clock.now)

    result = world.attempt(waits)
    assert isinstance(result, AttemptFailed) and not result.kind and "after it gave rows" in result.error


def test_outputs_are_kept_with_the_receipt_and_bounded(world: World) -> None:
    def puts(context: StepContext) -> Iterator[Batch]:
        context.put_out("days", ["2026-11-20"])
        yield from rows("1")(context)

    result = world.attempt(puts)
    assert isinstance(result, AttemptSucceeded) and result.receipt.outputs == {"days": ["2026-11-20"]}
    for value in ("x" * 200_000, {1, 2}, float("nan")):
        failed = world.attempt(lambda context, value=value: iter(context.put_out("v", value) or ()))  # type: ignore[misc]
        assert isinstance(failed, AttemptFailed) and not failed.kind


def test_a_bad_row_ends_the_attempt_before_anything_is_loaded(world: World) -> None:
    result = world.attempt(rows("1", "NaN"))
    assert isinstance(result, AttemptFailed) and not result.kind and "Row 2" in result.error
    assert world.warehouse.calls == ["ensure"]


def test_the_receipt_names_so_many_jobs_and_tells_how_many_more_there_were(world: World) -> None:
    world.warehouse.jobs = 120
    result = world.attempt(rows())
    assert isinstance(result, AttemptSucceeded) and len(result.receipt.job_ids) == 100
    assert result.receipt.warnings == ("20 more jobs than the 100 of the receipt were run.",)


def test_an_attempt_that_a_later_run_overtook_is_tried_again_as_a_later_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(_write: Commit, _waiting: Any, _stop: Any) -> Receipt:
        raise SupersededError("run_2 started later")

    monkeypatch.setattr(world.warehouse, "commit", overtaken)
    result = world.attempt(rows("1"))
    assert isinstance(result, AttemptFailed) and result.kind == ErrorKind.CONFLICT
    assert result.error == "run_2 started later" and world.warehouse.calls[-1] == "drop"


def test_an_attempt_that_waits_for_the_tables_writer_goes_on_from_its_staged_rows(world: World) -> None:
    def does(context: StepContext) -> Iterator[Batch]:
        read.append(context.attempt)
        context.warn("odd")
        context.put_out("days", [1])
        yield from rows("1", "2")(context)

    read: list[int] = []
    world.warehouse.busy = 2
    first = world.attempt(does)
    assert isinstance(first, AttemptSuspended) and first.staged is not None
    assert first.reason == "waits for other writers of t" and first.look_at > world.clock.now
    assert world.warehouse.calls == ["ensure", "stage for a file", "load"], "the rows are kept"
    read_at = world.clock.now
    world.clock.tick(600)
    second = world.attempt(does, staged=first.staged, fence=8)
    assert isinstance(second, AttemptSuspended) and second.staged == first.staged
    done = world.attempt(does, staged=first.staged, fence=9)
    assert isinstance(done, AttemptSucceeded) and read == [2], "nothing is read again"
    assert world.warehouse.calls[3:] == ["commit", "drop"]
    (commit,) = world.warehouse.commits
    assert (commit.fence, commit.lineage.ingested_at) == (7, read_at), "the rows get no younger by waiting"
    assert (commit.staging, commit.rows, commit.spooled) == (first.staged.staging, 2, True)
    assert commit.content_hash == first.staged.receipt.content_hash and commit.job_id == "run_1_extract_2_commit_9"
    assert done.receipt.warnings == ("odd",) and done.receipt.outputs == {"days": [1]}
    assert done.receipt.job_ids == ("run_1_extract_2_load", "run_1_extract_2_commit_9_0")


def test_an_attempt_reads_nothing_while_a_crowd_works_for_its_table(world: World) -> None:
    world.warehouse.is_crowded = True
    read: list[StepContext] = []
    result = world.attempt(lambda context: iter(read.append(context) or []))
    assert isinstance(result, AttemptSuspended) and result.reason == "waits for other writers of t"
    assert result.staged is None and read == [] and world.warehouse.calls == []


def test_staged_rows_that_have_expired_are_read_again_and_never_committed_as_none(world: World) -> None:
    world.warehouse.busy = 1
    first = world.attempt(rows("1"))
    assert isinstance(first, AttemptSuspended)
    world.warehouse.is_gone = True
    result = world.attempt(rows("1"), staged=first.staged, fence=8)
    assert isinstance(result, AttemptFailed) and result.kind and "read again" in result.error
    assert world.warehouse.commits == []


def contract(world: World, cost: str = "freeze", unknown: str = "freeze") -> None:
    text = SCHEMA.replace("BIGNUMERIC", f"BIGNUMERIC, policy: {cost}") + f"unknown_columns: {unknown}\n"
    (world.runner.settings.configs / "schemas" / "t.yml").write_text(text)


def given(*rows: dict[str, Any]) -> Callable[[StepContext], Iterator[Batch]]:
    return lambda _context: iter([Batch([{"x_pipeline_run_date": DAY, **row} for row in rows])])


def test_rows_that_were_left_out_go_to_the_quarantine_before_the_commit(world: World) -> None:
    result = world.attempt(given({"cost": Decimal(1)}, {"cost": "much"}), write=WriteSpec(max_bad_rows=1))
    assert isinstance(result, AttemptSucceeded) and result.receipt.bad_rows == 1
    calls = world.warehouse.calls
    assert calls.index("quarantine") < calls.index("commit")
    (kept,) = world.warehouse.files["quarantine"]
    assert json.loads(kept.pop("row")) == {"cost": "much", "x_pipeline_run_date": "2026-11-20"}
    assert "'much'" in kept.pop("reason")
    assert kept == {
        "column": "cost",
        "source": "Row 2",
        "x_org_slug": "acme",
        "x_pipeline_id": "pipe",
        "x_credential_id": "cred",
        "x_run_id": "run_1",
        "step_id": "extract",
        "attempt": 2,
        "x_ingested_at": world.clock.now,
        "x_ingestion_date": world.clock.now.date(),
    }
    assert "run_1_extract_2_quarantine" in result.receipt.job_ids
    told = " ".join(result.receipt.warnings)
    assert "1 rows were left out" in told and "t__quarantine" in told


def test_values_that_became_null_are_counted_in_a_warning(world: World) -> None:
    contract(world, cost="discard_value")
    result = world.attempt(given({"cost": "much"}, {"cost": "more"}))
    assert isinstance(result, AttemptSucceeded)
    assert any("2 values of cost were left out" in text for text in result.receipt.warnings)
    assert [row["cost"] for row in world.warehouse.files["load"]] == [None, None]


def test_a_column_that_came_up_new_is_added_to_the_target_and_to_staging_before_the_load(world: World) -> None:
    contract(world, unknown="evolve")
    world.attempt(given({"cost": Decimal(1), "colour": "red"}))
    assert world.warehouse.calls[:4] == ["ensure", "ensure", "stage for a file", "load"]
    (commit,) = world.warehouse.commits
    assert commit.table.names == ("cost", "colour")


@pytest.mark.parametrize("policy", ["discard_value", "freeze"])
def test_drift_is_kept_in_a_file_of_the_run_also_when_it_fails_the_step(world: World, policy: str) -> None:
    contract(world, unknown=policy)
    path = world.runner.settings.run_logs / "run_1" / "schema_diff.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"another": {"missing": {}}}')
    result = world.attempt(given({"cost": Decimal(1), "colour": "red"}))
    colour = {"name": "colour", "type": "STRING", "policy": policy, "samples": ["'red'"]}
    drift = {"table": "t", "added": [colour], "missing": [], "retyped": []}
    assert json.loads(path.read_text()) == {"another": {"missing": {}}, "extract": drift}
    if policy == "freeze":
        assert isinstance(result, AttemptFailed) and "commit" not in world.warehouse.calls
    else:
        assert isinstance(result, AttemptSucceeded) and result.receipt.drift == drift
        assert "The rows differ from the contract of t: new: colour (discard_value)." in result.receipt.warnings


def test_without_drift_there_is_no_file_about_it(world: World) -> None:
    world.attempt(rows("1"))
    assert not world.runner.settings.run_logs.exists()


def test_what_the_commit_has_to_say_is_in_the_receipt_and_in_the_log(world: World) -> None:
    world.warehouse.answer = Receipt(mode="append_once", warnings=("run_0 has appended 2026-11-20 already",))
    result = world.attempt(rows("1"))
    assert isinstance(result, AttemptSucceeded) and result.receipt.ingested_at is None
    assert result.receipt.warnings == ("run_0 has appended 2026-11-20 already",)
    assert [line.message for line in world.logs.lines] == list(result.receipt.warnings)


def test_rounding_and_warnings_are_in_the_receipt_and_in_the_log(world: World) -> None:
    def warns(context: StepContext) -> Iterator[Batch]:
        context.warn("model x has no price")
        yield from rows("0.1234567890123456789")(context)

    result = world.attempt(warns)
    assert isinstance(result, AttemptSucceeded)
    assert result.receipt.warnings == (
        "model x has no price",
        "1 values of cost were rounded half-even to 18 decimals.",
    )
    assert [line.message for line in world.logs.lines] == list(result.receipt.warnings)


def test_a_step_that_warns_without_end_keeps_the_first_warnings_and_says_where_the_others_are(world: World) -> None:
    def warns(context: StepContext) -> Iterator[Batch]:
        for _ in range(MAX_WARNINGS + 7):
            context.warn("x" * 2 * MAX_LINE_CHARS)
        yield from ()

    result = world.attempt(warns)
    assert isinstance(result, AttemptSucceeded)
    cut, last = result.receipt.warnings[0], result.receipt.warnings[-1]
    assert cut == "x" * MAX_WARNING_CHARS + " …" and len(result.receipt.warnings) == MAX_WARNINGS + 1
    assert last == "7 more warnings are in the log of the run."
    assert {len(line.message) for line in world.logs.lines} == {MAX_LINE_CHARS + 2}


@pytest.mark.parametrize(
    ("error", "kind", "rest"),
    [
        (TransientError("busy", retry_after_s=7, kind=ErrorKind.RATE_LIMIT), ErrorKind.RATE_LIMIT, 7),
        (PermanentError("bad"), None, 0),
        (KeyError("x"), "unexpected", 0),
    ],
)
def test_errors_are_told_apart_by_what_to_do_next(
    world: World, error: Exception, kind: ErrorKind | None, rest: float
) -> None:
    def fails(_context: StepContext) -> Iterator[Batch]:
        raise error
        yield

    result = world.attempt(fails)
    assert isinstance(result, AttemptFailed)
    assert (result.kind, result.retry_after_s) == (kind, rest)
