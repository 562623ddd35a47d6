"""The run stores under test, each with a look at what it sent, and runs to put into them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from common.adapters.google.firestore_store import FirestoreRunStore
from common.adapters.sql.postgres.run_store import PostgresRunStore
from common.adapters.sql.sqlite.bus import SqliteBus
from common.adapters.sql.sqlite.database import Database
from common.adapters.sql.sqlite.run_store import SqliteRunStore
from common.domain import state
from common.domain.messages import AttemptClaimed, AttemptSucceeded, RunRejected, RunValidated
from common.domain.model import Pipeline, Receipt, Run, RunRequest, StepSpec
from common.domain.quota import Limits
from common.domain.state import Transition
from common.ports.bus import Message
from common.ports.store import RunStore
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


@pytest.fixture(params=["sqlite", "memory", "firestore", "postgres"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Adapter:
    recorder = RecordingBus()
    match request.param:
        case "memory":
            return Adapter(MemoryRunStore(recorder), recorder.sent)
        case "firestore":
            host = request.getfixturevalue("google_emulators").firestore_host
            project = request.getfixturevalue("google_project")
            return Adapter(FirestoreRunStore(project, recorder, host), recorder.sent)
        case "postgres":
            return Adapter(PostgresRunStore(request.getfixturevalue("postgres"), recorder), recorder.sent)
    database = Database(tmp_path / "store.db")
    bus = SqliteBus(database)
    return Adapter(SqliteRunStore(database, bus), lambda: [d.message for d in bus.pull(1000)])


def new_run(number: int = 1, org: str = "acme", at: datetime = T0, route: str = "a/b/c") -> Transition:
    return state.create(RunRequest(f"run_{number:032x}", org, route, DAY, DAY, at))


def create(adapter: Adapter, number: int = 1, limits: Limits = WIDE, **more: object) -> Transition:
    new = new_run(number, **more)  # type: ignore[arg-type]
    adapter.store.create(new, limits)
    return new


SPECS = (StepSpec("a", "noop"), StepSpec("b", "noop", ("a",)), StepSpec("c", "noop"))


def validated(run: Run) -> Transition:
    return state.apply(run, RunValidated(Pipeline("p", "x", SPECS, "hash"), "cred"), T0)


def started(adapter: Adapter) -> Run:
    """A running run of a → b, and c."""
    create(adapter)
    adapter.store.commit(validated(adapter.store.load(new_run().run.run_id)))
    adapter.topics()
    return adapter.store.load(new_run().run.run_id)


def claimed(adapter: Adapter, step_id: str) -> Run:
    run = adapter.store.load(new_run().run.run_id)
    return adapter.store.commit(state.apply(run, AttemptClaimed(step_id, 1, "me"), T0))


def succeeded(adapter: Adapter, step_id: str) -> Run:
    run = adapter.store.load(new_run().run.run_id, (step_id,))
    return adapter.store.commit(state.apply(run, AttemptSucceeded(step_id, 1, Receipt(rows=3)), T0))


def end(adapter: Adapter, new: Transition, at: datetime) -> None:
    run = adapter.store.load(new.run.run_id)
    ended = state.apply(run, RunRejected("no"), at)
    adapter.store.commit(ended)
