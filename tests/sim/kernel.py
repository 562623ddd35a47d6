"""Simulated time and processes: a heap of events, and greenlets that yield to it at every call of a port.

One process runs at a time and time passes only between events, so that a seed replays a world exactly.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from greenlet import getcurrent, greenlet

from common.platform.errors import PipelineOpsError, StaleRunError, TransientError

T0 = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)

Done = Callable[[str, str], None]
"""Told ``ok``, ``failed`` or ``killed`` at the end of a process, and its error."""


class Killed(BaseException):
    """The process dies here: no handler of the engine may catch it."""


@dataclass
class Faults:
    """How often a call of a port goes wrong. Each world draws its own mixture, so that no fault hides another."""

    killed: float = 0.0
    refused: float = 0.0
    reply_lost: float = 0.0
    conflict: float = 0.0
    slow: float = 0.0
    stalled: float = 0.0
    duplicated: float = 0.0
    delayed: float = 0.0
    ack_lost: float = 0.0
    outbox_lost: float = 0.0
    poisoned: float = 0.0

    @classmethod
    def drawn(cls, rng: Random) -> "Faults":
        names = list(cls.__dataclass_fields__)
        scale = {"conflict": 0.2, "slow": 0.1, "duplicated": 0.3, "delayed": 0.15, "ack_lost": 0.1, "poisoned": 0.08}
        return cls(**{name: rng.choice((0, 0.2, 1)) * scale.get(name, 0.03) for name in names})


@dataclass(eq=False)
class Actor:
    """One process at work on one message or request; ``run_id`` is the only run it may touch (None: any).

    ``poison`` says where it fails each time.
    """

    name: str
    run_id: str | None
    body: greenlet
    poison: str = ""


class Kernel:
    """The clock, the event heap and the processes of one world."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.seed, self.rng, self.tracing = seed, Random(seed), trace
        self.faults = Faults.drawn(self.rng)
        self.calm = False
        self.seconds = 0.0
        self.actors: dict[greenlet, Actor] = {}
        self.stats: Counter[str] = Counter()
        self._heap: list[tuple[float, int, Callable[[], Any]]] = []
        self._count = 0

    def now(self) -> datetime:
        """The simulated time, as the engine's clock."""
        return T0 + timedelta(microseconds=round(self.seconds * 1e6))

    def trace(self, text: str) -> None:
        """Print what happens, if that was asked for."""
        if self.tracing:
            actor = self.actors.get(getcurrent())
            print(f"{self.seconds:11.3f} {actor.name if actor else '':38.38} {text}")  # noqa: T201

    def after(self, seconds: float, do: Callable[[], Any]) -> None:
        """Do something that many seconds from now."""
        self._count += 1
        heapq.heappush(self._heap, (self.seconds + seconds, self._count, do))

    def run(self, until: Callable[[], bool]) -> None:
        """Let events happen until there are none, or ``until`` says so."""
        while self._heap and not until():
            self.seconds, _, do = heapq.heappop(self._heap)
            do()

    def spawn(
        self, name: str, run_id: str | None, work: Callable[[], Any], done: Done | None = None, poison: str = ""
    ) -> None:
        """Start a process. An error that the engine does not declare goes through to the test."""

        def body() -> None:
            self.trace("begins")
            outcome, text = "ok", ""
            try:
                work()
            except Killed:
                outcome = "killed"
            except PipelineOpsError as error:
                outcome, text = "failed", f"{type(error).__name__}: {error}"
            self.trace(f"{outcome} {text}")
            self.stats[outcome] += 1
            self.actors.pop(getcurrent(), None)
            if done:
                done(outcome, text)

        actor = Actor(name, run_id, greenlet(body), poison)
        self.actors[actor.body] = actor
        self.after(0, actor.body.switch)

    def actor(self) -> Actor | None:
        """The process that runs now."""
        return self.actors.get(getcurrent())

    def pause(self, seconds: float) -> None:
        """Let others go on for this long; what ``time.sleep`` is in a world."""
        me = getcurrent()
        if me.parent is None:
            return
        self.after(seconds, lambda: None if me.dead else me.switch())
        me.parent.switch()

    def kill_all(self) -> None:
        """Every process dies where it stands."""
        for body in list(self.actors):
            self.actors.pop(body)
            try:
                body.throw(Killed)
            except Killed:  # it had not begun
                continue

    def chance(self, rate: float) -> bool:
        """Whether a fault of this rate strikes now; never in the calm."""
        return not self.calm and self.rng.random() < rate

    def call[T](self, what: str, effect: Callable[[], T], *, may_stall: bool = True, may_conflict: bool = False) -> T:
        """Call a port: others may go on before and after its effect, and both ways it may be the end."""
        rng, faults = self.rng, self.faults
        self.pause(self._latency(may_stall))
        if self.chance(faults.killed):
            self.trace(f"dies before {what}")
            raise Killed
        if self.chance(faults.refused):
            self.trace(f"{what} refused")
            raise TransientError(f"{what} is not available.")
        if may_conflict and self.chance(faults.conflict):
            self.trace(f"{what} meets a conflict")
            raise StaleRunError("Somebody was faster.")
        result = effect()
        if self.chance(faults.killed):
            self.trace(f"dies after {what}")
            raise Killed
        if self.chance(faults.reply_lost):
            self.trace(f"{what} done, its answer lost")
            raise TransientError(f"{what}: no answer.")
        if rng.random() < 0.5:
            self.pause(self._latency(False))
        return result

    def _latency(self, may_stall: bool) -> float:
        if self.chance(self.faults.stalled) and may_stall:
            return self.rng.uniform(30, 700)
        # Half the lease's margin at most: a commit that takes longer is answered with an error before that.
        return self.rng.uniform(1, 15) if self.chance(self.faults.slow) else self.rng.uniform(0.001, 0.05)
