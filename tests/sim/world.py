"""One world: the real engine on simulated ports, organisations that ask for runs, faults first and then calm."""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import common.runs.engine
from common.domain.messages import JobsCost
from common.domain.model import Estimate, Pipeline, Run, RunRequest, StepSpec
from common.domain.quota import Demand, Limits, Usage
from common.platform.errors import ConfigError, ConflictingStateError, NotFoundError, PermanentError, PipelineOpsError
from common.platform.retry import retried
from common.ports.bus import Message
from common.ports.secrets import CredentialInfo
from common.runs.engine import Engine
from common.runs.topics import (
    DEAD_LETTERS,
    RUN_FINISHED,
    RUNS,
    STEP_COMPLETED,
    read_completed,
    read_dead,
    read_order,
    read_run_id,
)
from tests.sim.bus import SimBus
from tests.sim.invariants import CANARY, Broken, Rules
from tests.sim.kernel import T0, Done, Kernel
from tests.sim.pipelines import random_specs
from tests.sim.store import FaultyStore
from tests.sim.work import Work

FAULTY_S = 1500
MAX_CALM_ROUNDS = 1500
SETTLE_ROUNDS = 15
"""Minutes of calm until what a dead process had in hand (660 s) is back, and every stalled one has gone on."""

OVERDUE = timedelta(seconds=90)
"""Beside the time between two sweeps: what a sweep does takes a moment."""


@dataclass
class SimConfigs:
    """Pipelines that somebody edits while runs are under way."""

    routes: dict[str, tuple[str, tuple[StepSpec, ...]]]
    slots: dict[str, int | None] = field(default_factory=dict)

    def concurrency(self, route: str) -> int | None:
        return self.slots.get(route)

    def find(self, route: str) -> None:
        if route not in self.routes:
            raise NotFoundError(f"No pipeline has the route {route}.")

    def load(self, route: str) -> Any:
        text_hash, specs = self.routes[route]
        if not specs:
            raise ConfigError(f"{route}: the file is wrong.")
        config = SimpleNamespace(steps=specs, provider="sim", pipeline_id=route.replace("/", "_"))
        return SimpleNamespace(text_hash=text_hash, config=config)

    def resolve(self, file: Any, variables: object) -> Pipeline:
        return Pipeline(file.config.pipeline_id, "sim", file.config.steps, file.text_hash)


class SimCredentials:
    """One credential an organisation; its secret is the canary."""

    def list(self, org_slug: str) -> list[CredentialInfo]:
        return [CredentialInfo(org_slug, f"cred_{org_slug}", "sim", T0)]

    def secret(self, org_slug: str, credential_id: str) -> str:
        return CANARY


class SimArchive:
    """Knows what a run's jobs have cost: all of it, some of it, or nothing."""

    parts: Collection[str] | None = ()

    def __init__(self, world: Kernel) -> None:
        self._world = world

    def keep(self, _run: Run, _changes: object) -> JobsCost | None:
        usd = Decimal(self._world.rng.choice(("0", "0.0000001", "0.25", "0.5")))
        return self._world.call(
            "archive", lambda: self._world.rng.choice((None, JobsCost(usd, True), JobsCost(usd, False)))
        )


