"""What every run store promises. One suite, run on each adapter of the port; of steps in a file of its own."""

import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.adapters.sql.sqlite.database import Database
from common.domain import state
from common.domain.messages import AttemptSuspended, RunAnnounced, RunRejected, RunValidated
from common.domain.model import Pipeline, RunStatus, StepSpec
from common.domain.quota import Limits
from common.platform.errors import NotFoundError, QuotaExceededError, RequestError, StaleRunError, TransientError
from common.ports.store import HistoryQuery
from tests.contract.stores import (
    T0,
    WIDE,
    Adapter,
    claimed,
    create,
    end,
    new_run,
    started,
    validated,
)


def test_a_created_run_is_read_back_whole(adapter: Adapter) -> None:
    new = create(adapter)
    stored = adapter.store.load(new.run.run_id)
    assert stored.version > 0 and replace(stored, version=0) == new.run


def test_a_running_run_with_steps_is_read_back_whole(adapter: Adapter) -> None:
    create(adapter)
    run = adapter.store.load(new_run().run.run_id)
    spec = StepSpec("extract", "noop", (), 60, config={"deep": {"list": [1, "two", None]}, "money": "0.10"})
    moved = state.apply(run, RunValidated(Pipeline("p", "x", (spec,), "hash"), "cred"), T0)
    stored = adapter.store.commit(moved)
    assert stored.version != run.version and adapter.store.load(run.run_id, ()) == replace(stored, steps={})


def test_an_unknown_run_is_not_found(adapter: Adapter) -> None:
    with pytest.raises(NotFoundError, match="run_x"):
        adapter.store.load("run_x")


def test_a_run_and_its_message_arrive_together(adapter: Adapter) -> None:
    create(adapter)
    assert adapter.topics() == ["runs"]


def test_a_refused_run_leaves_neither_run_nor_message_nor_count(adapter: Adapter) -> None:
    with pytest.raises(QuotaExceededError):
        create(adapter, limits=replace(WIDE, daily=0))
    with pytest.raises(NotFoundError):
        adapter.store.load(new_run().run.run_id)
    assert adapter.topics() == []
    assert adapter.store.usage("acme", T0).daily == 0


def test_a_commit_made_from_an_older_version_is_refused_and_changes_nothing(adapter: Adapter) -> None:
    create(adapter)
    adapter.topics()
    run = adapter.store.load(new_run().run.run_id)
    adapter.store.commit(validated(run))
    adapter.topics()
    late = state.apply(run, RunRejected("late"), T0)
    with pytest.raises(StaleRunError):
        adapter.store.commit(late)
    assert adapter.store.load(run.run_id).status is RunStatus.RUNNING
    assert adapter.topics() == [] and adapter.store.usage("acme", T0).concurrent == 1
    assert [c.after for c in adapter.store.changes(run.run_id)] == ["pending", "validating", "running"]


def test_changes_are_kept_in_the_order_of_their_commits(adapter: Adapter) -> None:
    new = create(adapter)
    end(adapter, new, T0 + timedelta(seconds=1))
    kept = adapter.store.changes(new.run.run_id)
    assert [(c.before, c.after) for c in kept] == [("", "pending"), ("pending", "validating"), ("validating", "failed")]
    assert kept[0] == new.changes[0]


@pytest.mark.parametrize(
    ("limit", "limits"),
    [
        ("concurrent", replace(WIDE, concurrent=2)),
        ("daily", replace(WIDE, daily=2)),
        ("monthly", replace(WIDE, monthly=2)),
    ],
)
def test_a_used_up_limit_is_named_with_its_value_and_use(adapter: Adapter, limit: str, limits: Limits) -> None:
    create(adapter, 1, limits)
    create(adapter, 2, limits)
    with pytest.raises(QuotaExceededError) as refused:
        create(adapter, 3, limits)
    assert (refused.value.limit, refused.value.value, refused.value.used) == (limit, 2, 2)
    assert refused.value.retry_after_s > 0


def test_an_ended_run_frees_its_slot_and_counts_its_outcome_once(adapter: Adapter) -> None:
    limits = replace(WIDE, concurrent=1)
    new = create(adapter, 1, limits)
    end(adapter, new, T0)
    assert adapter.store.usage("acme", T0).failed == 1
    create(adapter, 2, limits)


