"""Anthropic's analytics reports: token usage and cost by dimensions, one row per combination and time bucket.

Parameters, limits, dimensions and shapes are those of Anthropic's SDK 2.14.0 (``beta.organization.analytics``). What
differs from the legacy reports: rows instead of buckets, days without usage are absent, money has a list price beside
it, and the default workspace has an id. Made up: pages of ``PAGE`` rows at most, and rows are refreshed every hour.
"""

import base64
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from infra.local.sandbox.anthropic_data import UsageRecord, cost_lines, records

BETA = "analytics-usage-cost-2026-08-24"
REPORTS = ("analytics/usage", "analytics/cost")
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
LONGEST = timedelta(days=31)
WIDTHS = {"1d": timedelta(days=1), "1h": timedelta(hours=1), "1m": timedelta(minutes=1)}
MAX_GROUPS = 5
PAGE = 100
DEFAULT_WORKSPACE = "wrkspc_default"

_FREE = ("cost_type", "token_type")
_KNOWN = ("api_key_id", "context_window", "inference_geo", "model", "service_tier", "speed", "workspace_id")
DIMENSIONS = (
    *_KNOWN,
    "actor",
    "actor_type",
    "agent_id",
    "claude_tag_category",
    "claude_tag_user_id",
    "deployment_id",
    "environment_id",
    "organization_id",
    "product",
    "rbac_group_id",
    "session_id",
    "slack_channel_id",
    "user_profile_id",
)
"""Fields of a group. The sandbox has values for the known ones only."""
_FILTERS = {
    "api_key_ids[]": "api_key_id",
    "context_windows[]": "context_window",
    "models[]": "model",
    "service_tiers[]": "service_tier",
    "speeds[]": "speed",
    "workspace_ids[]": "workspace_id",
}
_SINGLE = {"starting_at", "ending_at", "time_bucket_width", "limit", "order", "order_by", "page", "beta"}


class BadRequest(Exception):
    """What Anthropic answers with 400 and type ``invalid_request_error``."""


@dataclass(frozen=True, slots=True)
class Query:
    """A validated query."""

    start: datetime
    end: datetime
    width: timedelta
    limit: int
    group_by: tuple[str, ...]
    filters: Mapping[str, tuple[str, ...]]
    first: int
    fingerprint: str


def page(
    name: str, query: Sequence[tuple[str, str]], seed: int, *, settled: bool, fast: frozenset[str]
) -> dict[str, Any]:
    """Return one page of a report, or raise BadRequest. ``fast``: models whose standard requests use fast mode."""
    asked = parse(name, query)
    refreshed = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    used: dict[tuple[datetime, tuple[str | None, ...]], list[UsageRecord]] = defaultdict(list)
    day = asked.start.date()
    while day <= asked.end.date():
        for record in records(seed, day):
            group = _dimensions(record, fast)
            in_range = asked.start <= record.at < min(asked.end, refreshed) and (settled or not record.late)
            if in_range and all(group[of] in wanted for of, wanted in asked.filters.items()):
                bucket = asked.start + (record.at - asked.start) // asked.width * asked.width
                used[bucket, tuple(group[of] for of in asked.group_by if of not in _FREE)].append(record)
        day += timedelta(days=1)
    combinations = sorted(used.items(), key=lambda item: (item[0][0], tuple(map(str, item[0][1]))))
    upto = asked.first + min(asked.limit, PAGE)
    rows_of = _usage_rows if name == "analytics/usage" else _cost_rows
    more = upto < len(combinations)
    return {
        "data": [
            {"starting_at": _stamp(at), "ending_at": _stamp(at + asked.width), **row}
            for (at, values), its in combinations[asked.first : upto]
            for row in rows_of(asked, values, its)
        ],
        "has_more": more,
        "next_page": _token(asked.fingerprint, upto) if more else None,
        "data_refreshed_at": _stamp(refreshed),
    }


def _dimensions(record: UsageRecord, fast: frozenset[str]) -> dict[str, str | None]:
    of = record.dimensions
    is_fast = of["model"] in fast and of["service_tier"] == "standard"
    return {
        **{name: of.get(name) for name in _KNOWN},
        "workspace_id": of["workspace_id"] or DEFAULT_WORKSPACE,
        "inference_geo": None if of["inference_geo"] == "not_available" else of["inference_geo"],
        "speed": "fast" if is_fast else "standard",
    }


def _group(query: Query, values: Sequence[str | None], extra: Sequence[str] = ()) -> dict[str, Any]:
    named = [of for of in query.group_by if of not in _FREE]
    return {**dict.fromkeys((*DIMENSIONS, *extra)), **dict(zip(named, values, strict=True))}


