"""Problems of config files: where (path, line, field), what, and what to do.

Messages never repeat values of a ``config:`` block: somebody may have pasted a secret there.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import GenericAlias
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from common.platform.errors import ConfigError, nearest

Location = tuple[str | int, ...]
"""Keys and list positions from the top of a file to a value."""

Finding = tuple[Location, str]
"""A problem before its line is looked up: location in the data, and message."""

MAX_PROBLEMS = 50
"""Most problems that are reported per file; it also bounds the work that a hostile file can cause."""

_PLAIN_KEY = re.compile(r"[\w.-]{1,80}", re.ASCII)
_MUST_BE = {
    "tuple_type": "must be a list.",
    "list_type": "must be a list.",
    "dict_type": "must be a mapping of keys to values.",
    "model_type": "must be a mapping of keys to values.",
    "string_type": "must be text. Put it in quotes.",
    "int_type": "must be a whole number.",
}
_SHOULD = re.compile(r"^\w+ should\b")
_QUOTED = re.compile(r"'([^']*)'")


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. ``str()`` returns ``path:line: field: message`` on one line."""

    path: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.field}: {' '.join(self.message.split())}"


class InvalidFileError(ConfigError):
    """A config file is invalid. ``problems`` lists every problem; the message has one per line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def field_name(location: Location) -> str:
    """Return ``steps[0].retry.max_attempts`` for a location, ``(file)`` for the whole file."""
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            name += f".{part}" if _PLAIN_KEY.fullmatch(part) else f".{part[:80]!r}"
    return name.removeprefix(".") or "(file)"


def findings_of(error: ValidationError, model: type[BaseModel], prefix: Location = ()) -> Iterator[Finding]:
    """Yield pydantic's errors as findings; ``prefix`` is the location of the validated data in the file."""
    details = error.errors(include_url=False)
    around = {detail["loc"][:end] for detail in details for end in range(len(detail["loc"]))}
    for detail in details:
        if detail["type"] == "too_short" and detail["loc"] in around:
            continue  # pydantic counts only the valid items: the invalid ones are reported already
        location = (*prefix, *detail["loc"])
        yield location[:-1] if location[-1:] == ("[key]",) else location, _message(detail, model)


def _message(detail: ErrorDetails, model: type[BaseModel]) -> str:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            known = _keys_at(model, detail["loc"][:-1])
            # `{note: one, two}` is two keys in YAML, the second without a value
            quotes = " A text with a comma inside {...} needs quotes." if detail["input"] is None else ""
            close = nearest(str(detail["loc"][-1]), known)
            return f"unknown key.{close}{quotes} Known: {', '.join(sorted(known)) or 'none'}."
        case "missing":
            return "is required. Add it."
        case "string_pattern_mismatch":
            return f"must match {context['pattern']}."
        case "literal_error" | "enum":
            expected = str(context["expected"])
            close = nearest(detail["input"], _QUOTED.findall(expected)) if isinstance(detail["input"], str) else ""
            return f"must be one of {expected}.{close}"
        case "value_error":
            return str(context["error"])
        case "too_short":
            return f"must have at least {context['min_length']}."
        case kind:  # pydantic's own text ("Input should be ..."), which does not repeat the input: it may be a secret
            return _MUST_BE.get(kind) or f"{_SHOULD.sub('must', detail['msg'])}."


def _keys_at(model: type[BaseModel], location: Location) -> set[str]:
    """Return the keys that are allowed at a location in a model's data; behind a union, those of all its members."""
    models = {model}
    for part in location:
        reached = {
            inner
            for outer in models
            for name, field in outer.model_fields.items()
            if part == (field.alias or name)
            for inner in _models_in(field.annotation)
        }
        models = reached or models  # positions in lists and tags of unions are not keys, and lead to no further model
    return {field.alias or name for outer in models for name, field in outer.model_fields.items()}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, GenericAlias) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
