"""Who may call the internal functions: configured service accounts, or the local stack's own process.

Where neither is configured, every call is refused: a function that was deployed without its settings fails closed.
"""

import hmac
from collections.abc import Callable

from common.platform.errors import UnauthorizedError
from common.ports.secrets import TokenCheck


class Invokers:
    """Checks callers. ``local_token`` is the token with which a local stack calls its own functions."""

    def __init__(self, local_token: str | None, tokens: Callable[[], TokenCheck] | None) -> None:
        self._local_token, self._tokens = local_token, tokens

    def check(self, authorization: str | None, local: str | None) -> str:
        """Return the caller's name. ``authorization`` is the header, ``local`` the token of a local stack, if sent.

        Raises what ``TokenCheck.email`` raises.
        """
        if self._local_token:
            if local is not None and hmac.compare_digest(local.encode(), self._local_token.encode()):
                return "local"
            raise UnauthorizedError("Only the stack's own process may call this function.")
        if self._tokens is None:
            raise UnauthorizedError(
                "No caller is configured, so this function refuses every call. Set PIPELINE_OPS_AUDIENCE and "
                "PIPELINE_OPS_INVOKERS."
            )
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise UnauthorizedError("There is no OIDC token in the request.")
        return self._tokens().email(token)
