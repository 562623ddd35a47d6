"""The SQLite file: its tables, its connections, its shared transactions."""

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common.adapters.sql.sqlite.dialect import SqliteDialect
from common.platform.errors import TransientError

SCHEMA_VERSION = 6
# Another process (the CLI beside a running stack) may hold the write lock for as long as a batch takes.
BUSY_TIMEOUT_S = 30.0
CHECKPOINT_PAGES = 8_000
"""A checkpoint syncs the whole file while a writer waits, so it runs every 32 MB instead of SQLite's every 4 MB."""

WRITER_CACHE_KB = 32_000
"""Ids are random, so writes touch pages all over the file; a page that is not cached is read again."""

SCHEMA = """
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, org_slug TEXT NOT NULL, route TEXT NOT NULL, status TEXT NOT NULL,
  requested_at INTEGER NOT NULL, wake_at INTEGER, version INTEGER NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX runs_by_org ON runs (org_slug, requested_at DESC, run_id DESC);
CREATE INDEX runs_by_route ON runs (org_slug, route, requested_at DESC, run_id DESC);
CREATE INDEX runs_by_end ON runs (org_slug, status, requested_at DESC, run_id DESC)
  WHERE status IN ('completed', 'failed', 'cancelled');
CREATE INDEX runs_by_route_and_end ON runs (org_slug, route, status, requested_at DESC, run_id DESC)
  WHERE status IN ('completed', 'failed', 'cancelled');
CREATE INDEX runs_by_wake ON runs (wake_at) WHERE wake_at IS NOT NULL;
CREATE TABLE steps (
  run_id TEXT NOT NULL, step_id TEXT NOT NULL, ended INTEGER NOT NULL, deadline INTEGER, version INTEGER NOT NULL,
  body BLOB NOT NULL, PRIMARY KEY (run_id, step_id)
) WITHOUT ROWID;
CREATE INDEX steps_by_deadline ON steps (deadline) WHERE deadline IS NOT NULL;
CREATE TABLE changes (
  run_id TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (run_id, number)
) WITHOUT ROWID;
CREATE TABLE logs (
  id INTEGER PRIMARY KEY, run_id TEXT NOT NULL, at INTEGER NOT NULL, severity TEXT NOT NULL, step_id TEXT NOT NULL,
  attempt INTEGER NOT NULL, message TEXT NOT NULL
);
CREATE INDEX logs_by_run ON logs (run_id, id);
CREATE TABLE messages (
  id INTEGER PRIMARY KEY, topic TEXT NOT NULL, source TEXT NOT NULL, key TEXT NOT NULL,
  data TEXT NOT NULL, published_at INTEGER NOT NULL, due_at INTEGER NOT NULL, deliveries INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX messages_by_due ON messages (due_at, id);
CREATE TABLE dead_letters (
  id INTEGER PRIMARY KEY, topic TEXT NOT NULL, key TEXT NOT NULL, data TEXT NOT NULL, published_at INTEGER NOT NULL,
  died_at INTEGER NOT NULL, deliveries INTEGER NOT NULL, error TEXT NOT NULL
);
CREATE TABLE usage (
  org_slug TEXT NOT NULL, period TEXT NOT NULL, admitted INTEGER NOT NULL DEFAULT 0,
  completed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0,
  spent INTEGER NOT NULL DEFAULT 0, reserved INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (org_slug, period)
) WITHOUT ROWID;
CREATE TABLE reservations (
  org_slug TEXT NOT NULL, run_id TEXT NOT NULL, route TEXT NOT NULL, expires_at INTEGER NOT NULL,
  PRIMARY KEY (org_slug, run_id)
) WITHOUT ROWID;
CREATE TABLE waiting (
  org_slug TEXT NOT NULL, run_id TEXT NOT NULL, route TEXT NOT NULL, waits_for TEXT NOT NULL,
  backfill INTEGER NOT NULL, since INTEGER NOT NULL, PRIMARY KEY (org_slug, run_id)
) WITHOUT ROWID;
CREATE TABLE turns (org_slug TEXT PRIMARY KEY, turn INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE costs (
  org_slug TEXT NOT NULL, route TEXT NOT NULL, cost INTEGER NOT NULL, PRIMARY KEY (org_slug, route)
) WITHOUT ROWID;
CREATE TABLE records (
  version INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, org_slug TEXT NOT NULL, name TEXT NOT NULL,
  body TEXT NOT NULL, UNIQUE (kind, org_slug, name)
);
"""


