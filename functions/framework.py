"""What functions-framework lacks: every form of a push is read, and refusals are problem documents.

Its own error for a request that is not an event repeats the whole request, including keys; and it often crashes on
requests that it can't parse.
"""

from typing import Any

import functions_framework
from flask import Response, current_app, has_app_context
from werkzeug.exceptions import BadRequest, HTTPException, UnsupportedMediaType

from common.platform.logs import logger
from functions.entry import has_entered
from functions.pushes import PushedEvents

API = "api"
NO_EVENT = (
    "The request is neither a CloudEvent nor a Pub/Sub push that can be read. If it is a push whose payload is "
    "unwrapped, switch write_metadata on for its subscription, or no_wrapper off."
)


def take_pushes() -> None:
    """Have the app that is being created read pushes of every form.

    ``main.py`` is imported once per app, in its context; run as a program, it creates none.
    """
    if has_app_context() and current_app.name != API:
        app: Any = current_app._get_current_object()  # type: ignore[attr-defined]
        app.wsgi_app = PushedEvents(app.wsgi_app)


def use_problem_documents() -> None:
    """Register the error handler with the app that is being created. ``main.py`` is imported once per app."""
    functions_framework.errorhandler(Exception)(_respond)


def _respond(error: Exception) -> Response:
    # Late: event functions never need the API's modules, and a cold start should not load them.
    from functions.api.errors import error_response

    if not isinstance(error, HTTPException):
        if has_entered():
            raise error  # the function's own failure: a 500, so that Pub/Sub redelivers
        logger.warning("A request was not an event: %s", type(error).__name__)
        error = _no_event()
    elif isinstance(error, BadRequest | UnsupportedMediaType):
        error = _no_event()  # without the framework's description, which quotes the request
    return error_response(error)


def _no_event() -> BadRequest:
    return BadRequest(None if current_app.name == API else NO_EVENT)
