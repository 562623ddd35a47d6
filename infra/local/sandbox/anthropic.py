"""Anthropic's Admin API, as its reference describes it: the organisation, and its reports of usage and cost.

Paths, headers, parameters, group_by values, limits, bucket and result shapes are the documented ones
(platform.claude.com/docs/en/api/admin); the limit of five groups is that of PostHog issue 72556. What is not documented
is marked ``made up`` where it is decided.
"""

import base64
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.local.sandbox import anthropic_analytics as analytics
from infra.local.sandbox.anthropic_data import UsageRecord, cost_lines, records
from infra.local.sandbox.exchange import Answer, Request

ADMIN_KEY = "sk-ant-admin01-sandbox"
VERSIONS = ("2023-06-01", "2026-10-21")
"""The guide's version of the API, and that of Anthropic's SDK 2.14.0."""
WORKSPACE_KEY_PREFIX = "sk-ant-api03-"
ORGANISATION = "12345678-1234-5678-1234-567812345678"
RETRY_AFTER_S = 1
MAX_GROUPS = 5

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Report:
    """What one report takes. ``widths`` are default and largest limit by bucket width."""

    widths: Mapping[str, tuple[timedelta, int, int]]
    group_by: tuple[str, ...]
    filters: Mapping[str, str]


REPORTS = {
    "usage_report/messages": Report(
        {"1d": (DAY, 7, 31), "1h": (HOUR, 24, 168), "1m": (MINUTE, 60, 1440)},
        (
            "account_id",
            "api_key_id",
            "context_window",
            "inference_geo",
            "model",
            "service_account_id",
            "service_tier",
            "workspace_id",
        ),  # and speed, behind a beta header
        {
            "account_ids[]": "account_id",
            "api_key_ids[]": "api_key_id",
            "context_window[]": "context_window",
            "inference_geos[]": "inference_geo",
            "models[]": "model",
            "service_account_ids[]": "service_account_id",
            "service_tiers[]": "service_tier",
            "workspace_ids[]": "workspace_id",
        },
    ),
    "cost_report": Report({"1d": (DAY, 7, 31)}, ("workspace_id", "description"), {}),
}
_SINGLE = {"starting_at", "ending_at", "bucket_width", "limit", "page"}


class BadRequest(Exception):
    """What Anthropic answers with 400 and type ``invalid_request_error``."""


@dataclass(frozen=True, slots=True)
class Query:
    """A validated query; ``first`` is where this page begins."""

    end: datetime
    width: timedelta
    limit: int
    group_by: tuple[str, ...]
    filters: Mapping[str, tuple[str, ...]]
    first: datetime
    fingerprint: str


