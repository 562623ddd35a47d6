"""Authorization of event functions: only known service accounts may call them."""

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


def authorized(function: EventFunction) -> EventFunction:
    """Call the function only for the engine's ``invokers``; respond 401, 403 or 503 to everybody else.

    Pub/Sub redelivers refused messages and finally keeps them as dead letters, so a wrong setting loses none.
    """

    @wraps(function)
    def checked(event: CloudEvent) -> None:
        entered()
        # The Pub/Sub emulator signs no tokens and sends no headers of ours: its push endpoints have it in the query.
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
