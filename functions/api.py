"""HTTP: start a run, follow it, change its course, read its logs.

One function with Flask's routing inside. Errors are RFC 9457 problem documents (``application/problem+json``) that
say what to do. A run of another organisation is answered exactly like one that does not exist.
"""

import json
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from typing import Any

import functions_framework
from flask import Blueprint, Flask, Request, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from common.bootstrap import engine
from common.domain.model import Run, RunStatus
from common.errors import ConfigError, NotFoundError, QuotaExceededError, RequestError, TransientError, nearest
from common.logs import logger
from common.previews import Previews
from common.request import ORG_SLUG, RUN_ID, InvalidFieldsError, control_body, run_request
from functions.views import change_view, line_view, preview_view, run_view, step_view

MAX_BODY_BYTES = 64 * 1024
MAX_PAGE = 200
MAX_LINES = 10_000

routes = Blueprint("pipelines", __name__)


@routes.post("/pipelines/run/<org>/<provider>/<domain>/<pipeline>")
def start(org: str, provider: str, domain: str, pipeline: str) -> tuple[Response, int]:
    """Hold quota and start a run of ``provider/domain/pipeline``."""
    _query()
    built = engine()
    asked = run_request(org, f"{provider}/{domain}/{pipeline}", _body(), now=built.now(), trigger="api")
    return _accepted(built.request_run(asked))


@routes.post("/pipelines/cancel/<org>/<run_id>")
def cancel(org: str, run_id: str) -> Response:
    """End a run now. What is at work in it is not committed any more."""
    _query()
    body = control_body(_body())
    return jsonify(run_view(engine().cancel(_run(org, run_id), who=body.by, why=body.reason)))


@routes.post("/pipelines/rerun/<org>/<run_id>")
def rerun(org: str, run_id: str) -> tuple[Response, int]:
    """Start a new run of an ended one: what did not succeed and what depends on it, one step alone, or a preview."""
    _query()
    body = control_body(_body(), of_rerun=True)
    run = engine().rerun(
        _run(org, run_id),
        only=body.step,
        who=body.by,
        why=body.reason,
        preview=body.preview,
        queue=body.queue,
        backfill=body.backfill,
    )
    return _accepted(run)


@routes.get("/pipelines/preview/<org>/<run_id>")
def preview(org: str, run_id: str) -> Response:
    """Return what promoting a preview would change, table by table."""
    _query()
    run = _run(org, run_id)
    return jsonify(preview_view(run, Previews(engine()).diffs(run)))


@routes.post("/pipelines/promote/<org>/<run_id>")
def promote(org: str, run_id: str) -> Response:
    """Make a preview's rows those of its tables, all of them in one transaction."""
    _query()
    body = control_body(_body())
    return jsonify(run_view(Previews(engine()).promote(_run(org, run_id), who=body.by, why=body.reason)))


@routes.post("/pipelines/discard/<org>/<run_id>")
def discard(org: str, run_id: str) -> Response:
    """Drop a preview's rows."""
    _query()
    body = control_body(_body())
    return jsonify(run_view(Previews(engine()).discard(_run(org, run_id), who=body.by, why=body.reason)))


@routes.post("/pipelines/skip/<org>/<run_id>/<step_id>")
def skip(org: str, run_id: str, step_id: str) -> Response:
    """Let a run go on without a step whose turn has come."""
    _query()
    body = control_body(_body())
    return jsonify(run_view(engine().skip(_run(org, run_id), step_id, who=body.by, why=body.reason)))


@routes.get("/pipelines/status/<org>/<run_id>")
def status(org: str, run_id: str) -> Response:
    """Return a run and its steps as they are now; of one that waits, its place in the queue."""
    _query()
    run = _run(org, run_id)
    return jsonify(run_view(run, engine().store.place(run) if run.waits_for else None))


@routes.get("/pipelines/history/<org>")
def history(org: str) -> Response:
    """Return the organisation's runs, newest first, a page at a time."""
    query = _query("limit", "cursor", "pipeline", "status")
    state = query.get("status")
    if state is not None and state not in list(RunStatus):
        raise InvalidFieldsError({"status": f"no such status.{nearest(state, list(RunStatus))}"})
    built = engine()
    if not ORG_SLUG.match(org):
        raise NotFoundError(f"There is no organisation {org!r}.")
    built.plans.limits(org)
    page = built.store.history(
        org,
        limit=_number(query.get("limit", "50"), "limit", MAX_PAGE),
        cursor=query.get("cursor"),
        route=query.get("pipeline"),
        status=state,
    )
    return jsonify({"runs": [run_view(run) for run in page.runs], "next_cursor": page.next_cursor})


@routes.get("/pipelines/logs/<org>/<run_id>")
def logs(org: str, run_id: str) -> Response:
    """Return the run's log lines, oldest first; ``step`` and ``severity`` narrow them."""
    query = _query("step", "severity", "limit")
    run = _run(org, run_id)
    limit = _number(query.get("limit", "1000"), "limit", MAX_LINES)
    lines = engine().log_lines(run.run_id, step_id=query.get("step"), severity=query.get("severity"))
    shown = [line_view(line) for line in islice(lines, limit + 1)]
    return jsonify({"run_id": run_id, "lines": shown[:limit], "truncated": len(shown) > limit})


