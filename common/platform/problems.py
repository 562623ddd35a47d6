"""Errors as RFC 9457 problem documents, for the API and the command line.

Each kind has a stable name (``type``), a meaning and a hint. ``docs/errors.md`` lists them all.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from common.platform.errors import (
    ConfigError,
    ConflictingStateError,
    ForbiddenPlanError,
    ForbiddenScopeError,
    InvalidFieldsError,
    NotFoundError,
    QuotaExceededError,
    RequestError,
    TransientError,
    UnauthorizedError,
    nearest,
)

BASE = "/problems/"
MAX_DETAIL_CHARS = 2_000
# The shortest Retry-After: with 0, clients would retry at once against a service that is in trouble.
SOON_S = 5


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: its name, HTTP status and title, what it means and what to do about it."""

    slug: str
    status: int
    title: str
    meaning: str
    hint: str


def _of(error: type[RequestError], slug: str, meaning: str, hint: str) -> Kind:
    return Kind(slug, error.status, error.title, meaning, hint)


INVALID_REQUEST = _of(
    RequestError,
    "invalid-request",
    "The request is well-formed, but what it requests is not possible.",
    "Change the request as `detail` says, then send it again.",
)
INVALID_FIELDS = _of(
    InvalidFieldsError,
    "invalid-fields",
    "Fields of the body, or query parameters, are unknown, missing or have a value that they can't have.",
    "`errors` names each field and what is wrong with it. Correct them all, then send the request again.",
)
NOT_FOUND = _of(
    NotFoundError,
    "not-found",
    "Nothing in this organisation has this name. Names of other organisations get the same response.",
    "Check the names in the path; GET /pipelines/history and /pipelines/configs list runs and pipelines.",
)
UNAUTHENTICATED = _of(
    UnauthorizedError,
    "not-authenticated",
    "The request has no API key, or one that is unknown, expired or revoked.",
    "Send `Authorization: Bearer <key>` with a key of the organisation in the path.",
)
OUT_OF_SCOPE = _of(
    ForbiddenScopeError,
    "out-of-scope",
    "The key is valid, but its scope is too small for this. Scopes: read < run < admin.",
    "Use a key of a wider scope; an admin of the organisation can create one.",
)
PLAN_INACTIVE = _of(
    ForbiddenPlanError,
    "subscription-inactive",
    "The organisation's subscription is neither ACTIVE nor TRIAL, so it can't start runs. Reading is still possible.",
    "Renew the subscription, then try again.",
)
QUOTA = _of(
    QuotaExceededError,
    "quota-exceeded",
    "A limit is used up. `limit` names it; `value` and `used` are its value and usage.",
    "Wait as long as the header Retry-After says, or have the plan's limit raised. GET /pipelines/usage shows it.",
)
CONFLICT = _of(
    ConflictingStateError,
    "conflicting-state",
    "The run, step or key is in a state in which this can't be done.",
    "Check its status, then decide again.",
)
MALFORMED = Kind(
    "malformed-request",
    400,
    "The request can't be read",
    "The request is not HTTP with a valid JSON body: it is truncated, not JSON, nested too deeply, or repeats a key.",
    "Fix what `detail` names. Bodies are JSON objects in UTF-8.",
)
NO_PATH = Kind(
    "no-such-path",
    404,
    "No such path",
    "The API has no such path.",
    "See /docs or /openapi.json for all paths.",
)
METHOD = Kind(
    "method-not-allowed",
    405,
    "Method not allowed",
    "The path does not have this method.",
    "Use one of the methods in the header Allow; /openapi.json has them too.",
)
TOO_SLOW = Kind(
    "request-timeout",
    408,
    "The request came too slowly",
    "The body did not arrive in time.",
    "Send the request again, without pauses.",
)
TOO_LARGE = Kind(
    "too-large",
    413,
    "The request is too large",
    "The body is longer than 64 KiB.",
    "Send less. Files go into the landing folder, and a run names them as `source`.",
)
MEDIA_TYPE = Kind(
    "unsupported-media-type",
    415,
    "Not JSON in UTF-8",
    "The body's Content-Type is not application/json, has another charset than UTF-8, or is compressed.",
    "Send `Content-Type: application/json` and UTF-8, uncompressed (curl: --json).",
)
UNAVAILABLE = Kind(
    "try-again",
    503,
    "Try again",
    "A dependency of the service does not respond, or too many requests want the same at once. Nothing is lost.",
    "Wait as long as the header Retry-After says, then send the same request again, with the same Idempotency-Key.",
)
MISCONFIGURED = Kind(
    "misconfigured",
    500,
    "The service is misconfigured",
    "A file under configs/ or a setting of the deployment is wrong.",
    "Run `main.py validate`: it names file and line; the log names a setting.",
)
INTERNAL = Kind(
    "internal-error",
    500,
    "Internal error",
    "An unexpected error. The response has no details; the service's log has them.",
    "Report it, with the time of the request.",
)

