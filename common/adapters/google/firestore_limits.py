"""Firestore's documented limits that a document of ours could reach, checked before anything is sent.

https://cloud.google.com/firestore/quotas and https://cloud.google.com/firestore/docs/storage-size (Standard edition,
read on 1 December 2026). Of these limits, Google's emulator checks the size of one field value and the length of
``in`` alone.

The number of writes in a commit is not among the limits any more: since 29 March 2023 only the request's size counts.
Index entries are kept few by ``infra/firestore.indexes.json``; ``tests/unit/test_firestore_limits.py`` counts them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from common.platform.errors import PermanentError

MAX_DOCUMENT_BYTES = 1_048_576
MAX_REQUEST_BYTES = 10 * 2**20

MAX_IN = 30
"""Most values that the filter ``in`` accepts."""

NAME_BYTES, DOCUMENT_BYTES = 16, 32
"""What a document has beside its path, and beside its name and fields."""


class TooLargeError(PermanentError):
    """A document, or all documents of one commit, would be larger than Firestore takes."""


def check(writes: Iterable[Any]) -> None:
    """Raise TooLargeError if Firestore would refuse these writes (``Write`` messages of one commit) for their size.

    An update is checked by what it sends: what the stored document holds beside that is not known here.
    """
    total = 0
    for write in writes:
        message = type(write).pb(write)
        total += message.ByteSize()
        size = document_bytes(message.update.name, message.update.fields)
        if size > MAX_DOCUMENT_BYTES:
            raise TooLargeError(
                f"{_path(message.update.name)} would have {size:,} bytes, and a document has at most "
                f"{MAX_DOCUMENT_BYTES:,}. Hand less on in outputs, or split the pipeline."
            )
    if total > MAX_REQUEST_BYTES:
        raise TooLargeError(
            f"One change would have {total:,} bytes, and a commit has at most {MAX_REQUEST_BYTES:,}. "
            "Hand less on in outputs, or split the pipeline."
        )


def document_bytes(name: str, fields: Mapping[str, Any]) -> int:
    """Return the size of a document by Firestore's rules, from its full name and its ``Value`` messages."""
    path = sum(_text(part) for part in _path(name).split("/"))
    return path + NAME_BYTES + _fields(fields)


def _path(name: str) -> str:
    return name.partition("/documents/")[2]


def _text(text: str) -> int:
    return len(text.encode()) + 1


def _fields(fields: Mapping[str, Any]) -> int:
    return DOCUMENT_BYTES + sum(_text(name) + _value(value) for name, value in fields.items())


def _value(value: Any) -> int:
    match value.WhichOneof("value_type"):
        case "null_value" | "boolean_value":
            return 1
        case "string_value":
            return _text(value.string_value)
        case "bytes_value":
            return len(value.bytes_value)
        case "map_value":  # "calculated the same way as document size"
            return _fields(value.map_value.fields)
        case "array_value":
            return sum(_value(one) for one in value.array_value.values)
        case "integer_value" | "double_value" | "timestamp_value":
            return 8
        case other:
            raise TypeError(f"The store writes no {other}.")
