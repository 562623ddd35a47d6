"""What is particular to PostgreSQL: lost answers, conflicts, outages, poolers, and what a lock makes others see."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg_pool import NullConnectionPool

from common.adapters.sql import reservations
from common.adapters.sql.postgres import client
from common.adapters.sql.postgres.client import AgainError, Postgres
from common.adapters.sql.postgres.dialect import PostgresDialect
from common.adapters.sql.postgres.run_store import PostgresRunStore
from common.adapters.sql.run_logs import SqlLogs
from common.domain import state
from common.domain.messages import AttemptClaimed, CancelRequested, RunAnnounced
from common.domain.model import ErrorKind, Run
from common.domain.quota import Demand, Limits
from common.platform.errors import NotFoundError, PermanentError, QuotaExceededError, StaleRunError, TransientError
from common.platform.retry import retried
from common.ports.logs import LogLine
from common.ports.store import HistoryQuery
from tests.contract.stores import T0, WIDE, Adapter, RecordingBus, claimed, create, end, new_run, started, succeeded
from tests.pgbouncer import PgBouncer, is_installed
from tests.postgres_fixtures import ROLE_PASSWORD, TestDatabase

pytestmark = pytest.mark.timeout(60)  # what waits for what it should not is found here, and is not to hang

SETTING = "PIPELINE_OPS_POSTGRES_DSN"
RUN_ID = new_run().run.run_id


@pytest.fixture
def bus() -> RecordingBus:
    return RecordingBus()


@pytest.fixture
def store(postgres: Postgres, bus: RecordingBus) -> PostgresRunStore:
    return PostgresRunStore(postgres, bus)


@pytest.fixture
def adapter(store: PostgresRunStore, bus: RecordingBus) -> Adapter:
    return Adapter(store, bus.sent)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WAIT_S", 0.3)
    monkeypatch.setattr(client, "WRITE", client.WRITE.replace("lock_timeout = '5s'", "lock_timeout = '100ms'"))


def lose_answers(monkeypatch: pytest.MonkeyPatch, *, applied: bool, times: int = 1) -> None:
    """Let the connection break at the next COMMITs, after the server has carried them out or before."""
    real, left = psycopg.Connection.commit, [times]

    def commit(self: psycopg.Connection[Any]) -> None:
        if not left[0]:
            return real(self)
        left[0] -= 1
        if applied:
            real(self)
        self.pgconn.finish()
        raise psycopg.OperationalError("the connection broke")

    monkeypatch.setattr(psycopg.Connection, "commit", commit)


@pytest.mark.parametrize("applied", [True, False])
def test_a_creation_whose_answer_was_lost_is_made_once(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch, applied: bool
) -> None:
    lose_answers(monkeypatch, applied=applied)
    create(adapter)
    assert adapter.store.usage("acme", T0).daily == 1 and adapter.topics() == ["runs"]


@pytest.mark.parametrize("applied", [True, False])
def test_a_commit_whose_answer_was_lost_is_made_once(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch, applied: bool
) -> None:
    started(adapter)
    lose_answers(monkeypatch, applied=applied)
    mine = claimed(adapter, "a")
    assert adapter.store.holds(RUN_ID, mine.steps["a"])
    assert [c.after for c in adapter.store.changes(RUN_ID) if c.step_id == "a"] == ["queued", "running"]


def test_a_commit_that_lost_its_answer_and_then_to_another_is_stale(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(adapter)
    claimed(adapter, "a")
    lose_answers(monkeypatch, applied=False)
    with pytest.raises(StaleRunError):
        adapter.store.commit(state.apply(run, AttemptClaimed("a", 1, "rival"), T0))
    monkeypatch.undo()  # the database's own clean-up commits too


def test_a_transaction_that_is_lost_again_and_again_is_a_transient_error(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_answers(monkeypatch, applied=False, times=1000)
    with pytest.raises(TransientError, match="after several tries"):
        create(adapter)
    monkeypatch.undo()  # the database's own clean-up commits too


def test_a_connection_that_broke_while_it_was_idle_is_nobodys_trouble(
    adapter: Adapter, postgres_database: TestDatabase
) -> None:
    create(adapter)
    postgres_database.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pipeline_ops_runner'"
    )
    assert adapter.store.load(RUN_ID).request.org_slug == "acme"


def test_a_server_that_is_away_is_told_within_seconds_and_used_again_when_it_is_back(
    adapter: Adapter, postgres_database: TestDatabase, impatient: None
) -> None:
    create(adapter)
    postgres_database.server.stop()
    began = time.monotonic()
    try:
        with pytest.raises(TransientError, match=r"PIPELINE_OPS_POSTGRES_DSN\) gave no connection"):
            adapter.store.load(RUN_ID)
        assert time.monotonic() - began < 5
    finally:
        postgres_database.server.start()
    deadline = time.monotonic() + 20
    while True:
        try:
            assert adapter.store.load(RUN_ID).request.org_slug == "acme"
            return
        except TransientError:
            assert time.monotonic() < deadline


def test_two_that_lock_each_other_out_are_both_carried_out(postgres: Postgres) -> None:
    postgres.write(lambda cursor: cursor.execute("INSERT INTO pipeline_ops.turns VALUES ('a'), ('b')"))
    both_hold_one = threading.Barrier(2)

    def crossing(first: str, second: str) -> Callable[[Any], None]:
        tries = []

        def change(cursor: Any) -> None:
            cursor.execute("UPDATE pipeline_ops.turns SET turn = turn + 1 WHERE org_slug = :org", {"org": first})
            if not tries:
                both_hold_one.wait(10)
            tries.append(1)
            cursor.execute("UPDATE pipeline_ops.turns SET turn = turn + 1 WHERE org_slug = :org", {"org": second})

        return change

    threads = [threading.Thread(target=postgres.write, args=(crossing(*names),)) for names in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    turns = postgres.read(lambda cursor: cursor.execute("SELECT turn FROM pipeline_ops.turns").fetchall())
    assert turns == [(2,), (2,)]


def test_who_rests_before_another_try_holds_no_connection(
    postgres_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_one = Postgres(postgres_database.runner, SETTING, connections=1)
    seen: list[object] = []

    def sleep(_seconds: float) -> None:
        seen.append(only_one.read(lambda cursor: cursor.execute("SELECT 1").fetchone()))

    monkeypatch.setattr(client, "retried", partial(retried, sleep=sleep))

    def once_more(_: Any) -> str:
        if not seen:
            raise AgainError
        return "done"

    assert only_one.write(once_more) == "done" and seen == [(1,)]
    only_one.close()


def test_a_lock_that_is_not_to_be_had_is_a_conflict_to_come_back_from(
    adapter: Adapter, postgres_database: TestDatabase, impatient: None
) -> None:
    create(adapter)
    with psycopg.connect(postgres_database.owner) as other:
        other.execute("UPDATE pipeline_ops.turns SET turn = 0")
        with pytest.raises(TransientError, match="too many at once") as busy:
            create(adapter, 2)
    assert busy.value.kind is ErrorKind.CONFLICT and busy.value.retry_after_s > 0
    create(adapter, 2)


def test_an_error_of_the_statement_is_permanent_and_leaves_the_connection_usable(postgres: Postgres) -> None:
    with pytest.raises(PermanentError, match="refused a statement"):
        postgres.read(lambda cursor: cursor.execute("SELECT 1 / 0"))
    assert postgres.read(lambda cursor: cursor.execute("SELECT 1").fetchone()) == (1,)


def test_what_is_raised_undoes_the_transaction(postgres: Postgres) -> None:
    def half(cursor: Any) -> None:
        cursor.execute("INSERT INTO pipeline_ops.turns VALUES ('a')")
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        postgres.write(half)
    assert postgres.read(lambda cursor: cursor.execute("SELECT * FROM pipeline_ops.turns").fetchall()) == []


def work(adapter: Adapter) -> None:
    """A run from its creation to its end, and its log."""
    started(adapter)
    for step_id in ("a", "c", "b"):
        claimed(adapter, step_id)
        succeeded(adapter, step_id)
    for event in (CancelRequested("me", "enough"), RunAnnounced()):
        adapter.store.commit(state.apply(adapter.store.load(RUN_ID), event, T0))
    assert adapter.store.usage("acme", T0).cancelled == 1 and list(adapter.store.active()) == []
    assert adapter.store.history(HistoryQuery("acme", 5)).runs[0].steps["b"].receipt.rows == 3


def test_nothing_stays_in_a_session_that_another_could_meet(
    adapter: Adapter, postgres: Postgres, bus: RecordingBus, postgres_database: TestDatabase
) -> None:
    only_one = Postgres(postgres_database.runner, SETTING, connections=1)
    work(Adapter(PostgresRunStore(only_one, bus), bus.sent))
    for _ in range(10):
        SqlLogs(only_one).append(RUN_ID, LogLine(T0, "INFO", "line"))
    with only_one._opened().connection() as connection:
        assert connection.execute("SELECT * FROM pg_prepared_statements").fetchall() == []
        assert connection.execute("SHOW lock_timeout").fetchone() == ("0",)
        assert connection.execute("SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)
    only_one.close()


def test_each_transaction_may_have_a_connection_of_its_own(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch, postgres_database: TestDatabase
) -> None:
    made: list[object] = []
    monkeypatch.setattr(
        client,
        "_open_pool",
        lambda args, connections: NullConnectionPool(
            kwargs=args, max_size=connections, configure=made.append, timeout=client.WAIT_S, open=True
        ),
    )
    work(adapter)
    assert len(made) > 20


@pytest.fixture
def pooled(postgres_database: TestDatabase, bus: RecordingBus) -> Iterator[Adapter]:
    if not is_installed():
        pytest.skip("needs pgbouncer: apt-get install pgbouncer")
    pooler = PgBouncer(postgres_database.server.port, {"pipeline_ops_runner": ROLE_PASSWORD}, sessions=3)
    through = postgres_database.runner.replace(str(postgres_database.server.port), str(pooler.port))
    database = Postgres(through, SETTING, connections=8)
    yield Adapter(PostgresRunStore(database, bus), bus.sent)
    database.close()
    pooler.stop()


def test_a_run_goes_through_a_pooler_in_transaction_mode(pooled: Adapter) -> None:
    work(pooled)


def test_many_threads_through_a_pooler_never_exceed_a_limit(pooled: Adapter) -> None:
    assert admitted_of_many(pooled, replace(WIDE, concurrent=7)) == 7


def admitted_of_many(adapter: Adapter, limits: Limits) -> int:
    """Let 8 threads ask 20 times each; return how many runs were admitted."""
    admitted: list[int] = []

    def ask(worker: int) -> None:
        for number in range(20):
            try:
                create(adapter, worker * 1000 + number + 1, limits)
            except QuotaExceededError:
                continue
            admitted.append(1)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(admitted)


NOVEMBER, DECEMBER = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("limits", "first", "second"),
    [
        (replace(WIDE, concurrent=1), new_run(1), new_run(2)),
        (replace(WIDE, pipeline=1), new_run(1), new_run(2)),
        (replace(WIDE, concurrent=1), new_run(1, at=NOVEMBER), new_run(2, at=DECEMBER)),
        (replace(WIDE, global_concurrent=1), new_run(1), new_run(2, "globex")),
    ],
    ids=["one organisation", "one pipeline", "one organisation in two months", "two organisations"],
)
def test_who_asks_while_another_takes_the_last_slot_is_refused(
    postgres: Postgres, postgres_database: TestDatabase, limits: Limits, first: Any, second: Any
) -> None:
    """The second one counts nothing before the first one's transaction has ended, though it began during it."""
    postgres_database.sql("INSERT INTO pipeline_ops.turns VALUES ('*'), ('acme'), ('globex')")
    holds, may_end, refused = threading.Event(), threading.Event(), []

    def take(run: Run, then: Callable[[], object]) -> None:
        def hold(cursor: Any) -> None:
            reservations.hold(cursor, postgres.dialect, Demand.of(run, waited=False), limits)
            then()

        try:
            postgres.write(hold)
        except QuotaExceededError as error:
            refused.append(error.limit)

    def hold_on() -> None:
        holds.set()
        assert may_end.wait(10)

    threads = [threading.Thread(target=take, args=(first.run, hold_on))]
    threads[0].start()
    assert holds.wait(10)
    threads.append(threading.Thread(target=take, args=(second.run, lambda: None)))
    threads[1].start()
    deadline = time.monotonic() + 10
    while not postgres_database.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
        assert time.monotonic() < deadline and threads[1].is_alive(), "the second one did not wait for the first"
    may_end.set()
    for thread in threads:
        thread.join(10)
    assert len(refused) == 1


