"""The run store port on SQLite. Transition, messages and reservation commit in one transaction."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta

from common.adapters.sqlite.bus import SqliteBus
from common.adapters.sqlite.database import Database, from_micros, to_micros
from common.codec import decode_run, encode_run
from common.domain.commands import SettleReservation
from common.domain.model import Run
from common.domain.quota import Limits, Usage, day_of, exceeded, month_of
from common.domain.transitions import Change, Transition
from common.errors import NotFoundError, QuotaExceededError, RequestError, StaleRunError
from common.ports import Message, RunPage

RESERVATION_GRACE = timedelta(minutes=5)
"""A reservation outlives its run's ``expires_at`` by some sweeps: the sweep that ends the run settles it."""

RESERVE = """
UPDATE usage SET admitted = admitted + 1
WHERE org_slug = :org AND period IN (:day, :month)
  AND NOT EXISTS (SELECT 1 FROM usage WHERE org_slug = :org AND period = :day AND admitted >= :daily)
  AND NOT EXISTS (SELECT 1 FROM usage WHERE org_slug = :org AND period = :month AND admitted >= :monthly)
  AND (SELECT COUNT(*) FROM reservations WHERE org_slug = :org) < :concurrent
"""
"""Check and take in one statement: it changes both rows, or none when any limit is used up."""


