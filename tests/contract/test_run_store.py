"""What every run store promises. One suite, run on each adapter of the port."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from common.adapters.google.firestore_store import FirestoreRunStore
from common.adapters.sqlite.bus import SqliteBus
from common.adapters.sqlite.database import Database
from common.adapters.sqlite.run_store import SqliteRunStore
from common.domain import transitions
from common.domain.draft import Transition
from common.domain.events import (
    AttemptClaimed,
    AttemptSucceeded,
    AttemptSuspended,
    CancelRequested,
    RunAnnounced,
    RunRejected,
    RunValidated,
    Swept,
)
from common.domain.model import Pipeline, Receipt, Run, RunRequest, RunStatus, StepSpec, StepStatus
from common.domain.quota import Limits
from common.errors import NotFoundError, QuotaExceededError, RequestError, StaleRunError, TransientError
from common.ports import Message, RunStore
from common.topics import read_order
from tests.memory_store import MemoryRunStore

T0 = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
DAY = date(2026, 11, 20)
WIDE = Limits("ACTIVE", daily=10_000, monthly=10_000, concurrent=10_000)


@dataclass
class Adapter:
    """A store under test, and a look at the messages that reached its bus."""

    store: RunStore
    sent: Callable[[], list[Message]]

    def topics(self) -> list[str]:
        return [message.topic for message in self.sent()]


class RecordingBus:
    """Keeps what is published until it is looked at."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def publish(self, messages: Sequence[Message]) -> None:
        self._messages += messages

    def sent(self) -> list[Message]:
        found, self._messages = self._messages, []
        return found


