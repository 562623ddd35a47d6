"""Whose turn it is to commit to a table, and until when a commit can be stopped. No warehouse."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from common.adapters.bigquery import commits
from common.adapters.bigquery.errors import ConflictError
from common.domain.model import WriteSpec
from common.platform.errors import LostLeaseError, WriterBusyError
from common.platform.stop import Stop
from common.ports.warehouse import Commit, Lineage
from common.tables.contract import Table

AT = datetime(2026, 11, 21, tzinfo=UTC)
TABLE = Table.model_validate({"table": "t", "description": "d", "columns": [{"name": "n", "type": "INT64"}]})
ROW = {"number": 0, "outcome": "committed", "n": 1, "ingested_at": AT, "content_hash": "", "run": None}


def write(fence: int, wait_s: float = 60) -> Commit:
    return Commit(
        target="proj-1.acme.t",
        table=TABLE,
        staging="proj-1.acme.s",
        lineage=Lineage("acme", "pipe", "cred", "run_1", AT),
        first_day=date(2026, 11, 1),
        last_day=date(2026, 11, 1),
        write=WriteSpec(),
        step_id="load",
        attempt=1,
        fence=fence,
        not_after=datetime.now(UTC) + timedelta(hours=1),
        job_id="job",
        wait_s=wait_s,
    )


class Jobs:
    """Each job does as the test says."""

    def __init__(self, does: Callable[[], None]) -> None:
        self._does, self.started = does, 0

    def query(self, *_: Any, **__: Any) -> Any:
        self.started += 1
        self._does()
        return SimpleNamespace(job_id="job")

    def rows(self, _job: Any) -> list[dict[str, Any]]:
        return [ROW]


def commit(jobs: Jobs, queues: commits.Queues, order: Commit, stop: Stop, told: Callable[[str], None] = print) -> None:
    commits.commit(jobs, queues, [order], told, lambda _target: None, stop)  # type: ignore[arg-type]


def test_writers_that_wait_come_in_the_order_of_their_fences() -> None:
    """In another order the ledger would refuse the earlier ones, and they would read their sources again."""
    queues, came, waits = commits.Queues(), list[int](), threading.Semaphore(0)
    held: AbstractContextManager[None] = queues.turn(["proj-1.acme.t"], lambda: 60, print)
    writers = [
        threading.Thread(
            target=lambda fence=fence: commit(
                Jobs(lambda: came.append(fence)), queues, write(fence), Stop(), lambda _text: waits.release()
            )
        )
        for fence in (5, 2, 9, 1)
    ]
    with held:
        for writer in writers:
            writer.start()
            assert waits.acquire(timeout=10)
        assert came == []
    for writer in writers:
        writer.join(10)
    assert came == [1, 2, 5, 9]


def test_a_commit_whose_run_is_cancelled_while_it_waits_is_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "LOOK_EVERY_S", 0.01)
    queues, stop, jobs = commits.Queues(), Stop(), Jobs(lambda: None)
    with queues.turn(["proj-1.acme.t"], lambda: 60, print), pytest.raises(LostLeaseError):
        commit(jobs, queues, write(1), stop, lambda _text: stop.request())
    assert jobs.started == 0
    commit(jobs, queues, write(2, wait_s=0), Stop())  # it has left the queue, too


def test_a_commit_that_was_sent_is_not_interrupted() -> None:
    stop = Stop()

    def cancelled_meanwhile() -> None:
        stop.request()
        stop.check()  # as a time limit's exception would

    jobs = Jobs(cancelled_meanwhile)
    commit(jobs, commits.Queues(), write(1), stop)
    assert jobs.started == 1


def test_a_commit_that_lost_a_conflict_can_be_interrupted_again() -> None:
    stop = Stop()

    def conflicts() -> None:
        raise ConflictError("could not serialize access")

    with pytest.raises(WriterBusyError):
        commit(Jobs(conflicts), commits.Queues(), write(1, wait_s=0), stop)
    stop.request()
    with pytest.raises(LostLeaseError):
        stop.check()


def test_a_table_has_so_many_seats_and_another_table_has_its_own() -> None:
    queues = commits.Queues()
    with ExitStack() as held:
        assert all(held.enter_context(queues.seat("a")) for _ in range(commits.SEATS))
        for _ in range(2):  # who got none gives none back
            with queues.seat("a") as seated:
                assert not seated
        with queues.seat("b") as seated:
            assert seated
    with queues.seat("a") as seated:
        assert seated
