"""What functions-framework lacks: it reads every form of a push, and what it refuses it refuses in our words.

Its own words repeat all of a request that is no event, keys and all; and it often crashes over what it can't parse.
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
    """Have the app that is being made take pushes of every form. ``main.py`` is run once for each app, in its context;
    as a program it makes none."""
    if has_app_context() and current_app.name != API:
        app: Any = current_app._get_current_object()  # type: ignore[attr-defined]
        app.wsgi_app = PushedEvents(app.wsgi_app)


def answer_refusals() -> None:
    """Have the app that is being made answer what it refuses in our words. ``main.py`` is run once for each app."""
    functions_framework.errorhandler(Exception)(_answer)


def _answer(error: Exception) -> Response:
    from functions.api.errors import answer_error

    if not isinstance(error, HTTPException):
        if has_entered():
            raise error
        logger.warning("A request was no event: %s", type(error).__name__)
        error = _no_event()
    elif isinstance(error, BadRequest | UnsupportedMediaType):
        error = _no_event()
    return answer_error(error)


def _no_event() -> BadRequest:
    return BadRequest(None if current_app.name == API else NO_EVENT)
