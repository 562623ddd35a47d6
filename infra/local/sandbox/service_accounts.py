"""Google's token endpoint: a signed assertion for an access token (RFC 7523), for the service accounts of the sandbox.

Parameters, refusals and claims are those of developers.google.com/identity/protocols/oauth2/service-account. Signature,
issuer, key, audience, times and scopes of an assertion are checked.
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from infra.local.sandbox.exchange import Answer, Request

AUDIENCE = "https://oauth2.googleapis.com/token"
"""The audience that google-auth signs for, whichever address it asks."""
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFETIME_S = 3_600
SCOPE = "https://www.googleapis.com/auth/"
_SIGNING_KEY = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """One account, and the scopes that it may request (without their common prefix)."""

    email: str
    project_id: str
    key_id: str
    scopes: frozenset[str]

    def key_file(self) -> str:
        """Return its key file. Its token_uri leads nowhere: an uploaded key must not choose where we send requests."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        pem = _private_key(self.email).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return json.dumps(
            {
                "type": "service_account",
                "project_id": self.project_id,
                "private_key_id": self.key_id,
                "private_key": pem,
                "client_email": self.email,
                "client_id": "1",
                "token_uri": "http://127.0.0.1:1/not-here",
            }
        )


MONITORING = ServiceAccount(
    "cost-reader@acme-gemini-sandbox.iam.gserviceaccount.com",
    "acme-gemini-sandbox",
    "sandbox-key-1",
    frozenset({"monitoring.read", "bigquery.readonly"}),
)
BILLS = ServiceAccount(
    "bills@sandbox-project.iam.gserviceaccount.com",
    "sandbox-project",
    "sandbox-key-2",
    frozenset({"bigquery.readonly", "bigquery", "cloud-billing.readonly", "cloud-platform.read-only"}),
)
ACCOUNTS = {account.email: account for account in (MONITORING, BILLS)}


@cache
def _private_key(_email: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def is_token(authorization: str, scopes: Collection[str]) -> bool:
    """Whether a header has a token that was issued for one of these scopes."""
    kind, _, token = authorization.partition(" ")
    claims, _, signature = token.removeprefix("ya29.").partition(".")
    if kind != "Bearer" or not hmac.compare_digest(signature, _signature(claims)):
        return False
    return not set(scopes).isdisjoint(_decoded(claims).decode().split())


def _issued(scopes: Collection[str]) -> str:
    claims = base64.urlsafe_b64encode(" ".join(sorted(scopes)).encode()).decode()
    return f"ya29.{claims}.{_signature(claims)}"


def _signature(claims: str) -> str:
    return hmac.new(_SIGNING_KEY, claims.encode(), hashlib.sha256).hexdigest()


STANDARD_PARAMETERS = frozenset({"alt", "prettyPrint", "$.xgafv", "quotaUser"})
"""Of every Google API (discovery documents): the generated clients send ``alt=json`` with each request."""


class BillsSandbox:
    """An API that takes the key of ``BILLS`` and whose data no seed changes."""

    settled = True

    def __init__(self, _seed: int) -> None:
        pass

    @property
    def secret(self) -> str:
        return BILLS.key_file()


class TokenSandbox(BillsSandbox):
    """The token endpoint."""

    key = "gcp_token"
    base = "/gcp-token"
    prefixes: tuple[str, ...] = ("/gcp-token",)

    def refuse(self, request: Request) -> Answer | None:
        if request.method != "POST" or request.form.get("grant_type") != GRANT:
            return _refusal("unsupported_grant_type", f"Invalid grant_type: {request.form.get('grant_type')}")
        own = f"http://{request.headers.get('host')}{request.path}"
        error, description = _wrong_with(request.form.get("assertion", ""), {AUDIENCE, own})
        return _refusal(error, description) if error else None

    def rate_limited(self) -> Answer:
        return Answer(503, {"error": "temporarily_unavailable"}, {"retry-after": "1"})

    def answer(self, request: Request) -> Answer:
        _, claims = _parts(request.form["assertion"])
        scopes = [scope.removeprefix(SCOPE) for scope in claims["scope"].split()]
        return Answer(200, {"access_token": _issued(scopes), "expires_in": 3599, "token_type": "Bearer"})


def _parts(assertion: str) -> tuple[Any, Any]:
    header, claims, _ = assertion.split(".")
    return json.loads(_decoded(header)), json.loads(_decoded(claims))


def _wrong_with(assertion: str, audiences: Collection[str]) -> tuple[str, str]:
    """Return Google's error and its description; empty for a good assertion.

    ``audiences``: google-auth signs for Google's own address wherever it asks, other clients for the one they ask.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    try:
        header, claims = _parts(assertion)
        account = ACCOUNTS.get(claims.get("iss"))
        if account is None or header.get("kid") != account.key_id:
            return "invalid_grant", "Invalid grant: account not found"
        signed, _, signature = assertion.rpartition(".")
        public = _private_key(account.email).public_key()
        public.verify(_decoded(signature), signed.encode(), PKCS1v15(), hashes.SHA256())
    except (ValueError, AttributeError, InvalidSignature):
        return "invalid_grant", "Invalid JWT Signature."
    now, issued, expires = datetime.now(UTC).timestamp(), claims.get("iat", 0), claims.get("exp", 0)
    if header.get("alg") != "RS256" or claims.get("aud") not in audiences:
        return "invalid_grant", "Invalid JWT: Failed audience check."
    if not issued < expires <= issued + LIFETIME_S or not issued - 300 <= now <= expires:
        return (
            "invalid_grant",
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
        )
    asked = str(claims.get("scope") or "").split()
    allowed = {SCOPE + scope for scope in account.scopes}
    if not asked or not set(asked) <= allowed:
        return "invalid_scope", "Invalid OAuth scope or ID token audience provided."
    return "", ""


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _refusal(error: str, description: str) -> Answer:
    return Answer(400, {"error": error, "error_description": description})
