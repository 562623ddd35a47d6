"""The end of a run is told and kept: what can't be kept now comes back, and nothing else waits for it."""

import logging
from collections.abc import Collection
from dataclasses import replace

import pytest

from common import bootstrap
from common.domain.messages import JobsCost
from common.domain.model import Run, RunStatus
from common.platform.errors import PermanentError, PipelineOpsError, TransientError
from common.platform.logs import logger
from common.ports.meta import Changes, NoArchive
from tests.harness import Harness, step


class FlakyArchive:
    """Refuses as often as it is told to, and remembers what it kept."""

    parts: Collection[str] | None = None

    def __init__(self, *refusals: PipelineOpsError, cost: JobsCost | None = None) -> None:
        self.cost = cost
        self.refusals, self.kept = list(refusals), list[tuple[Run, int]]()

    def keep(self, run: Run, changes: Changes) -> JobsCost | None:
        if self.refusals:
            raise self.refusals.pop()
        self.kept.append((run, len(changes())))
        return self.cost


def with_archive(harness: Harness, archive: FlakyArchive) -> None:
    harness.engine = replace(harness.engine, archive=archive)
    bootstrap.use(harness.engine)


def test_the_archive_gets_the_whole_run_and_its_transitions(harness: Harness) -> None:
    harness.pipeline(step("one"), step("two", "one"))
    archive = FlakyArchive()
    with_archive(harness, archive)
    run_id = harness.start()
    harness.finish(run_id)
    harness.drain()
    ((run, changes),) = archive.kept
    assert run.status is RunStatus.COMPLETED and set(run.steps) == {"one", "two"}
    assert changes == len(harness.engine.store.changes(run_id))
    assert harness.run(run_id).wake_at is None


@pytest.mark.parametrize("error", [TransientError("BigQuery does not answer."), PermanentError("It does not fit.")])
def test_what_could_not_be_kept_comes_back_and_the_run_is_told_and_stays_as_it_ended(
    harness: Harness,
    error: PipelineOpsError,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = FlakyArchive(error)
    with_archive(harness, archive)
    run_id = harness.start()
    monkeypatch.setattr(logger, "propagate", True)
    with caplog.at_level(logging.INFO, logger.name):
        ended = harness.finish(run_id)
        harness.drain()
    assert any(record.message.startswith("Run completed") for record in caplog.records)
    assert ended.status is RunStatus.COMPLETED and archive.kept == [] and harness.run(run_id).wake_at is not None

    for _ in range(10):
        harness.clock.tick(60)
        harness.engine.sweep()
        harness.drain()
    assert [run.run_id for run, _ in archive.kept] == [run_id]
    assert harness.run(run_id).wake_at is None
    assert harness.run(run_id).status is RunStatus.COMPLETED


def test_a_stack_without_a_warehouse_keeps_nothing_and_reads_no_step_for_it(harness: Harness) -> None:
    assert isinstance(harness.engine.archive, NoArchive) and harness.engine.archive.parts == ()