def test_the_reservation_of_a_vanished_run_frees_itself_after_its_time(adapter: Adapter) -> None:
    limits = replace(WIDE, concurrent=1)
    new = create(adapter, 1, limits)
    assert new.run.expires_at is not None
    with pytest.raises(QuotaExceededError):
        create(adapter, 2, limits, at=new.run.expires_at)
    create(adapter, 3, limits, at=new.run.expires_at + timedelta(minutes=6))


def test_a_reservation_lives_as_long_as_its_running_run(adapter: Adapter) -> None:
    limits = replace(WIDE, concurrent=1)
    create(adapter, 1, limits)
    run = adapter.store.load(new_run().run.run_id)
    spec = StepSpec("extract", "noop", (), 500)
    moved = state.apply(run, RunValidated(Pipeline("p", "x", (spec,), "hash"), "cred"), T0)
    adapter.store.commit(moved)
    assert moved.run.expires_at is not None and moved.run.expires_at > T0 + timedelta(hours=3)
    with pytest.raises(QuotaExceededError):
        create(adapter, 2, limits, at=moved.run.expires_at)


def test_a_reservation_lives_as_long_as_a_step_that_waits_for_a_job(adapter: Adapter) -> None:
    limits = replace(WIDE, concurrent=1)
    before = started(adapter).expires_at
    run = claimed(adapter, "a")
    waiting = state.apply(run, AttemptSuspended("a", 1, "job", T0 + timedelta(hours=1)), T0)
    adapter.store.commit(waiting)
    after = waiting.run.expires_at
    assert before is not None and after is not None and after > before + timedelta(hours=1)
    with pytest.raises(QuotaExceededError):
        create(adapter, 2, limits, at=after)


def test_days_and_months_are_counted_apart_and_in_utc(adapter: Adapter) -> None:
    limits = replace(WIDE, daily=1, monthly=2)
    create(adapter, 1, limits, at=datetime(2026, 11, 29, 23, 59, tzinfo=UTC))
    create(adapter, 2, limits, at=datetime(2026, 11, 30, 0, 0, tzinfo=UTC))
    with pytest.raises(QuotaExceededError, match="monthly"):
        create(adapter, 3, limits, at=datetime(2026, 11, 30, 23, 0, tzinfo=UTC))
    create(adapter, 4, limits, at=datetime(2026, 12, 1, 0, 0, tzinfo=UTC))


def test_one_organisation_does_not_use_up_anothers_quota(adapter: Adapter) -> None:
    limits = replace(WIDE, concurrent=1)
    create(adapter, 1, limits, org="acme")
    create(adapter, 2, limits, org="globex")
    assert [adapter.store.usage(org, T0).concurrent for org in ("acme", "globex")] == [1, 1]


def test_of_many_writers_from_one_version_exactly_one_wins(adapter: Adapter) -> None:
    create(adapter)
    run = adapter.store.load(new_run().run.run_id)
    wins, losses = [], []

    def write() -> None:
        try:
            adapter.store.commit(validated(run))
            wins.append(1)
        except StaleRunError:
            losses.append(1)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(wins), len(losses)) == (1, 7)


def test_due_runs_are_those_past_their_deadline_longest_overdue_first(adapter: Adapter) -> None:
    for number, late in ((1, 10), (2, 0), (3, 5)):
        create(adapter, number, at=T0 + timedelta(seconds=late))
    deadline = T0 + state.RESEND_AFTER
    assert list(adapter.store.due(deadline - timedelta(seconds=1), 10)) == []
    assert [int(r[4:], 16) for r in adapter.store.due(deadline + timedelta(seconds=5), 10)] == [2, 3]


def test_an_ended_and_announced_run_is_neither_due_nor_active(adapter: Adapter) -> None:
    new = create(adapter)
    assert list(adapter.store.active()) == [new.run.run_id]
    end(adapter, new, T0)
    assert list(adapter.store.active()) == [new.run.run_id]
    adapter.store.commit(state.apply(adapter.store.load(new.run.run_id), RunAnnounced(), T0))
    assert list(adapter.store.active()) == []
    assert list(adapter.store.due(T0 + timedelta(days=999), 10)) == []


def numbers(page: object) -> list[int]:
    return [int(run.run_id[4:], 16) for run in page.runs]  # type: ignore[attr-defined]