class AnthropicSandbox:
    """Answers as Anthropic does for one organisation whose usage is made up from a seed."""

    key, base, secret = "anthropic", "", ADMIN_KEY
    prefixes: tuple[str, ...] = ("/v1/organizations/",)

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.settled = True
        self.has_analytics = True
        """Whether the organisation may read the analytics reports: without it they answer 403."""
        self.fast: frozenset[str] = frozenset()
        """Models whose standard requests are in fast mode, for tests: the analytics reports alone tell it."""

    def refuse(self, request: Request) -> Answer | None:
        """401 without a known key; 403 for a workspace's key (made up: documented is that it does not work).

        The guide sends the key as ``x-api-key``, Anthropic's SDK as ``Authorization: Bearer``.
        """
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        key = request.headers.get("x-api-key") or (bearer if scheme == "Bearer" else "")
        if key.startswith(WORKSPACE_KEY_PREFIX):
            return _error(403, "permission_error", "This endpoint requires an Admin API key.")
        if key != ADMIN_KEY:
            message = "invalid x-api-key" if key else "x-api-key header is required"
            return _error(401, "authentication_error", message)
        return None

    def rate_limited(self) -> Answer:
        answer = _error(429, "rate_limit_error", "Your organization's rate limit for the Admin API is exceeded.")
        return Answer(429, answer.body, {"retry-after": str(RETRY_AFTER_S)})

    def answer(self, request: Request) -> Answer:
        name = request.path.removeprefix("/v1/organizations/")
        if request.method != "GET" or name not in (*REPORTS, *analytics.REPORTS, "me"):
            return _error(404, "not_found_error", "Not found")
        if request.headers.get("anthropic-version") not in VERSIONS:
            return _error(400, "invalid_request_error", "anthropic-version: header is required")
        if name == "me":
            return Answer(200, {"id": ORGANISATION, "name": "Sandbox", "type": "organization"})
        try:
            if name in analytics.REPORTS:
                return self._analytics(name, request)
            return Answer(200, self._page(name, parse(name, request.query)))
        except (BadRequest, analytics.BadRequest) as error:
            return _error(400, "invalid_request_error", str(error))

    def _analytics(self, name: str, request: Request) -> Answer:
        if not self.has_analytics:
            return _error(403, "permission_error", "This organization does not have access to this endpoint.")
        if analytics.BETA not in request.headers.get("anthropic-beta", "").replace(" ", "").split(","):
            return _error(400, "invalid_request_error", f"anthropic-beta: {analytics.BETA} is required")
        return Answer(200, analytics.page(name, request.query, self._seed, settled=self.settled, fast=self.fast))

    def _page(self, name: str, query: Query) -> dict[str, Any]:
        results = _cost_results if name == "cost_report" else _usage_results
        at, buckets = query.first, list[dict[str, Any]]()
        while at + query.width < query.end and len(buckets) < query.limit:  # "buckets that end before"
            upto = at + query.width
            reported = [
                record
                for record in records(self._seed, at.date())
                if at <= record.at < upto and (self.settled or not record.late)
            ]
            buckets.append({"starting_at": _stamp(at), "ending_at": _stamp(upto), "results": results(query, reported)})
            at = upto
        more = at + query.width < query.end
        return {"data": buckets, "has_more": more, "next_page": _token(query.fingerprint, at) if more else None}


def _usage_results(query: Query, records: Sequence[UsageRecord]) -> list[dict[str, Any]]:
    """Sum the records by the dimensions asked for; the others are null."""
    sums: dict[tuple[str | None, ...], Counter[str]] = defaultdict(Counter)
    for record in records:
        if all(record.dimensions.get(name) in wanted for name, wanted in query.filters.items()):
            sums[tuple(record.dimensions.get(name) for name in query.group_by)].update(record.measures)
    return [
        {
            **dict.fromkeys(REPORTS["usage_report/messages"].group_by),
            **dict(zip(query.group_by, key, strict=True)),
            "uncached_input_tokens": measures["uncached_input_tokens"],
            "cache_read_input_tokens": measures["cache_read_input_tokens"],
            "cache_creation": {
                "ephemeral_5m_input_tokens": measures["ephemeral_5m_input_tokens"],
                "ephemeral_1h_input_tokens": measures["ephemeral_1h_input_tokens"],
            },
            "output_tokens": measures["output_tokens"],
            "server_tool_use": {"web_search_requests": measures["web_search_requests"]},
        }
        for key, measures in sorted(sums.items(), key=lambda item: tuple(map(str, item[0])))
    ]


def _cost_results(query: Query, records: Sequence[UsageRecord]) -> list[dict[str, Any]]:
    """Sum the costs by workspace and line, as far as they are asked for. Money is text, in cents."""
    sums: dict[tuple[str | None, tuple[tuple[str, str | None], ...]], Any] = {}
    for record in records:
        workspace = record.dimensions["workspace_id"] if "workspace_id" in query.group_by else None
        for line, cost in cost_lines(record):
            described = tuple(line.items()) if "description" in query.group_by else ()
            sums[workspace, described] = sums.get((workspace, described), 0) + cost
    nothing = dict.fromkeys(
        ("description", "cost_type", "token_type", "model", "service_tier", "context_window", "inference_geo")
    )
    return [
        {**nothing, **dict(line), "workspace_id": workspace, "amount": f"{cost * 100:f}", "currency": "USD"}
        for (workspace, line), cost in sorted(sums.items(), key=lambda item: str(item[0]))
    ]


