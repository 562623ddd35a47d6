"""The run store port on SQLite. Transition, messages and reservation commit in one transaction."""

import json
import sqlite3
import threading
from collections.abc import Collection, Iterable, Sequence
from copy import replace
from datetime import datetime
from decimal import Decimal

from common.adapters.cursor import encode_cursor
from common.adapters.sqlite import quota
from common.adapters.sqlite.bus import Delivery, SqliteBus
from common.adapters.sqlite.database import Database, to_micros
from common.adapters.sqlite.history import page_query, page_values
from common.domain.graph import spec_of, whole
from common.domain.model import Run, Step
from common.domain.queueing import Place, Queue
from common.domain.quota import Limits, Usage
from common.domain.state import Change, Transition
from common.platform.errors import ConflictingStateError, NotFoundError, StaleRunError
from common.ports.store import RunPage
from common.runs.codec import decode_changes, decode_run, decode_step, encode_changes, encode_run, encode_step
from common.runs.topics import messages

HEADER = "SELECT CASE version WHEN ? THEN NULL ELSE body END, version FROM runs WHERE run_id = ?"

LOG = """
INSERT INTO changes (run_id, number, body)
SELECT ?1, COALESCE(MAX(number), 0) + 1, ?2 FROM changes WHERE run_id = ?1
"""

MOST_OPEN = 1_000


