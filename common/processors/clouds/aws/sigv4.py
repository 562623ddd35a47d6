"""AWS Signature Version 4 for requests whose body is in memory.

Facts: docs.aws.amazon.com, "Signature Version 4 for API requests"; the tests compare it with botocore's signatures. Why
botocore itself is not used: docs/decisions/0007-libraries.md.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote, unquote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"
UNRESERVED = "-_.~"


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """An access key; a temporary one has a ``session_token``."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CredentialScope:
    """What a signature is valid for: S3 (``s3``) or Cost Explorer (``ce``) in a region."""

    region: str
    service: str


def signer(
    keys: AwsKeys, scope: CredentialScope, now: Callable[[], datetime], headers: Mapping[str, str] | None = None
) -> Callable[[str, str, bytes], Mapping[str, str]]:
    """Return a function from method, URL and body to the signing headers; ``headers`` are signed too."""
    # now() for each request, not once: AWS refuses a signature whose time is some minutes off.
    return lambda method, url, body: sign(keys, scope, now(), method, url, body, headers or {})


def sign(
    keys: AwsKeys, scope: CredentialScope, now: datetime, method: str, url: str, body: bytes, headers: Mapping[str, str]
) -> dict[str, str]:
    """Return the headers to add to a request. ``url`` is quoted as it is sent; ``headers`` are those it already has."""
    parts = urlsplit(url)
    at, payload = now.strftime("%Y%m%dT%H%M%SZ"), hashlib.sha256(body).hexdigest()
    added = {"x-amz-date": at}
    if scope.service == "s3":  # only S3 requires the hash as a header
        added["x-amz-content-sha256"] = payload
    if keys.session_token is not None:
        added["x-amz-security-token"] = keys.session_token
    signed = {name.lower(): value.strip() for name, value in {**headers, **added}.items()} | {"host": parts.netloc}
    names = ";".join(sorted(signed))
    request = "\n".join(
        (
            method,
            parts.path or "/",
            canonical_query(parts.query),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            payload,
        )
    )
    credential_scope = f"{at[:8]}/{scope.region}/{scope.service}/aws4_request"
    text = "\n".join((ALGORITHM, at, credential_scope, hashlib.sha256(request.encode()).hexdigest()))
    signature = _hmac(_key(keys.secret_access_key, at[:8], scope), text).hex()
    credential = f"{keys.access_key_id}/{credential_scope}"
    return added | {
        "authorization": f"{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    }


def canonical_query(query: str) -> str:
    """Return the parameters, quoted and in the order that the signature requires."""
    # Quoted again, because clients leave characters such as "(" or "*" as they are, and AWS signs them quoted. unquote
    # and not parse_qsl: AWS reads a "+" as a plus. Sorted by name and then by value, which "name=value" would not be.
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    quoted = sorted((quote(unquote(name), UNRESERVED), quote(unquote(value), UNRESERVED)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in quoted)


def _key(secret: str, day: str, scope: CredentialScope) -> bytes:
    key = ("AWS4" + secret).encode()
    for part in (day, scope.region, scope.service, "aws4_request"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