def parse(name: str, query: Sequence[tuple[str, str]]) -> Query:
    """Validate the parameters of a report, or raise BadRequest. Lists come with brackets only, as documented."""
    report = REPORTS[name]
    given: dict[str, list[str]] = defaultdict(list)
    for key, value in query:
        given[key].append(value)
    for key, values in given.items():
        if key not in _SINGLE | {"group_by[]"} | report.filters.keys():
            raise BadRequest(f"{key}: Extra inputs are not permitted")
        if key in _SINGLE and len(values) > 1:
            raise BadRequest(f"{key}: given more than once")
    width_name = given.get("bucket_width", ["1d"])[0]
    if width_name not in report.widths:
        raise BadRequest(f"bucket_width: Input should be {' or '.join(map(repr, report.widths))}")
    width, default_limit, most = report.widths[width_name]
    start = _snapped(_time(given, "starting_at"), width)
    end = _time(given, "ending_at") if "ending_at" in given else datetime.now(UTC)
    if end <= start:
        raise BadRequest("ending_at: must be after starting_at")
    # A cursor is valid for its own query only.
    bound = sorted((key, values) for key, values in given.items() if key != "page")
    fingerprint = hashlib.sha256(json.dumps([name, bound]).encode()).hexdigest()[:16]
    first = _position(given["page"][0], fingerprint) if "page" in given else start
    filters = {dimension: tuple(given[key]) for key, dimension in report.filters.items() if key in given}
    limit = _limit(given, default_limit, most)
    return Query(end, width, limit, _group_by(report, given), filters, first, fingerprint)


def _group_by(report: Report, given: Mapping[str, list[str]]) -> tuple[str, ...]:
    asked = tuple(dict.fromkeys(given.get("group_by[]", [])))
    for value in asked:
        if value not in report.group_by:
            raise BadRequest(f"group_by[]: Input should be one of {', '.join(report.group_by)}")
    if len(asked) > MAX_GROUPS:
        raise BadRequest(f"Cannot specify more than {MAX_GROUPS} group_by[] dimensions.")
    return asked


def _time(given: Mapping[str, list[str]], name: str) -> datetime:
    if name not in given:
        raise BadRequest(f"{name}: Field required")
    try:
        moment = datetime.fromisoformat(given[name][0])
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadRequest(f"{name}: Input should be a valid RFC 3339 datetime")
    return moment.astimezone(UTC)


def _snapped(moment: datetime, width: timedelta) -> datetime:
    """Return the start of the minute, hour or day that the moment is in."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (moment - midnight) // width * width


def _limit(given: Mapping[str, list[str]], default: int, most: int) -> int:
    text = given["limit"][0] if "limit" in given else str(default)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise BadRequest(f"limit: Input should be between 1 and {most}")
    return int(text)


def _token(fingerprint: str, at: datetime) -> str:
    return "page_" + base64.urlsafe_b64encode(f"{fingerprint}|{at.isoformat()}".encode()).decode()


def _position(token: str, fingerprint: str) -> datetime:
    try:
        bound, _, at = base64.urlsafe_b64decode(token.removeprefix("page_").encode()).decode().partition("|")
        position = datetime.fromisoformat(at)
    except ValueError:
        raise BadRequest("page: Invalid page token") from None
    if bound != fingerprint:
        raise BadRequest("page: the token was issued for other query parameters")
    return position


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _error(status: int, kind: str, message: str) -> Answer:
    return Answer(status, {"type": "error", "error": {"type": kind, "message": message}})
