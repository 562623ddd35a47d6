"""The content hash of an Arrow table, as ``hashing.py`` defines it, computed column by column.

Row by row in Python takes about fifteen times as long. Most columns of a bill repeat few values: the text of each
combination of values of such neighbours is made once, and then copied into the rows that have it.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import groupby, pairwise
from math import prod

import pyarrow as pa
import pyarrow.compute as pc

from common.tables.contract import ColumnType

WIDE_ROW_BYTES = 2**16
"""Longer rows (on average) are hashed piece by piece, so that a text of 100 MB is not copied."""

FEW_ROWS = 256
"""With fewer rows it takes longer to look for values that repeat than to make each row's text."""

REPEATS = 4
"""How often a value must come on average, for its text to be made once and copied."""

MOST_COMBINED = 2**62
"""Most combinations of values that an INT64 can number."""

type Part = str | pa.Array
"""A literal common to all rows, or an array with a text for each row."""


def table_hash(table: pa.Table, kinds: Mapping[str, ColumnType]) -> int:
    """Return the sum of the row hashes, without the modulus."""
    total = 0
    for batch in table.to_batches():
        filled = {name: kinds[name] for name in sorted(kinds) if batch.column(name).null_count < batch.num_rows}
        if batch.nbytes > WIDE_ROW_BYTES * batch.num_rows:
            parts = [part for name, kind in filled.items() for part in _parts(name, kind, batch.column(name))]
            total += _streamed(parts, batch.num_rows)
        else:
            total += _joined([*_row_parts(batch, filled)], batch.num_rows)
    return total


def _row_parts(batch: pa.RecordBatch, kinds: Mapping[str, ColumnType]) -> Iterator[Part]:
    """Yield the parts whose concatenation is a row's text. ``kinds`` are in order, and no column is empty."""
    few = batch.num_rows // REPEATS if batch.num_rows >= FEW_ROWS else 0
    known = {name: batch.column(name).dictionary_encode("encode") for name in kinds} if few else {}
    repeats = {name for name, values in known.items() if len(values.dictionary) <= few}
    decimals = [name for name, kind in kinds.items() if kind == "BIGNUMERIC" and name not in repeats]
    digits = _decimals_of_all({name: batch.column(name) for name in decimals})
    for together, names in groupby(kinds, repeats.__contains__):
        if together:
            yield from _repeated({name: known[name] for name in names}, kinds, few)
        else:
            for name in names:
                yield from _parts(name, kinds[name], batch.column(name), digits.get(name))


def _repeated(columns: Mapping[str, pa.DictionaryArray], kinds: Mapping[str, ColumnType], few: int) -> Iterator[Part]:
    """Yield the texts of neighbouring columns with few values: in one part, or in more if combinations are many."""
    sizes = {name: len(column.dictionary) for name, column in columns.items()}
    known = _combinations(list(columns.values())) if prod(sizes.values()) < MOST_COMBINED else None
    if known is None or (len(known.dictionary) > few and len(columns) > 1):
        names = list(columns)
        for half in names[: len(names) // 2], names[len(names) // 2 :]:
            yield from _repeated({name: columns[name] for name in half}, kinds, few)
        return
    texts: list[Part] = []
    rest = known.dictionary
    for name in reversed(list(columns)):
        values = columns[name].dictionary
        if sizes[name] > 1:
            above = pc.divide(rest, sizes[name])
            rest, place = above, pc.subtract(rest, pc.multiply(above, sizes[name]))
            texts.append(_texts(_parts(name, kinds[name], values), sizes[name]).take(place))
        else:
            texts.append("".join(_texts(_parts(name, kinds[name], values), 1).to_pylist()))
    made = _texts(texts[::-1], len(known.dictionary))
    yield made.take(known.indices) if len(made) > 1 else made[0].as_py()


def _combinations(columns: Sequence[pa.DictionaryArray]) -> pa.DictionaryArray:
    """Number the combinations of the columns' values: the places of the values, read as digits in mixed radix."""
    number: pa.Array | None = None
    for column in columns:
        size = len(column.dictionary)
        if size > 1:
            number = (
                column.indices.cast(pa.int64()) if number is None else pc.add(pc.multiply(number, size), column.indices)
            )
    if number is None:
        number = pa.repeat(pa.scalar(0, pa.int64()), len(columns[0]))
    return number.dictionary_encode()


def _texts(parts: list[Part], rows: int) -> pa.Array:
    if all(isinstance(part, str) for part in parts):
        return pa.array(["".join(map(str, parts))] * rows)
    return pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement="")


def _joined(parts: list[Part], rows: int) -> int:
    merged: list[Part] = []
    for part in parts:  # join adjacent literals: the time of the join grows with the number of parts
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    if all(isinstance(part, str) for part in merged):  # equal rows
        return rows * int.from_bytes(sha256("".join(map(str, merged)).encode()).digest())
    texts = _texts(merged, rows)
    _, offsets, data = texts.buffers()
    ends = memoryview(offsets).cast("B").cast("i")[texts.offset : texts.offset + len(texts) + 1]
    text, hashed, number = memoryview(data), sha256, int.from_bytes
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


def _parts(name: str, kind: ColumnType, values: pa.Array, digits: pa.Array | None = None) -> list[Part]:
    """Return the parts whose concatenation is the column's text; nothing for a NULL. ``digits`` are decimals' texts."""
    if kind == "JSON":
        values = pc.if_else(pc.equal(values, "null"), None, values)
    match kind:
        case "STRING" | "JSON":
            parts = [f"{name}:{kind[0].lower()}", pc.binary_length(values).cast(pa.string()), ":", values]
        case "BIGNUMERIC":
            parts = [f"{name}:n", _decimals(values) if digits is None else digits, ";"]
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


def _decimals_of_all(columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """Format columns of decimals. Costs repeat across columns (billed, list): each value is formatted once."""
    texts: dict[str, pa.Array] = {}
    for kind in {values.type for values in columns.values()}:
        same = {name: values for name, values in columns.items() if values.type == kind}
        known = pa.concat_arrays(same.values()).dictionary_encode()
        made = _decimals(known.dictionary)
        rows = len(known) // len(same)
        texts |= {name: made.take(known.indices.slice(rows * n, rows)) for n, name in enumerate(same)}
    return texts


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
