"""Access tokens of Google service accounts, from the key file that is stored as a credential.

The exchange is that of RFC 7523 with a JWT signed by the key (developers.google.com/identity/protocols/oauth2/
service-account). Google's own library does the same; it is left to the adapters, which alone import ``google.*``. Where
the token is asked for comes from the registry (``google_oauth``) and not from the key file, which a customer brings.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.platform.errors import PermanentError
from common.ports.http import Calls
from common.processors.http.client import Api, ProviderClient
from common.processors.http.json_fields import Fields

API = Api(
    key="google_oauth",
    name="Google",
    credential_help="It has to be the JSON key of a service account that is enabled.",
)
PATH = "/token"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFETIME_S = 3_600
"""The longest that Google allows."""


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """What of a key file is needed. The private key is in no message."""

    email: str
    project_id: str
    key_id: str
    private_key: str = field(repr=False)

    @classmethod
    def of(cls, secret: str, credential_id: str) -> "ServiceAccount":
        """Read a key file's text, or raise PermanentError that repeats nothing of it."""
        try:
            data: Any = json.loads(secret)
            found = [data[name] for name in ("client_email", "project_id", "private_key_id", "private_key")]
        except (ValueError, KeyError, TypeError, RecursionError):
            found = []
        if not found or not all(isinstance(value, str) and value for value in found):
            raise PermanentError(
                f"The credential {credential_id!r} is not the JSON key of a Google service account. "
                f"{API.credential_help} Replace it: main.py credentials add."
            )
        return cls(*found)


def access_token(calls: Calls, account: ServiceAccount, scope: str) -> str:
    """Return a token for one scope. Raises PermanentError if Google refuses the account, and as ProviderClient."""
    assertion = _assertion(calls, account, scope)
    with ProviderClient(calls, API, secret=assertion, headers={}) as client:
        try:
            answer = client.post_form(PATH, {"grant_type": GRANT, "assertion": assertion})
        except PermanentError as error:
            raise PermanentError(
                f"{error} Google does not accept the service account {account.email} (credential "
                f"{calls.credential_id!r}). {API.credential_help} Replace it: main.py credentials add."
            ) from None
    return Fields.of(answer.body, "Google token", limit=4_096).required("access_token")


def _assertion(calls: Calls, account: ServiceAccount, scope: str) -> str:
    """Return the signed claim that this is the service account, good for an hour."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    issued = int(calls.now().timestamp())
    claims = {
        "iss": account.email,
        "scope": scope,
        "aud": calls.provider_url(API.key).rstrip("/") + PATH,
        "iat": issued,
        "exp": issued + LIFETIME_S,
    }
    signed = f"{_part({'alg': 'RS256', 'typ': 'JWT', 'kid': account.key_id})}.{_part(claims)}"
    try:
        key = serialization.load_pem_private_key(account.private_key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise PermanentError(
            f"The credential {calls.credential_id!r} has no private key that can be read. {API.credential_help} "
            "Replace it: main.py credentials add."
        )
    return f"{signed}.{_text(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _part(data: Mapping[str, Any]) -> str:
    return _text(json.dumps(data, separators=(",", ":")).encode())


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
