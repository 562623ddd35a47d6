"""The fence: which attempts may write, in every order they may come in, decided by the ledger inside BigQuery."""

import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from common.domain.model import Receipt
from common.platform.errors import PermanentError, StepTimeoutError, SupersededError, TransientError
from common.ports.warehouse import Commit
from tests.contract import rivals
from tests.contract.writes import AT, D1, D2, D3, Target, numbers, row


def send(target: Target, write: Commit) -> Receipt:
    return target.warehouse.commit(write, lambda _text: None)


def attempt(target: Target, name: str, fence: int, days: tuple[date, date] = (D1, D1), **more: Any) -> Commit:
    """A staged write of one row a day, named after its attempt."""
    every = [days[0] + timedelta(days=n) for n in range((days[1] - days[0]).days + 1)]
    staging = target.stage([row(name, day) for day in every], days)
    return target.order(staging, days, fence=fence, rows=len(every), content_hash=f"hash of {name}", **more)


def outcomes(target: Target, writes: tuple[Commit, ...]) -> list[str]:
    def outcome(write: Commit) -> str:
        try:
            return f"{send(target, write).rows} rows"
        except SupersededError:
            return "superseded"

    return [outcome(write) for write in writes]


ORDERS = list(itertools.permutations((1, 2)))


@pytest.mark.parametrize("order", ORDERS, ids=["in order", "the old one last"])
def test_of_two_attempts_of_one_step_the_later_one_stays_in_either_order(
    target: Target, order: tuple[int, ...]
) -> None:
    writes = {n: attempt(target, f"attempt {n}", fence=n, attempt=n) for n in order}
    told = outcomes(target, tuple(writes[n] for n in order))
    assert told == (["1 rows", "1 rows"] if order == (1, 2) else ["1 rows", "superseded"])
    assert target.runs() == [("attempt 2", "run_1")]


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))), ids=str)
def test_of_attempts_of_three_runs_of_one_key_the_last_started_stays_in_every_order(
    target: Target, order: tuple[int, ...]
) -> None:
    for n in order:
        outcomes(target, (attempt(target, "row", fence=n, run_id=f"run_{n}", attempt=1),))
    assert target.runs() == [("row", "run_3")]
    assert [commit["fence"] for commit in target.ledger()] == [3]


def test_who_is_superseded_reads_which_run_has_written_these_days(target: Target) -> None:
    send(target, attempt(target, "newer", fence=2, run_id="run_2"))
    with pytest.raises(SupersededError, match=r"run_2 started later and has written 2026-11-01 into .*costs"):
        send(target, attempt(target, "older", fence=1))


def test_a_zombie_that_wakes_up_after_its_lease_is_refused_though_nobody_newer_has_come(target: Target) -> None:
    target.write([row("old")])
    over = datetime.now(UTC) - timedelta(hours=3)
    with pytest.raises(StepTimeoutError, match="after the end of its attempt's lease"):
        send(target, attempt(target, "zombie", fence=10**9, not_after=over))
    assert [name for name, _ in target.runs()] == ["old"]


def test_a_zombie_that_wakes_up_after_a_newer_attempt_is_refused(target: Target) -> None:
    zombie = attempt(target, "zombie", fence=1, attempt=1)
    send(target, attempt(target, "newer", fence=2, attempt=2))
    with pytest.raises(SupersededError):
        send(target, replace(zombie, job_id=f"woken{next(numbers)}"))
    assert target.runs() == [("newer", "run_1")]


@pytest.mark.parametrize("new_job", [False, True], ids=["same job id", "new job id"])
def test_a_commit_whose_reply_was_lost_is_repeated_without_effect_and_with_its_receipt(
    target: Target, new_job: bool
) -> None:
    write = attempt(target, "row", fence=5)
    first = send(target, write)
    target.warehouse.drop(write.staging)
    later = replace(write.lineage, ingested_at=AT + timedelta(minutes=1))
    again = replace(write, lineage=later, job_id=f"again{next(numbers)}" if new_job else write.job_id)
    assert send(target, again) == first
    assert (first.rows, first.content_hash, first.ingested_at) == (1, "hash of row", AT)
    assert target.runs() == [("row", "run_1")] and len(target.ledger()) == 1


def test_a_repeat_after_a_newer_attempt_has_come_is_superseded(target: Target) -> None:
    write = attempt(target, "row", fence=1)
    send(target, write)
    send(target, attempt(target, "newer", fence=2, run_id="run_2"))
    with pytest.raises(SupersededError):
        send(target, replace(write, job_id=f"again{next(numbers)}"))
    assert target.runs() == [("newer", "run_2")]


