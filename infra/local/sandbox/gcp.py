"""Google Cloud: the exchange of a signed assertion for a token (RFC 7523), and the list of Cloud Billing's services.

Paths, parameters and shapes are the documented ones. The assertion's signature, audience and scope are checked. Made
up: the services, and pages of ``PAGE``.
"""

import base64
import json
from functools import cache
from typing import Any

from infra.local.sandbox.exchange import Answer, Request

EMAIL = "bills@sandbox-project.iam.gserviceaccount.com"
TOKEN = "ya29.sandbox-token"
AUDIENCE = "https://oauth2.googleapis.com/token"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
PAGE = 3
SERVICES = [
    ("6F81-5844-456A", "Compute Engine"),
    ("95FF-2EF5-5EA1", "Cloud Storage"),
    ("24E6-581D-38E5", "BigQuery"),
    ("152E-C115-5142", "Cloud Run"),
    ("C7E2-9256-1C43", "Vertex AI"),
    ("9662-B51E-5089", "Cloud SQL"),
    ("A1E8-BE35-7EBC", "Cloud Pub/Sub"),
]


@cache
def _key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(65537, 2048)


@cache
def secret() -> str:
    """Return the key of a service account. It names an address for tokens that nobody may ask: it is not ours."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = _key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "sandbox-project",
            "private_key_id": "1",
            "private_key": pem,
            "client_email": EMAIL,
            "client_id": "1",
            "token_uri": "http://127.0.0.1:1/not-here",
        }
    )


class TokenSandbox:
    """The token endpoint."""

    key = "gcp_token"
    base = "/gcp-token"
    prefixes: tuple[str, ...] = ("/gcp-token",)
    settled = True

    def __init__(self, _seed: int) -> None:
        self.secret = secret()

    def refuse(self, request: Request) -> Answer | None:
        form = dict(request.form)
        if request.method != "POST" or form.get("grant_type") != GRANT:
            return _oauth("unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type')}")
        claims = _claims(form.get("assertion", ""))
        if claims is None:
            return _oauth("invalid_grant", "Invalid JWT Signature.")
        if claims.get("aud") != AUDIENCE or claims.get("iss") != EMAIL or not claims.get("scope"):
            return _oauth("invalid_grant", "Invalid JWT: aud, iss and scope are needed.")
        return None

    def rate_limited(self) -> Answer:
        return Answer(503, {"error": "temporarily_unavailable"}, {"retry-after": "1"})

    def answer(self, request: Request) -> Answer:
        return Answer(200, {"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"})


class BillingSandbox:
    """``GET /v1/services`` of cloudbilling.googleapis.com."""

    key = "gcp_cloudbilling"
    base = "/gcp-cloudbilling"
    prefixes: tuple[str, ...] = ("/gcp-cloudbilling/",)
    settled = True

    def __init__(self, _seed: int) -> None:
        self.secret = secret()

    def refuse(self, request: Request) -> Answer | None:
        if request.headers.get("authorization") == f"Bearer {TOKEN}":
            return None
        return _error(401, "Request had invalid authentication credentials.", "UNAUTHENTICATED")

    def rate_limited(self) -> Answer:
        return Answer(429, _error(429, "Quota exceeded.", "RESOURCE_EXHAUSTED").body, {"retry-after": "1"})

    def answer(self, request: Request) -> Answer:
        if request.path != f"{self.base}/v1/services" or request.method != "GET":
            return _error(404, "Requested entity was not found.", "NOT_FOUND")
        given = dict(request.query)
        if unknown := sorted(set(given) - {"pageSize", "pageToken"}):
            said = f'Invalid JSON payload received. Unknown name "{unknown[0]}": Cannot bind query parameter.'
            return _error(400, said, "INVALID_ARGUMENT")
        at = int(given.get("pageToken") or 0)
        size = min(int(given.get("pageSize") or PAGE), PAGE)
        page = [
            {
                "name": f"services/{service_id}",
                "serviceId": service_id,
                "displayName": name,
                "businessEntityName": "businessEntities/GCP",
            }
            for service_id, name in SERVICES[at : at + size]
        ]
        more = {"nextPageToken": str(at + size)} if at + size < len(SERVICES) else {"nextPageToken": ""}
        return Answer(200, {"services": page, **more})


def _claims(assertion: str) -> dict[str, Any] | None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    try:
        signed, _, signature = assertion.rpartition(".")
        _key().public_key().verify(_decoded(signature), signed.encode(), PKCS1v15(), hashes.SHA256())
        claims: dict[str, Any] = json.loads(_decoded(signed.partition(".")[2]))
    except (InvalidSignature, ValueError):
        return None
    return claims


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _oauth(error: str, said: str) -> Answer:
    return Answer(400, {"error": error, "error_description": said})


def _error(status: int, message: str, name: str) -> Answer:
    return Answer(status, {"error": {"code": status, "message": message, "status": name}})