@routes.get("/pipelines/logs/<org>/<run_id>/steps")
def log_steps(org: str, run_id: str) -> Response:
    """Return each step with its own log lines."""
    _query()
    run, read = _run(org, run_id), engine().log_lines
    steps = []
    for step in run.steps.values():
        lines = islice(read(run_id, step_id=step.spec.step_id), MAX_LINES)
        steps.append({**step_view(run, step), "lines": [line_view(line) for line in lines]})
    return jsonify({"run_id": run_id, "steps": steps})


@routes.get("/pipelines/logs/<org>/<run_id>/transitions")
def log_transitions(org: str, run_id: str) -> Response:
    """Return every state change of the run and its steps, in order."""
    _query()
    run = _run(org, run_id)
    return jsonify({"run_id": run_id, "transitions": [change_view(c) for c in engine().store.changes(run.run_id)]})


@routes.get("/pipelines/logs/<org>/<run_id>/download")
def log_download(org: str, run_id: str) -> Response:
    """Stream the whole log as NDJSON, one line an object."""
    _query()
    run = _run(org, run_id)
    lines = engine().log_lines(run.run_id)

    def stream() -> Iterator[str]:
        for line in lines:
            yield json.dumps(line_view(line), ensure_ascii=False) + "\n"

    headers = {"Content-Disposition": f'attachment; filename="{run.run_id}.ndjson"'}
    return Response(stream(), mimetype="application/x-ndjson", headers=headers)


@routes.get("/health")
def health() -> Response:
    """Say that the function answers and its store can be read."""
    engine().store.active()
    return jsonify({"status": "ok"})


def _run(org: str, run_id: str) -> Run:
    """Return the organisation's run; anything else is the same 404."""
    missing = NotFoundError(f"{org} has no run {run_id!r}.")
    if not ORG_SLUG.match(org) or not RUN_ID.match(run_id):
        raise missing
    try:
        run = engine().store.load(run_id)
    except NotFoundError:
        raise missing from None
    if run.request.org_slug != org:
        raise missing
    return run


def _accepted(run: Run) -> tuple[Response, int]:
    base = f"/pipelines/{{}}/{run.request.org_slug}/{run.run_id}"
    links = {name: base.format(name) for name in ("status", "logs", "cancel")}
    return jsonify({"run_id": run.run_id, "status": run.status, "links": links}), 202


def _body() -> Any:
    """Return the request's JSON; an empty body asks for the defaults."""
    raw = request.get_data()
    if not raw:
        return {}
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidFieldsError({"body": f"is not JSON: {str(error)[:120]}"}) from error


def _query(*known: str) -> dict[str, str]:
    """Return the query parameters; an unknown one is refused, so that a misspelt filter is never ignored."""
    unknown = [name for name in request.args if name not in known]
    if unknown:
        allowed = f" Known: {', '.join(known)}." if known else ""
        raise InvalidFieldsError({n: f"unknown query parameter.{nearest(n, known)}{allowed}" for n in unknown})
    return request.args.to_dict()


def _number(text: str, name: str, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:10]) <= most:
        raise InvalidFieldsError({name: f"must be a whole number from 1 to {most} (got {text[:20]!r})"})
    return int(text)


def _problem(status: int, title: str, detail: str, **extra: Any) -> Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **extra}
    return Response(json.dumps(body), status, mimetype="application/problem+json")


def _answer_error(error: Exception) -> Response:
    """Turn any exception into a problem document; only errors written for people show their text."""
    match error:
        case InvalidFieldsError():
            fields = [{"field": name, "problem": text} for name, text in error.problems.items()]
            return _problem(422, error.title, str(error), errors=fields)
        case QuotaExceededError():
            more = {"limit": error.limit, "value": error.value, "used": error.used}
            answer = _problem(429, error.title, str(error), **more)
            answer.headers["Retry-After"] = str(error.retry_after_s)
            return answer
        case RequestError():
            return _problem(error.status, error.title, str(error))
        case HTTPException():
            return _problem(error.code or 500, error.name, error.description or "")
        case TransientError():
            answer = _problem(503, "Try again", str(error))
            answer.headers["Retry-After"] = "5"
            return answer
        case ConfigError():
            logger.error("%s", error)
            return _problem(500, "The service is misconfigured", "Run `main.py validate`: it names file and line.")
    logger.exception("The API failed")
    return _problem(500, "Internal error", "The service's log has the details; please report it.")


def _app() -> Flask:
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_blueprint(routes)
    app.register_blueprint(routes, url_prefix="/api/v1", name="pipelines_v1")
    app.register_error_handler(Exception, _answer_error)
    return app


app = _app()


@functions_framework.http
def api(incoming: Request) -> Response:
    """Serve one request."""
    try:
        body = incoming.get_data()
    except HTTPException as error:
        return _answer_error(error)
    # functions-framework reads the request again after the function, so the inner app gets a stream of its own.
    environ = {**incoming.environ, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    with app.request_context(environ):
        return app.full_dispatch_request()
