"""Rows that can't be written, with the reason.

Standard library only: processors create them, and importing a processor must not import Arrow.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

SHOWN_CHARS = 80
"""Most characters of a value in a message."""

ROW_CHARS = 8_000
"""About how many characters of a row are kept, shared between its values."""

MAX_NAMES = 1_000
NAME_CHARS = 128


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that can't be written.

    ``source`` is its position (``bill.csv: line 12``), ``column`` the column at fault if there is one, ``reason`` what
    is wrong with it, and ``row`` its values as JSON text (``row_text``).
    """

    reason: str
    source: str
    row: str
    column: str = ""

    def __str__(self) -> str:
        return f"{self.source}{f', column {self.column}' if self.column else ''}: {self.reason}."


def shown(value: Any) -> str:
    """Return the value for messages: quoted and short."""
    try:
        text = "NULL" if value is None else str(value)
    except ValueError:  # Python refuses to format an int of more than 4300 digits
        text = f"{type(value).__name__}, too long to show"
    return repr(_storable(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"))


def row_text(values: Mapping[Any, Any]) -> str:
    """Return the row as a valid JSON object of strings and nulls, about ``ROW_CHARS`` long: long values are cut.

    Never raises, whatever the row holds: a lone surrogate stays in its escaped form.
    """
    room = max(20, ROW_CHARS // max(1, min(len(values), MAX_NAMES)))
    cut = {str(name)[:NAME_CHARS]: _cut(value, room) for name, value in islice(values.items(), MAX_NAMES)}
    return _storable(json.dumps(cut, ensure_ascii=False))


def _storable(text: str) -> str:
    """Escape lone surrogates: a Python string may hold them, UTF-8 may not."""
    return text.encode("utf-8", "backslashreplace").decode()


def _cut(value: Any, room: int) -> str | None:
    if value is None:
        return None
    try:
        text = str(value)
    except ValueError:
        return f"{type(value).__name__}, too long to show"
    return text if len(text) <= room else text[:room] + "…"
