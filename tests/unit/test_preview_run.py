"""A preview as a run: it runs everything again, and once it has ended somebody decides on it, once."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from common.domain import state
from common.domain.messages import PreviewSettled
from common.domain.model import PreviewEnd, Receipt, Run, RunRequest, RunStatus, Step, StepSpec, StepStatus

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
REQUEST = RunRequest("run_1", "acme", "a/b/c", date(2026, 11, 20), date(2026, 11, 20), NOW)
SPECS = (StepSpec("load", "noop"), StepSpec("convert", "noop", ("load",)))
PROMOTED = PreviewSettled(PreviewEnd.PROMOTED, {"load": Receipt(rows=7, table="p.d.t")}, "ana", "looks right")


def ended(status: RunStatus = RunStatus.COMPLETED, *, preview: bool = False) -> Run:
    steps = {s.step_id: Step(s, StepStatus.SUCCEEDED, 3, 1, receipt=Receipt(rows=7)) for s in SPECS}
    return Run(replace(REQUEST, preview=preview), status, 5, specs=SPECS, steps=steps, ended_at=NOW)


def test_a_preview_runs_every_step_again_also_those_that_succeeded() -> None:
    request = replace(REQUEST, run_id="run_2", rerun_of="run_1", preview=True)
    new = state.rerun(ended(), request, who="ana", why="new prices")
    assert new.run.steps == {} and new.run.specs == SPECS
    assert new.changes[0].reason == "preview of run_1 by ana: new prices"


def test_a_decision_on_a_preview_is_logged_and_changes_its_receipts() -> None:
    done = state.apply(ended(preview=True), PROMOTED, NOW)
    assert done.header and done.touched == ("load",)
    assert done.run.preview_end is PreviewEnd.PROMOTED and done.run.status is RunStatus.COMPLETED
    assert done.run.steps["load"].receipt.table == "p.d.t"
    assert [change.reason for change in done.changes] == ["promoted by ana: looks right"]


def test_a_preview_is_decided_on_once() -> None:
    first = state.apply(ended(preview=True), PROMOTED, NOW).run
    second = state.apply(first, PreviewSettled(PreviewEnd.DISCARDED, {}, "bob", "no"), NOW)
    assert not second.writes and second.run.preview_end is PreviewEnd.PROMOTED


@pytest.mark.parametrize(
    "run",
    [ended(), replace(ended(preview=True), status=RunStatus.RUNNING, ended_at=None)],
    ids=["no preview", "still at work"],
)
def test_what_is_no_ended_preview_is_not_decided_on(run: Run) -> None:
    assert not state.apply(run, PROMOTED, NOW).writes
