"""The memory run store, which passes the port's contract suite, behind a line that breaks."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from decimal import Decimal

from common.domain.model import Run, Step
from common.domain.queueing import Queue
from common.domain.quota import Limits
from common.domain.state import Transition
from common.platform.errors import QuotaExceededError, TransientError
from common.ports.bus import Message
from tests.memory_store import MemoryRunStore
from tests.sim.invariants import Rules
from tests.sim.kernel import Kernel, Killed


class Outbox:
    """Holds the messages of one commit until ``FaultyStore`` sends them, or loses them."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def publish(self, messages: Sequence[Message]) -> None:
        self.messages += messages


class FaultyStore:
    """The port as processes see it: each call takes time and may fail before or after its effect."""

    def __init__(self, world: Kernel, rules: Rules, enqueue: Callable[[Sequence[Message]], None]) -> None:
        self._world, self._rules, self._enqueue, self._outbox = world, rules, enqueue, Outbox()
        self.memory = MemoryRunStore(self._outbox)

    def create(self, new: Transition, limits: Limits) -> None:
        def effect() -> None:
            self.memory.create(new, limits)
            self._rules.created(self.memory.load(new.run.run_id, new.touched), limits)
            self._send()

        self._world.call("create", effect, may_stall=False)

    def commit(self, transition: Transition) -> Run:
        def effect() -> Run:
            stored = self.memory.commit(transition)
            for change in transition.changes:
                self._world.trace(f"{change.step_id or 'run'}/{change.attempt} {change.before}→{change.after}")
            self._rules.committed(transition, stored)
            self._send()
            return stored

        return self._world.call("commit", effect, may_stall=False, may_conflict=True)

    def admit(self, transition: Transition, limits: Limits) -> Run:
        def effect() -> Run:
            try:
                stored = self.memory.admit(transition, limits)
            except QuotaExceededError as error:
                self._rules.quota.refused(transition.run, error)
                raise
            self._rules.committed(transition, stored)
            self._rules.quota.admitted(stored, limits)
            self._send()
            return stored

        return self._world.call("admit", effect, may_stall=False, may_conflict=True)

    def queues(self, ended: Run | None = None) -> Sequence[Queue]:
        def effect() -> Sequence[Queue]:
            self._rules.quota.looked()
            return self.memory.queues(ended)

        return self._world.call("queues", effect)

    def last_cost(self, org_slug: str, route: str) -> Decimal | None:
        return self._world.call("last_cost", lambda: self.memory.last_cost(org_slug, route))

    def _send(self) -> None:
        """Send what was committed; or fail in between, as a store that is not its own bus may: the sweep derives it."""
        messages, self._outbox.messages = self._outbox.messages, []
        if messages and self._world.chance(self._world.faults.outbox_lost):
            self._world.trace("a commit loses its messages")
            for message in messages:
                self._rules.published(message)
            raise self._world.rng.choice((Killed(), TransientError("The bus does not answer.")))
        self._enqueue(messages)

    def load(self, run_id: str, step_ids: Collection[str] | None = None) -> Run:
        self._rules.touched(run_id)
        run = self._world.call("load", lambda: self.memory.load(run_id, step_ids))
        if step_ids is None:
            self._rules.read(run)
        return run

    def holds(self, run_id: str, step: Step) -> bool:
        def effect() -> bool:
            self._rules.looked_at(run_id, step)
            return self.memory.holds(run_id, step)

        # Called by an attempt, which its time-out ends: it can't stall for longer than its lease.
        return self._world.call("holds", effect, may_stall=False)

    def all_ended(self, run_id: str, step_ids: Collection[str]) -> bool:
        self._rules.touched(run_id)
        actor = self._world.actor()
        if actor and actor.poison == "asking":
            raise TransientError("poison")
        return self._world.call("all_ended", lambda: self.memory.all_ended(run_id, step_ids))

    def due(self, now: datetime, limit: int) -> Sequence[str]:
        return self._world.call("due", lambda: self.memory.due(now, limit))

    def active(self) -> Sequence[str]:
        return self._world.call("active", self.memory.active)
