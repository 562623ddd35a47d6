"""Removes the secrets opened in an attempt from everything that it reports.

Code that writes messages takes care not to repeat a secret. This is the safety net: a provider may echo a key in an
error, a library may quote a header in an exception, and a future processor may pass that on.
"""

import base64
import json
import re
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote, quote_plus

MIN_CHARS = 4
"""Shorter strings are not hidden: they would remove parts of words from every message, and are no secrets."""

SHOWN = "[secret]"

_TELLING = re.compile(r"key|secret|token|password", re.IGNORECASE)

_NONE: tuple[frozenset[str], re.Pattern[str] | None] = frozenset(), None
_HIDDEN = ContextVar("pipeline_ops_hidden", default=_NONE)
"""The patterns of the hidden secrets, and one pattern of all of them."""


class hiding:
    """A block in which secrets passed to ``hide`` are removed from log lines and by ``scrubbed``."""

    def __enter__(self) -> None:
        self._token = _HIDDEN.set(_NONE)

    def __exit__(self, *_: object) -> None:
        _HIDDEN.reset(self._token)


def hide(secret: str) -> None:
    """Hide this secret from now on, also in the forms of URLs, base64, JSON and Python's ``repr``."""
    forms = _HIDDEN.get()[0].union(*(_forms(part) for part in _parts(secret) if len(part) >= MIN_CHARS))
    # Longest first: a shorter secret inside a longer one would otherwise be cut out of it and leave the rest readable.
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    _HIDDEN.set((forms, re.compile("|".join(longest_first)) if forms else None))


def scrubbed(text: str) -> str:
    """Return the text without the hidden secrets."""
    pattern = _HIDDEN.get()[1]
    return text if pattern is None else pattern.sub(SHOWN, text)


def scrubbed_data(value: Any) -> Any:
    """Return JSON data without the hidden secrets."""
    match value:
        case str():
            return scrubbed(value)
        case dict():
            return {scrubbed(key): scrubbed_data(item) for key, item in value.items()}
        case list():
            return [scrubbed_data(item) for item in value]
    return value


def _parts(secret: str) -> list[str]:
    """Return the secret and, if it is JSON (a service account's key), the values of its secret fields."""
    parts = [secret]
    try:
        data: Any = json.loads(secret)
    except (ValueError, RecursionError):
        return parts
    if isinstance(data, dict):
        parts += [value for name, value in data.items() if isinstance(value, str) and _TELLING.search(name)]
    return parts


def _forms(part: str) -> list[str]:
    """Return patterns for the encodings of a secret. Nested JSON escapes backslashes and quotes any number of times."""
    encoded = base64.b64encode(part.encode()).decode().rstrip("=")
    literal = quote(part, safe=""), quote_plus(part), quote(part), encoded, json.dumps(part)[1:-1]
    chars = [_ESCAPED.get(char) or re.escape(char) for char in part if char != "\\"]
    escaped = [r"\\*" + r"\\*".join(chars)] if len(chars) >= MIN_CHARS else []
    return [*escaped, *(re.escape(form) for form in (part, *literal))]


_ESCAPED = {"\n": r"(?:\n|n)", "\r": r"(?:\r|r)", "\t": r"(?:\t|t)"}
