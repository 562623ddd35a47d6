"""The embedded stack's dispatcher: a thread goes on with what came of its message, and nothing begins too early."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common import bootstrap
from common.adapters.sql.sqlite.bus import MAX_DELIVERIES, Consumer, Delivery, SqliteBus
from common.adapters.sql.sqlite.database import Database
from common.bootstrap import STORE_FILE
from common.domain.model import Run, RunStatus
from common.ports.bus import Message
from common.ports.meta import Changes
from common.runs.engine import Engine
from infra.local.dispatcher import Dispatcher, _Shares
from infra.local.host import poster
from tests.harness import INVOKER_TOKEN, Harness, step

pytestmark = pytest.mark.timeout(60)  # what waits for what it should not is found here, and is not to hang

WITHIN_S = 20.0


@contextmanager
def delivering(harness: Harness, workers: int = 8) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(harness.bus, poster(harness.app, "pipeline-ops-local", INVOKER_TOKEN), workers)
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        dispatcher.stop()


def until(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.005)


def ended(harness: Harness, *run_ids: str) -> bool:
    """Whether all that these runs had to do is done: their ends are told, and so nobody looks at them any more."""
    return all(harness.run(run_id).status.is_terminal and not harness.run(run_id).wake_at for run_id in run_ids)


def stored(harness: Harness, query: str, *values: Any) -> list[Any]:
    """What somebody else sees in the file: only what is committed."""
    db = sqlite3.connect(harness.folder / "state" / STORE_FILE)
    try:
        return db.execute(query, values).fetchall()
    finally:
        db.close()


def test_a_chain_of_steps_is_done_on_one_thread_and_leaves_no_message(harness: Harness) -> None:
    threads: list[str] = []
    harness.script("note", lambda _context, _params: threads.append(threading.current_thread().name))
    harness.pipeline(*(step(name, *before, script="note") for name, before in (("a", ()), ("b", "a"), ("c", "b"))))
    with delivering(harness):
        run_id = harness.start()
        until(lambda: ended(harness, run_id))
    assert harness.run(run_id).status is RunStatus.COMPLETED
    assert len(threads) == 3 and len(set(threads)) == 1
    assert stored(harness, "SELECT * FROM messages") == []


def test_steps_that_may_run_side_by_side_do(harness: Harness) -> None:
    together = threading.Barrier(3, timeout=WITHIN_S)
    harness.script("meet", lambda _context, _params: void(together.wait()))
    harness.pipeline(step("a"), *(step(name, "a", script="meet") for name in "xyz"), step("end", "x", "y", "z"))
    with delivering(harness):
        run_id = harness.start()
        until(lambda: ended(harness, run_id))
    assert harness.run(run_id).status is RunStatus.COMPLETED


def test_a_step_begins_once_its_claim_is_committed_and_what_it_waited_for_is_too(harness: Harness) -> None:
    seen: list[Any] = []
    rows = "SELECT step_id, json_extract(body, '$.status') FROM steps ORDER BY step_id"
    harness.script("look", lambda _context, _params: seen.append(stored(harness, rows)))
    harness.pipeline(step("a", script="look"), step("b", "a", script="look"))
    with delivering(harness):
        run_id = harness.start()
        until(lambda: ended(harness, run_id))
    assert seen == [[("a", "running")], [("a", "succeeded"), ("b", "running")]]


def test_the_end_of_a_run_is_told_once_it_is_committed(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    original = Engine.run_finished

    def finished(engine: Engine, run_id: str) -> None:
        seen.append(stored(harness, "SELECT status FROM runs WHERE run_id = ?", run_id))
        original(engine, run_id)

    monkeypatch.setattr(Engine, "run_finished", finished)
    with delivering(harness):
        run_id = harness.start()
        until(lambda: ended(harness, run_id))
    assert seen == [[("completed",)]]


def test_no_run_goes_on_before_others_that_wait_for_a_thread(harness: Harness) -> None:
    order: list[str] = []
    all_asked = threading.Event()

    def note(context: Any, params: Any) -> None:
        order.append(f"{context.source}{params.note}")
        all_asked.wait(WITHIN_S)

    harness.script("note", note)
    chain = (("p", ()), ("q", "p"), ("r", "q"))
    harness.pipeline(*(step(name, *before, script="note", note=name) for name, before in chain))
    with delivering(harness, workers=1):
        first = harness.start({"source": "a"})
        until(lambda: order)
        others = [harness.start({"source": name}) for name in "bc"]
        until(lambda: all(harness.run(run_id).status is RunStatus.RUNNING for run_id in others))
        all_asked.set()
        until(lambda: ended(harness, first, *others))
    assert order == ["ap", "bp", "cp", "aq", "bq", "cq", "ar", "br", "cr"]


def test_an_organisation_whose_provider_hangs_leaves_workers_to_the_others(harness: Harness) -> None:
    """One took all 32 workers, and another's run waited 72 s."""
    answers, at_once, lock = threading.Event(), list[int](), threading.Lock()
    at_work = 0

    def hang(_context: Any, _params: Any) -> None:
        nonlocal at_work
        with lock:
            at_work += 1
            at_once.append(at_work)
        answers.wait(WITHIN_S)
        with lock:
            at_work -= 1

    harness.script("hang", hang)
    harness.pipeline(*(step(f"s{number}", script="hang") for number in range(12)), route="test/demo/hangs")
    harness.pipeline(step("a"), step("b", "a"))
    harness.http("POST", "/pipelines/credentials/globex", json={"provider": "openai", "secret": "x"})
    with delivering(harness, workers=8):
        hanging = [harness.start(route="test/demo/hangs") for _ in range(2)]
        until(lambda: at_work == 4)
        other = harness.start(org="globex")
        until(lambda: ended(harness, other))
        assert harness.run(other).status is RunStatus.COMPLETED and at_work == 4
        answers.set()
        until(lambda: ended(harness, *hanging))
    assert len(at_once) == 24 and max(at_once) == 4, "what waited for a worker got one"
    assert stored(harness, "SELECT * FROM messages") == []


