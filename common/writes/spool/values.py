"""Checks values one at a time, with the reason in words for each that can't go into its column.

This is slow and exact; ``columns.py`` uses it for columns that hold anything unusual.
"""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Any

from common.tables.contract import ColumnType
from common.writes.bad_rows import SHOWN_CHARS
from common.writes.spool.json_text import json_text

Check = Callable[[Any], Any]


class RefusedError(Exception):
    """The value can't go into the column; the message says why."""


def checks(decimal_digits: tuple[int, int]) -> dict[ColumnType, Check]:
    """Return, for each column type, the function that converts a value or raises RefusedError."""
    return {
        "STRING": _string,
        "INT64": _int64,
        "BIGNUMERIC": _Decimals(decimal_digits),
        "BOOL": _bool,
        "DATE": _date,
        "TIMESTAMP": _timestamp,
        "JSON": _json,
    }


def type_name(value: Any) -> str:
    """Name a value's type as a contract would, for messages and drift."""
    match value:
        case bool():
            return "BOOL"
        case int():
            return "INT64"
        case datetime():
            return "DATETIME" if value.tzinfo is None else "TIMESTAMP"
    known = {str: "STRING", float: "FLOAT64", Decimal: "BIGNUMERIC", date: "DATE", dict: "JSON", list: "JSON"}
    return known.get(type(value), type(value).__name__)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise RefusedError("not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RefusedError("not valid Unicode") from error
    return value


def _int64(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise RefusedError("not a whole number of 64 bits")
    return value


class _Decimals:
    """Converts decimals to the warehouse's digits, rounding half-even once: half-up would bias sums upwards."""

    def __init__(self, digits: tuple[int, int]) -> None:
        self._digits = digits
        self._exact = Context(prec=digits[0], rounding=ROUND_HALF_EVEN)
        self._quantum = Decimal(1).scaleb(-digits[1])

    def __call__(self, value: Any) -> Decimal:
        if isinstance(value, int) and not isinstance(value, bool):
            value = Decimal(value)
        if not isinstance(value, Decimal):
            raise RefusedError(f"money and quantities must be Decimal, not {type(value).__name__}")
        if not value.is_finite():
            raise RefusedError("not a number")
        precision, scale = self._digits
        too_large = f"more than {precision - scale} digits before the point"
        if value and value.adjusted() >= precision - scale:
            raise RefusedError(too_large)
        exponent = value.as_tuple().exponent
        assert isinstance(exponent, int)
        if -scale <= exponent <= 0:
            return value
        try:
            return value.quantize(self._quantum, context=self._exact)
        except InvalidOperation as error:
            raise RefusedError(too_large) from error


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise RefusedError("not true or false")
    return value


def _date(value: Any) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise RefusedError("not a date")
    return value


def _timestamp(value: Any) -> datetime:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise RefusedError("not a time with a time zone")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise RefusedError("before the year 1 or after 9999 in UTC") from error


def _json(value: Any) -> str:
    try:
        if isinstance(value, dict | list):
            value = json.dumps(value, ensure_ascii=False, allow_nan=False)
        return json_text(_string(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise RefusedError(f"not JSON ({str(error)[:SHOWN_CHARS]})") from error
