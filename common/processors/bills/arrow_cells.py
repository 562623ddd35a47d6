"""Converts a column of a file to the type of a contract, all rows at once.

A value that the fast way does not take is marked as odd and left to the row evaluator, which may still be able to read
it: the fast way only has to be right about what it accepts, never about what it refuses.
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from common.processors.bills.cells import CONVERT, UNREADABLE
from common.tables.contract import ColumnType

MONEY = pa.decimal256(76, 38)
"""BigQuery's BIGNUMERIC; of the engines that were compared, only Arrow has a type that wide (decision 0015)."""

NARROW_MONEY = pa.decimal128(38, 18)
"""Enough for nearly every bill, and three times as fast to read and to hash."""

MOMENT = pa.timestamp("us", tz="UTC")
TYPES: dict[ColumnType, pa.DataType] = {
    "STRING": pa.string(),
    "INT64": pa.int64(),
    "BIGNUMERIC": MONEY,
    "BOOL": pa.bool_(),
    "DATE": pa.date32(),
    "TIMESTAMP": MOMENT,
    "JSON": pa.string(),
}

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


class ArrowCells(NamedTuple):
    """A converted column. ``odd`` marks values that are there and could not be converted; None: there are none."""

    values: pa.Array
    odd: pa.BooleanArray | None = None


def is_text(kind: pa.DataType) -> bool:
    """Whether it is a type of text."""
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind))


def converted(
    array: pa.Array, kind: ColumnType, parse: Callable[[Any], Any] | None = None, *, narrow: bool = False
) -> ArrowCells:
    """Convert a column; ``parse`` replaces the conversion of the type. Money may have a ``narrow`` type."""
    if array.null_count == len(array):
        return ArrowCells(pa.nulls(len(array), TYPES[kind]))
    if kinds.is_dictionary(array.type):
        return _taken(converted(array.dictionary, kind, parse, narrow=narrow), array)
    if narrow and parse is None and kind == "BIGNUMERIC":
        try:
            if (money := _money(array, NARROW_MONEY)) is not None:
                return ArrowCells(money)
        except pa.ArrowException:
            pass
    if parse is None:
        try:
            fast = _FAST[kind](array)
        except (*UNREADABLE, pa.ArrowException):
            fast = None
        if fast is not None:
            return ArrowCells(fast)
    return by_value(array, TYPES[kind], parse or CONVERT[kind])


def _taken(cells: ArrowCells, array: pa.DictionaryArray) -> ArrowCells:
    values = cells.values.take(array.indices)
    if cells.odd is None:
        return ArrowCells(values)
    odd = pc.fill_null(cells.odd.take(array.indices), False)
    return ArrowCells(values, odd if pc.any(odd).as_py() else None)


def by_value(array: pa.Array, kind: pa.DataType, function: Callable[[Any], Any]) -> ArrowCells:
    """Call a function once for each distinct value; a value that it refuses is odd."""
    if kinds.is_nested(array.type):  # Arrow has no distinct values of these
        return _each(array, kind, function)
    if not kinds.is_dictionary(array.type):
        array = array.dictionary_encode()
    return _taken(_each(array.dictionary, kind, function), array)


def _each(array: pa.Array, kind: pa.DataType, function: Callable[[Any], Any]) -> ArrowCells:
    made: list[Any] = []
    odd: list[bool] = []
    for item in array:
        value = result = None
        is_odd = False
        try:
            value = item.as_py()
            result = None if value is None else function(value)
            pa.scalar(result, kind)  # a decimal with more places than a BIGNUMERIC has none
        except (*UNREADABLE, pa.ArrowException, TypeError):
            result, is_odd = None, True
        made.append(result)
        odd.append(is_odd)
    return ArrowCells(pa.array(made, kind), pa.array(odd, pa.bool_()) if any(odd) else None)


def _string(array: pa.Array) -> pa.Array | None:
    if is_text(array.type):
        return array.cast(pa.string())
    return array.cast(pa.string()) if kinds.is_integer(array.type) or kinds.is_boolean(array.type) else None


def _money(array: pa.Array, kind: pa.DataType = MONEY) -> pa.Array | None:
    if kinds.is_floating(array.type):
        # The shortest text that gives the float back: 0.1 stays 0.1, without the tail of its binary form.
        array = array.cast(pa.float64()).cast(pa.string()) if array.type == pa.float64() else None
        return None if array is None else array.cast(kind)
    if is_text(array.type) or kinds.is_integer(array.type) or kinds.is_decimal(array.type):
        return array.cast(kind)
    return None


