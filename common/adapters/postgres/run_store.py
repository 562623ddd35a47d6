"""The run store port on PostgreSQL. A transition and the quota that it takes are one transaction.

Messages are published after it, because PostgreSQL and Pub/Sub share no transaction: what is lost then, the sweep
derives from what is stored.
"""

from collections.abc import Collection, Iterable, Sequence
from copy import replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from common.adapters.cursor import decode_cursor, encode_cursor
from common.adapters.postgres import quota
from common.adapters.postgres.client import Postgres
from common.domain.graph import spec_of, whole
from common.domain.model import Run, Step
from common.domain.queueing import Place, Queue
from common.domain.quota import Limits, Usage
from common.domain.state import Change, Transition
from common.platform.errors import (
    ConflictingStateError,
    NotFoundError,
    PipelineOpsError,
    QuotaExceededError,
    StaleRunError,
)
from common.platform.logs import logger
from common.ports.bus import EventBus
from common.ports.store import RunPage
from common.runs.codec import decode_changes, decode_run, decode_step, encode_changes, encode_run, encode_step
from common.runs.topics import messages

if TYPE_CHECKING:
    from common.adapters.postgres.client import Cursor

INSERT_RUN = """
INSERT INTO pipeline_ops.runs (run_id, org_slug, route, status, requested_at, wake_at, version, body)
VALUES (%s, %s, %s, %s, %s, %s, 1, %s) ON CONFLICT DO NOTHING
"""

UPDATE_RUN = """
UPDATE pipeline_ops.runs SET status = %s, wake_at = %s, version = version + 1, body = %s
WHERE run_id = %s AND version = %s
"""

INSERT_STEPS = """
INSERT INTO pipeline_ops.steps (run_id, step_id, ended, deadline, version, body)
SELECT %s, step_id, ended, deadline, 1, body
FROM unnest(%s::text[], %s::bigint[], %s::boolean[], %s::timestamptz[], %s::json[])
  AS new (step_id, version, ended, deadline, body)
ON CONFLICT DO NOTHING
"""

UPDATE_STEPS = """
UPDATE pipeline_ops.steps AS old
SET ended = new.ended, deadline = new.deadline, version = old.version + 1, body = new.body
FROM unnest(%s::text[], %s::bigint[], %s::boolean[], %s::timestamptz[], %s::json[])
  AS new (step_id, version, ended, deadline, body)
WHERE old.run_id = %s AND old.step_id = new.step_id AND old.version = new.version
"""

DUE = """
SELECT run_id FROM (
  SELECT run_id, wake_at AS at FROM pipeline_ops.runs WHERE wake_at <= %(now)s
  UNION ALL SELECT run_id, deadline FROM pipeline_ops.steps WHERE deadline <= %(now)s
) AS late GROUP BY run_id ORDER BY MIN(at), run_id LIMIT %(limit)s
"""

PAGE = """
SELECT body::text, version FROM pipeline_ops.runs
WHERE org_slug = %(org)s AND (%(route)s::text IS NULL OR route = %(route)s)
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(since)s::timestamptz IS NULL OR requested_at >= %(since)s)
  AND (%(before)s::timestamptz IS NULL OR requested_at < %(before)s)
  AND (%(at)s::timestamptz IS NULL OR (requested_at, run_id COLLATE "C") < (%(at)s, %(run)s))
ORDER BY requested_at DESC, run_id COLLATE "C" DESC LIMIT %(limit)s
"""

RUN = "SELECT body::text, version FROM pipeline_ops.runs WHERE run_id = %s"
STEPS = "SELECT run_id, step_id, body::text, version FROM pipeline_ops.steps WHERE run_id = ANY(%s)"
SOME_STEPS = f"{STEPS} AND step_id = ANY(%s)"

StepRow = tuple[str, str, str, int]


