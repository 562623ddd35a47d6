"""Converts columns of Python values to Arrow: at once if all have a usual type, else one by one, with reasons."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from common.tables.contract import Column, ColumnType
from common.writes.spool.hashing import EPOCH, MICROSECOND
from common.writes.spool.json_text import json_text
from common.writes.spool.values import RefusedError, checks

USUAL: dict[ColumnType, tuple[set[type], ...]] = {
    "STRING": ({str},),
    "INT64": ({int},),
    "BIGNUMERIC": ({Decimal}, {int}, {Decimal, int}),
    "BOOL": ({bool},),
    "DATE": ({date},),
    "TIMESTAMP": ({datetime},),
    "JSON": ({str},),
}
"""Exact Python types that Arrow may convert at once. From other types it would silently take 1.0 as INT64, cut a
datetime to its date, and read a time without a zone as UTC."""

MICROS = pa.duration("us")
MOMENT = pa.timestamp("us", tz="UTC")
FIRST = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
LAST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND

KNOWN_CHARS = 2**20
"""Bounds the memory of ``JsonTexts``."""


class JsonTexts:
    """Bounded cache of ``json_text``: tags and attributes repeat, so each distinct JSON value is parsed once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._chars = 0

    def of(self, text: str) -> str:
        """Return ``json_text(text)``. Raises ValueError."""
        try:
            return self._known[text]
        except KeyError:
            pass
        written = json_text(text)
        if self._chars > KNOWN_CHARS:
            self._known.clear()
            self._chars = 0
        if len(text) < KNOWN_CHARS:
            self._known[text] = written
            self._chars += len(text)
        return written

    def array(self, texts: pa.Array) -> pa.Array:
        """Return the array with each text as BigQuery has it. Raises ValueError."""
        encoded = texts.dictionary_encode()
        written = pa.array([self.of(text) for text in encoded.dictionary.to_pylist()], pa.string())
        return written.take(encoded.indices)


@dataclass(slots=True)
class Converted:
    """A converted column. Values that can't be stored are NULL, with the reason by position.

    A ``refused`` value makes its whole row bad, a ``discarded`` one does not. ``narrow`` has the same values in a type
    of fewer digits, of which the hash is faster to compute.
    """

    array: pa.Array
    rounded: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    discarded: dict[int, str] = field(default_factory=dict)
    narrow: pa.Array | None = None


class Converter:
    """Converts the columns of one spool; ``digits`` are the (precision, scale) of its decimals."""

    def __init__(self, digits: tuple[int, int]) -> None:
        self._checks = checks(digits)
        self.texts = JsonTexts()
        precision, scale = digits
        # decimal128 holds 38 digits at most; the emulator's 38 fit, BigQuery's BIGNUMERIC of 76 needs decimal256.
        money = pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
        self.types: dict[ColumnType, pa.DataType] = {
            "STRING": pa.string(),
            "INT64": pa.int64(),
            "BIGNUMERIC": money,
            "BOOL": pa.bool_(),
            "DATE": pa.date32(),
            "TIMESTAMP": MOMENT,
            "JSON": pa.string(),
        }

    def values(self, column: Column, values: Sequence[Any]) -> Converted:
        """Convert Python values."""
        found = set(map(type, values))
        found.discard(type(None))
        if not found:
            return self.ended(column, Converted(pa.nulls(len(values), self.types[column.type])))
        if found in USUAL[column.type]:
            array = self._usual(column.type, values)
            if array is not None:
                return self.ended(column, Converted(array))
        return self._one_by_one(column, values)

    def _usual(self, kind: ColumnType, values: Sequence[Any]) -> pa.Array | None:
        try:
            if kind == "TIMESTAMP":
                return _moments(values)
            array = pa.array(values, self.types[kind])
            return self.texts.array(array) if kind == "JSON" else array
        except (pa.ArrowException, ValueError, OverflowError):
            return None

    def _one_by_one(self, column: Column, values: Sequence[Any]) -> Converted:
        check = self._checks[column.type]
        kept: list[Any] = []
        rounded = 0
        refused: dict[int, str] = {}
        for position, value in enumerate(values):
            found = None
            if value is not None:
                try:
                    found = check(value)
                except RefusedError as error:
                    refused[position] = str(error)
                else:
                    rounded += column.type == "BIGNUMERIC" and found != value
            kept.append(found)
        return self.ended(column, Converted(pa.array(kept, self.types[column.type]), rounded, refused))

    @staticmethod
    def ended(column: Column, converted: Converted) -> Converted:
        """Apply the column's policy and mode to the values that could not be converted, and to NULLs."""
        if column.mode == "REQUIRED":
            if converted.array.null_count:
                for position in pc.indices_nonzero(converted.array.is_null()).to_pylist():
                    converted.refused.setdefault(position, "the column must not be NULL")
        elif column.policy == "discard_value":
            converted.discarded, converted.refused = converted.refused, {}
        return converted


def _moments(values: Sequence[datetime | None]) -> pa.Array | None:
    """Convert times five times faster than Arrow; return None if one may have no zone or lie outside the calendar."""
    zones = {value.tzinfo for value in values if value is not None}
    if not all(type(zone) in (type(UTC), ZoneInfo) for zone in zones):
        return None
    array = pa.array([None if value is None else value - EPOCH for value in values], MICROS).view(MOMENT)
    return array if within(array) else None


def within(moments: pa.Array) -> bool:
    """Whether each time is in the years 1 to 9999 of Python and BigQuery: conversion to UTC can shift one out."""
    bounds = pc.min_max(moments.cast(pa.int64())).as_py()
    return bounds["min"] is None or (bounds["min"] >= FIRST and bounds["max"] <= LAST)
