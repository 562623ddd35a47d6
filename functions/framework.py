"""Problem documents for requests that functions-framework refuses before it calls a function.

Its own error for a request that is not an event repeats the whole request, including keys; and it often crashes on
requests that it can't parse.
"""

import functions_framework
from flask import Response
from werkzeug.exceptions import BadRequest, HTTPException

from common.platform.logs import logger
from functions.entry import has_entered


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
        error = BadRequest()
    elif isinstance(error, BadRequest):
        error = BadRequest()  # without the framework's description, which quotes the request
    return error_response(error)