def _whole(array: pa.Array) -> pa.Array | None:
    if kinds.is_integer(array.type):
        return array.cast(pa.int64())
    money = _money(array)
    return None if money is None else money.cast(pa.int64())


def _bool(array: pa.Array) -> pa.Array | None:
    return array if kinds.is_boolean(array.type) else None


def _moment(array: pa.Array) -> pa.Array | None:
    if is_text(array.type):
        try:
            moments = array.cast(MOMENT)
        except pa.ArrowInvalid:
            moments = _as_utc(array.cast(pa.timestamp("us")))
    elif kinds.is_timestamp(array.type):
        moments = array.cast(pa.timestamp("us", array.type.tz))
        moments = _as_utc(moments) if array.type.tz is None else moments.cast(MOMENT)
    elif kinds.is_date32(array.type):
        moments = _as_utc(array.cast(pa.timestamp("us")))
    else:
        return None
    bounds = pc.min_max(moments.cast(pa.int64())).as_py()
    # Years before 1 and after 9999 are neither Python's nor BigQuery's: conversion to UTC can shift a time there.
    return moments if bounds["min"] >= _FIRST and bounds["max"] <= _LAST else None


def _as_utc(moments: pa.Array) -> pa.Array:
    return moments.cast(pa.int64()).cast(MOMENT)


def _day(array: pa.Array) -> pa.Array | None:
    moments = _moment(array)
    return None if moments is None else moments.cast(pa.date32(), safe=False)


def _json(array: pa.Array) -> pa.Array | None:
    if is_text(array.type):
        for text in array.dictionary_encode().dictionary.to_pylist():
            CONVERT["JSON"](text)
        return array.cast(pa.string())
    return _json_of_map(array) if kinds.is_map(array.type) else None


def _json_of_map(array: pa.MapArray) -> pa.Array | None:
    """Return maps of text to text as JSON objects; None if a key is there twice, or it is another kind of map."""
    array = pa.concat_arrays([array])  # keys and items of a slice are those of the whole array
    keys, items = plain(array.keys), plain(array.items)
    if not (is_text(keys.type) and is_text(items.type)) or len(keys) != array.offsets[-1].as_py():
        return None
    rows = pc.list_parent_indices(pa.ListArray.from_arrays(array.offsets, keys)) if len(keys) else None
    if rows is not None:
        known = keys.dictionary_encode()
        pairs = pc.add(pc.multiply(rows.cast(pa.int64()), len(known.dictionary)), known.indices.cast(pa.int64()))
        if pc.count_distinct(pairs).as_py() != len(keys):
            return None
    entries = pc.binary_join_element_wise(quoted(keys), pc.fill_null(quoted(items), "null"), ": ")
    objects = pc.binary_join(pa.ListArray.from_arrays(array.offsets, entries), ", ")
    objects = pc.binary_join_element_wise("{", objects, "}", "")
    return pc.if_else(array.is_valid(), objects, pa.scalar(None, pa.string()))


_FAST: dict[ColumnType, Callable[[pa.Array], pa.Array | None]] = {
    "STRING": _string,
    "INT64": _whole,
    "BIGNUMERIC": _money,
    "BOOL": _bool,
    "DATE": _day,
    "TIMESTAMP": _moment,
    "JSON": _json,
}

_ESCAPED = r'["\\\x00-\x1f]'


def quoted(texts: pa.Array) -> pa.Array:
    """Return texts as JSON strings, escaped as Python's json does without ``ensure_ascii``."""
    if pc.any(pc.match_substring_regex(texts, _ESCAPED)).as_py():
        return by_value(texts, pa.string(), lambda text: json.dumps(text, ensure_ascii=False)).values
    return pc.binary_join_element_wise('"', texts, '"', "")


def plain(array: pa.Array) -> pa.Array:
    """Return the array without a dictionary."""
    return array.dictionary_decode() if kinds.is_dictionary(array.type) else array


def without(array: pa.Array, null_values: Sequence[str]) -> pa.Array:
    """Return the array with NULL in place of the texts that mean that there is no value."""
    if not null_values:
        return array
    if kinds.is_dictionary(array.type):
        if not is_text(array.type.value_type):
            return array
        nulls = pc.is_in(array.dictionary, pa.array(null_values, array.type.value_type))
        if not pc.any(nulls).as_py():
            return array
        indices = pc.if_else(pc.fill_null(nulls.take(array.indices), False), None, array.indices)
        return pa.DictionaryArray.from_arrays(indices, array.dictionary)
    if not is_text(array.type):
        return array
    nulls = pc.is_in(array, pa.array(null_values, array.type))
    return pc.if_else(nulls, pa.scalar(None, array.type), array) if pc.any(nulls).as_py() else array