SYNC = getattr(os, "fdatasync", os.fsync)
"""Syncs a file's bytes and size but not its modification time, which nothing reads. Not every Unix has fdatasync."""

TROUBLE = (sqlite3.DatabaseError, OSError)


class _Work[T]:
    """One caller's part of a shared transaction, and its outcome."""

    def __init__(self, does: Callable[[sqlite3.Connection], T], fails_first: bool) -> None:
        self.does, self.fails_first = does, fails_first
        self.done = False
        self.error: BaseException | None = None
        self.result: T

    def outcome(self) -> T:
        if self.error is not None:
            raise self.error
        return self.result


class Database:
    """One SQLite file. Writers of all threads share transactions; each reading thread has its own connection.

    Tables are created on first use. A file of another schema version is refused.
    """

    dialect = SqliteDialect()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        # Held for a whole transaction: the one writing connection has no room for two.
        self._writing = threading.Lock()
        # Held only to touch ``_waiting``, so that callers can join the next transaction while one is running.
        self._arriving = threading.Lock()
        self._waiting: list[_Work[Any]] = []
        # Not ``_writing``: others go on committing during a sync, which is most of what a durable write takes.
        self._syncing = threading.Lock()
        self._commits = self._synced = 0
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._writer = self._connect()
        self._writer.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KB}")
        self.write(self._make_tables)
        try:
            # ``sync`` syncs the write-ahead log, which holds what is committed. It stays the same file while a
            # connection is open, so one descriptor serves for good.
            self._wal = os.open(f"{path}-wal", os.O_RDONLY)
        except OSError as error:
            raise self.trouble("opened", error) from error

    def _make_tables(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in SCHEMA.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise TransientError(
                f"{self.path} has schema version {version}, this program knows {SCHEMA_VERSION}. "
                "Use the program version that wrote it, or another --state-dir."
            )

    def _connect(self) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            db.execute("PRAGMA journal_mode = WAL")
            # NORMAL does not sync each commit; ``write(durable=True)`` does so where a promise was made (0002).
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        except sqlite3.DatabaseError as error:
            raise self.trouble("opened", error) from error
        return db

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection for reading; inside its batch, the writing one, which sees its writes."""
        local = self._local
        if getattr(local, "batch", None) is not None:
            return self._writer
        db: sqlite3.Connection | None = getattr(local, "db", None)
        if db is None:
            local.db = db = self._connect()
        return db

    def read[T](self, does: Callable[[sqlite3.Connection], T]) -> T:
        """Run SELECTs, each of which sees what is committed when it starts."""
        return does(self.connection())

    @property
    def batching(self) -> bool:
        """Whether this thread has an open batch."""
        return getattr(self._local, "batch", None) is not None

    def write[T](
        self, does: Callable[[sqlite3.Connection], T], *, durable: bool = False, fails_first: bool = False
    ) -> T:
        """Run ``does`` in a write transaction; return its result once that is committed.

        A commit survives a crash of this process. A ``durable`` one, and all before it, survive a power cut too; after
        a power cut the file is as it was at some later commit, which is a consistent state. Callers that arrive while
        a transaction is running wait and share the next: one thread runs the work of all, each behind a savepoint. An
        exception rolls back its caller's part alone; work that raises only before it has changed anything
        (``fails_first``) needs no savepoint. Raises TransientError when the disk is full or the lock can't be had.
        """
        batch: Batch | None = getattr(self._local, "batch", None)
        if batch is not None:
            return batch.write(_Work(does, fails_first), durable=durable)
        work = _Work(does, fails_first)
        with self._arriving:
            self._waiting.append(work)
        with self._writing:
            if not work.done:
                with self._arriving:
                    works, self._waiting = self._waiting, []
                self._commit(works)
        result = work.outcome()
        if durable:
            self.sync()
        return result

    def batch(self) -> "Batch":
        """Return a block in which everything that this thread writes is one transaction, committed at its end.

        Each write still fails alone; reads of this thread see earlier writes. Nothing is safe before the commit, so an
        acknowledgement belongs inside the block, too. Raises TransientError if nothing was written.
        """
        return Batch(self)

    def once_committed(self, does: Callable[[], None]) -> None:
        """Call ``does`` once what this thread wrote is committed: after its batch, or at once outside of one."""
        batch: Batch | None = getattr(self._local, "batch", None)
        if batch is None:
            does()
        else:
            batch.after(does)

    def sync(self) -> None:
        """Make everything that this thread has committed survive a power cut. Others go on writing meanwhile.

        Threads that arrive while a sync is running wait and share the next.
        """
        wanted = self._commits
        with self._syncing:
            if self._synced >= wanted:
                return
            covered = self._commits  # read before the sync: a commit during it may not be covered
            try:
                SYNC(self._wal)
            except OSError as error:
                raise TransientError(f"{self.path.name} could not be synced to its disk: {error.strerror}.") from error
            self._synced = covered

    def end(self, db: sqlite3.Connection) -> None:
        """Commit, and count the commit for ``sync``."""
        db.execute("COMMIT")
        self._commits += 1

    def _commit(self, batch: list[_Work[Any]]) -> None:
        db = self._writer
        try:
            # IMMEDIATE takes the write lock at once, so that processes queue. A deferred transaction that upgrades from
            # reading to writing can fail with SQLITE_BUSY at once, whatever the timeout.
            db.execute("BEGIN IMMEDIATE")
            if len(batch) == 1:
                batch[0].result = batch[0].does(db)
            else:
                for work in batch:
                    self._do_part(db, work)
            self.end(db)
        except BaseException as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            for work in batch:
                work.error = work.error or (self.trouble("written", error) if isinstance(error, TROUBLE) else error)
        finally:
            for work in batch:
                work.done = True

    @staticmethod
    def _do_part(db: sqlite3.Connection, work: _Work[Any]) -> None:
        if not work.fails_first:
            db.execute("SAVEPOINT part")
        try:
            work.result = work.does(db)
        except sqlite3.DatabaseError:
            raise  # the disk or the file is at fault, so the whole transaction fails, for every caller
        except BaseException as error:
            if not work.fails_first:
                db.execute("ROLLBACK TO part")
            work.error = error
        if not work.fails_first:
            db.execute("RELEASE part")

    def trouble(self, what: str, error: Exception) -> TransientError:
        """Return what to raise instead of the system's error."""
        return TransientError(
            f"The run store {self.path.name} could not be {what}: {error}. Is its disk full, or not writable?"
        )


class Batch:
    """One thread's open transaction; other writers wait until it ends. See ``Database.batch``."""

    def __init__(self, database: Database) -> None:
        self._database, self._db = database, database._writer
        self._durable = False
        self._settle: Callable[[bool], None] | None = None
        self._after: list[Callable[[], None]] = []
        self.is_open = self.is_committed = False

    def __enter__(self) -> Self:
        self._database._writing.acquire()
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except TROUBLE as error:
            self._database._writing.release()
            raise self._database.trouble("written", error) from error
        self.is_open = True
        self._database._local.batch = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.commit()
        else:
            self.undo()

    def end_with_next_write(self, settle: Callable[[bool], None] | None) -> None:
        """Commit with this thread's next write, before that returns, so that it keeps the promise of ``write``.

        ``settle`` is called in the transaction, after that write, with whether it succeeded. None cancels it.
        """
        self._settle = settle

    def after(self, does: Callable[[], None]) -> None:
        """Call ``does`` once the batch is committed, and synced if durable; never if it is rolled back."""
        self._after.append(does)

    def write[T](self, part: _Work[T], *, durable: bool) -> T:
        """Do what ``Database.write`` does, in this batch."""
        settle = self._settle
        try:
            self._database._do_part(self._db, part)
        except TROUBLE as error:
            self.undo()
            raise self._database.trouble("written", error) from error
        self._durable = self._durable or durable
        if settle is not None:
            self._settle = None
            settle(part.error is None)
            self.commit()
        return part.outcome()

    def commit(self) -> None:
        """Commit the batch, unless it has ended. Raises TransientError if nothing was written."""
        if not self.is_open:
            return
        try:
            self._database.end(self._db)
        except TROUBLE as error:
            self.undo()
            raise self._database.trouble("written", error) from error
        self.is_committed = True
        self._close()  # before the sync, so that other writers need not wait for the disk
        if self._durable:
            self._database.sync()
        for does in self._after:
            does()

    def undo(self) -> None:
        """Roll the batch back, unless it has ended."""
        if self.is_open:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._close()

    def _close(self) -> None:
        self.is_open = False
        self._database._local.batch = None
        self._database._writing.release()
