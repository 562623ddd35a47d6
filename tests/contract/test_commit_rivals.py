"""Many writers of one table: nothing is lost, nothing is doubled, and nobody fails while there is time left."""

import time
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest

from common.adapters.bigquery import BigQueryWarehouse, commits
from common.adapters.bigquery.errors import ConflictError
from common.domain.model import ErrorKind
from common.platform.errors import WriterBusyError
from common.platform.retry import Backoff, countdown
from common.ports.warehouse import Commit
from tests.contract import rivals
from tests.contract.writes import Target, row

WAIT_S = 280.0


def writes_of(target: Target, count: int, **more: Any) -> list[Commit]:
    """Commits of organisations of their own, of three rows each; they share a staging table, which is only read."""
    staging = target.stage([row("a"), row("b"), row("c")])
    with_ledger(target)
    return [
        target.order(staging, org_slug=f"org{n:02}", run_id=f"run_{n:02}", rows=3, wait_s=WAIT_S, **more)
        for n in range(count)
    ]


def with_ledger(target: Target) -> None:
    """In the emulator a table that is made from a query is there before its rows are; in BigQuery both come at once."""
    target.warehouse._tables.ensure_ledger(target.table_id, target.warehouse._jobs)


def rows_by_org(target: Target) -> dict[str, int]:
    return {r["o"]: r["n"] for r in target.sql("SELECT x_org_slug o, COUNT(*) n FROM {table} GROUP BY o ORDER BY o")}


@pytest.mark.parametrize(("count", "rounds"), [(8, 2), pytest.param(64, 1, marks=pytest.mark.slow)], ids=["8", "64"])
def test_writers_of_keys_of_their_own_from_two_processes_lose_and_double_nothing(
    target: Target, count: int, rounds: int
) -> None:
    for _ in range(rounds):
        outcomes = rivals.processes(rivals.url_of(target), writes_of(target, count), count=2)
        print(  # noqa: T201
            f"\n{count} writers in 2 processes: {outcomes.seconds:.1f} s, {outcomes.waited} waited for their turn, "
            f"{outcomes.conflicts} conflicts were lost and retried"
        )
        assert outcomes.ends == ["3 rows"] * count
    assert rows_by_org(target) == {f"org{n:02}": 3 for n in range(count)}
    assert len(target.ledger()) == count


@pytest.mark.parametrize("earlier", [False, True], ids=["first write", "rewrite"])
def test_rivals_for_one_key_from_clients_of_their_own_leave_the_rows_of_one(target: Target, earlier: bool) -> None:
    """Neither of two that write first finds a row to replace: only the ledger's gate makes them conflict."""
    if earlier:
        target.write([row("earlier")])
    stagings = [target.stage([row(f"of {n}")]) for n in range(3)]
    with_ledger(target)
    writes = [target.order(staging, run_id=f"run_{n}", wait_s=WAIT_S) for n, staging in enumerate(stagings)]
    outcomes = rivals.threads(rivals.url_of(target), writes, clients=3)
    assert target.runs() == [("of 2", "run_2")], outcomes
    assert outcomes.ends[2] == "1 rows" and {end.partition(":")[0] for end in outcomes.ends} <= {
        "1 rows",
        "SupersededError",
    }


def no_fill(_target: str) -> None:
    raise AssertionError("no ledger is to be filled")


class Crowded:
    """In the place of the script's run: others are faster, so many times."""

    def __init__(self, times: int) -> None:
        self.left, self.job_ids = times, list[str]()

    def __call__(self, jobs: Any, writes: Any, sql: Any, params: Any, job_id: str) -> list[dict[str, Any]]:
        self.job_ids.append(job_id)
        if self.left:
            self.left -= 1
            raise ConflictError("busy")
        at = writes[0].lineage.ingested_at
        return [{"outcome": "committed", "n": 1, "ingested_at": at, "content_hash": ""}]


def crowded(target: Target, monkeypatch: pytest.MonkeyPatch, times: int) -> tuple[Crowded, Commit]:
    crowd = Crowded(times)
    monkeypatch.setattr(commits, "_run", crowd)
    monkeypatch.setattr(commits, "BACKOFF", Backoff(0.0001, 0.1))
    return crowd, target.order(f"{target.table_id}__stage_x")


def test_lost_conflicts_are_retried_under_new_job_ids_and_told_as_waiting(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd, write = crowded(target, monkeypatch, 40)
    log = list[str]()
    (receipt,) = commits.commit(
        target.warehouse._jobs, commits.Queues(), [replace(write, wait_s=60)], log.append, no_fill
    )
    assert receipt.rows == 1 and len(set(crowd.job_ids)) == 41
    assert log[0] == f"waits for other writers of {target.table_id}"
    assert len(log) == 2 and log[1].endswith("40 lost conflicts")


def test_who_has_no_time_left_to_wait_fails_with_a_conflict_that_is_tried_again(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, write = crowded(target, monkeypatch, 10**9)
    began = time.monotonic()
    with pytest.raises(WriterBusyError, match=r"busy \(\d+ s, \d+ lost conflicts\)") as raised:
        commits.commit(
            target.warehouse._jobs, commits.Queues(), [replace(write, wait_s=0.3)], lambda _text: None, no_fill
        )
    assert raised.value.kind is ErrorKind.CONFLICT and time.monotonic() - began < 5


def test_writers_of_one_table_queue_in_their_process_and_those_of_another_do_not() -> None:
    queues, outcomes = commits.Queues(), list[str]()

    def turn(seconds: float, name: str, *targets: str) -> AbstractContextManager[None]:
        return queues.turn(targets, countdown(seconds), lambda: outcomes.append(name))

    with turn(1, "a", "p.d.a"), turn(1, "b", "p.d.b"):
        assert outcomes == []
        with pytest.raises(ConflictError), turn(0.01, "waits", "p.d.0", "p.d.a"):
            pass
    assert outcomes == ["waits"]
    with turn(0, "again", "p.d.a", "p.d.b"), turn(0, "given back", "p.d.0"):
        assert outcomes == ["waits"]


def test_views_of_one_warehouse_queue_together(warehouse: BigQueryWarehouse) -> None:
    assert warehouse.labelled({}, lambda _job_id: None)._queues is warehouse._queues
