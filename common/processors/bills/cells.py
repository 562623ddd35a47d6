"""Values of a bill's records as the types of columns, or an error that names file, line and column."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from common.processors.bills.files import BillRecord
from common.tables.contract import ColumnType
from common.writes.bad_rows import BadRow, row_text, shown

WHOLE_DIGITS = 38
"""More of them before the point hold neither BigQuery's BIGNUMERIC nor any bill."""


class UnreadableError(Exception):
    """A value of a record can't be read; ``bad`` is the record, and why."""

    def __init__(self, bad: BadRow) -> None:
        super().__init__(str(bad))
        self.bad = bad


def refused(file: str, record: BillRecord, column: str, value: Any, wanted: str) -> UnreadableError:
    """Return the error of a value that is not what its column wants."""
    where = f"{file}: {record.where}"
    return UnreadableError(BadRow(f"{shown(value)} is not {wanted}", where, row_text(record.values), column))


def decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(value)
    if isinstance(value, str) and (not value.isascii() or "_" in value):
        raise ValueError(value)
    number = Decimal(repr(value) if isinstance(value, float) else value)
    if not number.is_finite() or (number and number.adjusted() >= WHOLE_DIGITS):
        raise ValueError(value)
    return number


def timestamp(value: Any) -> datetime:
    """Read ISO 8601 or ``2026-10-01 00:00:00``; without an offset it is UTC, as FOCUS demands of its times."""
    return _timestamp_of_text(value) if isinstance(value, str) else _timestamp(value)


@lru_cache(maxsize=4_096)
def _timestamp_of_text(text: str) -> datetime:
    """A bill has some times again and again."""
    return _timestamp(datetime.fromisoformat(text.strip().removesuffix(" UTC")))


def _timestamp(value: Any) -> datetime:
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        raise ValueError(value)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _whole(value: Any) -> int:
    number = decimal(value)
    if number != number.to_integral_value():
        raise ValueError(value)
    return int(number)


def _bool(value: Any) -> bool:
    flag = {"true": True, "false": False}.get(str(value).strip().lower())
    if flag is None:
        raise ValueError(value)
    return flag


def _json(value: Any) -> str:
    if isinstance(value, str):
        json.loads(value, parse_constant=_no_json)
        return value
    if isinstance(value, list) and all(isinstance(item, tuple) and len(item) == 2 for item in value):
        value = dict(value)  # a Parquet map comes as a list of pairs
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_text)


def _no_json(name: str) -> Any:
    raise ValueError(f"{name} is a word of Python's json, not of JSON")


def _text(value: Any) -> str:
    match value:
        case str():
            return value
        case bytes():
            return value.decode()
        case datetime():
            return timestamp(value).isoformat()
        case bool() | list() | dict():
            return _json(value)
        case _:
            return str(value)


CONVERT: dict[ColumnType, Callable[[Any], Any]] = {
    "STRING": _text,
    "INT64": _whole,
    "BIGNUMERIC": decimal,
    "BOOL": _bool,
    "DATE": lambda value: timestamp(value).date(),
    "TIMESTAMP": timestamp,
    "JSON": _json,
}

UNREADABLE = (ValueError, ArithmeticError, RecursionError)
"""What a conversion raises: ArithmeticError is a time before year 1 in UTC, or an exponent beyond all bounds."""

WANTED: dict[ColumnType, str] = {
    "STRING": "text",
    "INT64": "a whole number",
    "BIGNUMERIC": "a number",
    "BOOL": "true or false",
    "DATE": "a date",
    "TIMESTAMP": "a time such as 2026-10-01T00:00:00Z",
    "JSON": "JSON",
}


class Cells:
    """The values of one record by names that are the same however a file spells them.

    ``names`` are the file's own names by those. Every method raises UnreadableError with the file's own name. What has
    been asked for is used; ``unused`` is what is left.
    """

    def __init__(self, file: str, record: BillRecord, names: Mapping[str, str], null_values: Sequence[str]) -> None:
        self._file, self._record, self._names, self._nulls = file, record, names, null_values
        self._used: set[str] = set()
        self.floats: set[str] = set()

    def text(self, *names: str) -> str | None:
        """Return the first of these that has a value, as text; None if none has."""
        return self._read("STRING", names)  # type: ignore[no-any-return]

    def number(self, *names: str) -> Decimal | None:
        """Like ``text``, of numbers."""
        return self._read("BIGNUMERIC", names)  # type: ignore[no-any-return]

    def time(self, *names: str) -> datetime | None:
        """Like ``text``, of times."""
        return self._read("TIMESTAMP", names)  # type: ignore[no-any-return]

    def value(self, kind: ColumnType, *names: str) -> Any:
        """Like ``text``, of any type of columns."""
        return self._read(kind, names)

    def needed[T](self, value: T | None, *names: str) -> T:
        """Return the value, or raise UnreadableError with the name of the column that should have had it."""
        if value is None:
            name = next((self._names[name] for name in names if name in self._names), names[0])
            raise refused(self._file, self._record, name, None, "a value, and there must be one")
        return value

    def prefixed(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield all that have a value and whose names begin so: the rest of the name, and the value as text."""
        for name in self._names:
            if name.startswith(prefix) and (value := self.text(name)) is not None:
                yield name[len(prefix) :], value

    def unused(self) -> dict[str, str]:
        """Return all values that nobody has asked for, as text, by the file's own names."""
        left = [name for name in self._names if name not in self._used]
        return {self._names[name]: value for name in left if (value := self.text(name)) is not None}

    def wrong(self, name: str, wanted: str) -> UnreadableError:
        """Return the error of a value that can be read and still is not what it should be."""
        own = self._names.get(name, name)
        return refused(self._file, self._record, own, self._record.values.get(own), wanted)

    def _read(self, kind: ColumnType, names: Sequence[str]) -> Any:
        for name in names:
            own = self._names.get(name)
            if own is None:
                continue
            self._used.add(name)
            value = self._record.values[own]
            if value is None or (isinstance(value, str) and value in self._nulls):
                continue
            if isinstance(value, float) and kind == "BIGNUMERIC":
                self.floats.add(own)
            try:
                return CONVERT[kind](value)
            except UNREADABLE as error:
                raise refused(self._file, self._record, own, value, WANTED[kind]) from error
        return None


def within(day: date, begins: datetime | None, ends: datetime | None) -> date:
    """Return the day of a billing period that a charge belongs to: its own, or the nearest one of the period.

    What a provider corrects later stands in a later period's bill. That bill is what it belongs to, for otherwise
    neither a run of the one period nor of the other would bring it in.
    """
    if begins is not None and day < begins.date():
        return begins.date()
    if ends is not None and day >= ends.date():
        return ends.date() - timedelta(days=1)
    return day
