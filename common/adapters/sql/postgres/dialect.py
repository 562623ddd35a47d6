"""PostgreSQL's own SQL: row locks, arrays, sequences."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from common.adapters.sql.dialect import Dialect, Transaction
from common.domain.model import Step
from common.ports.store import HistoryQuery
from common.runs.codec import encode_step

LOCK_TURNS = "SELECT 1 FROM turns WHERE org_slug = ANY(:orgs) ORDER BY org_slug FOR UPDATE"
MAKE_TURNS = "INSERT INTO turns (org_slug) SELECT unnest(:orgs::text[]) ON CONFLICT DO NOTHING"

NEW_STEPS = """
unnest(:steps::text[], :versions::bigint[], :ended::boolean[], :deadlines::timestamptz[], :bodies::json[])
  AS new (step_id, version, ended, deadline, body)
"""

INSERT_STEPS = f"""
INSERT INTO steps (run_id, step_id, ended, deadline, version, body)
SELECT :run, step_id, ended, deadline, 1, body FROM {NEW_STEPS} ON CONFLICT DO NOTHING
"""  # noqa: S608 - constants

UPDATE_STEPS = f"""
UPDATE steps AS old
SET ended = new.ended, deadline = new.deadline, version = old.version + 1, body = new.body FROM {NEW_STEPS}
WHERE old.run_id = :run AND old.step_id = new.step_id AND old.version = new.version
"""  # noqa: S608 - constants


class PostgresDialect(Dialect):
    """PostgreSQL's side of the shared SQL."""

    ADD_CHANGES = "INSERT INTO changes (run_id, body) VALUES (:run, :body)"
    CHANGES_ORDER = "change_id"
    LOG_ID = "log_id"
    # A line's number is taken before its commit, so a later number can be visible first. The server's
    # statement_timeout of 10 s bounds how long that lasts.
    LOGS_SETTLE_S = 10.0
    RUN_ID = 'run_id COLLATE "C"'
    PUT_RECORD = """
    INSERT INTO records (kind, org_slug, name, body) VALUES (:kind, :org, :name, :body)
    ON CONFLICT (kind, org_slug, name) DO UPDATE SET body = EXCLUDED.body, version = nextval('record_versions')
    RETURNING version
    """
    REFUSES_EARLY = True

    def time(self, at: datetime | None) -> datetime | None:
        return at

    def from_time(self, value: datetime) -> datetime:
        # The driver returns it in the session's time zone.
        return value.astimezone(UTC)

    def json(self, body: bytes) -> str:
        return body.decode()

    def one_of(self, column: str, parameter: str) -> str:
        return f"{column} = ANY(:{parameter})"

    def several(self, values: Collection[str]) -> list[str]:
        return list(values)

    def runs_for(self, query: HistoryQuery) -> tuple[str, str]:
        return "runs", ""

    def lock_turns(self, transaction: Transaction, org_slugs: Sequence[str]) -> None:
        """Lock a row of ``turns`` for each, in order of name, so that two transactions never deadlock."""
        values = {"orgs": list(org_slugs)}
        # FOR UPDATE does not lock a missing row. The INSERT waits for a rival that is inserting the same row; the next
        # SELECT then sees and locks it.
        while len(transaction.execute(LOCK_TURNS, values).fetchall()) < len(org_slugs):
            transaction.execute(MAKE_TURNS, values)

    def write_steps(self, transaction: Transaction, run_id: str, steps: Sequence[Step]) -> bool:
        """One statement for all new steps and one for the others: each costs a round trip."""
        for statement, some in (
            (INSERT_STEPS, [step for step in steps if step.version == 0]),
            (UPDATE_STEPS, [step for step in steps if step.version]),
        ):
            values = {
                "run": run_id,
                "steps": [step.step_id for step in some],
                "versions": [step.version for step in some],
                "ended": [step.status.is_terminal for step in some],
                "deadlines": [step.due_at for step in some],
                "bodies": [encode_step(step).decode() for step in some],
            }
            if some and transaction.execute(statement, values).rowcount < len(some):
                return False
        return True
