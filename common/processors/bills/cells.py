"""Converts values of a bill's records to column types, or raises an error with file, line and column."""

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
"""Digits before the decimal point: BigQuery's BIGNUMERIC holds no more, and no bill has as many."""


class UnreadableError(Exception):
    """A value can't be read; ``bad`` is its record with the reason."""

    def __init__(self, bad: BadRow) -> None:
        super().__init__(str(bad))
        self.bad = bad


class UnlikeError(ValueError):
    """A conversion of its own refuses a value; the message says what is wanted instead."""


def refused(file: str, record: BillRecord, column: str, value: Any, wanted: str) -> UnreadableError:
    """Return the error for a value that is not of its column's type."""
    where = f"{file}: {record.where}"
    return UnreadableError(BadRow(f"{shown(value)} is not {wanted}", where, row_text(record.values), column))


def missing(file: str, record: BillRecord, column: str) -> UnreadableError:
    """Return the error for a column without a value that must have one."""
    where = f"{file}: {record.where}"
    return UnreadableError(BadRow("it is empty, and needs a value", where, row_text(record.values), column))


def decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(value)
    # Decimal() would also accept "1_000" and digits of other scripts, which in a bill are damage.
    if isinstance(value, str) and (not value.isascii() or "_" in value):
        raise ValueError(value)
    # repr() is the shortest text that gives the float back: 0.1 stays 0.1, without the tail of its binary form.
    number = Decimal(repr(value) if isinstance(value, float) else value)
    if not number.is_finite() or (number and number.adjusted() >= WHOLE_DIGITS):
        raise ValueError(value)
    return number


def timestamp(value: Any) -> datetime:
    """Read ISO 8601 or ``2026-10-01 00:00:00``. A time without an offset is UTC, as FOCUS requires."""
    return _timestamp_of_text(value) if isinstance(value, str) else _timestamp(value)


@lru_cache(maxsize=4_096)
def _timestamp_of_text(text: str) -> datetime:
    """Parse a time. Cached, because a bill repeats the same few times in all of its records."""
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
        value = dict(value)  # pyarrow returns a Parquet map as a list of pairs
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
"""What a conversion raises. ArithmeticError: a time before the year 1 in UTC, or an exponent that is out of range."""

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
    """The values of one record by plain names, which do not depend on how a file spells them.

    ``names`` maps plain names to the file's own. Every method raises UnreadableError with the file's own name. Values
    that were read count as used; ``unused`` returns the others.
    """

    def __init__(self, file: str, record: BillRecord, names: Mapping[str, str], null_values: Sequence[str]) -> None:
        self._file, self._record, self._names, self._nulls = file, record, names, null_values
        self._used: set[str] = set()
        self.floats: set[str] = set()

    @classmethod
    def empty(cls) -> "Cells":
        """Return the values of a record that has none."""
        return cls("", BillRecord("", "", 0, {}), {}, ())

    def text(self, *names: str) -> str | None:
        """Return the first of these columns that has a value, as text; None if none has."""
        return self.read("STRING", names)  # type: ignore[no-any-return]

    def needed[T](self, value: T | None, *names: str) -> T:
        """Return the value, or raise UnreadableError with the name of the column that lacks it."""
        if value is None:
            name = next((self._names[name] for name in names if name in self._names), names[0])
            raise missing(self._file, self._record, name)
        return value

    def prefixed(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield the columns with this prefix that have a value: the rest of the name, and the value as text."""
        for name in self._names:
            if name.startswith(prefix) and (value := self.text(name)) is not None:
                yield name[len(prefix) :], value

    def unused(self) -> dict[str, str]:
        """Return the values that were not read, as text, by the file's own names."""
        left = [name for name in self._names if name not in self._used]
        return {self._names[name]: value for name in left if (value := self.text(name)) is not None}

    def wrong(self, name: str, wanted: str) -> UnreadableError:
        """Return the error for a value that can be parsed but is not valid."""
        own = self._names.get(name, name)
        return refused(self._file, self._record, own, self._record.values.get(own), wanted)

    def read(self, kind: ColumnType, names: Sequence[str], parse: Callable[[Any], Any] | None = None) -> Any:
        """Return the first of these columns that has a value, converted by ``parse`` or to the type."""
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
                return (parse or CONVERT[kind])(value)
            except UNREADABLE as error:
                wanted = str(error) if isinstance(error, UnlikeError) else WANTED[kind]
                raise refused(self._file, self._record, own, value, wanted) from error
        return None


def within(day: date, begins: datetime | None, ends: datetime | None) -> date:
    """Return a charge's day within its billing period: its own, or else the period's nearest day.

    A later correction of a charge is in a later period's bill, and belongs to that period: otherwise a run of the
    earlier period would not read its file, and a run of the later one would leave out its day.
    """
    if begins is not None and day < begins.date():
        return begins.date()
    if ends is not None and day >= ends.date():
        return ends.date() - timedelta(days=1)
    return day