def _usage_rows(query: Query, values: Sequence[str | None], used: Sequence[UsageRecord]) -> list[dict[str, Any]]:
    sums: Counter[str] = Counter()
    for record in used:
        sums.update(record.measures)
    usage = {
        "uncached_input_tokens": sums["uncached_input_tokens"],
        "cache_read_input_tokens": sums["cache_read_input_tokens"],
        "cache_creation": {
            "ephemeral_5m_input_tokens": sums["ephemeral_5m_input_tokens"],
            "ephemeral_1h_input_tokens": sums["ephemeral_1h_input_tokens"],
        },
        "output_tokens": sums["output_tokens"],
        "server_tool_use": {"web_search_requests": sums["web_search_requests"]},
        "total_tokens": sum(tokens for name, tokens in sums.items() if name.endswith("_tokens")),
        "requests": len(used),
    }
    return [{"group": _group(query, values), "usage": usage}]


def _cost_rows(query: Query, values: Sequence[str | None], used: Sequence[UsageRecord]) -> list[dict[str, Any]]:
    sums: dict[tuple[str | None, str | None], Decimal] = defaultdict(Decimal)
    by_type, by_token = "cost_type" in query.group_by, "token_type" in query.group_by
    for record in used:
        for line, cost in cost_lines(record):
            if by_token and not by_type and line["cost_type"] != "tokens":
                continue  # one row per token type, and no others
            key = (line["cost_type"] if by_type or by_token else None, line.get("token_type") if by_token else None)
            sums[key] += cost
    return [
        {
            "group": {**_group(query, values), "cost_type": cost_type, "token_type": token_type},
            "cost": {
                "amount": f"{cost * 100:f}",
                "list_amount": f"{cost * 100:f}",
                "currency": "USD",
                "requests": None if by_type or by_token else len(used),
            },
        }
        for (cost_type, token_type), cost in sorted(sums.items(), key=lambda item: tuple(map(str, item[0])))
    ]


def parse(name: str, query: Sequence[tuple[str, str]]) -> Query:
    """Validate the parameters of a report, or raise BadRequest."""
    given: dict[str, list[str]] = defaultdict(list)
    for key, value in query:
        given[key].append(value)
    for key, values in given.items():
        if key not in _SINGLE | {"group_by[]"} | _FILTERS.keys():
            raise BadRequest(f"{key}: Extra inputs are not permitted")
        if key in _SINGLE and len(values) > 1:
            raise BadRequest(f"{key}: given more than once")
    start, end = _range(given)
    if (width := given.get("time_bucket_width", ["1d"])[0]) not in WIDTHS:
        raise BadRequest(f"time_bucket_width: Input should be {' or '.join(map(repr, WIDTHS))}")
    if (given.get("order"), given.get("order_by")) != (["asc"], ["time"]):
        raise BadRequest("order: the sandbox supports order=asc with order_by=time only")
    limit = given.get("limit", ["20"])[0]
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= 1_000):
        raise BadRequest("limit: Input should be between 1 and 1000")
    group_by = _group_by(name, given)
    bound = sorted((key, values) for key, values in given.items() if key != "page")
    fingerprint = hashlib.sha256(json.dumps([name, bound]).encode()).hexdigest()[:16]
    first = _position(given["page"][0], fingerprint) if "page" in given else 0
    filters = {dimension: tuple(given[key]) for key, dimension in _FILTERS.items() if key in given}
    return Query(start, end, WIDTHS[width], int(limit), group_by, filters, first, fingerprint)


def _range(given: Mapping[str, list[str]]) -> tuple[datetime, datetime]:
    start, end = _time(given, "starting_at"), _time(given, "ending_at")
    if start < FIRST_DAY:
        raise BadRequest("starting_at: must be no earlier than 2026-01-01T00:00:00Z")
    if not start < end <= start + LONGEST:
        raise BadRequest("ending_at: the range may span at most 31 days")
    return start, end


def _group_by(name: str, given: Mapping[str, list[str]]) -> tuple[str, ...]:
    group_by = tuple(dict.fromkeys(given.get("group_by[]", [])))
    allowed = (*DIMENSIONS, *(_FREE if name == "analytics/cost" else ()))
    for value in group_by:
        if value not in allowed:
            raise BadRequest(f"group_by[]: Input should be one of {', '.join(allowed)}")
        if value not in (*_KNOWN, *_FREE):
            raise BadRequest(f"group_by[]: the sandbox has no values of {value}")
    if len([value for value in group_by if value not in _FREE]) > MAX_GROUPS:
        raise BadRequest(f"group_by[]: at most {MAX_GROUPS} dimensions")
    return group_by


def _time(given: Mapping[str, list[str]], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(given.get(name, [""])[0])
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadRequest(f"{name}: Input should be a valid RFC 3339 datetime")
    return moment.astimezone(UTC)


def _token(fingerprint: str, position: int) -> str:
    return "page_" + base64.urlsafe_b64encode(f"{fingerprint}|{position}".encode()).decode()


def _position(token: str, fingerprint: str) -> int:
    try:
        bound, _, position = base64.urlsafe_b64decode(token.removeprefix("page_").encode()).decode().partition("|")
        at = int(position)
    except ValueError:
        raise BadRequest("page: Invalid page token") from None
    if bound != fingerprint:
        raise BadRequest("page: the token was issued for other query parameters")
    return at


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
