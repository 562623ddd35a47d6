"""The one writer: batches → spool → load job → staging table → one fenced commit → receipt (docs/decisions/0009).

Every mode takes two jobs per write: the load and the commit. A third loads rows that were left out into the quarantine.
"""

import json
import os
import random
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from common.domain.model import Receipt, Run, Staged, Step
from common.platform.errors import DriftError, PermanentError, PipelineOpsError, TransientError, WriterBusyError
from common.platform.logs import logger
from common.ports.warehouse import Commit, Interruption, Lineage, Warehouse
from common.tables.contract import Table
from common.writes.batch import Batch, Waiting
from common.writes.drift import in_words
from common.writes.parts import (
    LIST,
    MOST_PARTS,
    PartRead,
    StagedPart,
    WholeDelivery,
    chosen,
    content_hash,
    list_name,
    write_row,
)
from common.writes.spool import Spool, SpoolResult

COMMIT_MARGIN_S = 10.0
"""Part of the attempt's time reserved for the commit itself: a commit does not wait for other writers in it."""

# Steps of one run share a diff file, which is read, extended and replaced: without it, one loses the other's part.
_diff_files = threading.Lock()


WRITER_WAIT_S = 120.0
"""How long a commit waits for other writers with its function in hand, in the order of their fences. All workers that
one organisation of the embedded stack has get through in it. Much shorter, and writers that come back late are refused
by the ledger, having lost their turn; longer, and a crowd of them would hold functions that only wait."""

AGAIN_S = (5.0, 20.0)
"""Then the attempt is suspended for a random time between these, so that the writers do not come back all at once."""


class Suspended(Exception):
    """The attempt waits: for a job, which may be filling the staging table, or for what ``reason`` says.

    The staging table is kept, and ``staged`` says what is in it.
    """

    def __init__(self, waiting: Waiting, reason: str = "", staged: Staged | None = None) -> None:
        super().__init__()
        self.waiting, self.reason, self.staged = waiting, reason, staged


