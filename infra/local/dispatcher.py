"""Delivers the embedded bus's messages to their functions, in this process.

What only moves runs on (quick topics) is applied in one transaction, on the thread that caused it, together with the
claim of the step that it starts; then that thread does the step's work, and goes on with what came of it. So a chain of
steps changes threads only where it forks, and a message is stored only if it has to wait.
"""

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from common.adapters.sql.sqlite.bus import Consumer, Delivery, SqliteBus
from common.adapters.sql.sqlite.database import Batch
from common.platform.errors import TransientError
from common.platform.logs import logger
from common.runs.topics import DEAD_LETTERS, RUN_FINISHED, RUNS, STEP_COMPLETED

QUICK_TOPICS = (RUNS, STEP_COMPLETED, DEAD_LETTERS)
"""Topics whose functions only read configs and move runs on: they wait for nothing but the store.

The first write of a step function is a claim: from then on nobody needs the message. The end of a run is told outside
of any transaction, because that waits for others.
"""

QUICK_LIMIT = 16
"""Messages a transaction, so that whoever wants to write does not wait for long."""

WORKERS = 32
IDLE_POLL_S = 0.5


class Dispatcher(Consumer):
    """Hands each message that is due to ``deliver`` on a pool of threads, until stopped.

    ``deliver`` returns None if the message was taken, else what went wrong.
    """

    def __init__(self, bus: SqliteBus, deliver: Callable[[Delivery], str | None], workers: int = WORKERS) -> None:
        self._bus, self._deliver, self._workers = bus, deliver, workers
        self._stopping = threading.Event()
        self._queue: SimpleQueue[Delivery | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._busy = 0
        """Messages that were taken and are not done with."""
        self._behind = False
        """Whether messages may wait in the table: then no thread may go on with what came later."""
        self._threads = [threading.Thread(target=self._pull, name="dispatcher", daemon=True)]
        self._threads += [
            threading.Thread(target=self._work, name=f"function-{number}", daemon=True) for number in range(workers)
        ]

    def start(self) -> None:
        """Begin to deliver."""
        self._behind = True
        self._bus.serve(self)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Deliver nothing new and wait for the functions at work."""
        self._stopping.set()
        self._bus.serve(Consumer())
        self._bus.wake()
        for _ in range(self._workers):
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._bus.release()

    def room(self) -> int:
        return 0 if self._behind or self._stopping.is_set() else max(0, self._workers - self._busy)

    def take(self, deliveries: Sequence[Delivery]) -> None:
        with self._lock:
            self._busy += len(deliveries)
        for delivery in deliveries:
            self._queue.put(delivery)

    def _pull(self) -> None:
        """Look for what no publisher handed over: what had to wait, and what another process has sent."""
        while not self._stopping.is_set():
            seen = self._bus.seen
            due: list[Delivery] = []
            try:
                free = self._workers - self._busy
                if free > 0:
                    due = self._bus.pull(free)
                    self._behind = len(due) == free
                    self.take(due)
                else:
                    self._behind = True
                    due = self._bus.pull(QUICK_LIMIT, QUICK_TOPICS)
                    self._follow(due)
            except Exception:
                logger.exception("The bus could not be read; trying again")
            if not due:
                self._bus.wait(seen, IDLE_POLL_S)

    def _work(self) -> None:
        while (delivery := self._queue.get()) is not None and not self._stopping.is_set():
            self._follow([delivery])
            with self._lock:
                self._busy -= 1
            if self._behind:
                self._bus.wake()

    def _follow(self, deliveries: list[Delivery]) -> None:
        """Deliver these and what comes of them, as far as this thread may go on with that."""
        with self._bus.holding() as unsaved:
            while deliveries:
                try:
                    deliveries = self._turn(deliveries, unsaved)
                except TransientError as error:
                    logger.error("A delivery could not be settled, trying again: %s", error)
                    if self._stopping.wait(IDLE_POLL_S):
                        return
                except Exception:
                    # Neither acknowledged nor given back: it comes again when its deadline is over.
                    logger.exception("A delivery could not be settled")
                    return

    def _turn(self, deliveries: list[Delivery], unsaved: list[Delivery]) -> list[Delivery]:
        """Apply what is quick, begin with the next step and commit; do the step's work; return what came of it.

        Raises if nothing was committed.
        """
        ends = [one for one in deliveries if one.message.topic == RUN_FINISHED and one.message_id]
        if ends:
            # Telling takes seconds (BigQuery, webhooks): everybody else would wait for the transaction meanwhile.
            for one in ends:
                self._settle(one, self._try(one))
            deliveries, unsaved[:] = [*(one for one in deliveries if one not in ends), *unsaved], []
            return deliveries
        unsaved[:] = deliveries
        with self._bus.batch() as batch:
            rest = self._move_on(batch, unsaved)
            own = next((one for one in rest if one.message_id or self._may_go_on(one)), None)
            kept = self._bus.keep([one for one in rest if one is not own])
            finished = [one for one in kept if one.message.topic == RUN_FINISHED and one.deliveries and own is None]
            batch.after(lambda: self._bus.sent([one for one in kept if one not in finished]))
            if own is not None:
                self._begin(batch, own)
        deliveries, unsaved[:] = [*finished, *unsaved], []
        return deliveries

    def _move_on(self, batch: Batch, unsaved: list[Delivery]) -> list[Delivery]:
        """Deliver the quick ones of these, and of what they publish; return the rest."""
        rest: list[Delivery] = []
        while unsaved:
            delivery = unsaved.pop(0)
            if delivery.message.topic not in QUICK_TOPICS:
                rest.append(delivery)
                continue
            self._settle(delivery, self._try(delivery))
            if not batch.is_open:
                raise TransientError("The transaction could not be written.")
        return rest

    def _may_go_on(self, delivery: Delivery) -> bool:
        """Whether this thread may begin with a message at once. The end of a run is told once it is committed."""
        late = self._behind or self._stopping.is_set()
        return not late and delivery.message.topic != RUN_FINISHED

    def _begin(self, batch: Batch, own: Delivery) -> None:
        """Deliver a message; its first write ends the batch, and with it the need for the message."""
        needed = [own]

        def settle(succeeded: bool) -> None:
            if succeeded:
                self._bus.ack(needed.pop())
            elif not own.message_id:
                needed[:] = self._bus.keep(needed)

        batch.end_with_next_write(settle)
        error = self._try(own)
        batch.end_with_next_write(None)  # there may have been none
        if not batch.is_open and not batch.is_committed:
            raise TransientError("The transaction could not be written.")
        for delivery in needed:
            self._settle(delivery, error)

    def _settle(self, delivery: Delivery, error: str | None) -> None:
        if error is None:
            self._bus.ack(delivery)
        else:
            logger.warning("Delivery %d to %s failed: %s", delivery.deliveries, delivery.message.topic, error)
            self._bus.nack(delivery, error)

    def _try(self, delivery: Delivery) -> str | None:
        try:
            return self._deliver(delivery)
        except Exception as error:
            logger.exception("A delivery to %s failed", delivery.message.topic)
            return f"{type(error).__name__}: {error}"
