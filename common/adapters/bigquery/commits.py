"""Runs the script of a commit until it is committed, refused, or out of time."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any

from common.adapters.bigquery.commit_sql import script, suffix
from common.adapters.bigquery.errors import ConflictError, translated
from common.adapters.bigquery.jobs import Jobs
from common.adapters.bigquery.refusals import NoGateError, refusal, span
from common.domain.model import Receipt
from common.platform.errors import PipelineOpsError, WriterBusyError
from common.platform.retry import Backoff, countdown, retried
from common.ports.warehouse import NO_INTERRUPTION, Commit, Interruption

# Random pauses, capped so that a waiting writer notices a free table within seconds.
BACKOFF = Backoff(0.4, 5.0)


LOOK_EVERY_S = 1.0
"""How often a commit that waits for its turn looks whether it is still wanted."""

SEATS = 16
"""Attempts of a process that work for one table at a time: all get their turn within the time that a commit may wait
(``WRITER_WAIT_S``), at seven seconds a commit. The others read nothing yet, so that their rows are not old by then."""

Ticket = tuple[int, int]


class Queues:
    """The writers of each table, one at a time: those of one process queue here, where waiting is free, instead of
    conflicting in BigQuery, where the loser's job is wasted.

    The lowest fence goes first. In any other order a later attempt would commit first, and the ledger would refuse the
    earlier one, whose work would be for nothing.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy: set[str] = set()
        self._waiting: dict[Ticket, frozenset[str]] = {}
        self._numbers = count()
        self._seated: Counter[str] = Counter()

    @contextmanager
    def seat(self, target: str) -> Iterator[bool]:
        """Yield whether one more attempt may work for the table; if so, it counts until the block ends."""
        with self._changed:
            may = self._seated[target] < SEATS
            self._seated[target] += may
        try:
            yield may
        finally:
            with self._changed:
                self._seated[target] -= may

    @contextmanager
    def turn(
        self,
        targets: Iterable[str],
        left_s: Callable[[], float],
        waiting: Callable[[], None],
        fence: int = 0,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[None]:
        """Hold these tables. Raises ConflictError if one is not free in the time left, and what ``check`` raises."""
        wanted, told = frozenset(targets), False
        with self._changed:
            ticket = (fence, next(self._numbers))
            self._waiting[ticket] = wanted
            try:
                while not self._is_next(ticket, wanted):
                    if not told:
                        told = True
                        waiting()
                    left = left_s()
                    if left <= 0:
                        raise ConflictError(f"{', '.join(sorted(wanted))} is still being written by others.")
                    self._changed.wait(min(left, LOOK_EVERY_S))
                    check()
            finally:
                del self._waiting[ticket]
                self._changed.notify_all()  # whoever gives up may have been in the way
            self._busy |= wanted
        try:
            yield
        finally:
            with self._changed:
                self._busy -= wanted
                self._changed.notify_all()

    def _is_next(self, ticket: Ticket, wanted: frozenset[str]) -> bool:
        # All tables at once, and the lowest ticket of all is never behind another: no two can wait for each other.
        ahead = (tables for other, tables in self._waiting.items() if other < ticket)
        return not wanted & self._busy and not any(wanted & tables for tables in ahead)


class _Wait:
    """How long a commit may wait for other writers; logs once that it waits, and at the end for how long it did."""

    def __init__(self, target: str, seconds: float, tell: Callable[[str], None]) -> None:
        self._began, self._target, self._tell = time.monotonic(), target, tell
        self.left_s = countdown(seconds)
        self.conflicts = 0
        self._told = False

    def waits(self) -> None:
        if not self._told:
            self._told = True
            self._tell(f"waits for other writers of {self._target}")

    def conflict(self) -> None:
        """Note a lost conflict."""
        self.conflicts += 1
        self.waits()

    def over(self) -> WriterBusyError:
        waited = f"{time.monotonic() - self._began:.0f} s, {self.conflicts} lost conflicts"
        return WriterBusyError(f"Other writers kept {self._target} busy ({waited}).")

    def done(self) -> None:
        if self._told:
            waited = time.monotonic() - self._began
            self._tell(f"waited {waited:.1f} s for other writers of {self._target}: {self.conflicts} lost conflicts")


def commit(
    jobs: Jobs,
    queues: Queues,
    writes: Sequence[Commit],
    waiting: Callable[[str], None],
    fill: Callable[[str], None],
    stop: Interruption = NO_INTERRUPTION,
) -> tuple[Receipt, ...]:
    """Commit the staged rows, as ``Warehouse.commit_all`` promises. ``fill`` fills a table's ledger without a gate."""
    sql = script(writes)
    params = {
        f"{name}{suffix(n)}": value for n, write in enumerate(writes) for name, value in _parameters(write).items()
    }
    targets = list(dict.fromkeys(write.target for write in writes))
    wait = _Wait(", ".join(targets), min(write.wait_s for write in writes), waiting)

    fence = min(write.fence for write in writes)
    refilled = 0

    def once() -> list[dict[str, Any]]:
        nonlocal refilled
        try:
            with queues.turn(targets, wait.left_s, wait.waits, fence, stop.check):
                stop.hold()
                # A failed job stays failed, so each try is a new job. Its id is numbered, not random: a repeat of this
                # attempt finds the job that committed.
                try:
                    return _run(jobs, writes, sql, params, f"{writes[0].job_id}_{wait.conflicts + refilled}")
                except NoGateError:
                    if refilled:
                        raise
                    refilled = 1
                    for target in targets:
                        fill(target)
                    return _run(jobs, writes, sql, params, f"{writes[0].job_id}_{wait.conflicts + refilled}")
        except ConflictError:
            stop.release()
            wait.conflict()
            raise

    try:
        rows = retried(once, on=ConflictError, backoff=BACKOFF, left_s=wait.left_s)
    except ConflictError as error:
        raise wait.over() from error
    wait.done()
    return tuple(_receipt(write, row) for write, row in zip(writes, rows, strict=True))


def _run(
    jobs: Jobs, writes: Sequence[Commit], sql: str, params: Mapping[str, Any], job_id: str
) -> list[dict[str, Any]]:
    # The job's time limit ends with the lease: inside a transaction CURRENT_TIMESTAMP stays at its start, so the
    # script alone can't notice that the lease ends while it runs.
    lease_s = (min(write.not_after for write in writes) - datetime.now(UTC)).total_seconds()
    try:
        with translated(f"commit to {', '.join(write.target for write in writes)}"):
            return list(jobs.rows(jobs.query(sql, params, job_id=job_id, limit_ms=max(1000, int(lease_s * 1000)))))
    except PipelineOpsError as error:
        refused = refusal(str(error.__cause__ or error), writes)
        if refused is None:
            raise
        raise refused from error


def _receipt(write: Commit, row: Mapping[str, Any]) -> Receipt:
    outcome, rows = row["outcome"], row["n"]
    warnings: tuple[str, ...] = ()
    if outcome == "kept":
        warnings = (f"No rows: what {write.target} holds of {span(write)} was kept (on_empty: keep).",)
    elif outcome == "appended before":
        warnings = (f"{row['run']} has appended {span(write)} to {write.target} already: nothing was added.",)
    return Receipt(
        rows=rows,
        table=write.target,
        mode=write.write.mode,
        content_hash=row["content_hash"] if rows else "",
        ingested_at=row["ingested_at"],
        warnings=warnings,
    )


def _parameters(write: Commit) -> dict[str, Any]:
    lineage = write.lineage
    return {
        "org": lineage.org_slug,
        "pipeline": lineage.pipeline_id,
        "credential": lineage.credential_id,
        "run": lineage.run_id,
        "step": write.step_id,
        "attempt": write.attempt,
        "fence": write.fence,
        "mode": write.write.mode,
        "on_empty": write.write.on_empty,
        "spooled": -1 if write.rows is None else write.rows,
        "content_hash": write.content_hash,
        "first_day": write.first_day,
        "last_day": write.last_day,
        "ingested_at": lineage.ingested_at,
        "ingestion_date": lineage.ingested_at.astimezone(UTC).date(),
        "not_after": write.not_after,
    }
