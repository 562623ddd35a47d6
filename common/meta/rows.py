"""An ended run as rows of the meta tables. Pure: values in, JSON data out; NULLs are left out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from common.config.bigquery_prices import BigQueryPrices
from common.domain.graph import map_of
from common.domain.messages import JobsCost
from common.domain.model import MAX_JOB_IDS, Run, Step, StepStatus
from common.domain.state import Change
from common.meta.costs import cost_usd
from common.ports.meta import JobStats

RUNS, STEPS = "org_meta_pipeline_runs", "org_meta_step_runs"
TRANSITIONS, COSTS = "org_meta_transitions", "org_meta_costs"
META_TABLES = (TRANSITIONS, STEPS, COSTS, RUNS)
"""In the order of writing: a run's own row comes last, as the mark that all others are there."""

MAX_WARNINGS = 50

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pricing:
    """What jobs are priced with; ``decimals`` is how many a BIGNUMERIC of the warehouse keeps."""

    prices: BigQueryPrices | None
    location: str
    decimals: int

    @property
    def usd_per_tib(self) -> Decimal | None:
        """The price at the location, or None if none is known."""
        return self.prices.usd_per_tib.get(self.location) if self.prices else None


def jobs_of(run: Run) -> dict[str, str]:
    """Return the step of each of the run's jobs that a receipt names, by job id.

    Jobs of kept steps belong to the earlier run; those of a map to its items.
    """
    steps = (step for step in run.steps.values() if not step.items and not _is_kept(run, step))
    return {job_id: step.step_id for step in steps for job_id in step.receipt.job_ids}


def rows_of(
    run: Run, changes: Sequence[Change], stats: Mapping[str, JobStats | None], pricing: Pricing
) -> dict[str, list[Row]]:
    """Return the rows by table, in the order of ``META_TABLES``."""
    common = {"run_id": run.run_id, "pipeline_id": run.pipeline_id, "run_ended_at": run.ended_at}
    made: dict[str, Iterator[dict[str, Any]]] = {
        TRANSITIONS: (_transition(change, seq) for seq, change in enumerate(changes, 1)),
        STEPS: (_step(run, step) for step in run.steps.values()),
        COSTS: (_cost(job_id, step_id, stats.get(job_id), pricing) for job_id, step_id in jobs_of(run).items()),
        RUNS: iter([_run(run)]),
    }
    return {name: [_plain(common | row) for row in made[name]] for name in META_TABLES}


def jobs_cost(run: Run, stats: Mapping[str, JobStats | None], pricing: Pricing) -> JobsCost:
    """Return the cost of the run's known jobs.

    Receipts name the jobs of successful attempts only, so the cost is incomplete if a step was retried or did not
    succeed.
    """
    costs = [
        None if (known := stats.get(job_id)) is None else cost_usd(known, pricing.usd_per_tib, pricing.decimals)
        for job_id in jobs_of(run)
    ]
    at_work = [s for s in run.steps.values() if s.started_at and not s.items and not _is_kept(run, s)]
    first_tries = all(s.status is StepStatus.SUCCEEDED and s.attempt == 1 for s in at_work)
    named = all(len(s.receipt.job_ids) < MAX_JOB_IDS for s in at_work)
    complete = first_tries and named and None not in costs
    return JobsCost(sum((cost for cost in costs if cost is not None), Decimal(0)), complete)


def _run(run: Run) -> dict[str, Any]:
    request = run.request
    own = [step for step in run.steps.values() if map_of(step.step_id) is None]
    return {
        "org_slug": request.org_slug,
        "route": request.route,
        "credential_id": run.credential_id,
        "config_hash": run.config_hash,
        "status": run.status.value,
        "error_message": run.error,
        "reason": run.reason,
        "trigger": request.trigger,
        "rerun_of": request.rerun_of,
        "start_date": request.start_date,
        "end_date": request.end_date,
        "requested_at": request.requested_at,
        "started_at": run.started_at,
        "steps": len(own),
        "steps_failed": sum(step.status is StepStatus.FAILED for step in own),
        "rows_written": sum(step.receipt.rows for step in own if not _is_kept(run, step)),
    }


def _step(run: Run, step: Step) -> dict[str, Any]:
    receipt, mapped = step.receipt, map_of(step.step_id)
    return {
        "step_id": step.step_id,
        "map_step_id": mapped[0] if mapped else None,
        "ps_type": step.spec.ps_type,
        "status": step.status.value,
        "attempts": step.attempt,
        "max_attempts": step.spec.retry.max_attempts,
        "started_at": step.started_at,
        "ended_at": step.ended_at,
        "target_table": receipt.table,
        "rows_written": receipt.rows,
        "bad_rows": receipt.bad_rows,
        "content_hash": receipt.content_hash,
        "ingested_at": receipt.ingested_at,
        "is_kept": _is_kept(run, step),
        "error_message": step.error,
        "reason": step.reason,
        "warnings": list(receipt.warnings[:MAX_WARNINGS]) or None,
        "drift": dict(receipt.drift) or None,
    }


def _transition(change: Change, seq: int) -> dict[str, Any]:
    return {
        "seq": seq,
        "at": change.at,
        "step_id": change.step_id,
        "attempt": change.attempt if change.step_id else None,
        "state_before": change.before,
        "state_after": change.after,
        "reason": change.reason,
    }


def _cost(job_id: str, step_id: str, stats: JobStats | None, pricing: Pricing) -> dict[str, Any]:
    known = stats or JobStats(job_id, "")
    return {
        "step_id": step_id,
        "job_id": job_id,
        "job_type": known.job_type,
        "statement_type": known.statement_type,
        "started_at": known.started_at,
        "ended_at": known.ended_at,
        "bytes_processed": known.bytes_processed,
        "bytes_billed": known.bytes_billed,
        "slot_ms": known.slot_ms,
        "usd_per_tib": pricing.usd_per_tib,
        "cost_usd": cost_usd(known, pricing.usd_per_tib, pricing.decimals),
        "price_source": pricing.prices.named if pricing.prices else None,
        "labels": dict(known.labels) or None,
    }


def _is_kept(run: Run, step: Step) -> bool:
    """Whether a rerun took the step over from the run before."""
    at = step.receipt.ingested_at
    return at is not None and at < run.request.requested_at


def _plain(row: Mapping[str, Any]) -> Row:
    return {name: _text(value) for name, value in row.items() if value is not None and value != ""}


def _text(value: Any) -> Any:
    match value:
        case datetime() | date():
            return value.isoformat()
        case Decimal():
            return f"{value:f}"
        case bool() | list() | dict() | str():
            return value
        case int():
            return str(value)  # as text: readers that take JSON's numbers as doubles lose digits beyond 2^53
    raise TypeError(type(value).__name__)
