"""OIDC tokens signed as Google signs them, with a certificate made here in the place of Google's."""

import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt

from common.adapters.google.oidc import Certificates, GoogleTokens

AUDIENCE = "https://start-run-abc-uc.a.run.app"
ACCOUNT = "pipeline-events@pipeline-ops-test.iam.gserviceaccount.com"
KEY_ID = "google-1"


@cache
def signer(name: str) -> tuple[Any, str]:
    """Return a signer and its certificate (PEM)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return crypt.RSASigner.from_string(private), certificate.public_bytes(serialization.Encoding.PEM).decode()


def claims(**changed: Any) -> dict[str, Any]:
    """Return the claims of a right token, with some changed; None leaves one out."""
    now = int(time.time())
    right = {
        "iss": "https://accounts.google.com",
        "aud": AUDIENCE,
        "email": ACCOUNT,
        "email_verified": True,
        "sub": "113774264463038321964",
        "iat": now - 10,
        "exp": now + 3_590,
    }
    return {name: value for name, value in (right | changed).items() if value is not None}


def token(*, by: str = KEY_ID, key_id: str | None = KEY_ID, **changed: Any) -> str:
    """Return a signed token."""
    made: bytes = jwt.encode(signer(by)[0], claims(**changed), key_id=key_id)
    return made.decode()


def unsigned(ending: str = "", alg: str = "none", **changed: Any) -> str:
    """Return a token with this text in the place of its signature."""

    def part(data: Mapping[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()

    return f"{part({'alg': alg, 'kid': KEY_ID})}.{part(claims(**changed))}.{ending}"


def checking(**more: Any) -> GoogleTokens:
    """Return the check of such tokens."""
    certificates = Certificates(lambda: ({KEY_ID: signer(KEY_ID)[1]}, 3_600.0))
    return GoogleTokens([AUDIENCE, "https://other"], [ACCOUNT], certificates, **more)
