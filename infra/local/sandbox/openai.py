"""OpenAI's organisation usage and costs API, as its OpenAPI document 2.3.0 and its SDK 3.57.0 describe it.

Paths, parameters, group_by values, limits, page and result shapes are the documented ones. What is not documented is
marked ``made up`` where it is decided.
"""

import base64
import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.openai_costs import cost_results
from infra.local.sandbox.openai_data import DAY_S, UsageRecord, records

ADMIN_KEY = "sk-admin-sandbox"
PROJECT_KEY_PREFIX = "sk-proj-"
ORGANISATION = "org-sandbox"
RETRY_AFTER_S = 1
LATEST = 4_102_444_800
"""2100-01-01: later times are refused, so that no query is endless (made up)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What one endpoint filters, groups and counts. ``filters`` name the dimension behind each parameter."""

    result: str
    measures: tuple[str, ...]
    group_by: tuple[str, ...]
    filters: Mapping[str, str] = field(default_factory=dict)


_PROJECT = {"project_ids": "project_id"}
_WHO = _PROJECT | {"user_ids": "user_id", "api_key_ids": "api_key_id"}
_MODEL = _WHO | {"models": "model"}
_IMAGE = _MODEL | {"sources": "source", "sizes": "size"}
_BY_MODEL = ("project_id", "user_id", "api_key_id", "model")
_TOKENS = (
    "input_tokens",
    "input_cached_tokens",
    "input_cache_write_tokens",
    "input_uncached_tokens",
    "output_tokens",
    *(f"{kind}_{modality}_tokens" for modality in ("text", "audio", "image") for kind in ("input", "output")),
    *(f"input_cached_{modality}_tokens" for modality in ("text", "audio", "image")),
    "input_cache_write_30m_tokens",  # the two retentions, and api_source, are in the SDK alone
    "input_cache_write_12h_tokens",
)
_REQUESTS = "num_model_requests"

ENDPOINTS = {
    "completions": Endpoint(
        "completions",
        (*_TOKENS, _REQUESTS),
        (*_BY_MODEL, "batch", "service_tier", "api_source"),
        _MODEL | {"batch": "batch"},
    ),
    "decisions": Endpoint(
        "decisions",
        (*_TOKENS, _REQUESTS),
        (*_BY_MODEL, "batch", "service_tier", "api_source"),
        _MODEL | {"batch": "batch"},
    ),
    "embeddings": Endpoint("embeddings", ("input_tokens", _REQUESTS), _BY_MODEL, _MODEL),
    "moderations": Endpoint("moderations", ("input_tokens", _REQUESTS), _BY_MODEL, _MODEL),
    "images": Endpoint("images", ("images", _REQUESTS), (*_BY_MODEL, "size", "source"), _IMAGE),
    "audio_speeches": Endpoint("audio_speeches", ("characters", _REQUESTS), _BY_MODEL, _MODEL),
    "audio_transcriptions": Endpoint("audio_transcriptions", ("seconds", _REQUESTS), _BY_MODEL, _MODEL),
    "vector_stores": Endpoint("vector_stores", ("usage_bytes",), ("project_id",), _PROJECT),
    "code_interpreter_sessions": Endpoint("code_interpreter_sessions", ("num_sessions",), ("project_id",), _PROJECT),
    "file_search_calls": Endpoint(
        "file_searches",
        ("num_requests",),
        ("project_id", "user_id", "api_key_id", "vector_store_id"),
        _WHO | {"vector_store_ids": "vector_store_id"},
    ),
    "web_search_calls": Endpoint(
        "web_searches",
        (_REQUESTS, "num_requests"),
        (*_BY_MODEL, "context_level"),
        _MODEL | {"context_levels": "context_level"},
    ),
}

Widths = Mapping[str, tuple[int, int, int]]
"""Bucket width: seconds, default limit, largest limit."""

WIDTHS: Widths = {"1m": (60, 60, 1440), "1h": (3600, 24, 168), "1d": (DAY_S, 7, 31)}

COSTS = Endpoint("costs", ("amount", "quantity"), ("project_id", "line_item", "api_source"), _PROJECT)
"""Not grouped by ``api_key_id``: it is documented, and refused to every organisation (PostHog pull request 71784)."""

COST_WIDTHS: Widths = {"1d": (DAY_S, 7, 180)}


