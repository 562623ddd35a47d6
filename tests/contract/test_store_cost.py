"""What a run costs on Firestore and Pub/Sub, counted: ``docs/cost.md`` turns these counts into money.

pytest tests/contract/test_store_cost.py -s
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.access.audit import Audit
from common.access.credentials import SealedCredentials
from common.access.sealing import Sealer
from common.adapters.google.firestore_client import Operations
from common.adapters.google.firestore_logs import FirestoreLogs
from common.adapters.google.firestore_records import FirestoreRecords
from common.adapters.google.firestore_store import FirestoreRunStore
from common.adapters.key_file import KeyFile
from common.domain.model import Run, RunRequest, RunStatus, Step
from common.notify.failure_limit import FailureLimit
from common.notify.notifications import Notifications
from common.notify.settings import SettingsStore
from common.ports.bus import Message
from common.ports.secrets import CredentialInfo
from common.runs.attempt import AttemptRunner, Result
from common.runs.engine import Engine
from common.runs.request import new_run_id
from common.runs.topics import RUN_FINISHED, RUNS, STEP_COMPLETED, read_completed, read_order, read_run_id
from infra.local.google_emulators import GoogleEmulators
from tests.harness import ORG, ROUTE, SECRET, Harness, step


class WritingAttempts(AttemptRunner):
    """Asks once, as a step that writes a table does before its commit, whether the step is still its own."""

    def run(self, run: Run, step: Step, still_ours: Callable[[], bool]) -> Result:
        assert still_ours()
        return super().run(run, step, still_ours)


@dataclass
class Counts:
    """Documents read, documents written, messages published."""

    reads: int = 0
    writes: int = 0
    messages: int = 0

    def __str__(self) -> str:
        return f"{self.reads} reads, {self.writes} writes, {self.messages} messages"


@dataclass
class QueueBus:
    """Keeps messages until they are delivered, as JSON."""

    waiting: list[Message] = field(default_factory=list)
    published: int = 0
    sizes: dict[str, list[int]] = field(default_factory=dict)

    def publish(self, messages: Sequence[Message]) -> None:
        self.published += len(messages)
        for one in messages:
            body = json.dumps(one.data)
            self.sizes.setdefault(one.topic, []).append(len(body))
            self.waiting.append(replace(one, data=json.loads(body)))


@dataclass
class Bill:
    """One run, taken apart: what each call of the engine took."""

    engine: Engine
    bus: QueueBus
    operations: Operations
    calls: list[tuple[str, Counts]] = field(default_factory=list)

    def note(self, what: str, call: Callable[[], object]) -> None:
        before = (self.operations.reads, self.operations.writes, self.bus.published)
        call()
        now = (self.operations.reads, self.operations.writes, self.bus.published)
        self.calls.append((what, Counts(*(new - old for new, old in zip(now, before, strict=True)))))

    def run(self) -> Run:
        request = self.request("create")
        self.deliver()
        return self.engine.store.load(request.run_id)

    def request(self, what: str, **more: Any) -> RunRequest:
        engine, day = self.engine, self.engine.now().date()
        request = RunRequest(new_run_id(), ORG, ROUTE, day, day, engine.now(), **more)
        self.note(what, lambda: engine.request_run(request))
        return request

    def deliver(self) -> None:
        engine = self.engine
        while self.bus.waiting:
            message = self.bus.waiting.pop(0)
            data = message.data
            match message.topic:
                case name if name == RUNS:
                    self.note("start", lambda data=data: engine.start_run(read_run_id(data)))
                case name if name == STEP_COMPLETED:
                    self.note("advance", lambda data=data: engine.advance(*read_completed(data)))
                case name if name == RUN_FINISHED:
                    self.note("finished", lambda data=data: engine.run_finished(read_run_id(data)))
                case _:
                    self.note("step", lambda data=data: engine.run_step(*read_order(data)))

    def of(self, what: str) -> list[Counts]:
        return [counts for name, counts in self.calls if name == what]

    def total(self) -> Counts:
        every = [counts for _, counts in self.calls]
        return Counts(sum(c.reads for c in every), sum(c.writes for c in every), sum(c.messages for c in every))


def chain(steps: int) -> list[dict[str, Any]]:
    names = [f"s{number}" for number in range(steps)]
    return [step(name, *names[max(0, n - 1) : n]) for n, name in enumerate(names)]


def billed(steps: list[dict[str, Any]], *, writing: bool, harness: Harness, host: str, project: str) -> Bill:
    """Run these steps to the run's end and return what it took."""
    harness.pipeline(*steps)
    bill = new_bill(writing=writing, harness=harness, host=host, project=project)
    assert bill.run().status is RunStatus.COMPLETED
    return bill


