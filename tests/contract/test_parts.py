"""A delivery of many parts: each is staged by an attempt of its own, and nobody sees a row before all are committed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.domain.model import Receipt, Run, RunRequest, RunStatus, Step, StepSpec, StepStatus, WriteSpec
from common.platform.errors import LostLeaseError, PermanentError
from common.writes.bad_rows import BadRow
from common.writes.batch import Batch
from common.writes.parts import PartRead, WholeDelivery
from common.writes.spool.hashing import content_hash
from common.writes.writer import Writer
from tests.contract.writes import D1, D2, TABLE, Target, numbers, row

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


def _superseded() -> float:
    raise LostLeaseError("another attempt has the part")
