"""The event bus port on SQLite, and the pulling side that the embedded stack delivers from.

A message is leased when it is delivered and deleted when acknowledged; if its lease expires, it is delivered again.
After ``MAX_DELIVERIES`` it moves to the dead letters with its last error, as Pub/Sub's dead-letter policy does.

The consumer in this process gets messages directly from their publisher (``serve``), stored with their lease, so that
no poll is needed. What one of its own threads publishes during a delivery (``holding``) it gets before it is stored: a
message that is settled in the same transaction is never stored at all.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from common.adapters.sql.sqlite.database import Batch, Database
from common.adapters.sql.sqlite.times import from_micros, to_micros
from common.ports.bus import Message
from common.runs.topics import DEAD_LETTERS

ACK_DEADLINE = timedelta(seconds=660)
"""Longer than any function may run (540 s), so that a message never comes back while its function still works."""

MAX_DELIVERIES = 10

LEASE = """
UPDATE messages SET due_at = ?, deliveries = deliveries + 1
WHERE id IN (SELECT id FROM messages WHERE due_at <= ? {only}ORDER BY due_at, id LIMIT ?)
RETURNING id, topic, source, key, data, published_at, deliveries
"""

ORGANISATION = "COALESCE(json_extract(data, '$.run.request.org_slug'), '')"
"""What ``organisation`` returns of a message. Not a column: it is read only while some organisation has its share."""

INSERT = """
INSERT INTO messages (id, topic, source, key, data, published_at, due_at, deliveries) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


NUMBERS = count(time.time_ns())
"""Message ids, never used twice by this process or another one on the file: a late acknowledgement must delete nothing.
Not SQLite's own rowid, which is reused after a delete."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivered message with its id (0: it is not stored) and how many times it was delivered, this one included."""

    message_id: int
    message: Message
    published_at: datetime
    deliveries: int

    @property
    def is_early(self) -> bool:
        """Whether it was published before its ``not_before``."""
        return self.message.not_before is not None and self.message.not_before > self.published_at


class Consumer:
    """Gets messages as they are published; this base class takes none."""

    def room(self) -> int:
        """Return how many messages it could start on at once."""
        return 0

    def accepts(self, message: Message) -> bool:
        """Return whether it may start on this message now, as far as its organisation's share goes."""
        return True

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Deliver these messages, which are committed and leased."""


def organisation(message: Message) -> str:
    """Return the organisation of a step's message; "" of others, which say only the run."""
    order = message.data.get("run")
    return str(order["request"]["org_slug"]) if order else ""


def _now() -> datetime:
    return datetime.now(UTC)


