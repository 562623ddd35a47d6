"""OCI's request signature: HTTP Signatures with an RSA key, version 1.

Facts: docs.oracle.com, "Request Signatures"; compared with ``signer.py`` of oci 2.189.0. Why Oracle's SDK is not used:
docs/decisions/0007-libraries.md.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit

from common.platform.errors import PermanentError
from common.processors.http.stored_settings import StoredSettings

OCID = r"ocid1\.[a-z0-9]{1,40}\.[A-Za-z0-9-]{0,20}\.[A-Za-z0-9-]{0,40}\.[A-Za-z0-9.]{1,120}"

PUBLIC_REALM = "oc1"
"""Oracle's commercial cloud. Other realms (governments, the EU's, those of partners) have other host names."""

HELP = (
    'Paste {"tenancy": …, "user": …, "fingerprint": …, "private_key": …, "region": …} of a user\'s API key (Identity, '
    "Users, API keys), with the tenancy's home region."
)


@dataclass(frozen=True, slots=True)
class OciKey:
    """A user's API key. ``pem`` is left out of its repr."""

    tenancy: str
    user: str
    fingerprint: str
    pem: str = field(repr=False)

    def address(self, api: str) -> str:
        """Return the registry's name of an API's address in the tenancy's realm, which its OCID names."""
        realm = self.tenancy.split(".")[2]
        return f"oci.{api}" + ("" if realm == PUBLIC_REALM else f"/{realm}")


def oci_key(stored: StoredSettings) -> OciKey:
    """Return the API key of a credential."""
    return OciKey(
        stored.text("tenancy", OCID),
        stored.text("user", OCID),
        stored.text("fingerprint", r"[0-9a-f]{2}(:[0-9a-f]{2}){15}"),
        stored.text("private_key", r"[ -~\r\n]{100,8000}"),
    )


def signer(key: OciKey, now: Callable[[], datetime]) -> Callable[[str, str, bytes], Mapping[str, str]]:
    """Return a function from method, URL and body to the signing headers. Raises PermanentError for an invalid key."""
    private = _private_key(key.pem)
    key_id = f"{key.tenancy}/{key.user}/{key.fingerprint}"

    def sign(method: str, url: str, body: bytes) -> dict[str, str]:
        text, headers = to_sign(method, url, body, now())
        names = " ".join(line.partition(": ")[0] for line in text.split("\n"))
        signature = base64.b64encode(_signed(private, text.encode())).decode()
        return headers | {
            "authorization": f'Signature algorithm="rsa-sha256",headers="{names}",keyId="{key_id}",'
            f'signature="{signature}",version="1"'
        }

    return sign


def to_sign(method: str, url: str, body: bytes, now: datetime) -> tuple[str, dict[str, str]]:
    """Return the text to sign, and the headers in it that have to be added to the request."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    headers = {"date": format_datetime(now, usegmt=True)}
    lines = [f"date: {headers['date']}", f"(request-target): {method.lower()} {target}", f"host: {parts.netloc}"]
    if method == "POST":  # OCI refuses a request with a body whose hash is not signed
        headers["x-content-sha256"] = base64.b64encode(hashlib.sha256(body).digest()).decode()
        headers["content-type"] = "application/json"
        lines.append(f"content-length: {len(body)}")
        lines += [f"{name}: {headers[name]}" for name in ("content-type", "x-content-sha256")]
    return "\n".join(lines), headers


def _private_key(pem: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.strip().encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # without the cause: its text could quote the key
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise PermanentError(f"The credential's private_key is no RSA key in PEM form without a passphrase. {HELP}")
    return key


def _signed(private: Any, text: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    signature: bytes = private.sign(text, PKCS1v15(), hashes.SHA256())
    return signature