class PostgresRunStore:
    """Keeps runs in PostgreSQL, and publishes their messages on a bus beside it."""

    def __init__(self, database: Postgres, bus: EventBus) -> None:
        self._database = database
        self._bus = bus

    def create(self, new: Transition, limits: Limits) -> None:
        run = new.run

        def insert(cursor: "Cursor") -> None:
            try:
                self._take(cursor, run, limits)
            except QuotaExceededError:
                if cursor.execute(RUN, (run.run_id,)).fetchone() is None:
                    raise
                raise _exists(run) from None
            self._insert(cursor, new)
            quota.carry_out(cursor, run, new.commands)

        self._database.write(insert)
        try:
            self._bus.publish(messages(run, new.commands))
        except PipelineOpsError as error:
            # The run is stored and holds its slot: told that it failed, the caller would ask for a second one.
            logger.warning("Run %s is stored, its message is left to the sweep: %s", run.run_id, error)

    @staticmethod
    def _take(cursor: "Cursor", run: Run, limits: Limits) -> None:
        """Hold the run's quota, or its place in the queue."""
        if run.waits_for:
            quota.check_queue(cursor, run.request.org_slug)
        else:
            quota.refuse_early(cursor, run, limits)
            quota.hold(cursor, run, limits, waited=False)

    def _insert(self, cursor: "Cursor", new: Transition) -> None:
        run, request = new.run, new.run.request
        body = encode_run(run).decode()
        row = (run.run_id, request.org_slug, request.route, run.status, request.requested_at, run.wake_at, body)
        if cursor.execute(INSERT_RUN, row).rowcount == 0:
            raise _exists(run)
        self._write_steps(cursor, run, [run.steps[step_id] for step_id in new.touched])
        self._log(cursor, new)

    def load(self, run_id: str, step_ids: Collection[str] | None = None) -> Run:
        def select(cursor: "Cursor") -> Run:
            row = cursor.execute(RUN, (run_id,)).fetchone() if "\0" not in run_id else None
            if row is None:
                raise NotFoundError(f"There is no run {run_id!r}.")
            run = decode_run(*row)
            if step_ids is None:
                return whole(run, _steps(run, cursor.execute(STEPS, ([run_id],))))
            if not step_ids:
                return run
            return replace(run, steps=_steps(run, cursor.execute(SOME_STEPS, ([run_id], list(step_ids)))))

        return self._database.read(select)

    def commit(self, transition: Transition) -> Run:
        return self._commit(transition, None)

    def admit(self, transition: Transition, limits: Limits) -> Run:
        return self._commit(transition, limits)

    def _commit(self, transition: Transition, limits: Limits | None) -> Run:
        """Store what the transition changed, then publish; with ``limits``, hold the quota of a run that waited.

        An error in publishing is raised although the transition is stored: the message that led to it is then delivered
        again, and an event that was applied before sends what should have followed.
        """
        run = transition.run
        touched = [run.steps[step_id] for step_id in transition.touched]

        def update(cursor: "Cursor") -> None:
            if transition.header:
                self._write_run(cursor, run)
            self._write_steps(cursor, run, touched)
            self._log(cursor, transition)
            if limits is not None:
                quota.hold(cursor, run, limits, waited=True)
            if transition.header:
                quota.extend(cursor, run)
            quota.carry_out(cursor, run, transition.commands)

        if transition.writes:
            self._database.write(update)
        written = {step.step_id: replace(step, version=step.version + 1) for step in touched}
        stored = replace(run, version=run.version + transition.header, steps={**run.steps, **written})
        self._bus.publish(messages(stored, transition.commands))
        return stored

    @staticmethod
    def _write_run(cursor: "Cursor", run: Run) -> None:
        row = (run.status, run.wake_at, encode_run(run).decode(), run.run_id, run.version)
        if cursor.execute(UPDATE_RUN, row).rowcount == 0:
            raise StaleRunError(f"Run {run.run_id} has changed since version {run.version} was read.")

    @staticmethod
    def _write_steps(cursor: "Cursor", run: Run, steps: Sequence[Step]) -> None:
        """Insert the steps that have no record, update the others; each must be as it was read."""
        new, old = [step for step in steps if step.version == 0], [step for step in steps if step.version]
        if new and cursor.execute(INSERT_STEPS, (run.run_id, *_columns(new))).rowcount < len(new):
            raise _stale_step(run, new)
        if old and cursor.execute(UPDATE_STEPS, (*_columns(old), run.run_id)).rowcount < len(old):
            raise _stale_step(run, old)

    @staticmethod
    def _log(cursor: "Cursor", transition: Transition) -> None:
        if transition.changes:
            row = (transition.run.run_id, encode_changes(transition.changes).decode())
            cursor.execute("INSERT INTO pipeline_ops.changes (run_id, body) VALUES (%s, %s)", row)

    def holds(self, run_id: str, step: Step) -> bool:
        query = "SELECT FROM pipeline_ops.steps WHERE run_id = %s AND step_id = %s AND version = %s"
        row = (run_id, step.step_id, step.version)
        return self._database.read(lambda cursor: cursor.execute(query, row).fetchone()) is not None

    def all_ended(self, run_id: str, step_ids: Collection[str]) -> bool:
        query = "SELECT COUNT(*) FROM pipeline_ops.steps WHERE run_id = %s AND ended AND step_id = ANY(%s)"
        row = (run_id, list(step_ids))
        return self._database.read(lambda cursor: cursor.execute(query, row).fetchone()) == (len(step_ids),)

    def due(self, now: datetime, limit: int) -> Sequence[str]:
        values = {"now": now, "limit": limit}
        return [run_id for (run_id,) in self._database.read(lambda cursor: cursor.execute(DUE, values).fetchall())]

    def active(self) -> Sequence[str]:
        query = "SELECT run_id FROM pipeline_ops.runs WHERE wake_at IS NOT NULL ORDER BY requested_at, run_id"
        return [run_id for (run_id,) in self._database.read(lambda cursor: cursor.execute(query).fetchall())]

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
        at, run_id = (None, None) if cursor is None else decode_cursor(cursor)
        if "\0" in (route or ""):
            return RunPage((), None)
        values = {
            "org": org_slug,
            "at": at,
            "run": run_id,
            "route": route,
            "status": status,
            "since": since,
            "before": before,
            "limit": limit + 1,
        }

        def select(cursor: "Cursor") -> tuple[list[Run], list[StepRow]]:
            runs = [decode_run(*row) for row in cursor.execute(PAGE, values)]
            return runs, cursor.execute(STEPS, ([run.run_id for run in runs],)).fetchall()

        runs, rows = self._database.read(select)
        shown = runs[:limit]
        of: dict[str, list[StepRow]] = {run.run_id: [] for run in runs}
        for row in rows:
            of[row[0]].append(row)
        return RunPage(
            tuple(whole(run, _steps(run, of[run.run_id])) for run in shown),
            encode_cursor(shown[-1]) if len(runs) > limit else None,
        )

    def changes(self, run_id: str) -> Sequence[Change]:
        query = "SELECT body::text FROM pipeline_ops.changes WHERE run_id = %s ORDER BY change_id"
        rows = self._database.read(lambda cursor: cursor.execute(query, (run_id,)).fetchall())
        return [change for (body,) in rows for change in decode_changes(body)]

    def usage(self, org_slug: str, now: datetime) -> Usage:
        return self._database.read(lambda cursor: quota.usage(cursor, org_slug, now))

    def queues(self, ended: Run | None = None) -> Sequence[Queue]:
        return self._database.read(lambda cursor: quota.queues(cursor, ended))

    def place(self, run: Run) -> Place | None:
        return self._database.read(lambda cursor: quota.place(cursor, run))

    def last_cost(self, org_slug: str, route: str) -> Decimal | None:
        return self._database.read(lambda cursor: quota.last_cost(cursor, org_slug, route))


def _steps(run: Run, rows: Iterable[StepRow]) -> dict[str, Step]:
    found: dict[str, Step] = {}
    for _, step_id, body, version in rows:
        spec = spec_of(run, step_id)
        if spec is not None:
            found[step_id] = decode_step(body, version, spec)
    return found


def _columns(steps: Sequence[Step]) -> tuple[list[str], list[int], list[bool], list[datetime | None], list[str]]:
    return (
        [step.step_id for step in steps],
        [step.version for step in steps],
        [step.status.is_terminal for step in steps],
        [step.due_at for step in steps],
        [encode_step(step).decode() for step in steps],
    )


def _stale_step(run: Run, steps: Sequence[Step]) -> StaleRunError:
    names = ", ".join(step.step_id for step in steps[:5])
    return StaleRunError(f"A step of run {run.run_id} ({names}) has changed since it was read.")


def _exists(run: Run) -> ConflictingStateError:
    return ConflictingStateError(f"There is a run {run.run_id!r} already.")
