"""Delivers the embedded bus's messages to their functions, in this process.

Messages of quick topics, which only advance runs, are applied in one transaction on the thread that published them,
together with the claim of the step that they start. That thread then does the step's work and continues with the
messages that it publishes. So a chain of steps changes threads only where it forks, and a message is stored only if it
has to wait.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from common.adapters.sql.sqlite.bus import Consumer, Delivery, SqliteBus, organisation
from common.adapters.sql.sqlite.database import Batch
from common.platform.errors import TransientError
from common.platform.logs import logger
from common.ports.bus import Message
from common.runs.topics import DEAD_LETTERS, RUN_FINISHED, RUNS, STEP_COMPLETED

QUICK_TOPICS = (RUNS, STEP_COMPLETED, DEAD_LETTERS)
"""Topics whose functions only read configs and advance runs: they wait for nothing but the store.

The first write of a step function is the claim; after it the message is not needed any more. Notifications of a run's
end are sent outside of transactions, because they wait for other systems.
"""

QUICK_LIMIT = 16
"""Most messages per transaction, because SQLite has one writer at a time and all others wait for it."""

WORKERS = 64
"""Threads. One organisation alone gets half of them (``_Shares``), and a second always finds one that is free."""

IDLE_POLL_S = 0.5
"""Longest delay of a message from another process, which can't wake this one."""