class BadRequest(Exception):
    """What OpenAI answers with 400. ``param`` names the parameter."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Query:
    """A validated query. ``start`` to ``end`` are unix seconds, end exclusive; ``first`` is where this page begins."""

    start: int
    end: int
    width: int
    limit: int
    group_by: tuple[str, ...]
    filters: Mapping[str, tuple[str, ...]]
    first: int
    fingerprint: str


class OpenAISandbox:
    """Answers as OpenAI does for one organisation whose usage is made up from a seed."""

    key, base, secret = "openai", "/v1", ADMIN_KEY
    prefixes: tuple[str, ...] = ("/v1/organization/",)

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.settled = True

    def refuse(self, request: Request) -> Answer | None:
        """401 without a known key; 403 in the documented words for a project's key."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and key == ADMIN_KEY:
            return None
        if scheme.lower() == "bearer" and key.startswith(PROJECT_KEY_PREFIX):
            message = "You have insufficient permissions for this operation. Missing scopes: api.usage.read."
            return _error(403, message, "server_error")
        message = "Incorrect API key provided. You can find your API key in your organization's settings."
        return _error(401, message, "invalid_request_error", code="invalid_api_key")

    def rate_limited(self) -> Answer:
        message = f"Rate limit reached for the usage API. Please try again in {RETRY_AFTER_S}s."
        answer = _error(429, message, "requests", code="rate_limit_exceeded")
        return Answer(429, answer.body, {**answer.headers, "retry-after": str(RETRY_AFTER_S)})

    def answer(self, request: Request) -> Answer:
        name = request.path.removeprefix("/v1/organization/")
        endpoint = COSTS if name == "costs" else ENDPOINTS.get(name.removeprefix("usage/"))
        if endpoint is None or request.method != "GET":
            return _error(404, f"Invalid URL ({request.method} {request.path})", "invalid_request_error")
        try:
            widths = COST_WIDTHS if endpoint is COSTS else WIDTHS
            query = parse(name, endpoint, widths, request.query, now=int(time.time()))
        except BadRequest as error:
            return _error(400, str(error), "invalid_request_error", param=error.param)
        return Answer(200, self._page(name, endpoint, query), {"openai-organization": ORGANISATION})

    def _page(self, name: str, endpoint: Endpoint, query: Query) -> dict[str, Any]:
        at, buckets = query.first, list[dict[str, Any]]()
        while at < query.end and len(buckets) < query.limit:
            upto = min(at + query.width - at % query.width, query.end)
            if endpoint is COSTS:
                used = ((usage, record) for usage in ENDPOINTS for record in self._records(usage, at, upto))
                results = cost_results(used, query.group_by, query.filters)
            else:
                results = _results(endpoint, query, self._records(name.removeprefix("usage/"), at, upto))
            buckets.append({"object": "bucket", "start_time": at, "end_time": upto, "results": results})
            at = upto
        more = at < query.end
        token = _token(query.fingerprint, at) if more else None
        return {"object": "page", "data": buckets, "has_more": more, "next_page": token}

    def _records(self, name: str, start: int, end: int) -> Iterator[UsageRecord]:
        """Yield the records of one bucket, which never crosses midnight."""
        for record in records(self._seed, name, start - start % DAY_S):
            if start <= record.at < end and (self.settled or not record.late):
                yield record


def _results(endpoint: Endpoint, query: Query, records: Iterator[UsageRecord]) -> list[dict[str, Any]]:
    """Sum the records by the dimensions asked for; the others are null."""
    sums: dict[tuple[str | bool | None, ...], Counter[str]] = defaultdict(Counter)
    for record in records:
        if all(_text(record.dimensions.get(d)) in wanted for d, wanted in query.filters.items()):
            sums[tuple(record.dimensions.get(d) for d in query.group_by)].update(record.measures)
    results = []
    for key, measures in sorted(sums.items(), key=lambda item: tuple(map(_text, item[0]))):
        grouped = dict(zip(query.group_by, key, strict=True))
        results.append(
            {
                "object": f"organization.usage.{endpoint.result}.result",
                **{measure: measures[measure] for measure in endpoint.measures},
                **{dimension: grouped.get(dimension) for dimension in endpoint.group_by},
            }
        )
    return results


