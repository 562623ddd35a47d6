"""Columns that come as Arrow: taken as they are, or cast where nothing is lost; else one by one with reasons."""

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
    """Return one array of the column's values: no chunks, no dictionary, no extension type around them."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # of no chunks, or of more text than one array holds
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.dictionary_decode() if kinds.is_dictionary(array.type) else array


def size(column: pa.Array | pa.ChunkedArray) -> int:
    """Return how many bytes the column's values take once they are plain."""
    if isinstance(column, pa.ChunkedArray):
        return sum(map(size, column.chunks))
    if not kinds.is_dictionary(column.type):
        return int(column.nbytes)
    values = column.dictionary
    if not (kinds.is_large_string(values.type) or kinds.is_string(values.type)):
        return 16 * len(column)
    return pc.sum(pc.binary_length(values).take(column.indices)).as_py() or 0


def convert(converter: Converter, column: Column, array: pa.Array) -> Converted:
    """Convert a plain array. Types that would lose or guess something are refused value by value."""
    wanted = converter.types[column.type]
    if array.null_count == len(array):
        return converter.ended(column, Converted(pa.nulls(len(array), wanted)))
    rounded = 0
    try:
        found = _cast(column.type, array, wanted)
        if found is not None and column.type == "JSON":
            for text in found.dictionary_encode().dictionary.to_pylist():
                converter.texts.canonical(text)
        if found is not None and kinds.is_decimal(array.type) and array.type.scale > wanted.scale:
            rounded = pc.sum(pc.not_equal(found.cast(array.type), array)).as_py()
    except (pa.ArrowException, ValueError):
        found = None
    if found is None:
        return converter.values(column, as_python(array))
    return converter.ended(column, Converted(found, rounded))


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
"""Arrow types that may become a column of that type, if every value survives it. Floats may become none."""


def _cast(kind: ColumnType, array: pa.Array, wanted: pa.DataType) -> pa.Array | None:
    """Return the array in the column's type, or None if its type may not become that. Raises what Arrow raises."""
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
        array.validate(full=True)  # Arrow believes whoever says that bytes are UTF-8
    return array


def as_python(array: pa.Array) -> Sequence[Any]:
    """Return the values as Python's; what Python has no value for (years after 9999, nanoseconds) as text."""
    if not (kinds.is_timestamp(array.type) and array.type.unit == "ns"):  # pandas, if it is there, would take these
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