class World(Kernel):
    """Everything of one seed. ``play`` raises Broken if a rule does not hold."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        super().__init__(seed, trace=trace)
        rng = self.rng
        self.rules = Rules(self.now, lambda: actor.run_id if (actor := self.actor()) else None, self.actor)
        self.bus = SimBus(self, self.rules, self._handle, self._died)
        self.store = FaultyStore(self, self.rules, self.bus.enqueue)
        self.orgs = [f"org{n}" for n in range(rng.choice((1, 2, 3)))]
        self.crowd = rng.choice((1, 1, 3))
        shared = rng.choice((None, None, 1, 2, 4))
        self.limits = {org: self._plan_of(shared) for org in self.orgs}
        self.configs = SimConfigs({f"sim/x/p{n}": (f"hash-{n}", random_specs(rng)) for n in range(2)})
        self.configs.slots = {route: rng.choice((None, None, 1, 2)) for route in self.configs.routes}
        if rng.random() < 0.1:
            self.configs.routes["sim/x/p1"] = ("hash-wrong", ())
        self.poison: dict[tuple[str, str, str], str] = {}
        self.generation = 0
        self.engine = self._engine()

    def _plan_of(self, shared: int | None) -> Limits:
        rng = self.rng
        money = rng.choice((None, None, Decimal(1), Decimal(100)))
        daily, concurrent, weight = rng.choice((2, 50, 50)), rng.choice((1, 2, 3)), rng.choice((1, 1, 3))
        return Limits("ACTIVE", daily, 50, concurrent, money, weight, global_concurrent=shared)

    def _engine(self) -> Engine:
        parts: dict[str, Any] = {
            "settings": SimpleNamespace(project_id="sim", dataset=lambda org: f"{org}_sim"),
            "store": self.store,
            "bus": self.bus,
            "logs": None,
            "plans": SimpleNamespace(limits=self.limits.__getitem__),
            "records": SimpleNamespace(get=lambda *_: None),  # nothing is scheduled here
            "credentials": SimCredentials(),
            "audit": None,
            "invokers": None,
            "keys": None,
            "notifications": SimpleNamespace(tell=lambda _run, comes_back: None, due=lambda: ()),
            "configs": self.configs,
            "attempts": Work(self, self.rules),
            "now": self.now,
            "owner": "process-0",
            "archive": SimArchive(self),
            "estimates": lambda run, last: Estimate(
                last or Decimal(self.rng.choice(("0", "0.3"))), Decimal("0.01"), "sim"
            ),
        }
        return Engine(**cast(Any, parts))

    def play(self) -> None:
        """Faults, then calm until every run has ended, then old messages once more."""
        with patched(self):
            self._plan()
            self.run(lambda: self.seconds >= FAULTY_S)
            self.calm = True
            self.trace("--- calm ---")
            for round_number in range(MAX_CALM_ROUNDS):
                at_work = self.actors or any(not r.waits_for and not over(r) for r in self.rules.runs.values())
                self._sweep()
                rest = 60 if at_work or round_number <= SETTLE_ROUNDS else 1200  # until midnight, or for a day
                end = self.seconds + rest
                self.after(rest, lambda: None)
                self.run(lambda end=end: self.seconds >= end)  # type: ignore[misc]
                if round_number > SETTLE_ROUNDS:
                    self.rules.nothing_overdue(OVERDUE + timedelta(seconds=rest))
                    self.rules.quota.nobody_waits_for_nothing(self._room, OVERDUE + timedelta(seconds=rest))
                    if all(over(run) for run in self.rules.runs.values()) and not self.actors:
                        break
            for message in self.rng.sample(self.bus.sent, min(10, len(self.bus.sent))):
                self.bus.replay(message)
            self.run(lambda: False)
            # As of the beginning no reservation has expired: each that is left is counted.
            self.rules.at_the_end({org: self.store.memory.usage(org, T0) for org in self.orgs}, T0)
            self.stats["rows committed after a cancel or skip"] += self.rules.late_rows

    def _room(self, run: Run) -> tuple[Limits, Usage]:
        org, route = run.request.org_slug, run.request.route
        limits = replace(self.limits[org], pipeline=self.configs.concurrency(route))
        asked = Demand(org, run.run_id, route, self.now(), self.now(), waited=True)
        return limits, self.store.memory.quota.usage_for(asked)

    # what happens from outside

    def _plan(self) -> None:
        rng = self.rng
        for _ in range(rng.randint(2, 5) * self.crowd):
            self.after(rng.uniform(0, FAULTY_S * 0.6), self._request)
        for act in (self._cancel, self._skip, self._rerun, self._replay, self._edit, self._restart):
            for _ in range(rng.choice((0, 0, 1, 2))):
                self.after(rng.uniform(0, FAULTY_S), act)
        for n in range(FAULTY_S // 60):
            self.after(60 * n + 30, self._sweep)

    def _sweep(self) -> None:
        self.spawn("sweep", None, lambda: self.engine.sweep())

    def _request(self) -> None:
        rng, day = self.rng, T0.date() - timedelta(days=self.rng.choice((1, 1, 2)))
        run_id, org = f"run_{len(self.rules.runs)}_{rng.randrange(10**6)}", rng.choice(self.orgs)
        route = rng.choice(list(self.configs.routes))
        end = day + timedelta(days=rng.choice((0, 0, 1)))
        queue, backfill, key = rng.random() < 0.6, rng.random() < 0.3, rng.choice(("", "", "a"))

        def ask(fingerprint: str = key) -> None:
            request = RunRequest(run_id, org, route, day, end, self.now(), fingerprint=fingerprint)
            self.engine.request_run(replace(request, queue=queue, backfill=backfill))

        self.spawn(f"request {run_id}", run_id, ask)
        if key:  # the client has no patience, or makes a mistake
            self.after(rng.choice((0, 1, 60)), lambda: self.spawn(f"again {run_id}", run_id, ask))
            self.after(
                rng.choice((0, 60)), lambda: self.spawn(f"other {run_id}", run_id, lambda: self._misused(run_id, ask))
            )

    def _misused(self, run_id: str, ask: Callable[[str], None]) -> None:
        """Use a key for something else: it is refused if its run is there, and makes no second one."""
        there = run_id in self.rules.runs
        try:
            ask("b")
        except ConflictingStateError:
            return
        if there:
            raise Broken(f"rule 5: a key was taken for another request: {run_id}")

    def _some_run(self, act: Callable[[str], None], name: str, *, own: bool = True) -> None:
        if self.rules.runs:
            run_id = self.rng.choice(list(self.rules.runs))
            self.spawn(f"{name} {run_id}", run_id if own else None, lambda: act(run_id))

    def _cancel(self) -> None:
        self._some_run(lambda i: void(self.engine.cancel(self.engine.store.load(i), who="me", why="so")), "cancel")

    def _skip(self) -> None:
        def skip(run_id: str) -> None:
            run = self.engine.store.load(run_id)
            if run.steps:
                self.engine.skip(run, self.rng.choice(list(run.steps)), who="me", why="so")

        self._some_run(skip, "skip")

    def _rerun(self) -> None:
        def rerun(run_id: str) -> None:
            run = self.engine.store.load(run_id)
            only = self.rng.choice([spec.step_id for spec in run.specs]) if run.specs else None
            self.engine.rerun(
                run, only=self.rng.choice((None, only)), who="me", why="so", queue=self.rng.random() < 0.5
            )

        self._some_run(rerun, "rerun", own=False)

    def _replay(self) -> None:
        if self.bus.sent:
            self.bus.replay(self.rng.choice(self.bus.sent))

    def _edit(self) -> None:
        route = self.rng.choice(list(self.configs.routes))
        self.configs.routes[route] = (f"hash-{self.rng.random()}", random_specs(self.rng))

    def _restart(self) -> None:
        """All processes die at once; the next ones know it, as the embedded stack does when it starts."""
        self.trace("--- restart ---")
        self.kill_all()
        self.generation += 1
        self.engine = replace(self.engine, owner=f"process-{self.generation}")
        self.bus.release()
        self.spawn("recover", None, lambda: self.engine.recover())

    # the functions

    def _handle(self, message: Message, done: Done) -> None:
        topic, step_id = message.topic, step_of(message)
        poison = "" if topic == DEAD_LETTERS else self._poison((topic, message.key, step_id))
        if self.calm and topic == RUN_FINISHED:
            poison = ""  # it has no run to end; somebody mends the function

        def work() -> None:
            if poison == "before":
                raise PipelineOpsError("poison")
            self._function(self.engine, message)
            if poison == "after":
                raise PipelineOpsError("poison")

        def told(outcome: str, error: str) -> None:
            done(outcome, error)
            if topic == STEP_COMPLETED and outcome == "ok":
                self._acknowledged(message)

        self.stats["deliveries"] += 1
        self.spawn(f"{topic} {message.key} {step_id}", message.key, work, told, poison)

    def _function(self, engine: Engine, message: Message) -> None:
        data, topic = message.data, message.topic
        if topic == RUNS:
            engine.start_run(read_run_id(data))
        elif topic == STEP_COMPLETED:
            engine.advance(*read_completed(data))
        elif topic == RUN_FINISHED:
            engine.run_finished(read_run_id(data))
        elif topic == DEAD_LETTERS:
            self._dead_letter(engine, message)
        else:
            engine.run_step(*read_order(data))

    def _acknowledged(self, message: Message) -> None:
        others = any(item.message.key == message.key and step_of(item.message) for item in self.bus.open)
        at_work = any(actor.run_id in (message.key, None) for actor in self.actors.values())
        self.rules.acknowledged(message.key, read_completed(message.data)[1], last=not others and not at_work)

    def _died(self, message: Message) -> None:
        self.rules.died(message, self.poison[message.topic, message.key, step_of(message)])

    @staticmethod
    def _dead_letter(engine: Engine, message: Message) -> None:
        try:
            engine.message_died(*read_dead(message.data), "its message was given up")
        except (PermanentError, NotFoundError) as error:
            raise Broken(f"a dead letter can't be read: {error}") from error

    def _poison(self, about: tuple[str, str, str]) -> str:
        """Say how the handler of a message about this fails, each time: not at all, before, after, or in it."""
        if about not in self.poison:
            self.poison[about] = (
                self.rng.choice(("before", "after", "asking", "asking")) if self.chance(self.faults.poisoned) else ""
            )
        return self.poison[about]


def over(run: Run) -> bool:
    """Whether nobody has to look at the run any more."""
    return run.status.is_terminal and run.wake_at is None


def step_of(message: Message) -> str:
    """Return the step that a message is about; empty for the run's own."""
    step_id: str = message.data.get("step", {}).get("spec", {}).get("step_id", "")
    return step_id


def void(_value: object) -> None:
    """Drop a value."""


class CanaryHandler(logging.Handler):
    """Looks for the secret in every line (rule 10)."""

    def emit(self, record: logging.LogRecord) -> None:
        if CANARY in record.getMessage():
            raise Broken(f"rule 10: a log line holds a secret: {record.getMessage()}")


@contextmanager
def patched(world: World) -> Iterator[None]:
    """Give the engine this world's time, chance and ids in the place of the machine's."""
    log, handler = common.runs.engine.logger, CanaryHandler()
    kept = (log.handlers[:], log.level, log.propagate)
    log.handlers[:], log.propagate = [handler], False
    log.setLevel(logging.INFO)
    ids = Random(world.seed)
    names = {
        "retried": partial(retried, sleep=world.pause, uniform=world.rng.uniform),
        "run_identity": lambda *_asked: (f"run_again_{ids.randrange(10**9)}", ""),
    }
    needs = patch("common.runs.validation.processor", lambda _ps_type: SimpleNamespace(needs_credential=True))
    try:
        with patch.multiple(common.runs.engine, **cast(Any, names)), needs:
            yield
    finally:
        log.handlers[:], log.propagate = kept[0], kept[2]
        log.setLevel(kept[1])
