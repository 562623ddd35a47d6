"""The event bus port on SQLite, and the pulling side that the embedded stack delivers from.

A message is leased for a while when it is handed out and deleted when acknowledged; one that is not comes back.
After ``MAX_DELIVERIES`` it moves to the dead letters with its last error, as Pub/Sub's dead-letter policy does.

The consumer in this process gets messages straight from their publisher (``serve``), stored as leased already, so
that nobody has to look for them; and it gets what a delivery on one of its threads publishes (``holding``) before that
is stored, so that what is settled in the same transaction never is.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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

INSERT = """
INSERT INTO messages (id, topic, source, key, data, published_at, due_at, deliveries) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


NUMBERS = count(time.time_ns())
"""No number is ever given twice, by this process or any other on the file: a late acknowledgement must hit nothing."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message handed out, with its number (0: it is not stored) and how often it was handed out before and now."""

    message_id: int
    message: Message
    published_at: datetime
    deliveries: int

    @property
    def is_early(self) -> bool:
        """Whether it was published before its time."""
        return self.message.not_before is not None and self.message.not_before > self.published_at


class Consumer:
    """Consumes messages as they are published; this one consumes none."""

    def room(self) -> int:
        """Return how many messages it would begin with at once."""
        return 0

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Deliver these, which are committed and leased."""


def _now() -> datetime:
    return datetime.now(UTC)


class SqliteBus:
    """Messages in a table. ``wake`` tells waiting pullers of this process that something may be due."""

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
        """Insert messages in the caller's transaction; the caller gives what this returns to ``sent`` behind it."""
        return self._store(db, self._held(messages) if self._database.batching else self._deliveries(messages))

    def _held(self, messages: Sequence[Message]) -> Sequence[Delivery]:
        """Hold what is due for this thread, if it is ``holding``; return what is to be stored."""
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
        """Insert messages: leased as far as the consumer has room for those that are due, free for pullers beyond."""
        room = self._consumer.room()
        stored = []
        for one in deliveries:
            if one.is_early:
                assert one.message.not_before is not None
                stored.append(self._insert(db, one, one.message.not_before, 0))
            elif room > 0:
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
        """Pass on what ``enqueue`` has stored, now that it is committed."""
        leased = [one for one in stored if one.deliveries]
        if leased:
            self._consumer.take(leased)
        if len(leased) < len(stored):
            self.wake()

    def serve(self, consumer: Consumer) -> None:
        """Give what this process publishes to this consumer from now on, as far as it has room."""
        self._consumer = consumer

    @contextmanager
    def holding(self) -> Iterator[list[Delivery]]:
        """Give the list that gets what this thread publishes in the block; the caller delivers or ``keep``s it.

        It is not safe before that. A function that died here would have published nothing.
        """
        unsaved: list[Delivery] = []
        self._local.unsaved = unsaved
        try:
            yield unsaved
        finally:
            self._local.unsaved = None

    def keep(self, unsaved: Sequence[Delivery]) -> Sequence[Delivery]:
        """Store messages that are only held, in this thread's batch; ``sent`` is for those, too."""
        return self._database.write(lambda db: self._store(db, unsaved), fails_first=True) if unsaved else ()

    def wake(self) -> None:
        """Tell pullers of this process to look again."""
        with self._news:
            self._version += 1
            self._news.notify_all()

    @property
    def seen(self) -> int:
        """How often the bus was woken: what ``wait`` compares with."""
        return self._version

    def batch(self) -> Batch:
        """Return a block in which all that this thread pulls, acknowledges and writes is one transaction."""
        return self._database.batch()

    def pull(self, limit: int, topics: Sequence[str] | None = None) -> list[Delivery]:
        """Lease up to ``limit`` messages that are due, oldest due first. With ``topics``, only messages of these."""
        now = self._now()
        only = f"AND topic IN ({', '.join('?' * len(topics))}) " if topics else ""
        leased = (to_micros(now + ACK_DEADLINE), to_micros(now), *(topics or ()), limit)
        rows = self._database.write(lambda db: db.execute(LEASE.format(only=only), leased).fetchall())
        return [
            Delivery(number, Message(topic, key, json.loads(data), source=source), from_micros(published), deliveries)
            for number, topic, source, key, data, published, deliveries in sorted(rows)
        ]

    def ack(self, delivery: Delivery) -> None:
        """Delete a message whose function has done its work."""
        if delivery.message_id:
            row = (delivery.message_id,)
            self._database.write(lambda db: db.execute("DELETE FROM messages WHERE id = ?", row), fails_first=True)

    def nack(self, delivery: Delivery, error: str) -> None:
        """Give a message back: soon again at first, later and later, at last to the dead letters."""
        now = self._now()
        if delivery.deliveries >= MAX_DELIVERIES:
            self.sent(self._database.write(lambda db: self._bury(db, delivery, error, to_micros(now))))
            return
        due_at = now + timedelta(seconds=min(0.1 * 4**delivery.deliveries, 60))
        if delivery.message_id:
            row = (to_micros(due_at), delivery.message_id)
            self._database.write(lambda db: db.execute("UPDATE messages SET due_at = ? WHERE id = ?", row))
        else:
            self._database.write(lambda db: self._insert(db, delivery, due_at, delivery.deliveries))

    def _bury(self, db: sqlite3.Connection, delivery: Delivery, error: str, now: int) -> Sequence[Delivery]:
        """Move a message to the dead letters, and tell their listener."""
        db.execute(
            "INSERT INTO dead_letters (topic, key, data, published_at, died_at, deliveries, error)"
            " SELECT topic, key, data, published_at, ?, deliveries, ? FROM messages WHERE id = ?",
            (now, error, delivery.message_id),
        )
        db.execute("DELETE FROM messages WHERE id = ?", (delivery.message_id,))
        if delivery.message.topic == DEAD_LETTERS:
            return ()
        message = replace(delivery.message, topic=DEAD_LETTERS, source=delivery.message.topic)
        return self.enqueue(db, [message])

    def release(self) -> None:
        """Make every leased message due now: for a start, when their consumer is known to be dead."""
        now = to_micros(self._now())
        release = "UPDATE messages SET due_at = ? WHERE deliveries > 0 AND due_at > ?"
        self._database.write(lambda db: db.execute(release, (now, now)))
        self.wake()

    def wait(self, seen: int, timeout_s: float) -> None:
        """Sleep until ``wake`` was called since ``seen``, or something falls due, or the time is over."""
        row = self._database.connection().execute("SELECT MIN(due_at) FROM messages").fetchone()
        if row[0] is not None:
            due_in = (from_micros(row[0]) - self._now()).total_seconds()
            timeout_s = min(timeout_s, max(0.0, due_in))
        with self._news:
            if self._version == seen and timeout_s > 0:
                self._news.wait(timeout_s)

    def dead_letters(self) -> list[tuple[str, str, str]]:
        """Return (topic, key, error) of the messages that were given up."""
        rows = self._database.connection().execute("SELECT topic, key, error FROM dead_letters ORDER BY id")
        return [(topic, key, error) for topic, key, error in rows]
