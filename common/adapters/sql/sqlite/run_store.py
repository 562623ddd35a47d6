"""The run store on SQLite. Transition, messages and reservation commit in one transaction."""

import threading
from collections.abc import Sequence
from copy import replace
from typing import Any

from common.adapters.sql.dialect import Transaction
from common.adapters.sql.run_store import SqlRunStore
from common.adapters.sql.sqlite.bus import Delivery, SqliteBus
from common.adapters.sql.sqlite.database import Database
from common.domain.model import Run
from common.ports.bus import Message
from common.runs.codec import decode_run

HEADER = "SELECT CASE version WHEN :known THEN NULL ELSE body END, version FROM runs WHERE run_id = :run"

# Bounds the memory of a long-lived local stack; a run that is not cached is decoded from the file.
MOST_OPEN = 1_000


class OpenRuns:
    """Cache of decoded open runs, without steps, as last committed.

    An entry is used only if the file still has its version. Ended runs are not kept.
    """

    def __init__(self) -> None:
        # Held by ``put``: between two threads, eviction could look up an oldest run that the other has just removed.
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}

    def get(self, run_id: str) -> Run | None:
        """Return the cached run, if there is one."""
        return self._runs.get(run_id)

    def put(self, run: Run) -> None:
        """Cache a run in place of its earlier version; evict the oldest entry."""
        with self._lock:
            self._runs.pop(run.run_id, None)
            if run.wake_at is not None:
                self._runs[run.run_id] = replace(run, steps={})
            if len(self._runs) > MOST_OPEN:
                del self._runs[next(iter(self._runs))]


class SqliteRunStore(SqlRunStore[Sequence[Delivery]]):
    """Stores runs in the same file as the bus, so that a commit and its messages are atomic."""

    def __init__(self, database: Database, bus: SqliteBus) -> None:
        super().__init__(database)
        self._file, self._bus = database, bus
        self._open = OpenRuns()

    def _keep(self, transaction: Any, sent: Sequence[Message]) -> Sequence[Delivery]:
        return self._bus.enqueue(transaction, sent)

    def _send(self, stored: Sequence[Delivery]) -> None:
        self._bus.sent(stored)

    def _committed(self, run: Run) -> None:
        # In a batch it is not committed yet, and may be rolled back: the cache would hold a version that never was.
        self._file.once_committed(lambda: self._open.put(run))

    def _header(self, transaction: Transaction, run_id: str) -> Run | None:
        known = self._open.get(run_id)
        row = transaction.execute(HEADER, {"known": known.version if known else 0, "run": run_id}).fetchone()
        if row is None:
            return None
        return known if known and row[0] is None else decode_run(*row)