class _Shares:
    """How many workers each organisation has at work on steps, and whether it may have one more.

    It may while it has fewer than are free (dynamic thresholds, Choudhury and Hahne 1998): one alone gets half of the
    workers, a second a quarter, and so on. A fixed share would leave most of them idle; without one, the first
    organisation whose provider hangs takes them all, and everybody else waits for its time limits.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._at_work: Counter[str] = Counter()

    def has_room(self, org: str) -> bool:
        """Return whether the organisation may have one more; "" always may, it is no step."""
        return not org or self._at_work[org] < self._workers - self._at_work.total()

    def enter(self, org: str) -> bool:
        """Take a worker for the organisation; return False if it has its share."""
        with self._lock:
            if not self.has_room(org):
                return False
            if org:
                self._at_work[org] += 1
            return True

    def leave(self, org: str) -> None:
        """Give a worker back."""
        with self._lock:
            if org:
                self._at_work[org] -= 1

    def full(self) -> list[str]:
        """Return the organisations that have their share."""
        with self._lock:
            return [org for org, count in self._at_work.items() if count and not self.has_room(org)]


class Dispatcher(Consumer):
    """Passes each due message to ``deliver`` on a pool of threads, until stopped.

    ``deliver`` returns None if the message was processed, else the error.
    """

    def __init__(self, bus: SqliteBus, deliver: Callable[[Delivery], str | None], workers: int = WORKERS) -> None:
        self._bus, self._deliver, self._workers = bus, deliver, workers
        self._stopping = threading.Event()
        self._queue: SimpleQueue[Delivery | None] = SimpleQueue()
        self._lock = threading.Lock()  # guards _busy: += is not atomic
        self._busy = 0
        """Messages in work."""
        self._held_back = False
        """Whether messages may wait in the table for a worker of their organisation's share."""
        self._shares = _Shares(workers)
        self._behind = False
        """Whether messages may wait in the table: then no thread may continue with later ones before them."""
        self._threads = [threading.Thread(target=self._pull, name="dispatcher", daemon=True)]
        self._threads += [
            threading.Thread(target=self._work, name=f"function-{number}", daemon=True) for number in range(workers)
        ]

    def start(self) -> None:
        """Start delivery. Stored messages of an earlier process come first."""
        self._behind = True
        self._bus.serve(self)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop delivery and wait for running functions."""
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

    def accepts(self, message: Message) -> bool:
        may = self._shares.has_room(organisation(message))
        self._held_back = self._held_back or not may
        return may

    def take(self, deliveries: Sequence[Delivery]) -> None:
        with self._lock:
            self._busy += len(deliveries)
        for delivery in deliveries:
            self._queue.put(delivery)

    def _pull(self) -> None:
        """Pull messages that no thread continued with: those that had to wait, and those of other processes."""
        while not self._stopping.is_set():
            seen = self._bus.seen
            due: list[Delivery] = []
            full = self._shares.full()
            self._held_back = bool(full)
            try:
                free = self._workers - self._busy
                if free > 0:
                    due = self._bus.pull(free, without=full)
                    self._behind = len(due) == free
                    self.take(due)
                else:
                    # All workers are busy, perhaps for minutes: quick messages, such as a cancel, must not wait.
                    self._behind = True
                    due = self._bus.pull(QUICK_LIMIT, QUICK_TOPICS)
                    self._follow(due)
            except Exception:
                logger.exception("The bus could not be read; trying again")
            if not due:
                # Messages of an organisation that has its share are due, and still have to wait.
                self._bus.wait(seen, IDLE_POLL_S, due=not full)

    def _work(self) -> None:
        while (delivery := self._queue.get()) is not None and not self._stopping.is_set():
            self._follow([delivery])
            with self._lock:
                self._busy -= 1
            if self._behind or self._held_back:
                self._bus.wake()

    def _follow(self, deliveries: list[Delivery]) -> None:
        """Deliver these and the messages that they cause, as far as this thread may continue with them."""
        with self._bus.holding() as unsaved:
            while deliveries:
                try:
                    deliveries = self._turn(deliveries, unsaved)
                except TransientError as error:
                    logger.error("A delivery could not be settled, trying again: %s", error)
                    if self._stopping.wait(IDLE_POLL_S):
                        return
                except Exception:
                    # Neither acknowledged nor returned: it is redelivered after its acknowledgement deadline.
                    logger.exception("A delivery could not be settled")
                    return

    def _turn(self, deliveries: list[Delivery], unsaved: list[Delivery]) -> list[Delivery]:
        """Apply quick messages, claim the next step and commit; do the step's work; return the messages it caused.

        Raises if nothing was committed.
        """
        ends = [delivery for delivery in deliveries if delivery.message.topic == RUN_FINISHED and delivery.message_id]
        if ends:
            # Notifying takes seconds (BigQuery, webhooks), for which a transaction would block all other writers.
            for delivery in ends:
                self._settle(delivery, self._try(delivery))
            deliveries, unsaved[:] = [*(d for d in deliveries if d not in ends), *unsaved], []
            return deliveries
        unsaved[:] = deliveries
        own: Delivery | None = None
        try:
            with self._bus.batch() as batch:
                rest = self._apply_quick(batch, unsaved)
                own = next((d for d in rest if self._may_begin(d)), None)
                kept = self._bus.keep([d for d in rest if d is not own and not d.message_id])
                for delivery in rest:
                    if delivery.message_id and delivery is not own:
                        self._bus.put_back(delivery)
                finished = [d for d in kept if d.message.topic == RUN_FINISHED and d.deliveries and own is None]
                batch.after(lambda: self._bus.sent([d for d in kept if d not in finished]))
                if own is not None:
                    self._begin(batch, own)
        finally:
            if own is not None:
                self._shares.leave(organisation(own.message))
        deliveries, unsaved[:] = [*finished, *unsaved], []
        return deliveries

    def _apply_quick(self, batch: Batch, unsaved: list[Delivery]) -> list[Delivery]:
        """Deliver the quick messages among these and among those that they publish; return the others."""
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

    def _may_begin(self, delivery: Delivery) -> bool:
        """Whether this thread does the message's work now; it then has a worker of its organisation's share."""
        if not delivery.message_id and not self._may_continue(delivery):
            return False
        may = self._shares.enter(organisation(delivery.message))
        self._held_back = self._held_back or not may
        return may

    def _may_continue(self, delivery: Delivery) -> bool:
        """Whether this thread may start a message at once. A run's end is notified only after it is committed."""
        late = self._behind or self._held_back or self._stopping.is_set()
        return not late and delivery.message.topic != RUN_FINISHED

    def _begin(self, batch: Batch, own: Delivery) -> None:
        """Deliver a message. Its first write, the claim, ends the batch; after it the message is not needed."""
        needed = [own]

        def settle(succeeded: bool) -> None:
            if succeeded:
                self._bus.ack(needed.pop())
            elif not own.message_id:
                needed[:] = self._bus.keep(needed)

        batch.end_with_next_write(settle)
        error = self._try(own)
        batch.end_with_next_write(None)  # the function may not have written anything
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
