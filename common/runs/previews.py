"""Previews: the changes of a replay are reviewed first, then promoted or discarded as a whole.

A preview is a run that writes to shadow tables instead of its targets (``common.tables.contract.preview_name``), with
the same processors, checks and modes. A step that reads a table which the preview has written reads the shadow.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta

from common.domain.graph import work_order
from common.domain.messages import PreviewSettled
from common.domain.model import PreviewEnd, Receipt, Run, RunStatus, Step
from common.platform.errors import ConflictingStateError, PermanentError, SupersededError
from common.platform.logs import logger
from common.ports.warehouse import Commit, Lineage, Warehouse
from common.runs.engine import Engine
from common.tables.contract import PREVIEW, Table, load_table
from common.writes.preview_diff import ComparedRows, TableDiff, table_diff
from common.writes.receipts import PROMOTE_WITHIN


@dataclass(frozen=True, slots=True)
class _Write:
    """The write of one step of a preview: into ``shadow``, meant for ``target``."""

    step: Step
    order: Run
    table: Table
    target: str
    shadow: str

    @property
    def days(self) -> Iterator[date]:
        first, last = self.order.request.start_date, self.order.request.end_date
        return (first + timedelta(days=n) for n in range((last - first).days + 1))


class Previews:
    """Compares, promotes and discards the previews of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def diffs(self, run: Run) -> tuple[TableDiff, ...]:
        """Compare each shadow with its table. Raises ConflictingStateError unless it is a preview not yet settled."""
        self._check(run)
        by_table: dict[str, list[_Write]] = {}
        for write in self._writes(run):
            by_table.setdefault(write.target, []).append(write)
        with _refusals_as_conflicts(run):
            return tuple(self._diff(run, writes) for writes in by_table.values())

    def promote(self, run: Run, *, who: str, why: str) -> Run:
        """Write the preview's rows to its tables, in one transaction; return the run.

        Raises ConflictingStateError unless the run is a completed preview that is not settled yet, and if a table was
        written since the preview read it. Then nothing is changed.
        """
        self._check(run)
        if run.status is not RunStatus.COMPLETED:
            raise ConflictingStateError(f"Preview {run.run_id} is {run.status}: only a completed one can be promoted.")
        writes = list(self._writes(run))
        warehouse = self._warehouse(run)
        # Rows first, then the status: after a crash in between, promoting again repeats a commit that changes nothing.
        with _refusals_as_conflicts(run):  # a preview may have written nothing
            commits = [self._commit(run, write) for write in writes]
            receipts = warehouse.commit_all(commits, logger.info) if commits else ()
        promoted = {w.step.step_id: _promoted(w.step.receipt, r) for w, r in zip(writes, receipts, strict=True)}
        promoted |= _maps(run, promoted)
        settled = self._engine.settle_preview(run, PreviewSettled(PreviewEnd.PROMOTED, promoted, who, why))
        self._drop(warehouse, writes)
        return settled

    def discard(self, run: Run, *, who: str, why: str) -> Run:
        """Drop the preview's rows; return the run. Raises ConflictingStateError like ``promote``."""
        self._check(run)
        writes = list(self._writes(run))
        nothing = {write.step.step_id: replace(write.step.receipt, rows=0, ingested_at=None) for write in writes}
        # Settled before its tables go: an open preview must be complete, or it could be promoted without its rows.
        settled = self._engine.settle_preview(run, PreviewSettled(PreviewEnd.DISCARDED, nothing, who, why))
        self._drop(self._warehouse(run), writes)
        return settled

    @staticmethod
    def _check(run: Run) -> None:
        if not run.request.preview:
            raise ConflictingStateError(f"Run {run.run_id} is not a preview: start one with main.py replay --preview.")
        if not run.status.is_terminal:
            raise ConflictingStateError(f"Preview {run.run_id} is still {run.status}: wait for its end.")
        if run.preview_end is not None:
            raise ConflictingStateError(f"Preview {run.run_id} was {run.preview_end} already.")

    def _warehouse(self, run: Run) -> Warehouse:
        labels = {"org": run.request.org_slug, "pipeline": run.pipeline_id, "run": run.run_id, "step": "preview"}
        return self._engine.attempts.warehouse().labelled(labels, lambda _: None)

    def _writes(self, run: Run) -> Iterator[_Write]:
        """Yield the writes of the run's steps; a map writes through its items."""
        configs = self._engine.settings.configs
        for step in run.steps.values():
            receipt = step.receipt
            if receipt.ingested_at and PREVIEW in receipt.table and not step.items:
                order = work_order(run, step)
                dataset, _, shadow = receipt.table.rpartition(".")
                name = shadow.partition(PREVIEW)[0]
                yield _Write(step, order, load_table(configs, name), f"{dataset}.{name}", receipt.table)

    def _diff(self, run: Run, writes: Sequence[_Write]) -> TableDiff:
        first = writes[0]
        days = tuple(sorted({day for write in writes for day in write.days}))
        scope = ComparedRows(run.request.org_slug, run.pipeline_id, run.credential_id, days)
        warehouse = self._warehouse(run)
        warehouse.ensure_table(first.target, first.table)
        return table_diff(warehouse.query, first.target, first.shadow, first.table, first.step.spec.write, scope)

    def _commit(self, run: Run, write: _Write) -> Commit:
        """Return the commit of a shadow's rows. Its fence is the preview's: newer rows are not replaced."""
        now, step, request = self._engine.now(), write.step, write.order.request
        return Commit(
            target=write.target,
            table=write.table,
            staging=write.shadow,
            lineage=Lineage(request.org_slug, run.pipeline_id, run.credential_id, run.run_id, now),
            first_day=request.start_date,
            last_day=request.end_date,
            write=step.spec.write,
            step_id=step.step_id,
            attempt=step.attempt,
            fence=step.fence,
            not_after=now + PROMOTE_WITHIN,
            job_id=f"{run.run_id}_promote",
            rows=step.receipt.rows,
            content_hash=step.receipt.content_hash,
            wait_s=PROMOTE_WITHIN.total_seconds() / 2,
            of_days=True,
        )

    @staticmethod
    def _drop(warehouse: Warehouse, writes: Sequence[_Write]) -> None:
        for shadow in dict.fromkeys(write.shadow for write in writes):
            warehouse.tables.remove(shadow)


@contextmanager
def _refusals_as_conflicts(run: Run) -> Iterator[None]:
    """Raise a permanent refusal of the warehouse as ConflictingStateError, for the caller to see."""
    try:
        yield
    except SupersededError as error:
        raise ConflictingStateError(
            f"{error} Preview {run.request.rerun_of} again to see what would change."
        ) from error
    except PermanentError as error:
        raise ConflictingStateError(
            f"{error} If the preview has expired, preview {run.request.rerun_of} again."
        ) from error


def _promoted(preview: Receipt, real: Receipt) -> Receipt:
    return replace(preview, table=real.table, rows=real.rows, ingested_at=real.ingested_at)


def _maps(run: Run, promoted: Mapping[str, Receipt]) -> dict[str, Receipt]:
    """Return the receipts of the maps whose items have been promoted: their table is the real one, too."""
    tables = {step_id.partition("[")[0]: r.table for step_id, r in promoted.items() if "[" in step_id}
    return {step_id: replace(run.steps[step_id].receipt, table=table) for step_id, table in tables.items()}
