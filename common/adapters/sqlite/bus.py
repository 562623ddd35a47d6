"""The event bus port on SQLite, and the pulling side that the embedded stack delivers from.

A message is leased for a while when it is handed out and deleted when acknowledged; one that is not comes back.
After ``MAX_DELIVERIES`` it moves to the dead letters with its last error, as Pub/Sub's dead-letter policy does.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from common.adapters.sqlite.database import Database, from_micros, to_micros
from common.ports import Message
from common.topics import DEAD_LETTERS

ACK_DEADLINE = timedelta(seconds=660)
"""Longer than any function may run (540 s), so that a message never comes back while its function still works."""

MAX_DELIVERIES = 10

LEASE = """
UPDATE messages SET due_at = ?, deliveries = deliveries + 1
WHERE id IN (SELECT id FROM messages WHERE due_at <= ? {only}ORDER BY due_at, id LIMIT ?)
RETURNING id, topic, source, key, data, published_at, deliveries
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message handed out, with its number and how often it was handed out before and now."""

    message_id: int
    message: Message
    published_at: datetime
    deliveries: int


def _now() -> datetime:
    return datetime.now(UTC)


class SqliteBus:
    """Messages in a table. ``wake`` tells waiting pullers of this process that something may be due."""

    def __init__(self, database: Database, now: Callable[[], datetime] = _now) -> None:
        self._database = database
        self._now = now
        self._news = threading.Condition()
        self._version = 0

    def publish(self, messages: Sequence[Message]) -> None:
        self._database.write(lambda db: self.enqueue(db, messages))
        self.wake()

    def enqueue(self, db: sqlite3.Connection, messages: Sequence[Message]) -> None:
        """Insert messages in the caller's transaction. The caller wakes the bus after its commit."""
        if not messages:
            return
        now = to_micros(self._now())
        db.executemany(
            "INSERT INTO messages (topic, source, key, data, published_at, due_at) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    m.topic,
                    m.source,
                    m.key,
                    json.dumps(m.data, ensure_ascii=False),
                    now,
                    now if m.not_before is None else to_micros(m.not_before),
                )
                for m in messages
            ],
        )

    def wake(self) -> None:
        """Tell pullers of this process to look again."""
        with self._news:
            self._version += 1
            self._news.notify_all()

    @property
    def seen(self) -> int:
        """How often the bus was woken: what ``wait`` compares with."""
        return self._version

    def batch(self) -> AbstractContextManager[None]:
        """Return a block in which all that this thread pulls, acknowledges and writes is one transaction."""
        return self._database.batch()

    def pull(self, limit: int, taken: Sequence[Delivery] = (), topics: Sequence[str] | None = None) -> list[Delivery]:
        """Lease up to ``limit`` messages that are due, oldest due first; acknowledge those ``taken`` with it.

        With ``topics``, only messages of these.
        """
        now = self._now()
        only = f"AND topic IN ({', '.join('?' * len(topics))}) " if topics else ""
        leased = (to_micros(now + ACK_DEADLINE), to_micros(now), *(topics or ()), limit)

        def lease(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
            if taken:
                db.executemany("DELETE FROM messages WHERE id = ?", [(d.message_id,) for d in taken])
            return db.execute(LEASE.format(only=only), leased).fetchall() if limit else []

        return [
            Delivery(number, Message(topic, key, json.loads(data), source=source), from_micros(published), deliveries)
            for number, topic, source, key, data, published, deliveries in sorted(self._database.write(lease))
        ]

    def ack(self, delivery: Delivery) -> None:
        """Delete a message whose function has done its work."""
        self._database.write(lambda db: db.execute("DELETE FROM messages WHERE id = ?", (delivery.message_id,)))

    def nack(self, delivery: Delivery, error: str) -> None:
        """Give a message back: soon again at first, later and later, at last to the dead letters."""
        now = self._now()
        if delivery.deliveries >= MAX_DELIVERIES:
            self._database.write(lambda db: self._bury(db, delivery, error, to_micros(now)))
            self.wake()
        else:
            pause = timedelta(seconds=min(0.1 * 4**delivery.deliveries, 60))
            row = (to_micros(now + pause), delivery.message_id)
            self._database.write(lambda db: db.execute("UPDATE messages SET due_at = ? WHERE id = ?", row))

    def _bury(self, db: sqlite3.Connection, delivery: Delivery, error: str, now: int) -> None:
        """Move a message to the dead letters, and tell whoever listens to them."""
        db.execute(
            "INSERT INTO dead_letters (topic, key, data, published_at, died_at, deliveries, error)"
            " SELECT topic, key, data, published_at, ?, deliveries, ? FROM messages WHERE id = ?",
            (now, error, delivery.message_id),
        )
        db.execute("DELETE FROM messages WHERE id = ?", (delivery.message_id,))
        if delivery.message.topic != DEAD_LETTERS:
            message = replace(delivery.message, topic=DEAD_LETTERS, source=delivery.message.topic)
            self.enqueue(db, [message])

    def release(self) -> None:
        """Make every leased message due now: for a start, when whoever held them is known to be dead."""
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
