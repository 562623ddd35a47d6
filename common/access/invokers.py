"""Who may call the internal functions: Google's services under configured accounts, or this very process.

Where neither is configured, nobody may: a function that was deployed without its settings does nothing.
"""

import hmac
from collections.abc import Callable

from common.platform.errors import UnauthorizedError
from common.ports.secrets import TokenCheck


class Invokers:
    """Checks callers. ``local_token`` is what a local stack calls its own functions with."""

    def __init__(self, local_token: str | None, tokens: Callable[[], TokenCheck] | None) -> None:
        self._local_token, self._tokens = local_token, tokens

    def check(self, authorization: str | None, local: str | None) -> str:
        """Return who calls. ``authorization`` is the header, ``local`` the token of a local stack, if any came.

        Raises what ``TokenCheck.email`` raises.
        """
        if self._local_token:
            if local is not None and hmac.compare_digest(local.encode(), self._local_token.encode()):
                return "local"
            raise UnauthorizedError("Only the stack's own process may call this function.")
        if self._tokens is None:
            raise UnauthorizedError(
                "This function does not know who may call it, and refuses everybody. Set PIPELINE_OPS_AUDIENCE and "
                "PIPELINE_OPS_INVOKERS."
            )
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise UnauthorizedError("There is no OIDC token in the request.")
        return self._tokens().email(token)
