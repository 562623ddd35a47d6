"""A bus that delivers at least once: late, twice, in any order, again after an acknowledgement was lost."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from common.ports.bus import Message
from common.runs.topics import DEAD_LETTERS
from tests.sim.invariants import Rules
from tests.sim.kernel import Done, Kernel

ACK_DEADLINE_S = 660.0
MAX_DELIVERIES = 10


@dataclass(eq=False)
class Item:
    """A message on its way. ``turn`` tells the newest plan to deliver it from older ones."""

    message: Message
    text: str
    deliveries: int = 0
    turn: int = 0
    gone: bool = False


class SimBus:
    """The event bus port, and what delivers. A bus that can't delay drops what is not due: the sweep sends it then."""

    def __init__(
        self,
        world: Kernel,
        rules: Rules,
        handle: Callable[[Message, Done], None],
        died: Callable[[Message], None],
    ) -> None:
        self._world, self._rules, self._handle, self._died = world, rules, handle, died
        self.can_delay = world.rng.random() < 0.7
        self.open: list[Item] = []
        self.sent: list[Message] = []

    def publish(self, messages: Sequence[Message]) -> None:
        if messages:
            self._world.call(f"publish {messages[0].topic}", lambda: self.enqueue(messages))

    def enqueue(self, messages: Sequence[Message]) -> None:
        world = self._world
        for message in messages:
            self._rules.published(message)
            if not self.can_delay and message.not_before and message.not_before > world.now():
                continue
            for _ in range(2 if world.chance(world.faults.duplicated) else 1):
                self._put(message)

    def _put(self, message: Message) -> None:
        world = self._world
        self.sent.append(message)
        item = Item(message, json.dumps(message.data))
        self.open.append(item)
        early = (message.not_before - world.now()).total_seconds() if message.not_before else 0.0
        late = world.rng.uniform(1, 400) if world.chance(world.faults.delayed) else world.rng.uniform(0, 0.1)
        self._plan(item, max(0.0, early) + late)

    def replay(self, message: Message) -> None:
        """Deliver an old message once more."""
        self._put(message)

    def _plan(self, item: Item, seconds: float) -> None:
        item.turn += 1
        turn = item.turn
        self._world.after(seconds, lambda: self._deliver(item, turn))

    def _deliver(self, item: Item, turn: int) -> None:
        if item.gone or item.turn != turn:
            return
        item.deliveries += 1
        self._plan(item, ACK_DEADLINE_S)
        data: dict[str, Any] = json.loads(item.text)
        self._handle(replace(item.message, data=data), lambda outcome, error: self._handled(item, outcome, error))

    def _handled(self, item: Item, outcome: str, error: str) -> None:
        world = self._world
        if outcome == "ok" and not world.chance(world.faults.ack_lost):
            self._remove(item)
        elif outcome == "failed" and not item.gone:
            if item.deliveries < MAX_DELIVERIES:
                self._plan(item, min(0.1 * 4**item.deliveries, 60))
                return
            self._remove(item)
            world.stats["dead letters"] += 1
            message = item.message
            if message.topic != DEAD_LETTERS:
                self._died(message)
                self._put(replace(message, topic=DEAD_LETTERS, source=message.topic, not_before=None))

    def _remove(self, item: Item) -> None:
        if not item.gone:
            item.gone = True
            self.open.remove(item)

    def release(self) -> None:
        """After a restart: deliver at once what dead processes had in hand."""
        for item in self.open:
            if item.deliveries:
                self._plan(item, 0.0)
