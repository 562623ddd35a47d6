"""What every event function does before anything else: see whether the caller may call it."""

from collections.abc import Callable
from functools import wraps

from cloudevents.http import CloudEvent
from flask import abort, request

from common.bootstrap import engine
from common.platform.errors import ForbiddenScopeError, TransientError, UnauthorizedError
from common.platform.logs import logger
from functions.entry import entered

TOKEN_HEADER = "X-Pipeline-Ops-Token"
TOKEN_QUERY = "token"

EventFunction = Callable[[CloudEvent], None]


def locked(function: EventFunction) -> EventFunction:
    """Let only those call the function whom the engine's ``invokers`` know; answer 401, 403 or 503 to others.

    Pub/Sub delivers what was refused again, and keeps it among the dead letters at last: nothing is lost by a mistake
    in the settings.
    """

    @wraps(function)
    def checked(event: CloudEvent) -> None:
        entered()
        local = request.headers.get(TOKEN_HEADER) or request.args.get(TOKEN_QUERY)
        try:
            engine().invokers.check(request.headers.get("Authorization"), local)
        except (UnauthorizedError, ForbiddenScopeError) as error:
            logger.warning("A call of %s was refused: %s", function.__name__, error)
            abort(error.status, str(error))
        except TransientError as error:
            logger.error("A call of %s could not be checked: %s", function.__name__, error)
            abort(503, "Try again.")
        function(event)

    return checked
