"""The content hash of an Arrow table, as ``hashing.py`` defines it, computed column by column.

Row by row in Python takes about ten times as long.
"""

from collections.abc import Mapping
from hashlib import sha256
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from common.tables.contract import ColumnType

WIDE_ROW_BYTES = 2**16
"""Longer rows (on average) are hashed piece by piece, so that a text of 100 MB is not copied."""

type Part = str | pa.Array
"""A literal common to all rows, or an array with a text for each row."""


def table_hash(table: pa.Table, kinds: Mapping[str, ColumnType]) -> int:
    """Return the sum of the row hashes, without the modulus."""
    total = 0
    for batch in table.to_batches():
        parts = [part for name in sorted(kinds) for part in _parts(name, kinds[name], batch.column(name))]
        wide = batch.nbytes > WIDE_ROW_BYTES * batch.num_rows
        total += _streamed(parts, batch.num_rows) if wide else _joined(parts, batch.num_rows)
    return total


def _joined(parts: list[Part], rows: int) -> int:
    merged: list[Part] = []
    for part in parts:  # join adjacent literals: the time of the join grows with the number of parts
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    if all(isinstance(part, str) for part in merged):  # equal rows
        return rows * int.from_bytes(sha256("".join(map(str, merged)).encode()).digest())
    texts = pc.binary_join_element_wise(*merged, "", null_handling="replace", null_replacement="")
    _, offsets, data = texts.buffers()
    ends = memoryview(offsets).cast("B").cast("i")[texts.offset : texts.offset + len(texts) + 1]
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


def _parts(name: str, kind: ColumnType, values: pa.Array) -> list[Part]:
    """Return the parts whose concatenation is the column's canonical text; nothing for a NULL."""
    if values.null_count == len(values):
        return []
    if _is_constant(values):
        parts = _parts(name, kind, values.slice(0, 1))  # the same in each row: of a bill, a third of all columns
        return ["".join(part if isinstance(part, str) else part[0].as_py() or "" for part in parts)]
    if kind == "JSON":
        values = pc.if_else(pc.equal(values, "null"), None, values)
    match kind:
        case "STRING" | "JSON":
            parts = [f"{name}:{kind[0].lower()}", pc.binary_length(values).cast(pa.string()), ":", values]
        case "BIGNUMERIC":
            parts = [f"{name}:n", _decimals(values), ";"]
        case "BOOL":
            parts = [f"{name}:b", values.cast(pa.string()), ";"]
        case _:
            number = values.cast(pa.int32()) if kind == "DATE" else values.cast(pa.int64())
            mark = {"INT64": "i", "DATE": "d", "TIMESTAMP": "t"}[kind]
            parts = [f"{name}:{mark}", number.cast(pa.string()), ";"]
    if not values.null_count:
        return parts
    # Joined here, a NULL removes the literals around it, too. Not texts: they may be long, and are not copied.
    texts_apart = [parts.pop()] if kind in ("STRING", "JSON") else []
    return [pc.binary_join_element_wise(*parts, ""), *texts_apart]


def _is_constant(values: pa.Array) -> bool:
    """Whether all values are the same. Most columns are told apart by their first and last one."""
    if len(values) < 2 or values.null_count or not values[0].equals(values[-1]):
        return False
    return bool(pc.all(pc.equal(values, values[0])).as_py())


def _decimals(values: pa.Array) -> pa.Array:
    """Format decimals without an exponent, and strip zeros at the end."""
    text = values.cast(pa.string())
    scientific = pc.match_substring(text, "E")
    if pc.any(scientific).as_py():  # Arrow writes 0 as 0E-18, and a number below 0.000001 as 1.5E-7
        is_zero = pc.equal(values, pa.scalar(0, values.type))
        text = pc.if_else(is_zero, "0.0", text)
        small = pc.fill_null(pc.and_not(scientific, is_zero), False)
        if pc.any(small).as_py():
            text = pc.replace_with_mask(text, small, _small(values.filter(small)))
    return pc.ascii_rtrim(pc.ascii_rtrim(text, "0"), ".")


def _small(values: pa.Array) -> pa.Array:
    """Format decimals between -1 and 1 by their unscaled integers, whose text has no exponent."""
    kind = values.type
    # The same buffers read with scale 0 are the unscaled integers, without a conversion.
    whole = pa.decimal128(kind.precision, 0) if kind.bit_width == 128 else pa.decimal256(kind.precision, 0)
    digits = pa.Array.from_buffers(whole, len(values), values.buffers(), offset=values.offset).cast(pa.string())
    sign = pc.if_else(pc.starts_with(digits, "-"), "-", "")
    padded = pc.ascii_lpad(pc.ascii_ltrim(digits, characters="-"), kind.scale, padding="0")
    return pc.binary_join_element_wise(sign, "0.", padded, "")
