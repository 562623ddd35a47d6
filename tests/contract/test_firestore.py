"""What is particular to the adapters on Firestore: lost answers, outages, preconditions, the order of changes."""

import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.firestore_v1.batch import WriteBatch

from common.adapters.google.firestore_client import Firestore, Operations, version
from common.adapters.google.firestore_documents import change_entries, read_changes
from common.adapters.google.firestore_quota import KEPT_DAYS, KEPT_MONTHS, counted_fields
from common.adapters.google.firestore_store import FirestoreRunStore
from common.domain import state
from common.domain.messages import AttemptClaimed, AttemptSucceeded, CancelRequested, RunValidated
from common.domain.model import Pipeline, Receipt, Run, RunRequest, RunStatus, StepSpec, StepStatus
from common.domain.quota import Counted, Demand, Limits, Outcomes, day_of, month_of
from common.domain.state import Change, Transition
from common.domain.usage_document import UsageDocument
from common.platform.errors import ConflictingStateError, NotFoundError, StaleRunError, TransientError
from common.ports.bus import Message
from infra.local.google_emulators import GoogleEmulators

T0 = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
DAY = date(2026, 11, 20)
WIDE = Limits("ACTIVE", daily=10_000, monthly=10_000, concurrent=10_000)
RUN_ID = f"run_{1:032x}"


