"""Cloud Monitoring's time series of Gemini's tokens.

The parameters and answers are those of the Monitoring API v3 (cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.
timeSeries/list). What is not documented is marked ``made up``.
"""

import base64
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.gemini_data import METRICS, Series, series_of
from infra.local.sandbox.service_accounts import MONITORING, STANDARD_PARAMETERS, is_token

PROJECT = MONITORING.project_id
RETRY_AFTER_S = 1
PAGE = 4
"""Series per page, whatever pageSize says, so that clients have to follow pages (Google may return fewer, too)."""

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


class GeminiSandbox:
    """Answers as Google does for one project whose usage is made up from a seed."""

    key, base = "gemini", ""
    prefixes: tuple[str, ...] = ("/v3/projects/",)

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.settled = True

    @property
    def secret(self) -> str:
        """A service account's key file, made for this process."""
        return MONITORING.key_file()

    def refuse(self, request: Request) -> Answer | None:
        """401 without a valid token."""
        if is_token(request.headers.get("authorization", ""), ("monitoring.read",)):
            return None
        message = (
            "Request had invalid authentication credentials. Expected OAuth 2 access token or other valid credential."
        )
        return _error(401, "UNAUTHENTICATED", message)

    def rate_limited(self) -> Answer:
        answer = _error(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Time series queries'.")
        return Answer(429, answer.body, {"retry-after": str(RETRY_AFTER_S)})

    def answer(self, request: Request) -> Answer:
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

    def _time_series(self, query: Sequence[tuple[str, str]]) -> Answer:
        given: dict[str, str] = {}
        for name, value in query:
            if name in STANDARD_PARAMETERS:
                continue
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
        page = every[first : first + PAGE]
        body: dict[str, Any] = {"timeSeries": [_shown(metric[1], s, end, period) for s in page]} if page else {}
        if first + PAGE < len(every):
            body["nextPageToken"] = _page_token(first + PAGE, query)
        return Answer(200, body)


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
        moment = datetime.fromisoformat(given.get(name, ""))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadRequest(f"Field {name} had an invalid value: a timestamp such as 2026-11-01T00:00:00Z is needed.")
    return moment.astimezone(UTC)


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


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _error(status: int, name: str, message: str) -> Answer:
    return Answer(status, {"error": {"code": status, "message": message, "status": name}})
