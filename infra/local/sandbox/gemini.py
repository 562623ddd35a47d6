"""Google, as far as Gemini's tokens are concerned: tokens of service accounts and Cloud Monitoring's time series.

The parameters and answers are those of the Monitoring API v3 (cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.
timeSeries/list) and of Google's OAuth for service accounts. What is not documented is marked ``made up``.
"""

import base64
import json
import re
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from typing import Any

from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.gemini_data import METRICS, Series, series_of

PROJECT = "acme-gemini-sandbox"
EMAIL = f"cost-reader@{PROJECT}.iam.gserviceaccount.com"
KEY_ID = "sandbox-key-1"
SCOPE = "https://www.googleapis.com/auth/monitoring.read"
SCOPES = {SCOPE, "https://www.googleapis.com/auth/bigquery.readonly"}
"""What a key may ask a token for: Gemini's metrics, or as a key of Google Cloud its check."""
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
RETRY_AFTER_S = 1
PAGE = 4
"""Series a page, whatever is asked for (made up; Google may return fewer than pageSize): so that pages are followed."""

ALIGNERS = ("ALIGN_NONE", "ALIGN_DELTA", "ALIGN_RATE", "ALIGN_SUM", "ALIGN_COUNT", "ALIGN_MEAN")
_PARAMETERS = {
    "filter",
    "interval.startTime",
    "interval.endTime",
    "aggregation.alignmentPeriod",
    "aggregation.perSeriesAligner",
    "pageSize",
    "pageToken",
}
_FILTER = re.compile(r'metric\.type ?= ?"([^"]+)"')


class BadRequest(Exception):
    """What Google answers with 400 INVALID_ARGUMENT."""


@cache
def _private_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