class Bus:
    """Keeps what is published; ``down`` makes it refuse."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.down = False

    def publish(self, messages: Sequence[Message]) -> None:
        if self.down:
            raise TransientError("the bus is down")
        self.messages += messages


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def operations() -> Operations:
    return Operations()


@pytest.fixture
def store(google_emulators: GoogleEmulators, google_project: str, bus: Bus, operations: Operations) -> Any:
    return FirestoreRunStore(google_project, bus, google_emulators.firestore_host, operations)


def new_run() -> Transition:
    return state.create(RunRequest(RUN_ID, "acme", "a/b/c", DAY, DAY, T0))


def started(store: FirestoreRunStore, *specs: StepSpec) -> Run:
    store.create(new_run(), WIDE)
    pipeline = Pipeline("p", "x", specs or (StepSpec("a", "noop"),), "hash")
    store.commit(state.apply(store.load(RUN_ID), RunValidated(pipeline, "cred"), T0))
    return store.load(RUN_ID)


def claimed(store: FirestoreRunStore, run: Run, step_id: str = "a") -> Run:
    return store.commit(state.apply(run, AttemptClaimed(step_id, 1, "me"), T0))


def lose_answers(monkeypatch: pytest.MonkeyPatch, *, applied: bool, times: int = 1) -> None:
    """Let the next commits fail as an outage does, after they were applied or before."""
    real, left = WriteBatch.commit, [times]

    def commit(self: WriteBatch, **more: Any) -> Any:
        if not left[0]:
            return real(self, **more)
        left[0] -= 1
        if applied:
            real(self, **more)
        raise exceptions.ServiceUnavailable("the connection broke")

    monkeypatch.setattr(WriteBatch, "commit", commit)


@pytest.mark.parametrize("applied", [True, False])
def test_a_commit_whose_answer_was_lost_is_made_once(
    store: FirestoreRunStore, monkeypatch: pytest.MonkeyPatch, applied: bool
) -> None:
    run = started(store)
    lose_answers(monkeypatch, applied=applied)
    mine = claimed(store, run)
    assert mine.steps["a"].version == store.load(RUN_ID).steps["a"].version and store.holds(RUN_ID, mine.steps["a"])
    assert [c.after for c in store.changes(RUN_ID) if c.step_id == "a"] == ["queued", "running"]


@pytest.mark.parametrize("applied", [True, False])
def test_a_creation_whose_answer_was_lost_is_made_once(
    store: FirestoreRunStore, monkeypatch: pytest.MonkeyPatch, bus: Bus, applied: bool
) -> None:
    lose_answers(monkeypatch, applied=applied)
    store.create(new_run(), WIDE)
    assert store.usage("acme", T0).daily == 1 and [m.topic for m in bus.messages] == ["runs"]


def test_a_commit_that_lost_its_answer_and_then_to_another_is_stale(
    store: FirestoreRunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(store)
    claimed(store, run)
    lose_answers(monkeypatch, applied=False)
    with pytest.raises(StaleRunError):
        claimed(store, run)


def test_an_outage_ends_in_a_transient_error_within_seconds(
    store: FirestoreRunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(store)
    lose_answers(monkeypatch, applied=False, times=1000)
    before = time.monotonic()
    with pytest.raises(TransientError, match="could not write in project 'test-.*connection broke"):
        claimed(store, run)
    assert time.monotonic() - before < 10


def test_an_emulator_that_is_down_is_told_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        host = f"127.0.0.1:{one.getsockname()[1]}"
    before = time.monotonic()
    with pytest.raises(TransientError, match="could not read in project 'nowhere'"):
        FirestoreRunStore("nowhere", Bus(), host).load(RUN_ID)
    assert time.monotonic() - before < 15


def test_a_run_is_created_even_if_its_message_must_wait_for_the_sweep(store: FirestoreRunStore, bus: Bus) -> None:
    bus.down = True
    store.create(new_run(), WIDE)
    assert list(store.due(T0 + state.RESEND_AFTER, 1)) == [RUN_ID]


def test_a_commit_whose_messages_can_not_be_published_is_stored_and_raises(store: FirestoreRunStore, bus: Bus) -> None:
    run = claimed(store, started(store, StepSpec("a", "noop"), StepSpec("b", "noop", ("a",))))
    bus.down = True
    with pytest.raises(TransientError, match="bus is down"):
        store.commit(state.apply(run, AttemptSucceeded("a", 1, Receipt()), T0))
    assert store.load(RUN_ID).steps["b"].status is StepStatus.QUEUED


def test_a_second_run_of_one_id_is_refused(store: FirestoreRunStore) -> None:
    store.create(new_run(), WIDE)
    with pytest.raises(ConflictingStateError, match="already"):
        store.create(new_run(), WIDE)
    assert store.usage("acme", T0).daily == 1


@pytest.mark.parametrize("run_id", ["", ".", "a/b", "a/steps/b", "__x__", "ä", "x" * 2000])
def test_an_id_that_no_run_can_have_is_not_found(store: FirestoreRunStore, run_id: str) -> None:
    with pytest.raises(NotFoundError):
        store.load(run_id)


def test_of_hundreds_of_steps_it_is_known_whether_all_have_ended(
    store: FirestoreRunStore, operations: Operations
) -> None:
    names = [f"s{number}" for number in range(70)]
    run = started(store, *(StepSpec(name, "noop") for name in names))
    for name in names:
        run = claimed(store, run, name)
        if name != "s69":
            run = store.commit(state.apply(run, AttemptSucceeded(name, 1, Receipt()), T0))
    before = operations.reads
    assert not store.all_ended(RUN_ID, names) and operations.reads - before == 1
    assert store.all_ended(RUN_ID, names[:-1]) and operations.reads - before == 5
    assert store.commit(state.apply(run, AttemptSucceeded("s69", 1, Receipt()), T0)).status is RunStatus.COMPLETED


def test_versions_are_exact_to_the_nanosecond(google_emulators: GoogleEmulators, google_project: str) -> None:
    from proto.datetime_helpers import DatetimeWithNanoseconds

    assert version(DatetimeWithNanoseconds(2026, 11, 21, 11, 0, 2, nanosecond=123_456_789, tzinfo=UTC)) % 10**9 == (
        123_456_789
    )


def test_changes_keep_the_order_of_each_document_though_clocks_differ() -> None:
    def entries(at: int, *told: tuple[str, str]) -> dict[str, list[str]]:
        run = replace(new_run().run, steps={})
        changes = tuple(Change(T0, step_id, 1, "", after, "") for step_id, after in told)
        touched = tuple(step_id for step_id, _ in told if step_id == "a")
        return change_entries(Transition(run, changes=changes, touched=touched, header=True), lambda: at)

    step, run, late = entries(1000, ("a", "a1")), entries(2000, ("", "r1"), ("z", "z1")), entries(500, ("a", "a2"))
    documents = [run[""], step["a"] + late["a"]]
    assert [change.after for change in read_changes(documents)] == ["a1", "a2", "r1", "z1"]


def test_the_usage_forgets_what_is_long_past() -> None:
    document, at = UsageDocument(), T0
    for _ in range(800):
        at += timedelta(days=1)
        run = replace(new_run().run, admitted_at=at)
        document = document.admitted(Demand.of(run, waited=False), WIDE)
        document = document.changed(run, [Counted((day_of(at), month_of(at)), {"failed": 1})])
    fields = counted_fields(document)
    assert [len(fields[name]) for name in ("days", "outcomes", "months")] == [KEPT_DAYS, KEPT_DAYS, KEPT_MONTHS]
    assert min(fields["days"]) == min(fields["outcomes"]) == day_of(at - timedelta(days=KEPT_DAYS - 1))
    assert document.usage(at).daily == fields["days"][day_of(at)] == 1


def test_a_usage_document_from_before_outcomes_of_days_goes_on(
    store: FirestoreRunStore, google_emulators: GoogleEmulators, google_project: str
) -> None:
    firestore, run_id = Firestore(google_project, google_emulators.firestore_host), f"run_{2:032x}"
    live = {run_id: {"route": "a/b/c", "until": T0 + timedelta(hours=1)}}
    month = {"admitted": 3, "failed": 2, "reserved": 0}
    before = {"days": {"2026-11-21": 3}, "months": {"2026-11": month}, "reservations": live}
    firestore.write(lambda batch: batch.create(firestore.document("usage", "acme"), before))
    store.create(new_run(), replace(WIDE, daily=4, concurrent=2))
    store.commit(state.apply(store.load(RUN_ID), CancelRequested("me", "so"), T0))
    usage = store.usage("acme", T0)
    assert (usage.daily, usage.monthly, usage.concurrent, usage.failed, usage.cancelled) == (4, 4, 1, 2, 1)
    assert usage.ended_today == Outcomes(cancelled=1)


def test_a_batch_is_refused_whole(google_emulators: GoogleEmulators, google_project: str) -> None:
    firestore = Firestore(google_project, google_emulators.firestore_host)
    one, two = firestore.document("t", "one"), firestore.document("t", "two")
    firestore.write(lambda batch: batch.create(one, {"n": 1}))

    def fill(batch: Any) -> None:
        batch.create(two, {"n": 1})
        batch.create(one, {"n": 2})

    with pytest.raises(Exception, match="exists"):
        firestore.write(fill)
    assert [s.get("n") for s in firestore.get(one, two).values()] == [1]
