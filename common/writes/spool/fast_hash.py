"""The content hash of an Arrow table, as ``hashing.py`` defines it, computed column by column.

Row by row in Python takes about ten times as long.
"""

from collections.abc import Mapping
from hashlib import sha256
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from common.tables.contract import ColumnType
from common.writes.spool.hashing import canonical_json

WIDE_ROW_BYTES = 2**16
"""Longer rows (on average) are hashed piece by piece, so that a text of 100 MB is not copied."""

# Bounds the memory of ``JsonTexts``.
KNOWN_CHARS = 2**20

type Part = str | pa.Array
"""A literal common to all rows, or an array with a text for each row."""


class JsonTexts:
    """Bounded cache of canonical texts: tags and attributes repeat, so each distinct JSON value is parsed once."""

    def __init__(self) -> None:
        self._known: dict[str, str | None] = {}
        self._chars = 0

    def canonical(self, text: str) -> str | None:
        """Return ``canonical_json(text)``. Raises ValueError."""
        try:
            return self._known[text]
        except KeyError:
            pass
        canonical = canonical_json(text)
        if self._chars > KNOWN_CHARS:
            self._known.clear()
            self._chars = 0
        if len(text) < KNOWN_CHARS:
            self._known[text] = canonical
            self._chars += len(text)
        return canonical


def table_hash(table: pa.Table, kinds: Mapping[str, ColumnType], texts: JsonTexts) -> int:
    """Return the sum of the row hashes, without the modulus."""
    total = 0
    for batch in table.to_batches():
        parts = [part for name in sorted(kinds) for part in _parts(name, kinds[name], batch.column(name), texts)]
        wide = batch.nbytes > WIDE_ROW_BYTES * batch.num_rows
        total += _streamed(parts, batch.num_rows) if wide else _joined(parts)
    return total


def _joined(parts: list[Part]) -> int:
    merged: list[Part] = []
    for part in parts:  # join adjacent literals: the time of the join grows with the number of parts
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    rows = pc.binary_join_element_wise(*merged, "", null_handling="replace", null_replacement="")
    _, offsets, data = rows.buffers()
    ends = memoryview(offsets).cast("B").cast("i")[rows.offset : rows.offset + len(rows) + 1]
    text, hashed, number = data.to_pybytes(), sha256, int.from_bytes
    return sum([number(hashed(text[begin:end]).digest()) for begin, end in pairwise(ends)])


def _streamed(parts: list[Part], rows: int) -> int:
    total = 0
    for row in range(rows):
        hashed = sha256()
        for part in parts:
            if isinstance(part, str):
                hashed.update(part.encode())
            elif (piece := part[row]).is_valid:
                hashed.update(piece.as_buffer())
        total += int.from_bytes(hashed.digest())
    return total


def _parts(name: str, kind: ColumnType, values: pa.Array, texts: JsonTexts) -> list[Part]:
    """Return the parts whose concatenation is the column's canonical text; nothing for a NULL."""
    parts: list[Part]
    match kind:
        case "JSON":
            return [_json(name, values, texts)]
        case "STRING":
            parts = [f"{name}:s", pc.binary_length(values).cast(pa.string()), ":", values]
        case "BIGNUMERIC":
            parts = [f"{name}:n", *_decimals(values), ";"]
        case "BOOL":
            parts = [f"{name}:b", pc.if_else(values, "1", "0"), ";"]
        case _:
            number = values.cast(pa.int32()) if kind == "DATE" else values.cast(pa.int64())
            mark = {"INT64": "i", "DATE": "d", "TIMESTAMP": "t"}[kind]
            parts = [f"{name}:{mark}", number.cast(pa.string()), ";"]
    if not values.null_count:
        return parts
    # Joined here, a NULL removes the literals around it, too. Not STRING values: they may be long, and are not copied.
    texts_apart = [parts.pop()] if kind == "STRING" else []
    return [pc.binary_join_element_wise(*parts, ""), *texts_apart]


def _decimals(values: pa.Array) -> list[Part]:
    """Format the unscaled integer, whose text has no point and no exponent, and strip trailing zeros."""
    kind = values.type
    # The same buffers read with scale 0 are the unscaled integers, without a conversion.
    whole = pa.decimal128(kind.precision, 0) if kind.bit_width == 128 else pa.decimal256(kind.precision, 0)
    text = pa.Array.from_buffers(whole, len(values), values.buffers(), offset=values.offset).cast(pa.string())
    kept = pc.ascii_rtrim(text, characters="0")
    left = pc.binary_length(kept)
    exponent = pc.subtract(pc.subtract(pc.binary_length(text), left), kind.scale)
    if pc.min(left).as_py() == 0:
        zero = pc.equal(left, 0)
        kept, exponent = pc.if_else(zero, "0", kept), pc.if_else(zero, 0, exponent)
    return [kept, "e", exponent.cast(pa.string())]


def _json(name: str, values: pa.Array, texts: JsonTexts) -> pa.Array:
    encoded = values.dictionary_encode()
    canonical = [texts.canonical(text) for text in encoded.dictionary.to_pylist()]
    pieces = pa.array([None if text is None else f"{name}:{text}" for text in canonical], pa.string())
    return pieces.take(encoded.indices)