def new_bill(*, harness: Harness, host: str, project: str, writing: bool = False) -> Bill:
    """Return the engine on Firestore, counted."""
    operations, bus = Operations(), QueueBus()
    logs = FirestoreLogs(project, host, operations)
    records = FirestoreRecords(project, host, operations)
    sealer = Sealer(KeyFile(harness.folder / "key"))
    credentials = SealedCredentials(records, sealer)
    told, audit = harness.engine.notifications, Audit(records, harness.clock)
    book = SettingsStore(records, sealer, audit, harness.clock, told.settings.hosts, harness.engine.configs.find)
    notifications = Notifications(book, records, logs, FailureLimit(records, harness.clock))
    credentials.add(CredentialInfo(ORG, "cred_openai", "openai", harness.clock()), SECRET)
    kind = WritingAttempts if writing else AttemptRunner
    known = harness.engine.attempts
    attempts = kind(known.settings, known.warehouse, credentials, logs, known.now, known.provider_url, known.sleep)
    store = FirestoreRunStore(project, bus, host, operations)
    engine = replace(
        harness.engine,
        store=store,
        bus=bus,
        logs=logs,
        credentials=credentials,
        attempts=attempts,
        notifications=notifications,
    )
    return Bill(engine, bus, operations)


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Harness:
    return Harness(tmp_path, monkeypatch)


@pytest.mark.parametrize("writing", [False, True], ids=["noop", "writing"])
def test_a_step_costs_two_writes_at_most_two_reads_and_two_messages(
    harness: Harness, google_emulators: GoogleEmulators, google_project: str, writing: bool
) -> None:
    bill = billed(
        chain(10), writing=writing, harness=harness, host=google_emulators.firestore_host, project=google_project
    )
    attempts, advances = bill.of("step"), bill.of("advance")
    assert len(attempts) == len(advances) == 10
    print(f"\n{'writing' if writing else 'no-op'} step: run_step {attempts[0]}; advance {advances[0]}")  # noqa: T201
    for took, advanced in zip(attempts[:-1], advances[:-1], strict=True):
        assert took.reads + advanced.reads == 1 + writing
        assert took.writes + advanced.writes == 2
        assert took.messages + advanced.messages == 2


@pytest.mark.parametrize("steps", [3, 10])
def test_what_a_run_costs_beside_its_steps_does_not_grow_with_them(
    harness: Harness, google_emulators: GoogleEmulators, google_project: str, steps: int
) -> None:
    bill = billed(
        chain(steps), writing=True, harness=harness, host=google_emulators.firestore_host, project=google_project
    )
    (create,), (start,), (finished,) = bill.of("create"), bill.of("start"), bill.of("finished")
    last, usual = bill.of("advance")[-1], bill.of("advance")[0]
    end = Counts(last.reads - usual.reads, last.writes - usual.writes)
    print(f"\n{steps} steps: create {create}; start {start}; end of the run {end}; run_finished {finished}")  # noqa: T201
    largest = ", ".join(f"{topic} {max(sizes)}" for topic, sizes in bill.bus.sizes.items())
    print(f"{steps} steps, all of it: {bill.total()}; largest messages in bytes: {largest}")  # noqa: T201
    assert (create.reads, create.writes) == (1, 2)
    assert start.reads <= 2 and start.writes == 2
    assert (end.reads, end.writes) == (0, 2)
    assert (finished.reads, finished.writes) == (2, 1)