def test_a_slot_that_comes_free_between_a_refusal_and_its_explanation_is_taken(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, read_usage = replace(WIDE, concurrent=1), reservations._read_usage
    live = [create(adapter, 1, limits)]

    def read(*asked: Any) -> Any:
        while live:
            end(adapter, live.pop(), T0)  # on a connection of its own: it waits for nothing that the refused one has
        return read_usage(*asked)

    monkeypatch.setattr(reservations, "_read_usage", read)
    monkeypatch.setattr(PostgresDialect, "REFUSES_EARLY", False)
    create(adapter, 2, limits)
    usage = adapter.store.usage("acme", T0)
    assert (usage.daily, usage.concurrent, usage.failed) == (2, 1, 1)


def test_who_is_refused_waits_for_no_lock(adapter: Adapter, postgres_database: TestDatabase, impatient: None) -> None:
    limits = replace(WIDE, concurrent=1)
    create(adapter, 1, limits)
    with psycopg.connect(postgres_database.owner) as other:
        other.execute("UPDATE pipeline_ops.turns SET turn = 0")
        with pytest.raises(QuotaExceededError):
            create(adapter, 2, limits)


def test_one_organisation_does_not_wait_for_another(
    adapter: Adapter, postgres_database: TestDatabase, impatient: None
) -> None:
    create(adapter, 1)
    with psycopg.connect(postgres_database.owner) as other:
        other.execute("INSERT INTO pipeline_ops.turns VALUES ('*')")
        other.execute("UPDATE pipeline_ops.turns SET turn = 0 WHERE org_slug = 'acme'")
        create(adapter, 2, org="globex")


def test_a_run_that_ends_while_its_organisation_asks_for_more_waits_for_nobody(
    adapter: Adapter, postgres_database: TestDatabase, impatient: None
) -> None:
    new = create(adapter)
    with psycopg.connect(postgres_database.owner) as other:
        other.execute("SELECT FROM pipeline_ops.turns FOR UPDATE")
        end(adapter, new, T0)


def test_text_that_is_nowhere_stored_is_nowhere_found(adapter: Adapter) -> None:
    create(adapter)
    with pytest.raises(NotFoundError):
        adapter.store.load("run_\0")
    assert adapter.store.history(HistoryQuery("acme", 5, route="a\0b")).runs == ()


def test_times_come_back_in_utc_whatever_the_servers_zone_is(
    adapter: Adapter, postgres: Postgres, postgres_database: TestDatabase
) -> None:
    postgres_database.sql("ALTER ROLE pipeline_ops_runner SET timezone = 'Asia/Kathmandu'")
    try:
        logs, line = SqlLogs(postgres), LogLine(T0 + timedelta(microseconds=1), "INFO", "x")
        logs.append(RUN_ID, line)
        (found,) = logs.read(RUN_ID)
        assert found == line and found.at.tzinfo is UTC
    finally:
        postgres_database.sql("ALTER ROLE pipeline_ops_runner RESET timezone")