FAILED = Kind(
    "command-failed",
    422,
    "The command failed",
    "A command failed. Only the command line reports this kind, never the API.",
    "Do what `detail` says, then try again.",
)

_BY_ERROR: Mapping[type[Exception], Kind] = {
    InvalidFieldsError: INVALID_FIELDS,
    NotFoundError: NOT_FOUND,
    UnauthorizedError: UNAUTHENTICATED,
    ForbiddenScopeError: OUT_OF_SCOPE,
    ForbiddenPlanError: PLAN_INACTIVE,
    QuotaExceededError: QUOTA,
    ConflictingStateError: CONFLICT,
    RequestError: INVALID_REQUEST,
    TransientError: UNAVAILABLE,
    ConfigError: MISCONFIGURED,
}

KINDS: Mapping[str, Kind] = {
    kind.slug: kind
    for kind in (
        *_BY_ERROR.values(),
        MALFORMED,
        NO_PATH,
        METHOD,
        TOO_SLOW,
        TOO_LARGE,
        MEDIA_TYPE,
        INTERNAL,
        FAILED,
    )
}
"""Every kind by its name."""


def kind_of(error: BaseException) -> Kind:
    """Return the kind of the error's nearest class that has one, or ``INTERNAL``."""
    return next((_BY_ERROR[each] for each in type(error).__mro__ if each in _BY_ERROR), INTERNAL)


def document(kind: Kind, detail: str, **more: Any) -> dict[str, Any]:
    """Return a problem document; members that are None are left out."""
    told = detail if len(detail) <= MAX_DETAIL_CHARS else detail[:MAX_DETAIL_CHARS] + "…"
    base = {"type": BASE + kind.slug, "title": kind.title, "status": kind.status, "detail": told, "hint": kind.hint}
    return base | {name: value for name, value in more.items() if value is not None}


def problem(error: BaseException, *, run_id: str | None = None) -> dict[str, Any]:
    """Return an error's document, without the message of internal and configuration errors: it is for operators."""
    kind = kind_of(error)
    if kind in (INTERNAL, MISCONFIGURED):
        return document(kind, kind.meaning, run_id=run_id)
    more: dict[str, Any] = {"run_id": getattr(error, "run_id", None) or run_id}
    match error:
        case InvalidFieldsError():
            more["errors"] = [{"field": name, "problem": text} for name, text in error.problems.items()]
        case QuotaExceededError():
            more |= {"limit": error.limit, "value": error.value, "used": error.used, "waiting": error.waiting}
    return document(kind, str(error), **more)


def problem_here(error: BaseException) -> dict[str, Any]:
    """Return an error's document for a person on this machine, always with its message."""
    if isinstance(error, RequestError):
        return problem(error)
    kind = kind_of(error)
    return document(FAILED if kind is INTERNAL else kind, str(error))


def in_words(problem: Mapping[str, Any]) -> str:
    """Return a document as text for a terminal."""
    if problem.get("type") == BASE + FAILED.slug:
        return str(problem["detail"])
    text = f"{problem.get('title', 'Error')} ({problem.get('status')}): {problem.get('detail', '')}"
    return f"{text}\n{problem['hint']}" if problem.get("hint") else text


def retry_after_s(error: BaseException) -> int | None:
    """Return after how many seconds a retry makes sense, None if it never does."""
    match error:
        case QuotaExceededError():
            return error.retry_after_s
        case TransientError():
            return max(SOON_S, round(error.retry_after_s))
    return None


def problems_of(error: ValidationError, model: type[BaseModel], *, shown: bool = True) -> dict[str, str]:
    """Return what is wrong by field, with the nearest name or value.

    Values are repeated only if ``shown``; those of secrets never.
    """
    known = {field.alias or name: field for name, field in model.model_fields.items()}
    found: dict[str, str] = {}
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"]) or "body"
        field = known.get(str(item["loc"][0])) if item["loc"] else None
        got = f" (got {str(item['input'])[:80]!r})"
        if not shown or (field is not None and field.annotation is SecretStr):
            got = ""
        if item["type"] == "extra_forbidden":
            found[name[:80]] = f"unknown field.{nearest(name, known)} Known: {', '.join(known) or 'none'}"
        elif item["type"] == "missing":
            found[name] = "is missing"
        elif item["type"] in ("enum", "literal_error"):
            values = re.findall(r"'([^']*)'", item["ctx"]["expected"])
            close = nearest(str(item["input"])[:80], values) if got else ""
            found[name] = f"must be one of {', '.join(values)}{got}.{close}"
        else:
            found[name] = f"{item['msg'].removeprefix('Value error, ')}{got}"
    return found
