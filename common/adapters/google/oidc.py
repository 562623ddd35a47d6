"""Verifies OIDC tokens of Pub/Sub, Eventarc and Cloud Scheduler: signed by Google, for an audience, for an account.

https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions lists what to check. Cloud Run's IAM check, if it
is on, verifies the signature first and replaces it with a marker
(https://cloud.google.com/run/docs/troubleshooting#signature-removed). Anyone could send that marker to a function
without the IAM check, so it counts only if the operator has declared that the check is on.
"""

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.request import urlopen

from common.platform.errors import ForbiddenScopeError, TransientError, UnauthorizedError
from common.platform.logs import logger

CERTS_URL = "https://www.googleapis.com/oauth2/v1/certs"
ISSUERS = frozenset({"accounts.google.com", "https://accounts.google.com"})
SIGNATURE_TAKEN_OFF = "SIGNATURE_REMOVED_BY_GOOGLE"
MAX_TOKEN_CHARS = 16_000
# Clocks of this machine and of Google's differ by a little; a token just issued must not be "not valid yet".
SKEW_S = 30
FETCH_TIMEOUT_S = 5.0
MAX_CERTS_BYTES = 1_000_000
DEFAULT_AGE_S, MIN_AGE_S, MAX_AGE_S = 3_600.0, 60.0, 86_400.0
"""How long Google's certificates are cached: without a max-age, and the bounds of a max-age."""

Fetch = Callable[[], tuple[Mapping[str, str], float]]
"""Returns certificates (PEM by key id), and for how many seconds to cache them. Raises OSError or ValueError."""


def fetch_certs() -> tuple[Mapping[str, str], float]:
    """Fetch Google's certificates."""
    with urlopen(CERTS_URL, timeout=FETCH_TIMEOUT_S) as answer:
        certificates: dict[str, str] = json.loads(answer.read(MAX_CERTS_BYTES))
        match = re.search(r"max-age=(\d{1,9})", answer.headers.get("cache-control", ""))
    return certificates, float(match[1]) if match else DEFAULT_AGE_S


class Certificates:
    """Cache of Google's certificates. An unknown key id causes a fetch, at most once a minute: anyone can send one."""

    def __init__(self, fetch: Fetch = fetch_certs, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch, self._clock, self._lock = fetch, clock, threading.Lock()
        self._kept: Mapping[str, str] = {}
        self._until = self._asked_at = float("-inf")

    def with_key(self, key_id: str) -> Mapping[str, str]:
        """Return the certificates. Raises TransientError if there are none and none can be fetched."""
        with self._lock:
            now = self._clock()
            if now >= self._until or (key_id not in self._kept and now - self._asked_at >= MIN_AGE_S):
                self._refresh(now)
            return self._kept

    def _refresh(self, now: float) -> None:
        self._asked_at = now
        try:
            certificates, age = self._fetch()
        except (OSError, ValueError) as error:
            if not self._kept or now - self._until > MAX_AGE_S:
                raise TransientError(f"Google's certificates could not be read ({type(error).__name__}).") from None
            # For up to a day, the old certificates serve on: an outage of Google's must not stop every function.
            logger.warning("Google's certificates could not be read, the old ones go on: %s", type(error).__name__)
            return
        self._kept, self._until = certificates, now + min(max(age, MIN_AGE_S), MAX_AGE_S)


class GoogleTokens:
    """Accepts Google's tokens for these audiences (a function's own URL, mostly) by these service accounts.

    ``iam_checked``: Cloud Run's IAM check is on, so a token without its signature is one that Google has verified.
    """

    def __init__(
        self,
        audiences: Collection[str],
        accounts: Collection[str],
        certificates: Certificates,
        *,
        iam_checked: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._audiences, self._accounts = frozenset(audiences), frozenset(accounts)
        self._certificates, self._iam_checked, self._now = certificates, iam_checked, now

    def email(self, token: str) -> str:
        """Return the token's account; see ``TokenCheck``. No error message repeats any part of a token."""
        try:
            claims = self._claims(token)
            issuer, audience, email = (claims.get(name) for name in ("iss", "aud", "email"))
            verified = claims.get("email_verified") is True
        except (TransientError, UnauthorizedError):
            raise
        except Exception as error:  # a library may raise anything on a stranger's input
            raise UnauthorizedError(f"The OIDC token is not valid ({type(error).__name__}).") from None
        if not isinstance(issuer, str) or issuer not in ISSUERS:
            raise UnauthorizedError("The OIDC token is not one of Google's.")
        if not isinstance(audience, str) or audience not in self._audiences:
            raise UnauthorizedError("The OIDC token is for another audience. Check PIPELINE_OPS_AUDIENCE.")
        if not verified or not isinstance(email, str) or email not in self._accounts:
            raise ForbiddenScopeError("The OIDC token's account may not call this function. See PIPELINE_OPS_INVOKERS.")
        return email

    def _claims(self, token: str) -> Mapping[str, Any]:
        if len(token) > MAX_TOKEN_CHARS:
            raise UnauthorizedError("The OIDC token is too long to be one.")
        if token.endswith(f".{SIGNATURE_TAKEN_OFF}"):
            return self._verified_by_cloud_run(token)
        from google.auth import jwt

        decode: Any = jwt.decode  # untyped
        header: Any = jwt.decode_header(token)  # type: ignore[no-untyped-call, unused-ignore]
        key_id = header.get("kid")
        if header.get("alg") != "RS256" or not isinstance(key_id, str):
            raise UnauthorizedError("The OIDC token is not signed as Google signs.")
        certs = self._certificates.with_key(key_id)
        if key_id not in certs:
            raise UnauthorizedError("The OIDC token is not signed with a key of Google's.")
        claims: Mapping[str, Any] = decode(token, certs=certs, clock_skew_in_seconds=SKEW_S)
        return claims

    def _verified_by_cloud_run(self, token: str) -> Mapping[str, Any]:
        if not self._iam_checked:
            raise UnauthorizedError(
                "The OIDC token has no signature: Cloud Run's IAM check takes it off. If that check is on, set "
                "PIPELINE_OPS_IAM_CHECKED=on."
            )
        _, payload, _ = token.split(".")
        claims: Mapping[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if not claims["iat"] - SKEW_S <= self._now() <= claims["exp"] + SKEW_S:
            raise UnauthorizedError("The OIDC token has expired, or is not valid yet.")
        return claims
