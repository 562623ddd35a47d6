"""Runs, steps, transitions and log lines as the API's JSON; /openapi.json is generated from these models.

Money is text, because JSON readers turn numbers into floats. Times are UTC.
"""

from datetime import date, datetime
from typing import Annotated, Any, Literal

from flask import Response
from pydantic import BaseModel, ConfigDict, Field

from common.domain.graph import blocked_by, map_of
from common.domain.model import PreviewEnd, Run, RunStatus, Step, StepStatus
from common.domain.queueing import Place
from common.domain.state import RESEND_AFTER, Change
from common.platform.strict import StrictModel
from common.ports.logs import LogLine

Time = datetime | None
Preview = Literal["open"] | PreviewEnd


class View(StrictModel):
    """Part of a response. It always has all of its members."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    def response(self, status: int = 200) -> Response:
        """Return the response with this body."""
        return Response(self.model_dump_json(), status, mimetype="application/json")


class StepView(View):
    """One step: its state, what it waits for, since when and until when, and its receipt."""

    step_id: str
    ps_type: str
    depends_on: list[str]
    status: StepStatus
    attempt: int
    max_attempts: int
    reason: str
    error: str | None
    since: Time
    until: Annotated[Time, Field(description="When the sweep acts, if nothing happens before.")]
    blocked_by: list[str]
    not_before: Time
    started_at: Time
    ended_at: Time
    seconds: float | None
    rows: int
    table: str | None
    bad_rows: int
    drift: dict[str, Any] | None
    job_ids: list[str]
    content_hash: str | None
    outputs: dict[str, Any]
    warnings: list[str]
    waits_on: Annotated[str | None, Field(description="The job that the step waits for.")]


class QueueView(View):
    """What a run waits for, and its place in its organisation's queue. In the history, the place is null."""

    waits_for: str
    place: int | None
    of: int | None
    backfill: bool
    until: Time


class MoneyView(View):
    """A run's estimated and actual cost in US dollars, as text."""

    estimated_usd: str
    estimated_from: str
    cost_usd: str | None


class RunView(View):
    """A run with its steps."""

    run_id: str
    org_slug: str
    pipeline: Annotated[str, Field(description="Its route: provider/domain/pipeline.")]
    pipeline_id: str | None
    status: RunStatus
    reason: str
    error: str | None
    trigger: str
    rerun_of: str | None
    preview: Annotated[Preview | None, Field(description="Of a preview: open, promoted or discarded.")]
    start_date: date
    end_date: date
    credential_id: str | None
    source: str | None
    config_hash: str | None
    requested_at: Time
    started_at: Time
    ended_at: Time
    since: Time
    until: Time
    admitted_at: Annotated[Time, Field(description="When the run was admitted, which took quota.")]
    queue: Annotated[QueueView | None, Field(description="Of a run that waits for a slot.")]
    money: Annotated[MoneyView | None, Field(description="Null if the plan does not limit money.")]
    seconds: float | None
    rows: int
    steps: list[StepView]


class Links(View):
    """Paths for the next requests."""

    status: str
    logs: str
    cancel: str


class AcceptedView(View):
    """A run that was stored and will start."""

    run_id: str
    status: RunStatus
    links: Links


class HistoryView(View):
    """A page of runs, newest first."""

    runs: list[RunView]
    next_cursor: Annotated[str | None, Field(description="The cursor of the next page; null on the last page.")]


class ChangeView(View):
    """One transition, of the run (``step_id`` null) or of a step."""

    at: datetime
    step_id: str | None
    attempt: int | None
    before: Annotated[str | None, Field(alias="from")]
    after: Annotated[str, Field(alias="to")]
    reason: str


class TransitionsView(View):
    """Every transition of a run, in order."""

    run_id: str
    transitions: list[ChangeView]


class LineView(View):
    """One line of a log."""

    at: datetime
    severity: str
    step_id: str | None
    attempt: int | None
    message: str


class LinesView(View):
    """Log lines of a run, oldest first."""

    run_id: str
    lines: list[LineView]
    truncated: Annotated[bool, Field(description="Whether there are more lines; the download has all.")]


class StepLogView(StepView):
    """A step with its own log lines."""

    lines: list[LineView]
    truncated: bool


class StepLogsView(View):
    """The steps of a run, each with its log lines."""

    run_id: str
    steps: list[StepLogView]


class FieldProblem(View):
    """What is wrong with one field."""

    field: str
    problem: str