class GeminiSandbox:
    """Answers as Google does for one project whose usage is made up from a seed."""

    key, base = "gemini", ""
    prefixes: tuple[str, ...] = ("/token", "/v3/projects/")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._tokens: set[str] = set()
        self.settled = True

    @cached_property
    def secret(self) -> str:
        """A service account's key file, made for this process."""
        from cryptography.hazmat.primitives import serialization

        pem = _private_key().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return json.dumps(
            {
                "type": "service_account",
                "project_id": PROJECT,
                "private_key_id": KEY_ID,
                "private_key": pem.decode(),
                "client_email": EMAIL,
                "token_uri": "https://oauth2.googleapis.com/token",
            }
        )

    def refuse(self, request: Request) -> Answer | None:
        """401 without a token that was given out; the token's own address needs none."""
        if request.path == "/token":
            return None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme == "Bearer" and token in self._tokens:
            return None
        said = (
            "Request had invalid authentication credentials. Expected OAuth 2 access token or other valid credential."
        )
        return _error(401, "UNAUTHENTICATED", said)

    def rate_limited(self) -> Answer:
        answer = _error(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Time series queries'.")
        return Answer(429, answer.body, {"retry-after": str(RETRY_AFTER_S)})

    def answer(self, request: Request) -> Answer:
        if request.path == "/token":
            return self._token(request)
        project, _, method = request.path.removeprefix("/v3/projects/").partition("/")
        if project != PROJECT:
            return _error(403, "PERMISSION_DENIED", f"Permission monitoring.timeSeries.list denied on {project}.")
        try:
            if request.method == "GET" and method == "metricDescriptors":
                return Answer(200, {"metricDescriptors": [{"type": metric} for metric in METRICS[:1]]})
            if request.method == "GET" and method == "timeSeries":
                return self._time_series(request.query)
        except BadRequest as error:
            return _error(400, "INVALID_ARGUMENT", str(error))
        return _error(404, "NOT_FOUND", "Requested entity was not found.")

    def _token(self, request: Request) -> Answer:
        if request.method != "POST" or request.form.get("grant_type") != GRANT:
            return Answer(400, {"error": "unsupported_grant_type", "error_description": f"Invalid grant_type: {GRANT}"})
        problem = _wrong_with(request.form.get("assertion", ""), request.headers.get("host", ""))
        if problem:
            return Answer(400, {"error": "invalid_grant", "error_description": problem})
        token = f"ya29.sandbox-{secrets.token_hex(16)}"
        self._tokens.add(token)
        return Answer(200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def _time_series(self, query: Sequence[tuple[str, str]]) -> Answer:
        given: dict[str, str] = {}
        for name, value in query:
            if name not in _PARAMETERS or name in given:
                raise BadRequest(f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.')
            given[name] = value
        metric = _FILTER.fullmatch(given.get("filter", ""))
        if metric is None:
            raise BadRequest("Field filter had an invalid value: must name one metric.type.")
        if metric[1] not in METRICS:
            return _error(404, "NOT_FOUND", f'Cannot find metric(s) that match type = "{metric[1]}".')
        start, end = _time(given, "interval.startTime"), _time(given, "interval.endTime")
        if not start < end:
            raise BadRequest("Field interval.endTime had an invalid value: it must be after the start time.")
        period = _period(given)
        if given.get("aggregation.perSeriesAligner") not in ALIGNERS:
            raise BadRequest("Field aggregation.perSeriesAligner had an invalid value.")
        if not (size := given.get("pageSize", "100000")).isdigit() or not 1 <= int(size) <= 100_000:
            raise BadRequest("Field pageSize had an invalid value.")
        every = [s for s in series_of(self._seed, metric[1], start, end, late=self.settled)]
        first = _position(given.get("pageToken"), query)
        found = every[first : first + PAGE]
        body: dict[str, Any] = {"timeSeries": [_shown(metric[1], s, end, period) for s in found]} if found else {}
        if first + PAGE < len(every):
            body["nextPageToken"] = _page_token(first + PAGE, query)
        return Answer(200, body)


def _wrong_with(assertion: str, host: str) -> str:
    """Say what is wrong with a signed claim; nothing where it is good."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    try:
        head, body, signature = assertion.split(".")
        header, claims = (json.loads(_bytes(part)) for part in (head, body))
        _private_key().public_key().verify(
            _bytes(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256()
        )
    except (ValueError, InvalidSignature):
        return "Invalid JWT Signature."
    now = datetime.now(UTC).timestamp()
    if header.get("alg") != "RS256" or header.get("kid") != KEY_ID or claims.get("iss") != EMAIL:
        return "Invalid grant: account not found"
    if claims.get("aud") != f"http://{host}/token":
        return "Invalid JWT: Failed audience check."
    if not claims.get("iat", 0) < claims.get("exp", 0) <= claims.get("iat", 0) + 3_600:
        return "Invalid JWT: Token must be a short-lived token (60 minutes)."
    if abs(now - claims["iat"]) > timedelta(days=3_660).total_seconds():  # tests have clocks of their own
        return "Invalid JWT: Token must be in a reasonable timeframe."
    return "" if claims.get("scope") in SCOPES else "Invalid scope."


def _shown(metric: str, series: Series, end: datetime, period: timedelta) -> dict[str, Any]:
    """Sum a series by periods counted back from the end; newest first, as Google gives them."""
    sums: dict[datetime, int] = defaultdict(int)
    for at, tokens in series.tokens:
        sums[end - (end - at) // period * period] += tokens
    points = [
        {
            "interval": {"startTime": _stamp(upto - period), "endTime": _stamp(upto)},
            "value": {"int64Value": str(tokens)},
        }
        for upto, tokens in sorted(sums.items(), reverse=True)
    ]
    return {
        "metric": {"type": metric, "labels": dict(series.metric)},
        "resource": {"type": series.resource_type, "labels": dict(series.resource)},
        "metricKind": "DELTA",
        "valueType": "INT64",
        "points": points,
    }


def _time(given: Mapping[str, str], name: str) -> datetime:
    try:
        found = datetime.fromisoformat(given.get(name, ""))
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise BadRequest(f"Field {name} had an invalid value: a timestamp such as 2026-11-01T00:00:00Z is needed.")
    return found.astimezone(UTC)


def _period(given: Mapping[str, str]) -> timedelta:
    text = given.get("aggregation.alignmentPeriod", "")
    if not re.fullmatch(r"[0-9]{1,8}s", text) or int(text[:-1]) < 60:
        raise BadRequest("Field aggregation.alignmentPeriod had an invalid value: at least 60s.")
    return timedelta(seconds=int(text[:-1]))


def _page_token(position: int, query: Sequence[tuple[str, str]]) -> str:
    bound = [pair for pair in query if pair[0] != "pageToken"]
    return base64.urlsafe_b64encode(json.dumps([position, bound]).encode()).decode()


def _position(token: str | None, query: Sequence[tuple[str, str]]) -> int:
    if token is None:
        return 0
    try:
        position, bound = json.loads(base64.urlsafe_b64decode(token.encode()))
    except ValueError:
        raise BadRequest("Field pageToken had an invalid value.") from None
    if [tuple(pair) for pair in bound] != [pair for pair in query if pair[0] != "pageToken"]:
        raise BadRequest("Field pageToken had an invalid value: it is of another query.")
    return int(position)


def _bytes(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _error(status: int, name: str, message: str) -> Answer:
    return Answer(status, {"error": {"code": status, "message": message, "status": name}})
