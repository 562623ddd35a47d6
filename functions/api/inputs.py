"""What requests may hold: strict JSON bodies, and paths and queries in which nothing is ignored."""

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
MAX_DEPTH = 20
ORG = "^[a-z][a-z0-9_]{1,49}$"
RUN = "^run_[0-9a-f]{32}$"
PART = "^[a-z0-9][a-z0-9_-]{0,62}$"
EXAMPLE = '{"start_date": "2026-11-20"}'


class ApiRequest(Request):
    """A request whose body is a JSON object in UTF-8. No body at all asks for the defaults, like ``{}``."""

    def get_json(self, *_: Any, **__: Any) -> Any:
        """Return the body; raise what says why it can't be read."""
        return self.strict_json

    @cached_property
    def strict_json(self) -> dict[str, Any]:
        raw = self.get_data()
        if not raw:
            return {}
        charset = self.mimetype_params.get("charset", "utf-8").lower()
        if self.mimetype != "application/json" or charset not in ("utf-8", "utf8"):
            raise UnsupportedMediaType(f"The body is {self.content_type or 'of no type'!r:.100}.")
        if self.headers.get("Content-Encoding", "identity") != "identity":
            raise UnsupportedMediaType("The body is compressed.")
        body = _parsed(raw)
        if not isinstance(body, dict):
            raise InvalidFieldsError({"body": f"must be a JSON object, e.g. {{}} or {EXAMPLE}"})
        return body


def _parsed(raw: bytes) -> Any:
    """Return the JSON. The parser goes deeper than whoever looks at its result later, so that depth is bounded."""
    try:
        body = json.loads(raw.decode(), object_pairs_hook=_once_each, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not UTF-8: byte {error.start} can't be.") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is not JSON: {str(error)[:120]}.") from error
    if any(depth > MAX_DEPTH for depth in _depths(body)):
        raise BadRequest(f"The body is nested more than {MAX_DEPTH} deep.")
    return body


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:40]!r} is there twice")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _depths(body: Any) -> Iterator[int]:
    """Yield how deep each object and array is, without recursion."""
    level, depth = [body], 1
    while level := [part for part in level if isinstance(part, dict | list)]:
        yield depth
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
        depth += 1


class Input(StrictModel):
    """A path, a query or a body: what it does not know is refused."""

    @classmethod
    def model_json_schema(cls, *args: Any, **more: Any) -> dict[str, Any]:
        """Return the schema, made once: the framework asks for that of a query with each request."""
        return _schema(cls, args, tuple(more.items()))


@cache
def _schema(model: type[Input], args: tuple[Any, ...], more: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    return super(Input, model).model_json_schema(*args, **dict(more))


class Headers(Input):
    """Headers that mean something to an operation; requests have many others."""

    model_config = ConfigDict(extra="ignore")


def _whole_number(text: Any) -> Any:
    """Take digits alone: pydantic would take ``1_0``, `` 5 `` and ``5.0`` as well."""
    if isinstance(text, str) and not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ValueError("must be a whole number")
    return text


def _part(description: str, pattern: str) -> Any:
    # The pattern is told, and not checked here: what can be nobody's name is a 404 like what is nobody's.
    return Field(description=description, json_schema_extra={"pattern": pattern})


def up_to(most: int, description: str) -> Any:
    """Return what makes an ``int`` one from 1 to ``most``; ``whole_number`` goes behind it."""
    return Field(ge=1, le=most, description=description)


whole_number = BeforeValidator(_whole_number)


def _json_integer(value: Any) -> Any:
    """JSON's ``8.0`` is one of its integers; pydantic would take texts and booleans as well."""
    if isinstance(value, str | bool):
        raise ValueError("must be a whole number")
    return value


json_integer = BeforeValidator(_json_integer)
Org = Annotated[str, _part("The organisation, e.g. acme_corp.", ORG)]
RunId = Annotated[str, _part("A run's id.", RUN)]
Limit = Annotated[int, up_to(200, "How many at most."), whole_number]
Cursor = Annotated[str | None, Field(max_length=500, description="`next_cursor` of the page before.")]


class NoQuery(Input):
    """Takes no query parameters."""


class OrgPath(Input):
    """An organisation."""

    org: Org


class RunPath(OrgPath):
    """One run of an organisation."""

    run_id: RunId


class PipelinePath(OrgPath):
    """A pipeline, as an organisation uses it."""

    provider: Annotated[str, _part("First part of the route, e.g. genai.", PART)]
    domain: Annotated[str, _part("Second part, e.g. payg.", PART)]
    pipeline: Annotated[str, _part("Third part, e.g. openai.", PART)]

    @property
    def route(self) -> str:
        """``provider/domain/pipeline``."""
        return f"{self.provider}/{self.domain}/{self.pipeline}"