def test_history_is_newest_first_and_pages_do_not_shift_under_inserts(adapter: Adapter) -> None:
    for number in range(1, 6):
        create(adapter, number, at=T0 + timedelta(seconds=number // 2))
    first = adapter.store.history(HistoryQuery("acme", 2))
    create(adapter, 9, at=T0 + timedelta(hours=1))
    second = adapter.store.history(HistoryQuery("acme", 2, cursor=first.next_cursor))
    third = adapter.store.history(HistoryQuery("acme", 2, cursor=second.next_cursor))
    assert [numbers(p) for p in (first, second, third)] == [[5, 4], [3, 2], [1]]
    assert third.next_cursor is None and re.fullmatch(r"[0-9A-Za-z._-]+", second.next_cursor or "")


def test_a_long_page_of_history_brings_the_steps_of_each_run(adapter: Adapter) -> None:
    started(adapter)
    claimed(adapter, "a")
    for number in range(2, 36):
        create(adapter, number)
    page = adapter.store.history(HistoryQuery("acme", 50))
    assert numbers(page) == list(range(35, 0, -1)) and page.next_cursor is None
    assert page.runs[-1] == adapter.store.load(new_run().run.run_id) and page.runs[-1].steps["a"].owner == "me"


def test_history_shows_one_organisation_and_filters(adapter: Adapter) -> None:
    create(adapter, 1)
    create(adapter, 2, org="globex")
    ended = create(adapter, 3, route="x/y/z")
    end(adapter, ended, T0)
    assert numbers(adapter.store.history(HistoryQuery("acme", 9))) == [3, 1]
    assert numbers(adapter.store.history(HistoryQuery("acme", 9, route="x/y/z"))) == [3]
    assert numbers(adapter.store.history(HistoryQuery("acme", 9, status="pending"))) == [1]


def test_history_of_a_time_holds_its_first_moment_and_not_its_last(adapter: Adapter) -> None:
    for number in range(1, 6):
        create(adapter, number, at=T0 + timedelta(hours=number))
    second, fourth = T0 + timedelta(hours=2), T0 + timedelta(hours=4)
    assert numbers(adapter.store.history(HistoryQuery("acme", 9, since=second))) == [5, 4, 3, 2]
    assert numbers(adapter.store.history(HistoryQuery("acme", 9, before=fourth))) == [3, 2, 1]
    assert numbers(adapter.store.history(HistoryQuery("acme", 9, since=second, before=fourth))) == [3, 2]
    assert numbers(adapter.store.history(HistoryQuery("acme", 9, since=fourth, before=second))) == []


@pytest.mark.parametrize("status", [None, "pending", "failed", "completed"])
@pytest.mark.parametrize("route", [None, "x/y/z"])
def test_every_filter_goes_with_every_other_and_with_pages(
    adapter: Adapter, route: str | None, status: str | None
) -> None:
    kept = []
    for number in range(1, 13):
        its_route, fails = ("x/y/z", "a/b/c")[number % 2], number % 3 == 0
        new = create(adapter, number, route=its_route, at=T0 + timedelta(hours=number))
        if fails:
            end(adapter, new, T0 + timedelta(hours=number))
        if 3 <= number < 11 and route in (None, its_route) and status in (None, "failed" if fails else "pending"):
            kept.append(number)
    when = {"since": T0 + timedelta(hours=3), "before": T0 + timedelta(hours=11)}
    found, cursor = [], None
    while True:
        page = adapter.store.history(HistoryQuery("acme", 2, route=route, status=status, cursor=cursor, **when))
        found += numbers(page)
        if (cursor := page.next_cursor) is None:
            break
    assert found == kept[::-1]


@pytest.mark.parametrize(
    "cursor", ["", "x", "_", f"x_run_{'0' * 32}", "20261121T060000.000000Z_", f"99999999T999999.0Z_run_{'0' * 32}"]
)
def test_a_cursor_that_was_not_given_out_is_refused(adapter: Adapter, cursor: str) -> None:
    with pytest.raises(RequestError, match="cursor"):
        adapter.store.history(HistoryQuery("acme", 1, cursor=cursor))


def test_a_store_that_can_not_be_opened_or_read_is_a_transient_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "rubbish.db").write_bytes(b"not a database" * 1000)
    for name in ("folder.db", "rubbish.db"):
        with pytest.raises(TransientError, match=f"{name} could not be opened"):
            Database(tmp_path / name)
