"""What functions-framework refuses by itself, before a function is called: answered with problem documents.

Its own words repeat all of a request that is no event, keys and all; and it often crashes over what it can't parse.
"""

import functions_framework
from flask import Response
from werkzeug.exceptions import BadRequest, HTTPException

from common.platform.logs import logger
from functions.entry import has_entered


def answer_refusals() -> None:
    """Have the app that is being made answer what it refuses in our words. ``main.py`` is run once for each app."""
    functions_framework.errorhandler(Exception)(_answer)


def _answer(error: Exception) -> Response:
    from functions.api.errors import answer_error

    if not isinstance(error, HTTPException):
        if has_entered():
            raise error
        logger.warning("A request was no event: %s", type(error).__name__)
        error = BadRequest()
    elif isinstance(error, BadRequest):
        error = BadRequest()
    return answer_error(error)