def test_shares_shrink_with_those_who_are_at_work() -> None:
    shares = _Shares(64)

    def taken(org: str) -> int:
        return sum(shares.enter(org) for _ in range(100))

    assert [taken(org) for org in "abcd"] == [32, 16, 8, 4] and shares.full() == ["a", "b", "c", "d"]
    assert shares.enter("") and shares.enter("e")
    for _ in range(32):
        shares.leave("a")
    assert shares.has_room("b") and taken("b") > 0


def test_a_message_that_no_function_takes_ends_its_run_in_words(harness: Harness) -> None:
    dispatcher: Dispatcher
    post = poster(harness.app, "pipeline-ops-local", INVOKER_TOKEN)
    tries: list[int] = []

    def deliver(delivery: Delivery) -> str | None:
        if delivery.message.topic.startswith("step-"):
            tries.append(delivery.deliveries)
            raise RuntimeError("broken")
        return post(delivery)

    dispatcher = Dispatcher(harness.bus, deliver, 2)
    dispatcher.start()
    try:
        run_id = harness.start()
        until(lambda: harness.clock.tick(1) or ended(harness, run_id))
    finally:
        dispatcher.stop()
    assert tries == list(range(1, MAX_DELIVERIES + 1))
    assert "became a dead letter after too many failed deliveries" in harness.run(run_id).error


def test_a_transaction_that_could_not_be_written_is_made_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    harness.script("note", lambda context, _params: made.append(context.step_id))
    harness.pipeline(step("a", script="note"), step("b", "a", script="note"))
    original, full = Database.end, iter([False, True] * 4)

    def end(database: Database, db: sqlite3.Connection) -> None:
        if threading.current_thread().name.startswith("function") and next(full, False):
            raise sqlite3.OperationalError("database or disk is full")
        original(database, db)

    def ended_by_now() -> bool:
        harness.clock.tick(0.01)  # the message of the run's end comes back after a rest
        return ended(harness, run_id)

    monkeypatch.setattr(Database, "end", end)
    with delivering(harness):
        run_id = harness.start()
        until(ended_by_now)
    assert harness.run(run_id).status is RunStatus.COMPLETED
    assert made == ["a", "b"]


def test_a_message_handed_over_is_there_after_its_process_died(tmp_path: Path) -> None:
    class Dies(Consumer):
        def room(self) -> int:
            return 1

    bus, other = (SqliteBus(Database(tmp_path / "bus.db")) for _ in range(2))
    bus.serve(Dies())
    bus.publish([Message("t", "1", {"n": 1}), Message("t", "2", {"n": 2})])
    assert [d.message.data for d in other.pull(10)] == [{"n": 2}], "the first is in somebody's hand"
    other.release()
    assert [d.message.data for d in other.pull(10)] == [{"n": 1}, {"n": 2}]


def test_what_was_handed_over_but_not_begun_is_given_back_at_the_end(harness: Harness) -> None:
    at_work, may_end = threading.Event(), threading.Event()
    harness.script("hold", lambda _context, _params: (at_work.set(), void(may_end.wait(WITHIN_S))))  # type: ignore[arg-type, return-value]
    harness.pipeline(step("a", script="hold"), step("b", "a"))
    with delivering(harness, workers=1) as dispatcher:
        run_id = harness.start()
        assert at_work.wait(WITHIN_S)
        ending = threading.Thread(target=dispatcher.stop)
        ending.start()
        may_end.set()
        ending.join(WITHIN_S)
        assert not ending.is_alive()
        left = [(d.message.topic, d.deliveries) for d in harness.bus.pull(10)]
    assert left == [("step-genai.payg_usage", 1)], "step b: its turn came, but nothing new was begun"
    assert {name: str(s.status) for name, s in harness.run(run_id).steps.items()} == {"a": "succeeded", "b": "queued"}


def void(_: object) -> None:
    return None


def test_whoever_is_slow_to_hear_of_a_runs_end_keeps_nobody_else_from_writing(harness: Harness) -> None:
    telling, go = threading.Event(), threading.Event()

    class SlowArchive:
        parts = None

        def keep(self, run: Run, changes: Changes) -> None:
            if run.request.route == "test/demo/slow":
                telling.set()
                assert go.wait(WITHIN_S)

    harness.engine = replace(harness.engine, archive=SlowArchive())
    bootstrap.use(harness.engine)
    harness.pipeline(step("only"), route="test/demo/slow")
    with delivering(harness):
        slow = harness.start(route="test/demo/slow")
        assert telling.wait(WITHIN_S)
        other = harness.start()
        until(lambda: ended(harness, other))
        assert harness.run(slow).wake_at is not None
        go.set()
        until(lambda: ended(harness, slow))
    assert stored(harness, "SELECT * FROM messages") == []