def test_items_of_a_map_on_days_of_their_own_do_not_fence_each_other(target: Target) -> None:
    for fence, day in ((3, D1), (1, D2), (2, D3)):
        send(target, attempt(target, f"{day}", fence=fence, days=(day, day), step_id=f"load[{fence}]", attempt=1))
    assert len(target.runs()) == 3


def test_days_that_overlap_in_part_are_fenced_and_the_others_stay_whole(target: Target) -> None:
    send(target, attempt(target, "wide", fence=2, days=(D1, D2), run_id="run_2"))
    with pytest.raises(SupersededError):
        send(target, attempt(target, "older", fence=1, days=(D2, D3)))
    assert [(name, day) for name, *_, day in target.names()] == [("wide", D1), ("wide", D2)]
    send(target, attempt(target, "newer", fence=3, days=(D2, D3), run_id="run_3"))
    assert [(name, day) for name, *_, day in target.names()] == [("newer", D2), ("newer", D3), ("wide", D1)]
    assert [commit["fence"] for commit in target.ledger()] == [2, 3]
    with pytest.raises(SupersededError, match="run_2"):
        send(target, attempt(target, "older", fence=1, days=(D1, D1)))


@pytest.mark.parametrize("other", [{"org_slug": "globex"}, {"pipeline_id": "other"}, {"credential_id": "other"}])
def test_another_key_is_never_fenced(target: Target, other: dict[str, str]) -> None:
    send(target, attempt(target, "ours", fence=2))
    send(target, attempt(target, "theirs", fence=1, **other))
    assert len(target.runs()) == 2


def test_the_ledger_keeps_one_row_for_what_was_written_again_and_again(target: Target) -> None:
    for fence in range(1, 5):
        send(target, attempt(target, "row", fence=fence))
    assert [(c["fence"], c["row_count"], c["x_ingestion_date"]) for c in target.ledger()] == [(4, 1, AT.date())]


def test_a_ledger_that_is_new_beside_rows_knows_them(target: Target) -> None:
    """As for a table that was written before there were ledgers: its rows are found, replaced, and fence nobody."""
    send(target, attempt(target, "old", fence=9, days=(D1, D2)))
    target.warehouse.drop(f"{target.table_id}__commits")
    target.warehouse._tables.forget_ledger(target.table_id)
    send(target, attempt(target, "new", fence=1, days=(D1, D1), run_id="run_2"))
    assert target.runs() == [("new", "run_2"), ("old", "run_1")]
    told = [(c["fence"], c["x_run_id"], c["first_day"], c["row_count"]) for c in target.ledger()]
    assert told == [(0, "run_1", D2, 1), (1, "run_2", D1, 1)]


def emptied(target: Target) -> None:
    """What a kill can leave while the emulator makes a table from a query: the table, and no row."""
    target.sql(f"DELETE FROM `{target.table_id}__commits` WHERE TRUE")


def test_a_ledger_that_was_made_and_never_filled_is_filled_from_the_rows_and_the_commit_goes_on(target: Target) -> None:
    target.write([row("old", D1), row("other day", D2)])
    emptied(target)
    assert send(target, attempt(target, "new", fence=10**9, run_id="run_2")).rows == 1
    assert target.runs() == [("new", "run_2"), ("other day", "run_1")]
    assert [(c["x_run_id"], c["first_day"]) for c in target.ledger()] == [("run_1", D2), ("run_2", D1)]
    assert target.sql(f"SELECT COUNT(*) n FROM `{target.table_id}__commits` WHERE x_run_id IS NULL") == [{"n": 1}]


def test_no_commit_writes_while_its_ledger_has_no_gate(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    target.write([row("old")])
    emptied(target)
    monkeypatch.setattr(type(target.warehouse._tables), "fill_ledger", lambda *_: None)
    with pytest.raises(TransientError, match="no gate row"):
        target.write([row("new")])
    assert [name for name, _ in target.runs()] == ["old"]


def test_rivals_that_find_a_ledger_without_a_gate_leave_the_rows_of_one(target: Target) -> None:
    target.write([row("old")])
    stagings = [target.stage([row(f"of {n}")]) for n in range(2)]
    emptied(target)
    writes = [target.order(staging, run_id=f"run_{n}", wait_s=100.0) for n, staging in enumerate(stagings)]
    told = rivals.threads(rivals.url_of(target), writes, clients=2)
    assert target.runs() == [("of 1", "run_1")], told


def test_a_refused_commit_leaves_no_trace_in_the_ledger(target: Target) -> None:
    write = attempt(target, "row", fence=1)
    with pytest.raises(PermanentError, match="day outside the run"):
        send(target, replace(write, first_day=D2, last_day=D3))
    assert target.ledger() == []