class OpenRuns:
    """Runs as they were committed last, without steps, to spare their decoding: whoever takes one asks the file for
    its version. Ended runs are not kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}

    def get(self, run_id: str) -> Run | None:
        """Return the run of that id, if it is known."""
        return self._runs.get(run_id)

    def put(self, run: Run) -> None:
        """Keep a run in the place of an older one; the oldest gives way."""
        with self._lock:
            self._runs.pop(run.run_id, None)
            if run.wake_at is not None:
                self._runs[run.run_id] = replace(run, steps={})
            if len(self._runs) > MOST_OPEN:
                del self._runs[next(iter(self._runs))]


class SqliteRunStore:
    """Keeps runs in the same file as the bus, so that a commit and its messages can't part."""

    def __init__(self, database: Database, bus: SqliteBus) -> None:
        self._database = database
        self._bus = bus
        self._open = OpenRuns()

    def create(self, new: Transition, limits: Limits) -> None:
        run, request = new.run, new.run.request

        def insert(db: sqlite3.Connection) -> Sequence[Delivery]:
            added = db.execute(
                "INSERT OR IGNORE INTO runs (run_id, org_slug, route, status, requested_at, wake_at, version, body)"
                " VALUES (?, ?, ?, ?, ?, ?, 1, ?)",
                (
                    run.run_id,
                    request.org_slug,
                    request.route,
                    run.status,
                    to_micros(request.requested_at),
                    _micros(run.wake_at),
                    encode_run(run),
                ),
            )
            if added.rowcount == 0:
                raise ConflictingStateError(f"There is a run {run.run_id!r} already.")
            if run.waits_for:
                quota.check_queue(db, request.org_slug)
            else:
                quota.hold(db, run, limits, waited=False)
            quota.carry_out(db, run, new.commands)
            for step_id in new.touched:
                self._write_step(db, run, run.steps[step_id])
            self._log(db, new)
            return self._bus.enqueue(db, messages(run, new.commands))

        self._bus.sent(self._database.write(insert, durable=True))
        self._open.put(replace(run, version=1))

    def load(self, run_id: str, step_ids: Collection[str] | None = None) -> Run:
        db, known = self._database.connection(), self._open.get(run_id)
        row = db.execute(HEADER, (known.version if known else 0, run_id)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no run {run_id!r}.")
        run = known if known and row[0] is None else decode_run(*row)
        if step_ids is None:
            rows = db.execute("SELECT step_id, body, version FROM steps WHERE run_id = ?", (run_id,)).fetchall()
            return whole(run, self._steps(run, rows))
        if not step_ids:
            return run
        marks = ", ".join("?" * len(step_ids))
        rows = db.execute(
            f"SELECT step_id, body, version FROM steps WHERE run_id = ? AND step_id IN ({marks})",  # noqa: S608
            (run_id, *step_ids),
        ).fetchall()
        return replace(run, steps=self._steps(run, rows)) if rows else run

    @staticmethod
    def _steps(run: Run, rows: Iterable[tuple[str, bytes, int]]) -> dict[str, Step]:
        found: dict[str, Step] = {}
        for step_id, body, version in rows:
            spec = spec_of(run, step_id)
            if spec is not None:
                found[step_id] = decode_step(body, version, spec)
        return found

    def commit(self, transition: Transition) -> Run:
        return self._commit(transition, None)

    def admit(self, transition: Transition, limits: Limits) -> Run:
        return self._commit(transition, limits)

    def _commit(self, transition: Transition, limits: Limits | None) -> Run:
        """Store what the transition changed, and its messages; with ``limits``, hold the quota of a run that waited."""
        run = transition.run

        def update(db: sqlite3.Connection) -> tuple[Run, Sequence[Delivery]]:
            version = self._write_run(db, run) if transition.header else run.version
            steps = dict(run.steps)
            for step_id in transition.touched:
                steps[step_id] = self._write_step(db, run, run.steps[step_id])
            stored = replace(run, version=version, steps=steps)
            self._log(db, transition)
            if limits is not None:
                quota.hold(db, run, limits, waited=True)
            quota.carry_out(db, run, transition.commands)
            return stored, self._bus.enqueue(db, messages(stored, transition.commands))

        ends = run.status.is_terminal and bool(transition.changes)
        only_one = transition.header + len(transition.touched) == 1 and limits is None
        stored, sent = self._database.write(update, durable=ends, fails_first=only_one)
        if transition.header:
            self._database.once_committed(lambda: self._open.put(stored))
        self._bus.sent(sent)
        return stored

    @staticmethod
    def _write_run(db: sqlite3.Connection, run: Run) -> int:
        updated = db.execute(
            "UPDATE runs SET status = ?, wake_at = ?, version = version + 1, body = ? WHERE run_id = ? AND version = ?",
            (run.status, _micros(run.wake_at), encode_run(run), run.run_id, run.version),
        )
        if updated.rowcount == 0:
            raise StaleRunError(f"Run {run.run_id} has changed since version {run.version} was read.")
        quota.extend(db, run)
        return run.version + 1

    @staticmethod
    def _write_step(db: sqlite3.Connection, run: Run, step: Step) -> Step:
        values = (step.status.is_terminal, _micros(step.due_at), step.version + 1, encode_step(step))
        key = (run.run_id, step.step_id)
        if step.version == 0:
            insert = "INSERT OR IGNORE INTO steps (ended, deadline, version, body, run_id, step_id)"
            written = db.execute(f"{insert} VALUES (?, ?, ?, ?, ?, ?)", (*values, *key))
        else:
            written = db.execute(
                "UPDATE steps SET ended = ?, deadline = ?, version = ?, body = ?"
                " WHERE run_id = ? AND step_id = ? AND version = ?",
                (*values, *key, step.version),
            )
        if written.rowcount == 0:
            raise StaleRunError(f"Step {step.step_id} of {run.run_id} has changed since version {step.version}.")
        return replace(step, version=step.version + 1)

    def holds(self, run_id: str, step: Step) -> bool:
        query = "SELECT 1 FROM steps WHERE run_id = ? AND step_id = ? AND version = ?"
        found = self._database.connection().execute(query, (run_id, step.step_id, step.version))
        return found.fetchone() is not None

    def all_ended(self, run_id: str, step_ids: Collection[str]) -> bool:
        db = self._database.connection()
        wanted = json.dumps(list(step_ids))
        query = "SELECT COUNT(*) FROM steps WHERE run_id = ? AND ended AND step_id IN (SELECT value FROM json_each(?))"
        count: int = db.execute(query, (run_id, wanted)).fetchone()[0]
        return count == len(step_ids)

    @staticmethod
    def _log(db: sqlite3.Connection, transition: Transition) -> None:
        if transition.changes:
            row = (transition.run.run_id, encode_changes(transition.changes))
            db.execute(LOG, row)

    def due(self, now: datetime, limit: int) -> Sequence[str]:
        rows = self._database.connection().execute(
            "SELECT run_id FROM (SELECT run_id, wake_at AS at FROM runs WHERE wake_at <= :now"
            " UNION ALL SELECT run_id, deadline FROM steps WHERE deadline <= :now)"
            " GROUP BY run_id ORDER BY MIN(at) LIMIT :limit",
            {"now": to_micros(now), "limit": limit},
        )
        return [row[0] for row in rows]

    def active(self) -> Sequence[str]:
        rows = self._database.connection().execute(
            "SELECT run_id FROM runs WHERE wake_at IS NOT NULL ORDER BY requested_at, run_id"
        )
        return [row[0] for row in rows]

    def history(
        self,
        org_slug: str,
        *,
        limit: int,
        cursor: str | None = None,
        route: str | None = None,
        status: str | None = None,
        since: datetime | None = None,
        before: datetime | None = None,
    ) -> RunPage:
        values = page_values(
            org_slug, limit=limit, cursor=cursor, route=route, status=status, since=since, before=before
        )
        rows = self._database.connection().execute(page_query(route, status, since), values).fetchall()
        runs = tuple(self.load(row[0]) for row in rows[:limit])
        return RunPage(runs, encode_cursor(runs[-1]) if len(rows) > limit else None)

    def changes(self, run_id: str) -> Sequence[Change]:
        query = "SELECT body FROM changes WHERE run_id = ? ORDER BY number"
        rows = self._database.connection().execute(query, (run_id,))
        return [change for (body,) in rows for change in decode_changes(body)]

    def usage(self, org_slug: str, now: datetime) -> Usage:
        return quota.usage(self._database.connection(), org_slug, now)

    def queues(self, ended: Run | None = None) -> Sequence[Queue]:
        return quota.queues(self._database.connection(), ended)

    def place(self, run: Run) -> Place | None:
        return quota.place(self._database.connection(), run)

    def last_cost(self, org_slug: str, route: str) -> Decimal | None:
        return quota.last_cost(self._database.connection(), org_slug, route)


def _micros(at: datetime | None) -> int | None:
    return None if at is None else to_micros(at)