class Problem(BaseModel):
    """A problem document, RFC 9457. Some kinds have more members; see docs/errors.md."""

    type: Annotated[str, Field(description="The kind of problem: /problems/<kind> explains it.")]
    title: str
    status: int
    detail: Annotated[str, Field(description="What is wrong with this request.")]
    hint: Annotated[str, Field(description="What to do.")]
    run_id: str = ""
    errors: list[FieldProblem] = Field(default_factory=list)


def step_fields(run: Run, step: Step) -> dict[str, Any]:
    """Return the fields of a step's ``StepView``."""
    spec, receipt = step.spec, step.receipt
    return {
        "step_id": spec.step_id,
        "ps_type": spec.ps_type,
        "depends_on": list(spec.depends_on),
        "status": step.status,
        "attempt": step.attempt,
        "max_attempts": spec.retry.max_attempts,
        "reason": step.reason,
        "error": step.error or None,
        "since": step.since,
        "until": _until(step),
        "blocked_by": list(blocked_by(run, step)),
        "not_before": step.not_before,
        "started_at": step.started_at,
        "ended_at": step.ended_at,
        "seconds": _seconds(step.started_at, step.ended_at),
        "rows": receipt.rows,
        "table": receipt.table or None,
        "bad_rows": receipt.bad_rows,
        "drift": dict(receipt.drift) or None,
        "job_ids": list(receipt.job_ids),
        "content_hash": receipt.content_hash or None,
        "outputs": dict(receipt.outputs),
        "warnings": list(receipt.warnings),
        "waits_on": step.waits_on or None,
    }


def run_view(run: Run, place: Place | None = None) -> RunView:
    """Return a run with its steps. ``place`` is its place in its organisation's queue, if it waits there."""
    request = run.request
    return RunView(
        run_id=run.run_id,
        org_slug=request.org_slug,
        pipeline=request.route,
        pipeline_id=run.pipeline_id or None,
        status=run.status,
        reason=run.reason,
        error=run.error or None,
        trigger=request.trigger,
        rerun_of=request.rerun_of,
        preview=preview_state(run),
        start_date=request.start_date,
        end_date=request.end_date,
        credential_id=run.credential_id or request.credential_id,
        source=request.source,
        config_hash=run.config_hash or None,
        requested_at=request.requested_at,
        started_at=run.started_at,
        ended_at=run.ended_at,
        since=run.since,
        until=run.expires_at,
        admitted_at=run.admitted_at,
        queue=_queue(run, place),
        money=_money(run),
        seconds=_seconds(run.started_at, run.ended_at),
        # A map step's receipt sums its items: with them, their rows would count twice.
        rows=sum(step.receipt.rows for step in run.steps.values() if map_of(step.step_id) is None),
        steps=[StepView(**step_fields(run, step)) for step in run.steps.values()],
    )


def _queue(run: Run, place: Place | None) -> QueueView | None:
    if not run.waits_for:
        return None
    number, of = place or (None, None)
    backfill = run.request.backfill
    return QueueView(waits_for=run.waits_for, place=number, of=of, backfill=backfill, until=run.expires_at)


def _money(run: Run) -> MoneyView | None:
    if run.estimate is None:
        return None
    cost = None if run.cost_usd is None else f"{run.cost_usd:f}"
    return MoneyView(estimated_usd=f"{run.estimate.usd:f}", estimated_from=run.estimate.source, cost_usd=cost)


def preview_state(run: Run) -> Preview | None:
    """Return a preview's end, ``open`` while it is undecided; None for a run that is not a preview."""
    if not run.request.preview:
        return None
    return run.preview_end or "open"


def accepted_view(run: Run) -> AcceptedView:
    """Return the response body of a request that started a run."""
    base = f"/pipelines/{{}}/{run.request.org_slug}/{run.run_id}"
    links = Links(status=base.format("status"), logs=base.format("logs"), cancel=base.format("cancel"))
    return AcceptedView(run_id=run.run_id, status=run.status, links=links)


def change_view(change: Change) -> ChangeView:
    """Return one transition of the run or of a step."""
    return ChangeView(
        at=change.at,
        step_id=change.step_id or None,
        attempt=change.attempt or None,
        before=change.before or None,
        after=change.after,
        reason=change.reason,
    )


def line_view(line: LogLine) -> LineView:
    """Return one log line."""
    return LineView(
        at=line.at,
        severity=line.severity,
        step_id=line.step_id or None,
        attempt=line.attempt or None,
        message=line.message,
    )


def _until(step: Step) -> datetime | None:
    """Return when the sweep acts on the step, if nothing happens before."""
    if step.status is StepStatus.QUEUED and step.due_at is None and step.since:
        return step.since + RESEND_AFTER
    return step.due_at


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else round((end - start).total_seconds(), 3)