def test_a_step_that_opens_its_credential_costs_one_read_more(
    harness: Harness, google_emulators: GoogleEmulators, google_project: str
) -> None:
    harness.script("ok", lambda context, _params: context.secret())
    bill = billed(chain(2), writing=True, harness=harness, host=google_emulators.firestore_host, project=google_project)
    assert [counts.reads for counts in bill.of("step")] == [2, 2]


def test_a_line_that_a_processor_logs_costs_one_write(
    harness: Harness, google_emulators: GoogleEmulators, google_project: str
) -> None:
    harness.script("ok", lambda context, _params: context.info("a line"))
    bill = billed(
        chain(2), writing=False, harness=harness, host=google_emulators.firestore_host, project=google_project
    )
    assert [counts.writes for counts in bill.of("step")] == [2, 2]


def test_where_steps_meet_each_costs_one_count_and_the_last_one_a_reading_of_the_run(
    harness: Harness, google_emulators: GoogleEmulators, google_project: str
) -> None:
    branches = [f"b{number}" for number in range(8)]
    steps = [step("first"), *(step(name, "first") for name in branches), step("last", *branches)]
    bill = billed(steps, writing=False, harness=harness, host=google_emulators.firestore_host, project=google_project)
    print(f"\n1, 8 side by side, 1: {bill.total()}")  # noqa: T201
    reads = [counts.reads for counts in bill.of("advance")]
    assert reads[:9] == [1, *[2] * 7, 2 + 1 + 9] and bill.total().writes == 2 * 10 + 7


def limited(harness: Harness, shared: int | None = None, **fields: Any) -> None:
    """Give the organisation a plan of its own."""
    plan = {"daily": 99, "monthly": 99, "concurrent": 1, **fields}
    data: dict[str, Any] = {"plans": {"p": plan}, "organisations": {ORG: {"plan": "p", "status": "ACTIVE"}}}
    data |= {} if shared is None else {"global_concurrent": shared}
    (harness.configs / "system" / "plans.yml").write_text(yaml.safe_dump(data))


def test_what_waiting_costs_is_paid_by_runs_that_wait(
    harness: Harness, google_emulators: GoogleEmulators, google_project: str
) -> None:
    limited(harness)
    harness.pipeline(*chain(1))
    bill = new_bill(harness=harness, host=google_emulators.firestore_host, project=google_project)
    bill.request("create")
    bill.request("first to wait", queue=True)
    bill.request("next to wait", queue=True)
    bill.deliver()
    (create,), (first,), (following,) = (bill.of(what) for what in ("create", "first to wait", "next to wait"))
    ends = bill.of("advance")
    print(f"\nfirst to wait {first}; next {following}; ends {'; '.join(map(str, ends))}")  # noqa: T201
    assert (create.reads, create.writes) == (1, 2)
    assert (first.reads, first.writes) == (10, 2) and (following.reads, following.writes) == (8, 2)
    # 1 read and 3 writes end a run: beside them one is let in, and the next finds no room; the last finds nobody.
    assert [(end.reads - 1, end.writes - 3) for end in ends] == [(7, 2), (4, 2), (0, 0)]


def test_a_limit_of_the_deployment_costs_a_document_more_and_money_its_settlement(
    harness: Harness, google_emulators: GoogleEmulators, google_project: str
) -> None:
    limited(harness, shared=5, money_usd="1.00")
    bill = billed(
        chain(1), writing=False, harness=harness, host=google_emulators.firestore_host, project=google_project
    )
    took = {what: bill.of(what)[0] for what in ("create", "start", "advance", "finished")}
    print(f"\n{'; '.join(f'{what} {counts}' for what, counts in took.items())}")  # noqa: T201
    assert [(took[what].reads, took[what].writes) for what in took] == [(4, 3), (2, 3), (1, 4), (2, 2)]
