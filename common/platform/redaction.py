"""Secrets that are open in this attempt, kept out of everything that it says.

Whoever writes a message takes care not to repeat a secret. This is the net below: a provider may echo a key in an
error, a library may quote a header in an exception, and a processor of tomorrow may pass that on.
"""

import base64
import json
import re
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote, quote_plus

MIN_CHARS = 4
"""A shorter one would take words out of every message, and is no secret."""

SHOWN = "[secret]"

_TELLING = re.compile(r"key|secret|token|password", re.IGNORECASE)

_NONE: tuple[frozenset[str], re.Pattern[str] | None] = frozenset(), None
_HIDDEN = ContextVar("pipeline_ops_hidden", default=_NONE)
"""Patterns of what is hidden, and all of them in one."""


class hiding:
    """A block in which what is given to ``hide`` is taken out of log lines, and of what ``scrubbed`` is given."""

    def __enter__(self) -> None:
        self._token = _HIDDEN.set(_NONE)

    def __exit__(self, *_: object) -> None:
        _HIDDEN.reset(self._token)


def hide(secret: str) -> None:
    """Take this secret out of what is said from now on, also as URLs, base64, JSON and Python's ``repr`` write it."""
    forms = _HIDDEN.get()[0].union(*(_forms(part) for part in _parts(secret) if len(part) >= MIN_CHARS))
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
    """Return the secret, and of one that is JSON (a service account's key) those of its fields that are secret."""
    parts = [secret]
    try:
        data: Any = json.loads(secret)
    except (ValueError, RecursionError):
        return parts
    if isinstance(data, dict):
        parts += [value for name, value in data.items() if isinstance(value, str) and _TELLING.search(name)]
    return parts


def _forms(part: str) -> list[str]:
    """Return patterns of the ways to write it. Text within text within text is escaped again and again."""
    encoded = base64.b64encode(part.encode()).decode().rstrip("=")
    literal = quote(part, safe=""), quote_plus(part), quote(part), encoded, json.dumps(part)[1:-1]
    chars = [_ESCAPED.get(char) or re.escape(char) for char in part if char != "\\"]
    escaped = [r"\\*" + r"\\*".join(chars)] if len(chars) >= MIN_CHARS else []
    return [*escaped, *(re.escape(form) for form in (part, *literal))]


_ESCAPED = {"\n": r"(?:\n|n)", "\r": r"(?:\r|r)", "\t": r"(?:\t|t)"}
