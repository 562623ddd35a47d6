"""Authorization of the API: one table of all operations. An operation that is not in it is refused to everybody."""

from collections.abc import Mapping
from dataclasses import dataclass

from flask import Response, g, request
from werkzeug.exceptions import BadRequest

from common.access.api_keys import Caller, Scope
from common.bootstrap import engine
from common.platform.errors import ForbiddenScopeError, NotFoundError
from common.platform.logs import logger
from common.runs.request import ORG_SLUG

READ, RUN, ADMIN = Scope.READ, Scope.RUN, Scope.ADMIN


@dataclass(frozen=True, slots=True)
class Access:
    """The scope that an operation needs (None: no key at all), and its name in audit rows.

    Without ``action`` it is not audited here: it changes nothing, or the code that it calls writes the row.
    """

    scope: Scope | None
    action: str = ""


OPERATIONS: Mapping[str, Access] = {
    "runs.start": Access(RUN, "run.start"),
    "runs.status": Access(READ),
    "runs.history": Access(READ),
    "runs.cancel": Access(RUN, "run.cancel"),
    "runs.rerun": Access(RUN, "run.rerun"),
    "runs.replay": Access(RUN, "run.replay"),
    "runs.skip": Access(RUN, "run.skip"),
    "previews.preview": Access(READ),
    "previews.promote": Access(RUN, "preview.promote"),
    "previews.discard": Access(RUN, "preview.discard"),
    "logs.lines": Access(READ),
    "logs.steps": Access(READ),
    "logs.transitions": Access(READ),
    "logs.download": Access(READ),
    "pipelines.configs": Access(READ),
    "pipelines.config": Access(READ),
    "schedules.listed": Access(READ),
    "schedules.pause": Access(ADMIN, "schedule.pause"),
    "schedules.resume": Access(ADMIN, "schedule.resume"),
    "schedules.replace": Access(ADMIN, "schedule.replace"),
    "usage.usage": Access(READ),
    "credentials.listed": Access(ADMIN),
    "credentials.add": Access(ADMIN, "credential.add"),
    "credentials.remove": Access(ADMIN, "credential.remove"),
    "keys.listed": Access(ADMIN),
    "keys.create": Access(ADMIN),
    "keys.rotate": Access(ADMIN),
    "keys.revoke": Access(ADMIN),
    "notifications.shown": Access(ADMIN),
    "notifications.replace": Access(ADMIN),
    "notifications.reset": Access(ADMIN),
    "notifications.test": Access(ADMIN, "notifications.test"),
    "audit.rows": Access(ADMIN),
    "service.health": Access(None),
    "service.ready": Access(None),
    "service.document": Access(None),
    "service.docs": Access(None),
    "service.docs_file": Access(None),
    "service.problem": Access(None),
}
"""By operation id: blueprint and function."""


def operation(endpoint: str) -> str:
    """Return an endpoint's operation id; routes below ``/api/v1`` are the same operations."""
    return endpoint.removeprefix("v1.")


def guard() -> None:
    """Authenticate and authorize a request, or raise. Called before every request.

    A path of another organisation gets the same response as one of an organisation that does not exist, so that keys
    can't find out which organisations and runs there are.
    """
    if request.endpoint is None:
        return  # 404 and 405 need no key: the paths are public in openapi.json
    access = OPERATIONS.get(operation(request.endpoint))
    if access is None:
        raise ForbiddenScopeError("No scope contains this operation: it is missing in the table of operations.")
    if access.scope is not None:
        g.caller = engine().keys.caller(request.headers.get("Authorization"))
        _enter(g.caller, (request.view_args or {}).get("org"))
        g.caller.needs(access.scope)
    # One of two values would be ignored silently.
    repeated = [name for name, values in request.args.lists() if len(values) > 1]
    if repeated:
        raise BadRequest(f"The query parameter {repeated[0][:40]!r} is given twice.")


def _enter(caller: Caller, org: str | None) -> None:
    """Raise NotFoundError unless the caller may know that the organisation exists."""
    if org is None:
        return
    if not ORG_SLUG.fullmatch(org) or not caller.opens(org):
        raise NotFoundError(f"There is no organisation {org!r}.")
    g.org = org
    if caller.org_slug is None:
        engine().plans.limits(org)  # an operator's key opens every organisation that has a plan, and no other


def caller() -> Caller:
    """Return the owner of the request's key."""
    authenticated: Caller = g.caller
    return authenticated


def set_security_headers(response: Response) -> Response:
    """Keep proxies from caching the response and browsers from guessing its type. Called after every request."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def record_audit(response: Response) -> Response:
    """Write the audit row of a change, or of one that the key's scope refused. Called after every request."""
    access = OPERATIONS.get(operation(request.endpoint or ""))
    org = g.get("org")
    if access is None or not access.action or org is None or response.status_code not in (*range(200, 400), 403):
        return response
    values = {name: str(value) for name, value in (request.view_args or {}).items() if name != "org"}
    target = g.get("target") or "/".join(values.values())
    details = {**values, **g.get("details", {})}
    outcome = "ok" if response.status_code < 400 else "refused"
    try:
        engine().audit.record(
            org, who=caller().who, action=access.action, target=target, outcome=outcome, details=details
        )
    except Exception:  # the change is committed: an error response would make the caller repeat it
        logger.exception("The audit row of %s could not be written", access.action)
    return response
