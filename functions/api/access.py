"""Who may do what: one table of all operations. What is not in it is refused to everybody."""

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
    """What an operation needs: the scope (None: no key at all), and as what it stands in the audit rows.

    Without ``action`` it is not audited here: it changes nothing, or what it calls keeps the row.
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
"""By the name of the operation: blueprint and function."""


def operation(endpoint: str) -> str:
    """Return the name of an endpoint's operation; those below ``/api/v1`` are the same ones."""
    return endpoint.removeprefix("v1.")


def guard() -> None:
    """Let a request in, or raise why not. Called before every request.

    A path of another organisation is answered like one of an organisation that does not exist, whatever it names.
    """
    if request.endpoint is None:
        return  # no such path, or not this method: told to everybody
    access = OPERATIONS.get(operation(request.endpoint))
    if access is None:
        raise ForbiddenScopeError("No scope contains this operation: it is in no table of what may be done.")
    if access.scope is not None:
        g.caller = engine().keys.caller(request.headers.get("Authorization"))
        _enter(g.caller, (request.view_args or {}).get("org"))
        g.caller.needs(access.scope)
    twice = [name for name, values in request.args.lists() if len(values) > 1]
    if twice:
        raise BadRequest(f"The query parameter {twice[0][:40]!r} is there twice.")


def _enter(caller: Caller, org: str | None) -> None:
    """Raise NotFoundError unless the caller may know of the organisation."""
    if org is None:
        return
    if not ORG_SLUG.fullmatch(org) or not caller.opens(org):
        raise NotFoundError(f"There is no organisation {org!r}.")
    g.org = org
    if caller.org_slug is None:
        engine().plans.limits(org)  # an operator's key opens all there are, and no others


def caller() -> Caller:
    """Return whose key the request has."""
    found: Caller = g.caller
    return found


def keep_to_the_caller(response: Response) -> Response:
    """Have nobody on the way keep the answer, and nobody guess what it is. Called after every request."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def note(response: Response) -> Response:
    """Keep an audit row of what a caller has changed, or was refused for its scope. Called after every request."""
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
    except Exception:  # what was done is done: the answer has to say so
        logger.exception("The audit row of %s could not be kept", access.action)
    return response
