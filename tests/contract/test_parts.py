"""A delivery of many parts: each is staged by an attempt of its own, and nobody sees a row before all are committed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.domain.messages import AttemptFailed, AttemptSucceeded
from common.domain.model import Receipt, Run, RunRequest, RunStatus, Step, StepSpec, StepStatus, WriteSpec
from common.platform.errors import LostLeaseError, PermanentError
from common.platform.paths import CONFIGS
from common.platform.settings import Settings
from common.runs.attempt import AttemptRunner
from common.writes.bad_rows import BadRow
from common.writes.batch import Batch
from common.writes.parts import PartRead, WholeDelivery
from common.writes.spool.hashing import content_hash
from common.writes.writer import Writer
from tests.bench.load_ours import NoLogs
from tests.conftest import PROJECT
from tests.contract.writes import D1, D2, TABLE, Target, numbers, row
from tests.loaded import dropped
from tests.processors.test_aws_export import billed, deliver, of_days, sandbox

KINDS = {column.name: column.type for column in TABLE.columns} | {"x_pipeline_run_date": "DATE"}


@dataclass
class Steps:
    """The steps of one run over two days: parts of the delivery ``d1``, and the commit of them."""

    target: Target
    delivery: str = "d1"
    run_id: str = field(default_factory=lambda: f"run_of_parts_{next(numbers)}")
    fence: int = 0
    infos: list[str] = field(default_factory=list)
    facts: list[Sequence[str]] = field(default_factory=list)

    def writer(self, step_id: str, write: WriteSpec, attempt: int) -> Writer:
        now = datetime.now(UTC)
        spec = StepSpec(step_id, "AwsExportExtractor", write=write)
        request = RunRequest(self.run_id, "acme", "aws/cost/parts", D1, D2, now)
        run = Run(request, RunStatus.RUNNING, pipeline_id="pipe", credential_id="cred", specs=(spec,))
        self.fence += 1
        step = Step(spec, StepStatus.RUNNING, attempt=attempt, fence=self.fence, lease_until=now + timedelta(hours=1))
        target, folder = self.target, Path(self.target.folder)
        return Writer(
            run,
            step,
            target.warehouse,
            target.table_id,
            TABLE,
            folder / "diff.json",
            lambda: now,
            self.infos.append,
            self.infos.append,
        )

    def part(
        self,
        number: int,
        *rows: dict[str, Any],
        attempt: int = 1,
        bad: Sequence[BadRow] = (),
        most_bad: int = 0,
        left: Callable[[], float] = lambda: 60.0,
    ) -> Receipt:
        def read(_staging: Any) -> Iterator[Batch | PartRead]:
            yield Batch(list(rows), bad)
            yield PartRead(f"part-{number}", self.delivery, f"facts of {number}")

        return self.writer(f"stage[{number}]", WriteSpec(max_bad_rows=most_bad), attempt).write(read, left)

    def commit(self, *numbers: int, attempt: int = 1, most_bad: int = 0) -> Receipt:
        whole = WholeDelivery([f"part-{number}" for number in numbers], self.delivery, self.facts.append)
        write = WriteSpec(max_bad_rows=most_bad)
        return self.writer("commit", write, attempt).write(lambda _staging: iter([whole]), lambda: 60.0)

    def names(self) -> list[str]:
        return [name for name, *_ in self.target.names()]


def test_parts_are_seen_all_at_once_and_never_twice(target: Target) -> None:
    steps = Steps(target)
    target.write([row("of the last run")], (D1, D2), run_id="run_0")
    tagged = row("c", D2, tags='{"k": 1}')
    steps.part(0, row("a", cost=Decimal("0.1")), row("b"))
    steps.part(1, row("c as a first attempt read it", D2))
    steps.part(1, tagged, attempt=2)
    steps.part(2)  # no rows of the run's days
    assert steps.names() == ["of the last run"]

    receipt = steps.commit(0, 1, 2)
    assert steps.names() == ["a", "b", "c"] and receipt.rows == 3 and receipt.ingested_at is not None
    assert steps.facts == [["facts of 0", "facts of 1", "facts of 2"]]
    rows = [row("a", cost=Decimal("0.1")), row("b"), tagged | {"tags": {"k": 1}}]
    assert receipt.content_hash == content_hash(rows, KINDS)
    assert steps.commit(0, 1, 2, attempt=2).content_hash == receipt.content_hash  # the process died after its commit
    assert steps.names() == ["a", "b", "c"]


def test_a_delivery_that_lacks_a_part_replaces_nothing_and_names_it(target: Target) -> None:
    steps = Steps(target)
    target.write([row("of the last run")], (D1, D2), run_id="run_0")
    steps.part(0, row("a"))
    with pytest.raises(LostLeaseError):
        steps.part(1, row("b"), left=_superseded)
    with pytest.raises(PermanentError, match="1 of the delivery's 2 parts are not staged: part-1"):
        steps.commit(0, 1)
    steps.delivery = "d2"  # refreshed since
    with pytest.raises(PermanentError, match="2 of the delivery's 2 parts are not staged: part-0, part-1"):
        steps.commit(0, 1)
    assert steps.names() == ["of the last run"]


def test_bad_rows_of_all_parts_count_together(target: Target) -> None:
    steps = Steps(target)
    for number in (0, 1):
        bad = BadRow("no number", f"part-{number}: line 2", "{}", "cost")
        steps.part(number, row(f"good {number}"), bad=[bad], most_bad=1)
    with pytest.raises(PermanentError, match="The parts have 2 rows that can't be written, max_bad_rows allows 1"):
        steps.commit(0, 1, most_bad=1)
    assert steps.commit(0, 1, most_bad=2).bad_rows == 2
    assert steps.names() == ["good 0", "good 1"]


def test_a_whole_delivery_by_steps_of_their_own_one_of_which_is_tried_again(
    warehouse: BigQueryWarehouse, tmp_path: Path
) -> None:
    org = f"parts{next(numbers)}"
    settings = Settings(state_dir=tmp_path, configs=CONFIGS, project_id=PROJECT)
    with dropped(warehouse, f"{PROJECT}.{settings.dataset(org)}"), sandbox() as (bucket, context):
        deliver(bucket, *[of_days(day) for day in (10, 11, 12)])
        runner = AttemptRunner(
            settings=settings,
            warehouse=lambda: warehouse,
            credentials=Secrets(context.secret()),  # type: ignore[arg-type]
            logs=NoLogs(),  # type: ignore[arg-type]
            now=lambda: datetime.now(UTC),
            provider_url=context.provider_url,
        )
        days = date(2026, 9, 10), date(2026, 9, 12)

        def attempt(step_id: str, number: int = 1, **config: Any) -> AttemptSucceeded | AttemptFailed:
            now = datetime.now(UTC)
            spec = StepSpec(step_id, "AwsExportExtractor", config=config)
            request = RunRequest(f"run_{tmp_path.name}", org, "aws/cost/parts", *days, now)
            run = Run(request, RunStatus.RUNNING, pipeline_id="pipe", credential_id="cred", specs=(spec,))
            step = Step(
                spec,
                StepStatus.RUNNING,
                attempt=number,
                fence=int(now.timestamp() * 1e6),
                lease_until=now + timedelta(hours=1),
            )
            result = runner.run(run, step, lambda: True)
            assert isinstance(result, AttemptSucceeded | AttemptFailed)
            return result

        listed = attempt("files", task="list")
        assert isinstance(listed, AttemptSucceeded)
        names = listed.receipt.outputs["parts"]
        whole = bucket.extra[names[1]]
        bucket.extra[names[1]] = whole[:-200]
        ends = [attempt(f"stage[{n}]", task="part", part=name) for n, name in enumerate(names)]
        commit = {"task": "commit", "destination_table": "cloud_focus_export"}
        early = attempt("commit", **commit)
        bucket.extra[names[1]] = whole
        again = attempt("stage[1]", 2, task="part", part=names[1])
        done = attempt("commit", 2, **commit)
        assert isinstance(done, AttemptSucceeded)
        (found,) = warehouse.query(f"SELECT COUNT(*) AS n, SUM(BilledCost) AS billed FROM `{done.receipt.table}`")
    assert [type(end) for end in ends] == [AttemptSucceeded, AttemptFailed, AttemptSucceeded]
    assert isinstance(ends[1], AttemptFailed) and "part-1.csv.gz: the gzip data ends too early" in ends[1].error
    assert isinstance(early, AttemptFailed) and "not staged" in early.error and names[1] in early.error
    assert isinstance(again, AttemptSucceeded) and again.receipt.ingested_at is None
    assert (found["n"], found["billed"]) == (done.receipt.rows, billed(*days))


class Secrets:
    """The credential of the bucket, whoever asks."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def secret(self, _org: str, _credential: str) -> str:
        return self._secret


def _superseded() -> float:
    raise LostLeaseError("another attempt has the part")
