"""Converts Arrow columns: unchanged, or cast if nothing is lost; else value by value, with reasons for refusals."""

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from common.tables.contract import Column, ColumnType
from common.writes.spool.columns import Converted, Converter, within
from common.writes.spool.hashing import EPOCH_DAY


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return the column's values as one array, without chunks, dictionary or extension type."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # of no chunks, or of more text than one array holds
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.dictionary_decode() if kinds.is_dictionary(array.type) else array


def size(column: pa.Array | pa.ChunkedArray) -> int:
    """Return the column's size in bytes once it is plain: a dictionary of one long text can expand a thousandfold."""
    if isinstance(column, pa.ChunkedArray):
        return sum(map(size, column.chunks))
    if not kinds.is_dictionary(column.type):
        return int(column.nbytes)
    values = column.dictionary
    if not (kinds.is_large_string(values.type) or kinds.is_string(values.type)):
        return 16 * len(column)
    return pc.sum(pc.binary_length(values).take(column.indices)).as_py() or 0


def convert(converter: Converter, column: Column, array: pa.Array) -> Converted:
    """Convert a plain array. A type that can't be cast without loss or guessing is checked value by value."""
    wanted = converter.types[column.type]
    if array.null_count == len(array):
        return converter.ended(column, Converted(pa.nulls(len(array), wanted)))
    rounded = 0
    try:
        found = _exact(column.type, array, wanted)
        if found is None:
            found = _cast(column.type, array, wanted)
            if found is not None and kinds.is_decimal(array.type) and array.type.scale > wanted.scale:
                rounded = pc.sum(pc.not_equal(found.cast(array.type), array)).as_py()
        if found is not None and column.type == "JSON":
            found = converter.texts.array(found)
    except (pa.ArrowException, ValueError):
        found = None
    if found is None:
        return converter.values(column, as_python(array))
    is_narrow = kinds.is_decimal128(array.type) and array.type.scale > 0 and not rounded
    return converter.ended(column, Converted(found, rounded, narrow=array if is_narrow else None))


def _is_text(given: pa.DataType) -> bool:
    return bool(kinds.is_string(given) or kinds.is_large_string(given) or kinds.is_string_view(given))


FITTING: dict[ColumnType, Callable[[pa.DataType], bool]] = {
    "STRING": _is_text,
    "JSON": _is_text,
    "INT64": kinds.is_integer,
    "BIGNUMERIC": lambda given: kinds.is_decimal(given) or kinds.is_integer(given),
    "BOOL": kinds.is_boolean,
    "DATE": kinds.is_date,
    "TIMESTAMP": lambda given: kinds.is_timestamp(given) and given.tz is not None,
}
"""Arrow types that may be cast to each column type, if every value survives. Floats may not be cast to anything: their
decimal digits are not those that the source meant."""


def _exact(kind: ColumnType, array: pa.Array, wanted: pa.DataType) -> pa.Array | None:
    """Return decimals with fewer decimal places; None if one of them has more."""
    if kind != "BIGNUMERIC" or not kinds.is_decimal(array.type) or array.type.scale <= wanted.scale:
        return None
    try:
        return array.cast(wanted)
    except pa.ArrowInvalid:
        return None


def _cast(kind: ColumnType, array: pa.Array, wanted: pa.DataType) -> pa.Array | None:
    """Return the array cast to the column's type, None if that cast is not allowed. Raises what Arrow raises."""
    if not FITTING[kind](array.type):
        return None
    if kinds.is_decimal(array.type) and array.type.scale > wanted.scale:
        array = pc.round(array, ndigits=wanted.scale, round_mode="half_to_even")
    array = array.cast(wanted)
    if kind == "DATE":
        bounds = pc.min_max(array.cast(pa.int32())).as_py()
        return array if bounds["min"] > -EPOCH_DAY and bounds["max"] <= date.max.toordinal() - EPOCH_DAY else None
    if kind == "TIMESTAMP":
        return array if within(array) else None
    if kind in ("STRING", "JSON"):
        array.validate(full=True)  # Arrow does not check text for UTF-8 by itself, and the load job would fail
    return array


def as_python(array: pa.Array) -> Sequence[Any]:
    """Return Python values; values that Python can't represent (years after 9999, nanoseconds) as text."""
    if not (kinds.is_timestamp(array.type) and array.type.unit == "ns"):  # if installed, pandas would convert these
        try:
            return array.to_pylist()  # type: ignore[no-any-return]
        except (ValueError, OverflowError):
            pass
    return [_python(value) for value in array]


def _python(value: pa.Scalar) -> Any:
    kind = value.type
    try:
        if kinds.is_timestamp(kind) and kind.unit == "ns":
            value = value.cast(pa.timestamp("us", kind.tz))
        return value.as_py()
    except (ValueError, OverflowError):
        pass
    try:
        return value.cast(pa.binary()).as_py() if kinds.is_string(kind) else value.cast(pa.string()).as_py()
    except (pa.ArrowException, ValueError):
        return f"a {kind} that Python has no value for"
