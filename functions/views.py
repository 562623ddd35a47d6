"""Runs, steps, transitions and log lines as the JSON that the API gives out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any

from common.domain.draft import RESEND_AFTER, Change
from common.domain.model import Run, Step, StepStatus
from common.domain.plan import blocked_by, map_of
from common.domain.queueing import Place
from common.ports import LogLine
from common.preview_diff import TableDiff


def run_view(run: Run, place: Place | None = None) -> dict[str, Any]:
    """Return a run with its steps. ``place`` is where it stands in its organisation's queue, if it waits there."""
    request = run.request
    return {
        "run_id": run.run_id,
        "org_slug": request.org_slug,
        "pipeline": request.route,
        "pipeline_id": run.pipeline_id or None,
        "status": run.status,
        "reason": run.reason,
        "error": run.error or None,
        "trigger": request.trigger,
        "rerun_of": request.rerun_of,
        "preview": None if not request.preview else run.preview_end or "open",
        "start_date": request.start_date.isoformat(),
        "end_date": request.end_date.isoformat(),
        "credential_id": run.credential_id or request.credential_id,
        "source": request.source,
        "config_hash": run.config_hash or None,
        "requested_at": _time(request.requested_at),
        "started_at": _time(run.started_at),
        "ended_at": _time(run.ended_at),
        "since": _time(run.since),
        "until": _time(run.expires_at),
        "admitted_at": _time(run.admitted_at),
        "queue": _queue(run, place),
        "money": _money(run),
        "seconds": _seconds(run.started_at, run.ended_at),
        "rows": sum(step.receipt.rows for step in run.steps.values() if map_of(step.step_id) is None),
        "steps": [step_view(run, step) for step in run.steps.values()],
    }


def _queue(run: Run, place: Place | None) -> dict[str, Any] | None:
    """Return what a run waits for and where it stands; None of a run that does not wait."""
    if not run.waits_for:
        return None
    number, of = place or (None, None)
    return {
        "waits_for": run.waits_for,
        "place": number,
        "of": of,
        "backfill": run.request.backfill,
        "until": _time(run.expires_at),
    }


def _money(run: Run) -> dict[str, Any] | None:
    """Return what a run was estimated to cost and has cost; None where the plan does not limit money."""
    if run.estimate is None:
        return None
    return {
        "estimated_usd": f"{run.estimate.usd:f}",
        "estimated_from": run.estimate.source,
        "cost_usd": None if run.cost_usd is None else f"{run.cost_usd:f}",
    }


def step_view(run: Run, step: Step) -> dict[str, Any]:
    """Return one step: where it is, what it waits for, since when and until when, and what it left behind."""
    return {
        "step_id": step.spec.step_id,
        "ps_type": step.spec.ps_type,
        "depends_on": list(step.spec.depends_on),
        "status": step.status,
        "attempt": step.attempt,
        "max_attempts": step.spec.retry.max_attempts,
        "reason": step.reason,
        "error": step.error or None,
        "since": _time(step.since),
        "until": _time(_until(step)),
        "blocked_by": list(blocked_by(run, step)),
        "not_before": _time(step.not_before),
        "started_at": _time(step.started_at),
        "ended_at": _time(step.ended_at),
        "seconds": _seconds(step.started_at, step.ended_at),
        "rows": step.receipt.rows,
        "table": step.receipt.table or None,
        "bad_rows": step.receipt.bad_rows,
        "drift": dict(step.receipt.drift) or None,
        "job_ids": list(step.receipt.job_ids),
        "content_hash": step.receipt.content_hash or None,
        "outputs": dict(step.receipt.outputs),
        "warnings": list(step.receipt.warnings),
        "waits_on": step.waits_on or None,
    }


def change_view(change: Change) -> dict[str, Any]:
    """Return one transition of the run (``step_id`` null) or of a step."""
    return {
        "at": _time(change.at),
        "step_id": change.step_id or None,
        "attempt": change.attempt or None,
        "from": change.before or None,
        "to": change.after,
        "reason": change.reason,
    }


def line_view(line: LogLine) -> dict[str, Any]:
    """Return one log line."""
    return {
        "at": _time(line.at),
        "severity": line.severity,
        "step_id": line.step_id or None,
        "attempt": line.attempt or None,
        "message": line.message,
    }


def preview_view(run: Run, diffs: Sequence[TableDiff]) -> dict[str, Any]:
    """Return what promoting a preview would change. Amounts are text, so that no digit of them is lost."""
    return {
        "run_id": run.run_id,
        "preview_of": run.request.rerun_of,
        "preview": run.preview_end or "open",
        "tables": [
            {
                "table": diff.table,
                "days": [asdict(day) | {"day": day.day.isoformat()} for day in diff.days],
                "money": [
                    {"column": m.column, "currency": m.currency or None}
                    | {"before": f"{m.before:f}", "after": f"{m.after:f}", "change": f"{m.change:f}"}
                    for m in diff.money
                ],
                "samples": [
                    {
                        "kind": row.kind,
                        "day": row.day.isoformat(),
                        "identity": {name: value for name, value in row.identity.items() if value is not None},
                        "before": _numbers(row.before),
                        "after": _numbers(row.after),
                    }
                    for row in diff.samples
                ],
            }
            for diff in diffs
        ],
    }


def _numbers(side: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if side is None:
        return None
    return {name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in side.items()}


def _until(step: Step) -> datetime | None:
    """When the sweep acts on the step, if nothing has happened by then."""
    if step.status is StepStatus.QUEUED and step.deadline is None and step.since:
        return step.since + RESEND_AFTER
    return step.deadline


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else round((end - start).total_seconds(), 3)