@pytest.fixture(params=["sqlite", "memory", "firestore"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Adapter:
    recorder = RecordingBus()
    match request.param:
        case "memory":
            return Adapter(MemoryRunStore(recorder), recorder.sent)
        case "firestore":
            host = request.getfixturevalue("google_emulators").firestore_host
            project = request.getfixturevalue("google_project")
            return Adapter(FirestoreRunStore(project, recorder, host), recorder.sent)
    database = Database(tmp_path / "store.db")
    bus = SqliteBus(database)
    return Adapter(SqliteRunStore(database, bus), lambda: [d.message for d in bus.pull(1000)])


def new_run(number: int = 1, org: str = "acme", at: datetime = T0, route: str = "a/b/c") -> Transition:
    return transitions.create(RunRequest(f"run_{number:032x}", org, route, DAY, DAY, at))


def create(adapter: Adapter, number: int = 1, limits: Limits = WIDE, **more: object) -> Transition:
    new = new_run(number, **more)  # type: ignore[arg-type]
    adapter.store.create(new, limits)
    return new


SPECS = (StepSpec("a", "noop"), StepSpec("b", "noop", ("a",)), StepSpec("c", "noop"))


def validated(run: Run) -> Transition:
    return transitions.apply(run, RunValidated(Pipeline("p", "x", SPECS, "hash"), "cred"), T0)


def started(adapter: Adapter) -> Run:
    """A running run of a → b, and c."""
    create(adapter)
    adapter.store.commit(validated(adapter.store.load(new_run().run.run_id)))
    adapter.topics()
    return adapter.store.load(new_run().run.run_id)


def claimed(adapter: Adapter, step_id: str) -> Run:
    run = adapter.store.load(new_run().run.run_id)
    return adapter.store.commit(transitions.apply(run, AttemptClaimed(step_id, 1, "me"), T0))


def succeeded(adapter: Adapter, step_id: str) -> Run:
    run = adapter.store.load(new_run().run.run_id, (step_id,))
    return adapter.store.commit(transitions.apply(run, AttemptSucceeded(step_id, 1, Receipt(rows=3)), T0))


def test_a_partial_load_brings_the_records_asked_for_and_no_other(adapter: Adapter) -> None:
    run = started(adapter)
    claimed(adapter, "a")
    claimed(adapter, "c")
    assert set(adapter.store.load(run.run_id, ()).steps) == set()
    part = adapter.store.load(run.run_id, ("a", "b"))
    assert set(part.steps) == {"a"} and part.steps["a"].owner == "me" and part.specs == SPECS


def test_a_whole_load_brings_every_step_and_what_follows_for_those_without_a_record(adapter: Adapter) -> None:
    run = started(adapter)
    claimed(adapter, "a")
    whole = adapter.store.load(run.run_id)
    assert {name: str(s.status) for name, s in whole.steps.items()} == {"a": "running", "b": "waiting", "c": "queued"}
    succeeded(adapter, "a")
    whole = adapter.store.load(run.run_id)
    assert whole.steps["b"].status is StepStatus.QUEUED and whole.steps["a"].receipt.rows == 3


def test_steps_are_written_side_by_side_from_one_reading_of_the_run(adapter: Adapter) -> None:
    run = started(adapter)
    for step_id in ("a", "c"):
        adapter.store.commit(transitions.apply(run, AttemptClaimed(step_id, 1, "me"), T0))
    assert adapter.store.load(run.run_id, ()).version == run.version


def test_of_two_claims_of_one_attempt_the_second_is_stale(adapter: Adapter) -> None:
    run = started(adapter)
    adapter.store.commit(transitions.apply(run, AttemptClaimed("a", 1, "first"), T0))
    with pytest.raises(StaleRunError):
        adapter.store.commit(transitions.apply(run, AttemptClaimed("a", 1, "second"), T0))
    assert adapter.store.load(run.run_id).steps["a"].owner == "first"


def test_of_two_results_of_one_attempt_the_second_is_stale(adapter: Adapter) -> None:
    started(adapter)
    claimed(adapter, "a")
    run = adapter.store.load(new_run().run.run_id, ("a",))
    adapter.store.commit(transitions.apply(run, AttemptSucceeded("a", 1, Receipt(rows=3)), T0))
    with pytest.raises(StaleRunError):
        adapter.store.commit(transitions.apply(run, AttemptSucceeded("a", 1, Receipt(rows=4)), T0))
    assert adapter.store.load(run.run_id).steps["a"].receipt.rows == 3


def test_a_commit_that_writes_what_is_there_already_makes_a_new_version_all_the_same(adapter: Adapter) -> None:
    run = started(adapter)
    same = Transition(adapter.store.load(run.run_id, ()), header=True)
    stored = adapter.store.commit(same)
    assert stored.version != same.run.version
    with pytest.raises(StaleRunError):
        adapter.store.commit(same)


def test_a_transition_of_several_records_is_stored_whole_or_not_at_all(adapter: Adapter) -> None:
    """The run is cancelled from a reading in which ``a`` was not yet claimed."""
    run = started(adapter)
    claimed(adapter, "a")
    with pytest.raises(StaleRunError):
        adapter.store.commit(transitions.apply(run, CancelRequested("me", "no need"), T0))
    whole = adapter.store.load(run.run_id)
    assert whole.status is RunStatus.RUNNING and whole.steps["c"].version == 0
    assert adapter.topics() == [] and adapter.store.usage("acme", T0).concurrent == 1


def test_a_cancelled_run_is_counted_and_frees_its_slot(adapter: Adapter) -> None:
    run = started(adapter)
    adapter.store.commit(transitions.apply(run, CancelRequested("me", "no need"), T0))
    usage = adapter.store.usage("acme", T0)
    assert (usage.cancelled, usage.failed, usage.completed, usage.concurrent) == (1, 0, 0, 0)


def test_a_step_is_held_until_its_record_changes(adapter: Adapter) -> None:
    started(adapter)
    mine = claimed(adapter, "a").steps["a"]
    assert adapter.store.holds(new_run().run.run_id, mine)
    succeeded(adapter, "a")
    assert not adapter.store.holds(new_run().run.run_id, mine)


def test_steps_have_all_ended_only_when_each_has(adapter: Adapter) -> None:
    run = started(adapter)
    claimed(adapter, "a")
    claimed(adapter, "c")
    succeeded(adapter, "a")
    assert adapter.store.all_ended(run.run_id, ("a",))
    assert not adapter.store.all_ended(run.run_id, ("a", "c")) and not adapter.store.all_ended(run.run_id, ("a", "b"))
    succeeded(adapter, "c")
    assert adapter.store.all_ended(run.run_id, ("a", "c"))


def test_the_messages_of_a_commit_carry_the_versions_it_made(adapter: Adapter) -> None:
    started(adapter)
    claimed(adapter, "a")
    succeeded(adapter, "a")
    order, step = read_order(adapter.sent()[-1].data)
    assert (step.step_id, step.version, order.specs[0].step_id) == ("b", 0, "b")


def test_a_step_past_its_deadline_makes_its_run_due(adapter: Adapter) -> None:
    started(adapter)
    deadline = claimed(adapter, "a").steps["a"].deadline
    assert deadline is not None
    run = adapter.store.load(new_run().run.run_id)
    adapter.store.commit(transitions.apply(run, Swept(), deadline - timedelta(seconds=1)))
    assert list(adapter.store.due(deadline - timedelta(seconds=1), 10)) == []
    assert list(adapter.store.due(deadline, 10)) == [run.run_id]


def test_a_rerun_is_created_with_its_kept_steps(adapter: Adapter) -> None:
    run = started(adapter)
    claimed(adapter, "a")
    succeeded(adapter, "a")
    cancelled = transitions.apply(adapter.store.load(run.run_id), CancelRequested("me", "x"), T0)
    adapter.store.commit(cancelled)
    new = transitions.rerun(adapter.store.load(run.run_id), new_run(2).run.request, who="me", why="again")
    adapter.store.create(new, WIDE)
    again = adapter.store.load(new.run.run_id)
    assert again.specs == SPECS and again.steps["a"].status is StepStatus.SUCCEEDED
    assert again.steps["a"].receipt.rows == 3 and again.steps["c"].status is StepStatus.WAITING


def end(adapter: Adapter, new: Transition, at: datetime) -> None:
    run = adapter.store.load(new.run.run_id)
    ended = transitions.apply(run, RunRejected("no"), at)
    adapter.store.commit(ended)


def test_a_created_run_is_read_back_whole(adapter: Adapter) -> None:
    new = create(adapter)
    stored = adapter.store.load(new.run.run_id)
    assert stored.version > 0 and replace(stored, version=0) == new.run


def test_a_running_run_with_steps_is_read_back_whole(adapter: Adapter) -> None:
    create(adapter)
    run = adapter.store.load(new_run().run.run_id)
    spec = StepSpec("extract", "noop", (), 60, config={"deep": {"list": [1, "two", None]}, "money": "0.10"})
    moved = transitions.apply(run, RunValidated(Pipeline("p", "x", (spec,), "hash"), "cred"), T0)
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
    late = transitions.apply(run, RunRejected("late"), T0)
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
    moved = transitions.apply(run, RunValidated(Pipeline("p", "x", (spec,), "hash"), "cred"), T0)
    adapter.store.commit(moved)
    assert moved.run.expires_at is not None and moved.run.expires_at > T0 + timedelta(hours=3)
    with pytest.raises(QuotaExceededError):
        create(adapter, 2, limits, at=moved.run.expires_at)


def test_a_reservation_lives_as_long_as_a_step_that_waits_for_a_job(adapter: Adapter) -> None:
    limits = replace(WIDE, concurrent=1)
    before = started(adapter).expires_at
    run = claimed(adapter, "a")
    waiting = transitions.apply(run, AttemptSuspended("a", 1, "job", T0 + timedelta(hours=1)), T0)
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


def test_many_threads_never_exceed_a_limit(adapter: Adapter) -> None:
    """8 threads × 25 requests against 7 slots: exactly 7 runs are admitted, and the counts agree."""
    limits, admitted, lock = replace(WIDE, concurrent=7), [], threading.Lock()

    def ask(worker: int) -> None:
        for number in range(25):
            try:
                new = create(adapter, worker * 1000 + number + 1, limits)
            except QuotaExceededError:
                continue
            with lock:
                admitted.append(new.run.run_id)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    usage = adapter.store.usage("acme", T0)
    assert len(admitted) == usage.concurrent == usage.daily == usage.monthly == 7


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
    deadline = T0 + transitions.RESEND_AFTER
    assert list(adapter.store.due(deadline - timedelta(seconds=1), 10)) == []
    assert [int(r[4:], 16) for r in adapter.store.due(deadline + timedelta(seconds=5), 10)] == [2, 3]


def test_an_ended_and_announced_run_is_neither_due_nor_active(adapter: Adapter) -> None:
    new = create(adapter)
    assert list(adapter.store.active()) == [new.run.run_id]
    end(adapter, new, T0)
    assert list(adapter.store.active()) == [new.run.run_id]
    adapter.store.commit(transitions.apply(adapter.store.load(new.run.run_id), RunAnnounced(), T0))
    assert list(adapter.store.active()) == []
    assert list(adapter.store.due(T0 + timedelta(days=999), 10)) == []


def numbers(page: object) -> list[int]:
    return [int(run.run_id[4:], 16) for run in page.runs]  # type: ignore[attr-defined]


def test_history_is_newest_first_and_pages_do_not_shift_under_inserts(adapter: Adapter) -> None:
    for number in range(1, 6):
        create(adapter, number, at=T0 + timedelta(seconds=number // 2))
    first = adapter.store.history("acme", limit=2)
    create(adapter, 9, at=T0 + timedelta(hours=1))
    second = adapter.store.history("acme", limit=2, cursor=first.next_cursor)
    third = adapter.store.history("acme", limit=2, cursor=second.next_cursor)
    assert [numbers(p) for p in (first, second, third)] == [[5, 4], [3, 2], [1]]
    assert third.next_cursor is None


def test_a_long_page_of_history_brings_the_steps_of_each_run(adapter: Adapter) -> None:
    started(adapter)
    claimed(adapter, "a")
    for number in range(2, 36):
        create(adapter, number)
    page = adapter.store.history("acme", limit=50)
    assert numbers(page) == list(range(35, 0, -1)) and page.next_cursor is None
    assert page.runs[-1] == adapter.store.load(new_run().run.run_id) and page.runs[-1].steps["a"].owner == "me"


def test_history_shows_one_organisation_and_filters(adapter: Adapter) -> None:
    create(adapter, 1)
    create(adapter, 2, org="globex")
    ended = create(adapter, 3, route="x/y/z")
    end(adapter, ended, T0)
    assert numbers(adapter.store.history("acme", limit=9)) == [3, 1]
    assert numbers(adapter.store.history("acme", limit=9, route="x/y/z")) == [3]
    assert numbers(adapter.store.history("acme", limit=9, status="pending")) == [1]


@pytest.mark.parametrize("cursor", ["", "x", "[]", "[1]", '{"a":1}', "[null,null]"])
def test_a_cursor_that_was_not_given_out_is_refused(adapter: Adapter, cursor: str) -> None:
    with pytest.raises(RequestError, match="cursor"):
        adapter.store.history("acme", limit=1, cursor=cursor)


def test_a_store_that_can_not_be_opened_or_read_is_a_transient_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "rubbish.db").write_bytes(b"not a database" * 1000)
    for name in ("folder.db", "rubbish.db"):
        with pytest.raises(TransientError, match=f"{name} could not be opened"):
            Database(tmp_path / name)