class SqliteBus:
    """Messages in a table. ``wake`` notifies waiting pullers of this process that a message may be due."""

    def __init__(self, database: Database, now: Callable[[], datetime] = _now) -> None:
        self._database = database
        self._now = now
        self._news = threading.Condition()
        self._version = 0
        self._consumer = Consumer()
        self._local = threading.local()

    def publish(self, messages: Sequence[Message]) -> None:
        later = self._held(messages)
        if later:
            self.sent(self._database.write(lambda db: self._store(db, later), fails_first=True))

    def enqueue(self, db: sqlite3.Connection, messages: Sequence[Message]) -> Sequence[Delivery]:
        """Insert messages in the caller's transaction; after its commit, the caller passes the result to ``sent``."""
        return self._store(db, self._held(messages) if self._database.batching else self._deliveries(messages))

    def _held(self, messages: Sequence[Message]) -> Sequence[Delivery]:
        """Keep due messages for this thread, if it is ``holding``; return the messages to store."""
        deliveries = self._deliveries(messages)
        unsaved: list[Delivery] | None = getattr(self._local, "unsaved", None)
        if unsaved is None:
            return deliveries
        unsaved += [one for one in deliveries if not one.is_early]
        return [one for one in deliveries if one.is_early]

    def _deliveries(self, messages: Sequence[Message]) -> list[Delivery]:
        now = self._now()
        return [Delivery(0, message, now, 1) for message in messages]

    def _store(self, db: sqlite3.Connection, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Insert messages: due ones leased while the consumer has room for them, the others free for pullers."""
        room = self._consumer.room()
        stored = []
        for one in deliveries:
            if one.is_early:
                assert one.message.not_before is not None
                stored.append(self._insert(db, one, one.message.not_before, 0))
            elif room > 0 and self._consumer.accepts(one.message):
                room -= 1
                stored.append(self._insert(db, one, one.published_at + ACK_DEADLINE, 1))
            else:
                stored.append(self._insert(db, one, one.published_at, 0))
        return stored

    @staticmethod
    def _insert(db: sqlite3.Connection, one: Delivery, due_at: datetime, deliveries: int) -> Delivery:
        m, data = one.message, json.dumps(one.message.data, ensure_ascii=False)
        number = next(NUMBERS)
        row = (number, m.topic, m.source, m.key, data, to_micros(one.published_at), to_micros(due_at), deliveries)
        db.execute(INSERT, row)
        return Delivery(number, m, one.published_at, deliveries)

    def sent(self, stored: Sequence[Delivery]) -> None:
        """Deliver what ``enqueue`` stored, now that it is committed.

        Not before the commit: a consumer could work on a state that is then rolled back.
        """
        leased = [one for one in stored if one.deliveries]
        if leased:
            self._consumer.take(leased)
        if len(leased) < len(stored):
            self.wake()

    def serve(self, consumer: Consumer) -> None:
        """From now on, pass what this process publishes to this consumer while it has room."""
        self._consumer = consumer

    @contextmanager
    def holding(self) -> Iterator[list[Delivery]]:
        """Collect what this thread publishes in the block in a list, which the caller then delivers or ``keep``s.

        Until then it is in memory only: if the process dies here, nothing was published.
        """
        unsaved: list[Delivery] = []
        self._local.unsaved = unsaved
        try:
            yield unsaved
        finally:
            self._local.unsaved = None

    def keep(self, unsaved: Sequence[Delivery]) -> Sequence[Delivery]:
        """Store held messages in this thread's batch; pass the result to ``sent``, as for ``enqueue``."""
        return self._database.write(lambda db: self._store(db, unsaved), fails_first=True) if unsaved else ()

    def wake(self) -> None:
        """Make this process's pullers poll again."""
        with self._news:
            self._version += 1
            self._news.notify_all()

    @property
    def seen(self) -> int:
        """How often the bus was woken; ``wait`` compares it, so that a wake-up before the wait is not missed."""
        return self._version

    def batch(self) -> Batch:
        """Return a block in which all that this thread pulls, acknowledges and writes is one transaction."""
        return self._database.batch()

    def pull(self, limit: int, topics: Sequence[str] | None = None, without: Collection[str] = ()) -> list[Delivery]:
        """Lease up to ``limit`` due messages, earliest due first.

        With ``topics``, only messages of these; ``without`` are organisations whose steps are left where they are.
        """
        now = self._now()
        only = f"AND topic IN ({', '.join('?' * len(topics))}) " if topics else ""
        if without:
            only += f"AND {ORGANISATION} NOT IN ({', '.join('?' * len(without))}) "
        leased = (to_micros(now + ACK_DEADLINE), to_micros(now), *(topics or ()), *without, limit)
        rows = self._database.write(lambda db: db.execute(LEASE.format(only=only), leased).fetchall())
        return [
            Delivery(number, Message(topic, key, json.loads(data), source=source), from_micros(published), deliveries)
            for number, topic, source, key, data, published, deliveries in sorted(rows)
        ]

    def ack(self, delivery: Delivery) -> None:
        """Delete a message whose function has succeeded."""
        if delivery.message_id:
            row = (delivery.message_id,)
            self._database.write(lambda db: db.execute("DELETE FROM messages WHERE id = ?", row), fails_first=True)

    def put_back(self, delivery: Delivery) -> None:
        """Return a message that nobody has started on, as if it had not been delivered."""
        row = (to_micros(self._now()), delivery.message_id)
        back = "UPDATE messages SET due_at = ?, deliveries = deliveries - 1 WHERE id = ?"
        self._database.write(lambda db: db.execute(back, row))

    def nack(self, delivery: Delivery, error: str) -> None:
        """Return a message for redelivery, with a growing pause; after ``MAX_DELIVERIES``, to the dead letters."""
        now = self._now()
        if delivery.deliveries >= MAX_DELIVERIES:
            self.sent(self._database.write(lambda db: self._bury(db, delivery, error, to_micros(now))))
            return
        # 0.4 s, 1.6 s, 6.4 s, 25.6 s, then 60 s: ten deliveries span minutes, so a short outage makes no dead letters.
        due_at = now + timedelta(seconds=min(0.1 * 4**delivery.deliveries, 60))
        if delivery.message_id:
            row = (to_micros(due_at), delivery.message_id)
            self._database.write(lambda db: db.execute("UPDATE messages SET due_at = ? WHERE id = ?", row))
        else:
            self._database.write(lambda db: self._insert(db, delivery, due_at, delivery.deliveries))

    def _bury(self, db: sqlite3.Connection, delivery: Delivery, error: str, now: int) -> Sequence[Delivery]:
        """Move a message to the dead letters, and publish it on their topic."""
        db.execute(
            "INSERT INTO dead_letters (topic, key, data, published_at, died_at, deliveries, error)"
            " SELECT topic, key, data, published_at, ?, deliveries, ? FROM messages WHERE id = ?",
            (now, error, delivery.message_id),
        )
        db.execute("DELETE FROM messages WHERE id = ?", (delivery.message_id,))
        if delivery.message.topic == DEAD_LETTERS:  # the handler of dead letters fails: publishing again would loop
            return ()
        message = replace(delivery.message, topic=DEAD_LETTERS, source=delivery.message.topic)
        return self.enqueue(db, [message])

    def release(self) -> None:
        """Make every leased message due now: called at start-up, when their consumer is known to be dead."""
        now = to_micros(self._now())
        release = "UPDATE messages SET due_at = ? WHERE deliveries > 0 AND due_at > ?"
        self._database.write(lambda db: db.execute(release, (now, now)))
        self.wake()

    def wait(self, seen: int, timeout_s: float, *, due: bool = True) -> None:
        """Wait until ``wake`` is called (after ``seen`` was read), a message becomes ``due``, or the timeout."""
        row = self._database.connection().execute("SELECT MIN(due_at) FROM messages").fetchone() if due else (None,)
        if row[0] is not None:
            due_in = (from_micros(row[0]) - self._now()).total_seconds()
            timeout_s = min(timeout_s, max(0.0, due_in))
        with self._news:
            if self._version == seen and timeout_s > 0:
                self._news.wait(timeout_s)

    def dead_letters(self) -> list[tuple[str, str, str]]:
        """Return (topic, key, error) of every dead letter."""
        rows = self._database.connection().execute("SELECT topic, key, error FROM dead_letters ORDER BY id")
        return [(topic, key, error) for topic, key, error in rows]
