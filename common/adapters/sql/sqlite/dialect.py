"""SQLite's own SQL: times are whole microseconds since 1970, documents bytes, lists JSON."""

import json
from collections.abc import Collection, Sequence
from datetime import datetime

from common.adapters.sql.dialect import Dialect, Transaction
from common.adapters.sql.sqlite.times import from_micros, to_micros
from common.domain.model import RunStatus, Step
from common.ports.store import HistoryQuery
from common.runs.codec import encode_step

ENDED = " AND status IN ('completed', 'failed', 'cancelled')"
"""The WHERE of the partial indexes, word for word: SQLite uses one only if the query implies it literally."""

INSERT_STEP = """
INSERT INTO steps (run_id, step_id, ended, deadline, version, body) VALUES (:run, :step, :ended, :deadline, 1, :body)
ON CONFLICT DO NOTHING
"""

UPDATE_STEP = """
UPDATE steps SET ended = :ended, deadline = :deadline, version = :version + 1, body = :body
WHERE run_id = :run AND step_id = :step AND version = :version
"""


class SqliteDialect(Dialect):
    """SQLite's side of the shared SQL."""

    ADD_CHANGES = """
    INSERT INTO changes (run_id, number, body)
    SELECT :run, COALESCE(MAX(number), 0) + 1, :body FROM changes WHERE run_id = :run
    """
    CHANGES_ORDER = "number"
    LOG_ID = "id"
    LOGS_SETTLE_S = 0.0
    RUN_ID = "run_id"
    # A row's id is its version: REPLACE inserts a new row, and AUTOINCREMENT never reuses an id.
    PUT_RECORD = """
    INSERT OR REPLACE INTO records (kind, org_slug, name, body) VALUES (:kind, :org, :name, :body) RETURNING version
    """
    REFUSES_EARLY = False

    def time(self, at: datetime | None) -> int | None:
        return None if at is None else to_micros(at)

    def from_time(self, value: int) -> datetime:
        return from_micros(value)

    def json(self, body: bytes) -> bytes:
        return body

    def one_of(self, column: str, parameter: str) -> str:
        return f"{column} IN (SELECT value FROM json_each(:{parameter}))"  # noqa: S608 - constants

    def several(self, values: Collection[str]) -> str:
        return json.dumps(list(values))

    def runs_for(self, query: HistoryQuery) -> tuple[str, str]:
        """Each combination of filters reads one range of one index, so that a page costs the same among a million
        runs as among ten.

        A run's status changes with every transition, and an index on it would be rewritten as often. So the indexes by
        status hold ended runs only, which never change again. Open runs are few, and the sweep's index finds them.
        """
        index, condition = "runs_by_org" if query.route is None else "runs_by_route", ""
        if query.status is not None:
            if RunStatus(query.status).is_terminal:
                index, condition = "runs_by_end" if query.route is None else "runs_by_route_and_end", ENDED
            else:
                index, condition = "runs_by_wake", " AND wake_at IS NOT NULL"
        return f"runs INDEXED BY {index}", condition

    def lock_turns(self, transaction: Transaction, org_slugs: Sequence[str]) -> None:
        """Nothing to do: BEGIN IMMEDIATE locks the whole file against other writers."""

    def write_steps(self, transaction: Transaction, run_id: str, steps: Sequence[Step]) -> bool:
        for step in steps:
            values = {
                "run": run_id,
                "step": step.step_id,
                "ended": step.status.is_terminal,
                "deadline": None if step.due_at is None else to_micros(step.due_at),
                "version": step.version,
                "body": encode_step(step),
            }
            if transaction.execute(UPDATE_STEP if step.version else INSERT_STEP, values).rowcount == 0:
                return False
        return True
