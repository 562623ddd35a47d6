"""Checks AWS Signature Version 4 as AWS does: from the request as received, with the stored secret."""

import hashlib
import hmac
import re
from collections.abc import Callable
from urllib.parse import quote, unquote

from infra.local.sandbox.exchange import Request

ACCESS_KEY = "AKIASANDBOX00000000"
SECRET_KEY = "sandbox/secret+access+key"
REGION = "eu-west-1"

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8})/([\w-]+)/(\w+)/aws4_request, "
    r"SignedHeaders=([\w;-]+), Signature=([0-9a-f]{64})"
)
Problem = tuple[str, str]
"""AWS's error code and message."""


def problem(request: Request, *, region: str, service: str) -> Problem | None:
    """Return what is wrong with a request's signature, or None."""
    match = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if match is None:
        return "AccessDenied", "Access Denied."
    key, day, in_region, for_service, names, signature = match.groups()
    if key != ACCESS_KEY:
        return "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."
    if (in_region, for_service) != (region, service):
        wanted = f"the region '{in_region}' is wrong; expecting '{region}'"
        return "AuthorizationHeaderMalformed", f"The authorization header is malformed; {wanted}"
    if not {"host", "x-amz-date"} <= set(names.split(";")):
        return "SignatureDoesNotMatch", "host and x-amz-date must be signed."
    payload = hashlib.sha256(request.body).hexdigest()
    if service == "s3" and request.headers.get("x-amz-content-sha256") != payload:
        return "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' does not match what was computed."
    at = request.headers.get("x-amz-date", "")
    scope = f"{day}/{region}/{service}/aws4_request"
    hashed = hashlib.sha256(_canonical(request, names, payload).encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashed}"
    signing: bytes = ("AWS4" + SECRET_KEY).encode()
    mac: Callable[[bytes, str], bytes] = lambda key, text: hmac.digest(key, text.encode(), "sha256")  # noqa: E731
    for part in scope.split("/"):
        signing = mac(signing, part)
    if not at.startswith(day) or not hmac.compare_digest(mac(signing, text).hex(), signature):
        return "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided."
    return None


def _canonical(request: Request, names: str, payload: str) -> str:
    path, _, text = request.target.partition("?")
    pairs = [pair.partition("=") for pair in text.split("&") if pair]
    # A "+" is a plus, and parameters are in the order of their names, then of their values.
    query = [f"{n}={v}" for n, v in sorted((_quoted(name), _quoted(value)) for name, _, value in pairs)]
    headers = "".join(f"{name}:{request.headers.get(name, '').strip()}\n" for name in names.split(";"))
    return f"{request.method}\n{quote(unquote(path), safe='/-_.~')}\n{'&'.join(query)}\n{headers}\n{names}\n{payload}"


def _quoted(text: str) -> str:
    return quote(unquote(text), safe="-_.~")