@dataclass
class _StagingForSql:
    """The staging table that a processor's SQL fills. Made on first use: one that takes a file is made otherwise."""

    writer: "Writer"
    made: str = ""

    def staging(self) -> str:
        if not self.made:
            keep = bool(self.writer.step.waits_on)
            self.made = self.writer.warehouse.create_staging(
                self.writer.target, self.writer.table, self.writer.name, keep=keep
            )
        return self.made


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the rows of one attempt to one table.

    Differences from the contract go to ``diff_file``; ``warn`` and ``info`` log to the run;
    ``stop`` is asked before the commit is sent.
    """

    run: Run
    step: Step
    warehouse: Warehouse
    target: str
    table: Table
    diff_file: Path
    now: Callable[[], datetime]
    warn: Callable[[str], None]
    info: Callable[[str], None]
    stop: Interruption

    @property
    def name(self) -> str:
        """The prefix of the attempt's job ids and its staging table: the same in a repeat, which then attaches."""
        return f"{self.run.run_id}_{self.step.step_id}_{self.step.attempt}"

    def write(
        self,
        batches: Callable[[Callable[[], str]], Iterator[Batch | PartRead | WholeDelivery]],
        seconds_left: Callable[[], float],
    ) -> Receipt:
        """Write the batches, or what SQL has put into the staging table; return the receipt.

        ``batches`` is called with a function that makes the staging table for SQL and returns its id.
        ``seconds_left`` is called right before the commit; it raises if the attempt must not commit any more.
        """
        with self.warehouse.seat(self.target) as seated:
            if not seated and not self.step.waits_on:  # a job that has begun is not begun again
                raise self._busy(None)
            return self._write(batches, seconds_left)

    def _write(
        self,
        batches: Callable[[Callable[[], str]], Iterator[Batch | PartRead | WholeDelivery]],
        seconds_left: Callable[[], float],
    ) -> Receipt:
        self.warehouse.ensure_table(self.target, self.table)
        for_sql = _StagingForSql(self)
        staging, keep = "", False
        try:
            with tempfile.TemporaryDirectory(prefix="pipeline-ops-") as folder:
                path = Path(folder) / "rows.parquet"
                spooled, last = self._spool(batches(for_sql.staging), path)
                lineage = self._lineage()
                if isinstance(last, WholeDelivery):
                    return self._commit_parts(last, spooled, lineage, seconds_left)
                if spooled.rows and for_sql.made:
                    raise PermanentError("The processor gave rows and used the staging table: it may do one of them.")
                table = self._with_added(spooled)
                if spooled.rows:
                    staging = self.warehouse.create_staging(self.target, table, self.name, spooled=True)
                    self.warehouse.load(staging, table, path, job_id=f"{self.name}_load")
                if spooled.bad_rows:
                    self._quarantine(path.with_suffix(".bad.parquet"), lineage)
                if isinstance(last, PartRead):
                    seconds_left()  # raises if another attempt has taken over the part
                    self._list(last, staging, spooled, path)
                    keep = True
                    return Receipt(rows=spooled.rows, bad_rows=spooled.bad_rows, drift=spooled.drift)
            receipt = Receipt(
                rows=spooled.rows,
                content_hash=spooled.content_hash if spooled.rows else "",
                ingested_at=lineage.ingested_at,
                bad_rows=spooled.bad_rows,
                drift=spooled.drift,
            )
            staged = Staged(staging or for_sql.staging(), receipt, self.step.fence)
            # Columns that the rows have added are known to this attempt alone: it would have to read them again.
            return self._commit(table, staged, seconds_left(), keeps=not spooled.added)
        except Suspended:
            keep = True
            raise
        finally:
            if not keep and (made := staging or for_sql.made):
                self._drop(made)

    def resume(self, staged: Staged, seconds_left: Callable[[], float]) -> Receipt:
        """Commit what this attempt staged before it waited for the table's writer; return the receipt."""
        if self.warehouse.tables.find(staged.staging) is None:
            # Made again it would be empty, and an empty commit may delete rows.
            raise TransientError("The staged rows have expired while they waited: they are read again.")
        keep = False
        try:
            return self._commit(self.table, staged, seconds_left(), keeps=True)
        except Suspended:
            keep = True
            raise
        finally:
            if not keep:
                self._drop(staged.staging)

    def _commit(
        self, table: Table, staged: Staged, left_s: float, *, keeps: bool, parts: tuple[str, ...] = ()
    ) -> Receipt:
        """Commit what is staged, for a delivery in all the tables ``parts``.

        Raises Suspended (with it, if this ``keeps`` it) if other writers do not make way.
        """
        order = replace(self._order(table, staged, left_s), parts=parts)
        try:
            receipt = self.warehouse.commit(order, self.info, self.stop)
        except WriterBusyError as error:
            if not keeps:
                raise  # the same attempt can't load its rows twice: its jobs' ids are taken
            raise self._busy(staged) from error
        for text in receipt.warnings:
            self.warn(text)
        return replace(receipt, bad_rows=staged.receipt.bad_rows, drift=staged.receipt.drift)

    def _busy(self, staged: Staged | None) -> Suspended:
        """Return what suspends the attempt for a while, because others write to the table."""
        look_at = self.now() + timedelta(seconds=random.uniform(*AGAIN_S))
        return Suspended(Waiting("", look_at), f"waits for other writers of {self.table.table}", staged)

    def _list(self, read: PartRead, staging: str, spooled: SpoolResult, path: Path) -> None:
        """Add a staged part to the list of its delivery."""
        if spooled.added:
            raise PermanentError(f"{read.part} has columns that {self.table.table} lacks: parts can't add columns.")
        part = StagedPart(
            read.part, self.step.fence, staging, spooled.rows, spooled.content_hash, spooled.bad_rows, read.facts
        )
        row = path.with_name("part.parquet")
        write_row(row, part, self.run.request.start_date)
        self.warehouse.load(self._list_of(read.delivery), LIST, row, job_id=f"{self.name}_part")

    def _list_of(self, delivery: str) -> str:
        name = list_name(self.run, delivery)
        return self.warehouse.create_staging(self.target, LIST, name, keep=True, spooled=True)

    def _commit_parts(
        self, whole: WholeDelivery, spooled: SpoolResult, lineage: Lineage, seconds_left: Callable[[], float]
    ) -> Receipt:
        """Commit the staged parts of a delivery, all of them in one transaction.

        Their staging tables are left to expire: an attempt that is repeated after its commit needs them again.
        """
        if spooled.rows or spooled.bad_rows:
            raise PermanentError("The processor gave rows and a delivery of staged parts: it may do one of them.")
        if len(whole.parts) > MOST_PARTS:
            raise PermanentError(
                f"The delivery has {len(whole.parts)} parts, the limit is {MOST_PARTS}: run fewer days."
            )
        listed = self._list_of(whole.delivery)
        parts = chosen(self.warehouse.query(f"SELECT * FROM `{listed}`"), whole.parts)  # noqa: S608 - our own name
        bad, most = sum(part.bad_rows for part in parts), self.step.spec.write.max_bad_rows
        if bad > most:
            raise PermanentError(
                f"The parts have {bad} rows that can't be written, max_bad_rows allows {most}: nothing is committed. "
                f"{self.target}__quarantine has them, with the reasons."
            )
        whole.check([part.facts for part in parts])
        filled = [part for part in parts if part.row_count]
        if not filled:
            raise PermanentError("The delivery has no rows of the run's days: nothing is replaced.")
        receipt = Receipt(
            rows=sum(part.row_count for part in filled),
            content_hash=content_hash(filled),
            ingested_at=lineage.ingested_at,
            bad_rows=bad,
            drift=spooled.drift,
        )
        staged = Staged(filled[0].staging, receipt, self.step.fence)
        tables = tuple(part.staging for part in filled)
        return self._commit(self.table, staged, seconds_left(), keeps=False, parts=tables)

    def _spool(
        self, batches: Iterator[Batch | PartRead | WholeDelivery], path: Path
    ) -> tuple[SpoolResult, PartRead | WholeDelivery | None]:
        """Spool the rows; return also what the processor said after the last of them."""
        last: PartRead | WholeDelivery | None = None
        request, digits = self.run.request, self.warehouse.decimal_digits
        spool = Spool(
            path,
            self.table,
            request.start_date,
            request.end_date,
            digits,
            write=self.step.spec.write,
            org_slug=request.org_slug,
        )
        try:
            for batch in batches:
                if isinstance(batch, Batch):
                    spool.write(batch)
                else:
                    last = batch
                    if isinstance(batch, PartRead):
                        self._list_of(batch.delivery)  # before its first part: a list must not outlive their tables
            result = spool.close()
        except DriftError as error:
            self._keep_drift(error.drift)  # the drift that fails a step is the one that a person must look at
            raise
        self._keep_drift(result.drift)
        for column, count in result.rounded.items():
            self.warn(f"{count} values of {column} were rounded half-even to {digits[1]} decimals.")
        for column, count in result.discarded.items():
            self.warn(f"{count} values of {column} were left out: they are not of its type.")
        if result.bad_rows:
            self.warn(f"{result.bad_rows} rows were left out: {self.target}__quarantine has them, with the reasons.")
        if result.drift:
            self.warn(f"The rows differ from the contract of {self.table.table}: {in_words(result.drift)}.")
        return result, last

    def _with_added(self, spooled: SpoolResult) -> Table:
        """Return the contract with the columns that the rows have added, once the target has them, too."""
        if not spooled.added:
            return self.table
        table = self.table.model_copy(update={"columns": (*self.table.columns, *spooled.added)})
        self.warehouse.ensure_table(self.target, table)
        return table

    def _quarantine(self, path: Path, lineage: Lineage) -> None:
        """Load the rows that were left out, with their lineage."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows, at = pq.read_table(path), lineage.ingested_at.astimezone(UTC)
        stamps: Mapping[str, tuple[Any, Any]] = {
            "x_org_slug": (lineage.org_slug, pa.string()),
            "x_pipeline_id": (lineage.pipeline_id, pa.string()),
            "x_credential_id": (lineage.credential_id, pa.string()),
            "x_run_id": (lineage.run_id, pa.string()),
            "step_id": (self.step.step_id, pa.string()),
            "attempt": (self.step.attempt, pa.int64()),
            "x_ingested_at": (at, pa.timestamp("us", tz="UTC")),
            "x_ingestion_date": (at.date(), pa.date32()),
        }
        for name, (value, kind) in stamps.items():
            rows = rows.append_column(name, pa.repeat(pa.scalar(value, kind), rows.num_rows))
        stamped = path.with_name("quarantine.parquet")
        try:
            pq.write_table(rows, stamped)
        except OSError as error:
            raise TransientError(
                f"The rows that were left out could not be written to {path.parent}: {error}"
            ) from error
        self.warehouse.quarantine(self.target, stamped, job_id=f"{self.name}_quarantine")

    def _lineage(self, ingested_at: datetime | None = None) -> Lineage:
        run = self.run
        at = ingested_at or self.now()
        return Lineage(run.request.org_slug, run.pipeline_id, run.credential_id, run.run_id, ingested_at=at)

    def _order(self, table: Table, staged: Staged, left_s: float) -> Commit:
        step, request, rows = self.step, self.run.request, staged.receipt.rows
        assert step.lease_until is not None, "a step at work has a lease"
        # The jobs of a commit that waited have failed. With the same ids, the next would attach to them.
        again = f"_{step.fence}" if step.fence != staged.fence else ""
        return Commit(
            target=self.target,
            table=table,
            staging=staged.staging,
            lineage=self._lineage(staged.receipt.ingested_at),
            first_day=request.start_date,
            last_day=request.end_date,
            write=step.spec.write,
            step_id=step.step_id,
            attempt=step.attempt,
            fence=staged.fence,
            not_after=step.lease_until,
            job_id=f"{self.name}_commit{again}",
            rows=rows or None,
            content_hash=staged.receipt.content_hash,
            wait_s=max(0.0, min(left_s - COMMIT_MARGIN_S, WRITER_WAIT_S)),
            spooled=bool(rows),
        )

    def _keep_drift(self, drift: Mapping[str, Any]) -> None:
        if not drift:
            return
        try:
            with _diff_files:
                self.diff_file.parent.mkdir(parents=True, exist_ok=True)
                known = json.loads(self.diff_file.read_text("utf-8")) if self.diff_file.exists() else {}
                part = self.diff_file.with_suffix(".part")
                # Written aside and renamed: a reader, or a crash, never meets half a file.
                part.write_text(json.dumps({**known, self.step.step_id: drift}, indent=2, default=str), "utf-8")
                os.replace(part, self.diff_file)
        except (OSError, ValueError) as error:
            logger.warning("%s was not written: %s", self.diff_file, error)

    def _drop(self, staging: str) -> None:
        try:
            self.warehouse.drop(staging)
        except PipelineOpsError as error:
            logger.warning("Staging table not dropped, it expires by itself: %s", error)
