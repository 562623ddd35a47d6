"""Runs: start, read, cancel, rerun; skip a step."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any

from flask import Response, g
from pydantic import BeforeValidator, Field, JsonValue

from common.bootstrap import engine
from common.domain.model import Run, RunStatus
from common.platform.errors import NotFoundError
from common.ports.store import HistoryQuery
from common.runs.request import IDEMPOTENCY_KEY, RUN_ID, ControlBody, ReplayBody, RerunBody, RunBody, run_request
from functions.api.inputs import Cursor, Headers, Input, Limit, NoQuery, OrgPath, PipelinePath, RunPath
from functions.api.part import part
from functions.api.views import AcceptedView, HistoryView, RunView, accepted_view, run_view

routes = part("runs", __doc__)


def find_run(path: RunPath) -> Run:
    """Return the organisation's run. A run of another organisation raises the same NotFoundError as a missing one."""
    missing = NotFoundError(f"{path.org} has no run {path.run_id!r}.")
    if not RUN_ID.fullmatch(path.run_id):
        raise missing
    try:
        run = engine().store.load(path.run_id)
    except NotFoundError:
        raise missing from None
    if run.request.org_slug != path.org:
        raise missing
    return run


class StartHeaders(Headers):
    """Makes a request that starts a run safe to repeat."""

    key: str | None = Field(
        None,
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=f"^{IDEMPOTENCY_KEY.pattern}$",
        description="Repeating a key with the same body returns the same run; with another body it is a 409.",
    )


def accepted(run: Run) -> Response:
    """Return the response of a request that started a run."""
    g.target = run.run_id
    return accepted_view(run).response(202)


def audit_decision(body: ControlBody) -> None:
    """Add who decided, and why, to the audit row."""
    g.details = {"by": body.by, "reason": body.reason}


@routes.post("/pipelines/run/<org>/<provider>/<domain>/<pipeline>", responses={202: AcceptedView})
def start(path: PipelinePath, query: NoQuery, header: StartHeaders, body: RunBody) -> Response:
    """Start a run

    Reserves quota and stores the run in one transaction. It starts at once, or with `queue` as soon as a slot is free.
    """
    built = engine()
    fields = body.model_dump(mode="json", exclude_unset=True)
    run = run_request(
        path.org,
        path.route,
        fields,
        now=built.now(),
        trigger="api",
        idempotency_key=header.key,
        default_days=built.default_days,
    )
    return accepted(built.request_run(run))


@routes.get("/pipelines/status/<org>/<run_id>", responses={200: RunView})
def status(path: RunPath, query: NoQuery) -> Response:
    """Read a run and its steps; for a waiting run, its place in the queue"""
    run = find_run(path)
    return run_view(run, engine().store.place(run) if run.waits_for else None).response()


def _moment(text: Any) -> Any:
    """Parse a UTC day, or a time with its zone."""
    if not isinstance(text, str) or len(text) > 40:
        raise ValueError("must be a day or a time, e.g. 2026-11-20 or 2026-11-20T06:00:00Z")
    try:
        if len(text) == len("2026-11-20"):
            return date.fromisoformat(text)
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be a UTC day like 2026-11-20, or a time with its zone like 2026-11-20T06:00:00Z")


def _moment_field(alias: str, description: str) -> Any:
    formats: list[JsonValue] = [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]
    return Field(None, alias=alias, description=description, json_schema_extra={"anyOf": formats})


Moment = Annotated[datetime | date, BeforeValidator(_moment)]


class HistoryFilters(Input):
    """Selects runs, and a page of them."""

    limit: Limit = 50
    cursor: Cursor = None
    pipeline: str | None = Field(None, max_length=200, description="Only this route: provider/domain/pipeline.")
    status: RunStatus | None = Field(None, description="Only runs in this state.")
    since: Moment | None = _moment_field("from", "Only runs requested on this UTC day or later, or from this time on.")
    until: Moment | None = _moment_field("to", "Only runs requested on this UTC day or earlier, or up to this time.")


@routes.get("/pipelines/history/<org>", responses={200: HistoryView})
def history(path: OrgPath, query: HistoryFilters) -> Response:
    """List the organisation's runs, newest first

    Pages do not shift when new runs arrive: pass `next_cursor` with the same filters.
    """
    built = engine()
    built.plans.limits(path.org)
    filters = HistoryQuery(
        path.org,
        query.limit,
        cursor=query.cursor,
        route=query.pipeline,
        status=query.status,
        since=None if query.since is None else _start(query.since),
        before=None if query.until is None else _end(query.until),
    )
    page = built.store.history(filters)
    return HistoryView(runs=[run_view(run) for run in page.runs], next_cursor=page.next_cursor).response()


def _start(moment: datetime | date) -> datetime:
    return moment if isinstance(moment, datetime) else datetime.combine(moment, time(), UTC)


def _end(moment: datetime | date) -> datetime:
    """Return the exclusive end: the first time after a day, or after a microsecond, the stores' resolution."""
    try:
        if isinstance(moment, datetime):
            return moment + timedelta(microseconds=1)
        return datetime.combine(moment, time(), UTC) + timedelta(days=1)
    except OverflowError:  # 9999-12-31 is a valid filter
        return datetime.max.replace(tzinfo=UTC)


@routes.post("/pipelines/cancel/<org>/<run_id>", responses={200: RunView, 202: RunView})
def cancel(path: RunPath, query: NoQuery, body: ControlBody) -> Response:
    """Cancel a run

    A run whose steps are at work is `cancelling` (202) until they have stopped, within seconds; then it is `cancelled`
    and its slot is free. Rows that a step had committed before stay, and the run says so.
    """
    audit_decision(body)
    run = engine().cancel(find_run(path), who=body.by, why=body.reason)
    return run_view(run).response(200 if run.status.is_terminal else 202)


@routes.post("/pipelines/rerun/<org>/<run_id>", responses={202: AcceptedView})
def rerun(path: RunPath, query: NoQuery, header: StartHeaders, body: RerunBody) -> Response:
    """Run an ended run again, as a new run

    Runs the steps that did not succeed and their dependents; with `step` only that step; with `preview` all steps,
    beside the tables.
    """
    return _again(path, header, body, only=body.step, preview=body.preview)


@routes.post("/pipelines/replay/<org>/<run_id>", responses={202: AcceptedView})
def replay(path: RunPath, query: NoQuery, header: StartHeaders, body: ReplayBody) -> Response:
    """Preview an ended run: run all of it again, beside the tables

    The same as a rerun with `preview`. Its changes can then be shown, promoted or discarded.
    """
    return _again(path, header, body, only=None, preview=True)


def _again(path: RunPath, header: StartHeaders, body: ReplayBody, *, only: str | None, preview: bool) -> Response:
    audit_decision(body)
    run = engine().rerun(
        find_run(path),
        only=only,
        who=body.by,
        why=body.reason,
        preview=preview,
        queue=body.queue,
        backfill=body.backfill,
        idempotency_key=header.key,
    )
    return accepted(run)


class StepPath(RunPath):
    """One step of a run."""

    step_id: str


@routes.post("/pipelines/skip/<org>/<run_id>/<step_id>", responses={200: RunView, 202: RunView})
def skip(path: StepPath, query: NoQuery, body: ControlBody) -> Response:
    """Skip a step that is queued, running, retrying or suspended

    One that is at work is `stopping` (202) until its attempt has ended; if its commit came first, it has succeeded.
    """
    audit_decision(body)
    run = engine().skip(find_run(path), path.step_id, who=body.by, why=body.reason)
    return run_view(run).response(200 if run.steps[path.step_id].status.is_terminal else 202)
