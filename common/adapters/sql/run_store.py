"""The run store port in SQL. A transition and the quota that it takes are one transaction.

The subclasses differ in what they do with its messages: SQLite stores them in the same transaction, PostgreSQL
publishes them after it.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from copy import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from common.adapters.cursor import encode_cursor
from common.adapters.sql import history, reservations
from common.adapters.sql.dialect import SqlDatabase, Transaction
from common.domain.graph import spec_of, whole
from common.domain.model import Run, Step
from common.domain.queueing import Place, Queue
from common.domain.quota import Demand, Limits, Usage
from common.domain.state import Change, Transition
from common.platform.errors import (
    ConflictingStateError,
    NotFoundError,
    PipelineOpsError,
    QuotaExceededError,
    StaleRunError,
)
from common.platform.logs import logger
from common.ports.bus import Message
from common.ports.store import HistoryQuery, RunPage
from common.runs.codec import decode_changes, decode_run, decode_step, encode_changes, encode_run
from common.runs.topics import messages

INSERT_RUN = """
INSERT INTO runs (run_id, org_slug, route, status, requested_at, wake_at, version, body)
VALUES (:run, :org, :route, :status, :requested_at, :wake_at, 1, :body) ON CONFLICT DO NOTHING
"""

UPDATE_RUN = """
UPDATE runs SET status = :status, wake_at = :wake_at, version = version + 1, body = :body
WHERE run_id = :run AND version = :version
"""

RUN = "SELECT body, version FROM runs WHERE run_id = :run"
EXISTS = "SELECT 1 FROM runs WHERE run_id = :run"
STEPS = "SELECT run_id, step_id, body, version FROM steps WHERE "
ALL_STEPS = f"{STEPS}run_id = :run"
ONE_STEP = f"{STEPS}run_id = :run AND step_id = :step"

HOLDS = "SELECT 1 FROM steps WHERE run_id = :run AND step_id = :step AND version = :version"
ENDED = "SELECT COUNT(*) FROM steps WHERE run_id = :run AND ended AND "

DUE = """
SELECT run_id FROM (
  SELECT run_id, wake_at AS at FROM runs WHERE wake_at <= :now
  UNION ALL SELECT run_id, deadline FROM steps WHERE deadline <= :now
) AS late GROUP BY run_id ORDER BY MIN(at), run_id LIMIT :limit
"""
ACTIVE = "SELECT run_id FROM runs WHERE wake_at IS NOT NULL ORDER BY requested_at, run_id"

StepRow = tuple[str, str, bytes | str, int]


class SqlRunStore[Stored](ABC):
    """Stores runs in a database. ``Stored`` is what is left to send once a transaction is committed."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database
        self._dialect = dialect = database.dialect
        self._some_steps = f"{ALL_STEPS} AND {dialect.one_of('step_id', 'steps')}"
        self._steps_of = f"{STEPS}{dialect.one_of('run_id', 'runs')}"
        self._ended = f"{ENDED}{dialect.one_of('step_id', 'steps')}"
        self._changes = f"SELECT body FROM changes WHERE run_id = :run ORDER BY {dialect.CHANGES_ORDER}"  # noqa: S608

    @abstractmethod
    def _keep(self, transaction: Transaction, sent: Sequence[Message]) -> Stored:
        """Store these messages in the transaction that caused them, if the store can; return what is left to send."""

    @abstractmethod
    def _send(self, stored: Stored) -> None:
        """Send what ``_keep`` returned, now that the transaction is committed."""

    def _committed(self, run: Run) -> None:  # noqa: B027 - most stores need not know
        """Called with the run as it is now stored."""

    def _header(self, transaction: Transaction, run_id: str) -> Run | None:
        """Return the run of that id without steps, if there is one."""
        row = transaction.execute(RUN, {"run": run_id}).fetchone()
        return None if row is None else decode_run(*row)

    def create(self, new: Transition, limits: Limits) -> None:
        run = new.run

        def insert(transaction: Transaction) -> Stored:
            try:
                self._take(transaction, run, limits)
            except QuotaExceededError:
                # A repeated request must find its run even when the quota is used up by now (0010).
                if transaction.execute(EXISTS, {"run": run.run_id}).fetchone() is None:
                    raise
                raise _exists(run) from None
            self._insert(transaction, run)
            self._write_steps(transaction, run, new.touched)
            self._log(transaction, new)
            reservations.carry_out(transaction, self._dialect, run, new.commands, extends=False)
            return self._keep(transaction, messages(run, new.commands))

        stored = self._database.write(insert, durable=True)
        self._committed(replace(run, version=1))
        try:
            self._send(stored)
        except PipelineOpsError as error:
            # The run is stored and holds its slot. If this raised, the caller would request a second one.
            logger.warning("Run %s is stored, its message is left to the sweep: %s", run.run_id, error)

    def _take(self, transaction: Transaction, run: Run, limits: Limits) -> None:
        """Reserve the run's quota, or check that its queue has room."""
        if run.waits_for:
            reservations.check_queue(transaction, self._dialect, run.request.org_slug)
        else:
            reservations.hold(transaction, self._dialect, Demand.of(run, waited=False), limits)

    def _insert(self, transaction: Transaction, run: Run) -> None:
        dialect, request = self._dialect, run.request
        values = {
            "run": run.run_id,
            "org": request.org_slug,
            "route": request.route,
            "status": run.status,
            "requested_at": dialect.time(request.requested_at),
            "wake_at": dialect.time(run.wake_at),
            "body": dialect.json(encode_run(run)),
        }
        if transaction.execute(INSERT_RUN, values).rowcount == 0:
            raise _exists(run)

    def load(self, run_id: str, step_ids: Collection[str] | None = None) -> Run:
        def select(transaction: Transaction) -> Run:
            # PostgreSQL's text has no NUL: as a parameter it is an error, not "no such run".
            run = None if "\0" in run_id else self._header(transaction, run_id)
            if run is None:
                raise NotFoundError(f"There is no run {run_id!r}.")
            values: dict[str, Any] = {"run": run_id}
            if step_ids is None:
                return whole(run, _steps(run, transaction.execute(ALL_STEPS, values)))
            if not step_ids:
                return run
            if len(step_ids) == 1:
                (values["step"],) = step_ids
                return replace(run, steps=_steps(run, transaction.execute(ONE_STEP, values)))
            values["steps"] = self._dialect.several(step_ids)
            return replace(run, steps=_steps(run, transaction.execute(self._some_steps, values)))

        return self._database.read(select)

    def commit(self, transition: Transition) -> Run:
        return self._commit(transition, None)

    def admit(self, transition: Transition, limits: Limits) -> Run:
        return self._commit(transition, limits)

    def _commit(self, transition: Transition, limits: Limits | None) -> Run:
        """Store what the transition changed, and its messages; with ``limits``, reserve the quota of a run that waited.

        An error in sending is raised although the transition is stored: the message that caused it is then redelivered,
        and an event that was already applied sends its messages again.
        """
        run = transition.run
        written = {step_id: replace(step, version=step.version + 1) for step_id, step in _touched(transition)}
        stored = replace(run, version=run.version + transition.header, steps={**run.steps, **written})

        def update(transaction: Transaction) -> Stored:
            # Run, steps, then quota: the order of locks that ``reservations.py`` explains. Another order can deadlock.
            if transition.header:
                self._update(transaction, run)
            self._write_steps(transaction, run, transition.touched)
            self._log(transaction, transition)
            if limits is not None:
                reservations.hold(transaction, self._dialect, Demand.of(run, waited=True), limits)
            extends = transition.header and limits is None
            reservations.carry_out(transaction, self._dialect, run, transition.commands, extends=extends)
            return self._keep(transaction, messages(stored, transition.commands))

        # Only a run's end is promised to outlive a power cut (0002); any other commit may be lost with one, and the
        # run goes on from an earlier state of its own.
        ends = run.status.is_terminal and bool(transition.changes)
        only_one = transition.header + len(transition.touched) == 1 and limits is None
        left = self._database.write(update, durable=ends, fails_first=only_one)
        if transition.header:
            self._committed(stored)
        self._send(left)
        return stored

    def _update(self, transaction: Transaction, run: Run) -> None:
        dialect = self._dialect
        values = {
            "run": run.run_id,
            "version": run.version,
            "status": run.status,
            "wake_at": dialect.time(run.wake_at),
            "body": dialect.json(encode_run(run)),
        }
        if transaction.execute(UPDATE_RUN, values).rowcount == 0:
            raise StaleRunError(f"Run {run.run_id} has changed since version {run.version} was read.")

    def _write_steps(self, transaction: Transaction, run: Run, step_ids: Sequence[str]) -> None:
        """Store these steps. Raises StaleRunError unless each is still at the version that was read."""
        steps = [run.steps[step_id] for step_id in step_ids]
        if steps and not self._dialect.write_steps(transaction, run.run_id, steps):
            raise StaleRunError(
                f"A step of run {run.run_id} ({', '.join(step_ids[:5])}) has changed since it was read."
            )

    def _log(self, transaction: Transaction, transition: Transition) -> None:
        if transition.changes:
            body = self._dialect.json(encode_changes(transition.changes))
            transaction.execute(self._dialect.ADD_CHANGES, {"run": transition.run.run_id, "body": body})

    def holds(self, run_id: str, step: Step) -> bool:
        values = {"run": run_id, "step": step.step_id, "version": step.version}
        return self._database.read(lambda transaction: transaction.execute(HOLDS, values).fetchone()) is not None

    def all_ended(self, run_id: str, step_ids: Collection[str]) -> bool:
        values = {"run": run_id, "steps": self._dialect.several(step_ids)}
        (ended,) = self._database.read(lambda transaction: transaction.execute(self._ended, values).fetchone())
        return bool(ended == len(step_ids))

    def due(self, now: datetime, limit: int) -> Sequence[str]:
        return self._ids(DUE, {"now": self._dialect.time(now), "limit": limit})

    def active(self) -> Sequence[str]:
        return self._ids(ACTIVE, {})

    def _ids(self, select: str, values: dict[str, Any]) -> Sequence[str]:
        rows = self._database.read(lambda transaction: transaction.execute(select, values).fetchall())
        return [run_id for (run_id,) in rows]

    def history(self, query: HistoryQuery) -> RunPage:
        select, values = history.page(self._dialect, query)
        if "\0" in (query.route or ""):  # see ``load``
            return RunPage((), None)

        def read(transaction: Transaction) -> tuple[list[Run], list[StepRow]]:
            runs = [decode_run(*row) for row in transaction.execute(select, values).fetchall()]
            shown = self._dialect.several([run.run_id for run in runs[: query.limit]])
            # In the same read: PostgreSQL gives both statements one snapshot, so runs and steps belong together.
            return runs, transaction.execute(self._steps_of, {"runs": shown}).fetchall()

        runs, rows = self._database.read(read)
        shown = runs[: query.limit]
        rows_of: dict[str, list[StepRow]] = {run.run_id: [] for run in shown}
        for row in rows:
            rows_of[row[0]].append(row)
        return RunPage(
            tuple(whole(run, _steps(run, rows_of[run.run_id])) for run in shown),
            encode_cursor(shown[-1]) if len(runs) > query.limit else None,
        )

    def changes(self, run_id: str) -> Sequence[Change]:
        values = {"run": run_id}
        rows = self._database.read(lambda transaction: transaction.execute(self._changes, values).fetchall())
        return [change for (body,) in rows for change in decode_changes(body)]

    def usage(self, org_slug: str, now: datetime) -> Usage:
        return self._database.read(lambda transaction: reservations.usage(transaction, self._dialect, org_slug, now))

    def queues(self, ended: Run | None = None) -> Sequence[Queue]:
        return self._database.read(lambda transaction: reservations.queues(transaction, self._dialect, ended))

    def place(self, run: Run) -> Place | None:
        return self._database.read(lambda transaction: reservations.place(transaction, run))

    def last_cost(self, org_slug: str, route: str) -> Decimal | None:
        return self._database.read(lambda transaction: reservations.last_cost(transaction, org_slug, route))


def _touched(transition: Transition) -> Iterable[tuple[str, Step]]:
    return ((step_id, transition.run.steps[step_id]) for step_id in transition.touched)


def _steps(run: Run, rows: Iterable[StepRow]) -> dict[str, Step]:
    """Return the steps of these rows by id; rows of steps that the run's pipeline does not have are left out."""
    steps: dict[str, Step] = {}
    for _, step_id, body, version in rows:
        spec = spec_of(run, step_id)
        if spec is not None:
            steps[step_id] = decode_step(body, version, spec)
    return steps


def _exists(run: Run) -> ConflictingStateError:
    return ConflictingStateError(f"There is a run {run.run_id!r} already.")