def _text(value: str | bool | None) -> str:
    return str(value).lower() if isinstance(value, bool) else value or ""


def parse(name: str, endpoint: Endpoint, widths: Widths, query: Sequence[tuple[str, str]], *, now: int) -> Query:
    """Validate the parameters of an endpoint, or raise BadRequest. Arrays come repeated, with or without brackets."""
    given: dict[str, list[str]] = defaultdict(list)
    for key, value in query:
        given[key.removesuffix("[]")].append(value)
    _check_names(endpoint, given)
    width_name = given.get("bucket_width", ["1d"])[0]
    if width_name not in widths:
        supported = ", ".join(f"'{known}'" for known in widths)
        raise BadRequest(f"Invalid value: '{width_name}'. Supported values are: {supported}.", "bucket_width")
    width, default_limit, most = widths[width_name]
    start, end = _times(given, now)
    group_by = _group_by(endpoint, given)
    # A page token is valid for its own query only, in whatever order the parameters come.
    bound = sorted((key, sorted(values)) for key, values in given.items() if key != "page")
    fingerprint = hashlib.sha256(json.dumps([name, bound]).encode()).hexdigest()[:16]
    first = _position(given["page"][0], fingerprint, start, end) if "page" in given else start
    filters = {dimension: tuple(given[key]) for key, dimension in endpoint.filters.items() if key in given}
    return Query(start, end, width, _limit(given, default_limit, most), group_by, filters, first, fingerprint)


def _check_names(endpoint: Endpoint, given: Mapping[str, list[str]]) -> None:
    single = {"start_time", "end_time", "bucket_width", "limit", "page"}
    for key, values in given.items():
        if key not in single | {"group_by"} | endpoint.filters.keys():
            raise BadRequest(f"Unknown parameter: '{key}'.", key)
        if key in single | {"batch"} and len(values) > 1:
            raise BadRequest(f"Parameter '{key}' was given more than once.", key)


def _group_by(endpoint: Endpoint, given: Mapping[str, list[str]]) -> tuple[str, ...]:
    asked = tuple(dict.fromkeys(given.get("group_by", [])))
    for value in asked:
        if value not in endpoint.group_by:
            supported = ", ".join(f"'{v}'" for v in endpoint.group_by)
            raise BadRequest(f"Invalid value: '{value}'. Supported values are: {supported}.", "group_by")
    return asked


def _times(given: Mapping[str, list[str]], now: int) -> tuple[int, int]:
    if "start_time" not in given:
        raise BadRequest("Missing required parameter: 'start_time'.", "start_time")
    start = _integer(given, "start_time")
    end = _integer(given, "end_time") if "end_time" in given else max(now, start + 1)
    if end <= start:
        raise BadRequest("end_time must be greater than start_time.", "end_time")
    return start, end


def _integer(given: Mapping[str, list[str]], name: str) -> int:
    text = given[name][0]
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= LATEST):
        raise BadRequest(f"Invalid value for '{name}': expected an integer of at most {LATEST}.", name)
    return int(text)


def _limit(given: Mapping[str, list[str]], default: int, most: int) -> int:
    if "limit" not in given:
        return default
    limit = _integer(given, "limit")
    if limit > most:  # refused, not clamped
        raise BadRequest(f"Limit must be less than or equal to {most}", "limit")
    if limit < 1:
        raise BadRequest("Limit must be greater than or equal to 1", "limit")
    return limit


def _token(fingerprint: str, at: int) -> str:
    return "page_" + base64.urlsafe_b64encode(f"{fingerprint}:{at}".encode()).decode()


def _position(token: str, fingerprint: str, start: int, end: int) -> int:
    """Return where the page begins, or refuse a token of another query."""
    try:
        bound, _, at = base64.urlsafe_b64decode(token.removeprefix("page_").encode()).decode().partition(":")
        position = int(at)
    except ValueError:
        raise BadRequest("Invalid page token.", "page") from None
    if bound != fingerprint or not start < position < end:
        raise BadRequest("The page token does not belong to this query. Repeat its parameters unchanged.", "page")
    return position


def _error(status: int, message: str, kind: str, *, param: str | None = None, code: str | None = None) -> Answer:
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return Answer(status, body, {"openai-organization": ORGANISATION} if status == 429 else {})