class SqliteRunStore:
    """Keeps runs in the same file as the bus, so that a commit and its messages can't part."""

    def __init__(self, database: Database, bus: SqliteBus) -> None:
        self._database = database
        self._bus = bus

    def create(self, new: Transition, messages: Sequence[Message], limits: Limits) -> None:
        run, now = new.run, new.run.request.requested_at
        assert run.expires_at is not None
        with self._database.transaction() as db:
            self._reserve(db, run, limits, now)
            db.execute(
                "INSERT INTO runs (run_id, org_slug, route, status, requested_at, wake_at, version, body)"
                " VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
                (
                    run.run_id,
                    run.request.org_slug,
                    run.request.route,
                    run.status,
                    to_micros(now),
                    _wake(run),
                    encode_run(run),
                ),
            )
            self._log(db, new)
            self._bus.enqueue(db, messages)
        self._bus.wake()

    def _reserve(self, db: sqlite3.Connection, run: Run, limits: Limits, now: datetime) -> None:
        org, day, month = run.request.org_slug, day_of(now), month_of(now)
        db.execute("DELETE FROM reservations WHERE org_slug = ? AND expires_at <= ?", (org, to_micros(now)))
        db.executemany(
            "INSERT OR IGNORE INTO usage (org_slug, period) VALUES (?, ?)",
            [(org, day), (org, month)],
        )
        taken = db.execute(
            RESERVE,
            {
                "org": org,
                "day": day,
                "month": month,
                "daily": limits.daily,
                "monthly": limits.monthly,
                "concurrent": limits.concurrent,
            },
        )
        if taken.rowcount != 2:
            hit = exceeded(limits, self._usage(db, org, now), now)
            assert hit is not None, "the reservation was refused though no limit is used up"
            name, value, used, retry_after_s = hit
            raise QuotaExceededError(limit=name, value=value, used=used, retry_after_s=retry_after_s)
        assert run.expires_at is not None
        db.execute(
            "INSERT INTO reservations (run_id, org_slug, day, month, expires_at) VALUES (?, ?, ?, ?, ?)",
            (run.run_id, org, day, month, to_micros(run.expires_at + RESERVATION_GRACE)),
        )

    def load(self, run_id: str) -> Run:
        row = (
            self._database.connection().execute("SELECT body, version FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        )
        if row is None:
            raise NotFoundError(f"There is no run {run_id!r}.")
        return decode_run(*row)

    def commit(self, transition: Transition, messages: Sequence[Message]) -> None:
        run = transition.run
        with self._database.transaction() as db:
            updated = db.execute(
                "UPDATE runs SET status = ?, wake_at = ?, version = version + 1, body = ?"
                " WHERE run_id = ? AND version = ?",
                (run.status, _wake(run), encode_run(run), run.run_id, run.version),
            )
            if updated.rowcount == 0:
                raise StaleRunError(f"Run {run.run_id} has changed since version {run.version} was read.")
            self._log(db, transition)
            if run.expires_at is not None and any(not c.step_id for c in transition.changes):
                db.execute(
                    "UPDATE reservations SET expires_at = ? WHERE run_id = ?",
                    (to_micros(run.expires_at + RESERVATION_GRACE), run.run_id),
                )
            for command in transition.commands:
                if isinstance(command, SettleReservation):
                    self._settle(db, run, command)
            self._bus.enqueue(db, messages)
        self._bus.wake()

    @staticmethod
    def _settle(db: sqlite3.Connection, run: Run, command: SettleReservation) -> None:
        """Free the slot and count the outcome in the month that admitted the run."""
        db.execute("DELETE FROM reservations WHERE run_id = ?", (command.run_id,))
        outcome = "succeeded" if command.succeeded else "failed"
        at = run.request.requested_at
        db.execute(
            f"UPDATE usage SET {outcome} = {outcome} + 1 WHERE org_slug = ? AND period IN (?, ?)",  # noqa: S608
            (run.request.org_slug, day_of(at), month_of(at)),
        )

    @staticmethod
    def _log(db: sqlite3.Connection, transition: Transition) -> None:
        db.executemany(
            "INSERT INTO changes (run_id, at, step_id, attempt, before, after, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (transition.run.run_id, to_micros(c.at), c.step_id, c.attempt, c.before, c.after, c.reason)
                for c in transition.changes
            ],
        )

    def due(self, now: datetime, limit: int) -> Sequence[str]:
        rows = self._database.connection().execute(
            "SELECT run_id FROM runs WHERE wake_at <= ? ORDER BY wake_at LIMIT ?", (to_micros(now), limit)
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
    ) -> RunPage:
        at, run_id = _decode_cursor(cursor)
        rows = (
            self._database.connection()
            .execute(
                "SELECT body, version FROM runs WHERE org_slug = :org AND (requested_at, run_id) < (:at, :run)"
                " AND (:route IS NULL OR route = :route) AND (:status IS NULL OR status = :status)"
                " ORDER BY requested_at DESC, run_id DESC LIMIT :limit",
                {"org": org_slug, "at": at, "run": run_id, "route": route, "status": status, "limit": limit + 1},
            )
            .fetchall()
        )
        runs = tuple(decode_run(*row) for row in rows[:limit])
        return RunPage(runs, _encode_cursor(runs[-1]) if len(rows) > limit else None)

    def changes(self, run_id: str) -> Sequence[Change]:
        rows = self._database.connection().execute(
            "SELECT at, step_id, attempt, before, after, reason FROM changes WHERE run_id = ? ORDER BY id", (run_id,)
        )
        return [Change(from_micros(at), *rest) for at, *rest in rows]

    def usage(self, org_slug: str, now: datetime) -> Usage:
        return self._usage(self._database.connection(), org_slug, now)

    @staticmethod
    def _usage(db: sqlite3.Connection, org_slug: str, now: datetime) -> Usage:
        counts = {
            period: rest
            for period, *rest in db.execute(
                "SELECT period, admitted, succeeded, failed FROM usage WHERE org_slug = ? AND period IN (?, ?)",
                (org_slug, day_of(now), month_of(now)),
            )
        }
        live = db.execute(
            "SELECT COUNT(*) FROM reservations WHERE org_slug = ? AND expires_at > ?", (org_slug, to_micros(now))
        ).fetchone()[0]
        nothing = (0, 0, 0)
        monthly, succeeded, failed = counts.get(month_of(now), nothing)
        return Usage(counts.get(day_of(now), nothing)[0], monthly, live, succeeded, failed)


def _wake(run: Run) -> int | None:
    return None if run.wake_at is None else to_micros(run.wake_at)


def _encode_cursor(run: Run) -> str:
    return json.dumps([to_micros(run.request.requested_at), run.run_id])


def _decode_cursor(cursor: str | None) -> tuple[int, str]:
    if cursor is None:
        return 2**62, ""
    try:
        at, run_id = json.loads(cursor)
        return int(at), str(run_id)
    except (ValueError, TypeError) as error:
        raise RequestError(
            "cursor: not one that this API gave out; leave it away to start at the newest run."
        ) from error
