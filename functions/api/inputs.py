"""Requests: strict JSON bodies, and paths and queries in which unknown parameters are errors."""

import json
from collections.abc import Iterator
from functools import cache, cached_property
from typing import Annotated, Any

from flask import Request
from pydantic import BeforeValidator, ConfigDict, Field
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from common.platform.errors import InvalidFieldsError
from common.platform.strict import StrictModel

MAX_BODY_BYTES = 64 * 1024
"""Largest body: room for a credential, and far below what could exhaust a function's memory."""

MAX_DEPTH = 20
"""Deepest nesting of a body. json.dumps and pydantic recurse, and would raise RecursionError on a body of brackets."""

ORG = "^[a-z][a-z0-9_]{1,49}$"
RUN = "^run_[0-9a-f]{32}$"
PART = "^[a-z0-9][a-z0-9_-]{0,62}$"
EXAMPLE = '{"start_date": "2026-11-20"}'


class ApiRequest(Request):
    """A request whose body is a JSON object in UTF-8. No body is the same as ``{}``: all defaults."""

    def get_json(self, *_: Any, **__: Any) -> Any:
        """Return the body. Raises UnsupportedMediaType, BadRequest or InvalidFieldsError."""
        return self.strict_json

    @cached_property
    def strict_json(self) -> dict[str, Any]:
        raw = self.get_data()
        if not raw:
            return {}
        charset = self.mimetype_params.get("charset", "utf-8").lower()
        if self.mimetype != "application/json" or charset not in ("utf-8", "utf8"):
            raise UnsupportedMediaType(f"The body is {self.content_type or 'of no type'!r:.100}.")
        # Not decompressed: a small body could grow to gigabytes.
        if self.headers.get("Content-Encoding", "identity") != "identity":
            raise UnsupportedMediaType("The body is compressed.")
        body = _parsed(raw)
        if not isinstance(body, dict):
            raise InvalidFieldsError({"body": f"must be a JSON object, e.g. {{}} or {EXAMPLE}"})
        return body


def _parsed(raw: bytes) -> Any:
    """Return the parsed JSON. Depth is bounded, because the parser accepts deeper nesting than later code does."""
    try:
        body = json.loads(raw.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not UTF-8: byte {error.start} is invalid.") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is not JSON: {str(error)[:120]}.") from error
    if any(depth > MAX_DEPTH for depth in _depths(body)):
        raise BadRequest(f"The body is nested more than {MAX_DEPTH} deep.")
    return body


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{repeated[:40]!r} is given twice")
    return members


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")  # NaN and Infinity: Python reads them, JSON does not have them


def _depths(body: Any) -> Iterator[int]:
    """Yield the depth of each level of objects and arrays, without recursion."""
    level, depth = [body], 1
    while level := [part for part in level if isinstance(part, dict | list)]:
        yield depth
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
        depth += 1


class Input(StrictModel):
    """A path, a query or a body. Unknown members are refused."""

    @classmethod
    def model_json_schema(cls, *args: Any, **more: Any) -> dict[str, Any]:
        """Return the cached schema: the framework reads that of a query on each request."""
        return _schema(cls, args, tuple(more.items()))


@cache
def _schema(model: type[Input], args: tuple[Any, ...], more: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    return super(Input, model).model_json_schema(*args, **dict(more))


class Headers(Input):
    """Headers that an operation reads. Requests have many others, so unknown ones are ignored."""

    model_config = ConfigDict(extra="ignore")


def _whole_number(text: Any) -> Any:
    """Accept digits only: pydantic would accept ``1_0``, `` 5 `` and ``5.0`` as well."""
    if isinstance(text, str) and not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ValueError("must be a whole number")
    return text


def _part(description: str, pattern: str) -> Any:
    # The pattern is documented but not checked: an impossible name gets the same 404 as an unknown one.
    return Field(description=description, json_schema_extra={"pattern": pattern})


def up_to(most: int, description: str) -> Any:
    """Return the field of an ``int`` from 1 to ``most``; annotate ``whole_number`` after it."""
    return Field(ge=1, le=most, description=description)


whole_number = BeforeValidator(_whole_number)


def _json_integer(value: Any) -> Any:
    """Accept JSON's integers, of which ``8.0`` is one; pydantic would accept texts and booleans as well."""
    if isinstance(value, str | bool):
        raise ValueError("must be a whole number")
    return value


json_integer = BeforeValidator(_json_integer)
Org = Annotated[str, _part("The organisation, e.g. acme_corp.", ORG)]
RunId = Annotated[str, _part("A run's id.", RUN)]
Limit = Annotated[int, up_to(200, "Page size."), whole_number]
Cursor = Annotated[str | None, Field(max_length=500, description="`next_cursor` of the previous page.")]


class NoQuery(Input):
    """Takes no query parameters."""


class OrgPath(Input):
    """An organisation."""

    org: Org


class RunPath(OrgPath):
    """One run of an organisation."""

    run_id: RunId


class PipelinePath(OrgPath):
    """A pipeline of an organisation."""

    provider: Annotated[str, _part("First part of the route, e.g. genai.", PART)]
    domain: Annotated[str, _part("Second part, e.g. payg.", PART)]
    pipeline: Annotated[str, _part("Third part, e.g. openai.", PART)]

    @property
    def route(self) -> str:
        """``provider/domain/pipeline``."""
        return f"{self.provider}/{self.domain}/{self.pipeline}"
