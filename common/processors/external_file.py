"""``ExternalFileExtractor``: a bill from a file in the organisation's landing folder.

Column types are those of the destination table's contract. Every value is checked before anything is written. A value
that can't be read makes its row a bad one, told with file, line and column: it goes to quarantine as far as the step's
``max_bad_rows`` allows, else no row of the file is written. Where the column's ``policy`` is another than ``freeze``,
the value goes on as it is, because the spool is where policies are applied.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any, ClassVar

from pydantic import Field

from common.bad_rows import BadRow, row_text, shown
from common.errors import PermanentError, nearest
from common.paths import configs_dir
from common.processors.base import Batch, Params, StepContext, TableParams
from common.processors.files import BATCH_ROWS, Format, Record, records
from common.table import DATA_DATE, Column, ColumnType, Table, load_table

WHOLE_DIGITS = 38
"""More of them before the point hold neither BigQuery's BIGNUMERIC nor any bill."""

EXTRA = Column(name="extra", type="STRING")
"""Stands for each column that the contract does not have: the file's names need not be those of columns."""

OWN_COLUMNS = ("source_file", "source_row", "provider")
"""Filled with the file's name, the record's number and the step's provider, where the contract has them."""


class ExternalFileParams(TableParams):
    """``config:`` of a file step."""

    date_column: str = Field(description="Column whose UTC day is the day a row belongs to, e.g. ChargePeriodStart.")
    source: str | None = Field(None, description="File in the landing folder, unless the run names one (--source).")
    format: Format = Field("auto", description="csv, parquet, or auto: told by the file's first bytes.")
    delimiter: str = Field(",", min_length=1, max_length=1, description="Between the fields of a CSV line.")
    null_values: tuple[str, ...] = Field(("", "NULL"), description="Texts that mean that there is no value.")
    provider: str | None = Field(None, description="Whose bill it is, for a table with the column `provider`.")
    extra_column: str | None = Field(
        None, description="JSON column for what the contract has no column for; without it such a column is an error."
    )


class ExternalFileExtractor:
    """Reads a CSV or Parquet file, plain or gzip, a batch of records at a time."""

    params_type: ClassVar[type[Params]] = ExternalFileParams
    needs_credential: ClassVar[bool] = False

    def run(self, context: StepContext, params: ExternalFileParams) -> Iterator[Batch]:
        path = inside(context.landing, context.source or params.source)
        convert = _Converter(path, load_table(configs_dir(), params.destination_table), params)
        rows: list[Mapping[str, Any]] = []
        bad: list[BadRow] = []
        record: Record | None = None
        for record in records(path, file_format=params.format, delimiter=params.delimiter):
            try:
                row = convert(record)
            except _UnreadableError as error:
                bad.append(error.bad)
            else:
                if not context.start_date <= row[DATA_DATE] <= context.end_date:
                    raise _outside(path, params, record, row[DATA_DATE], context)
                rows.append(row)
            if len(rows) + len(bad) == BATCH_ROWS:
                context.remaining_s()
                yield Batch(rows, bad)
                rows, bad = [], []
        if record is None:  # an export that broke off must not wipe out the days it is for
            raise _no_rows(path)
        yield Batch(rows, bad)
        if convert.floats:
            names = ", ".join(sorted(convert.floats))
            context.warn(f"{path.name} holds floating-point numbers in {names}: taken as their shortest decimal form.")


def inside(landing: Path, source: str | None) -> Path:
    """Return the file's path if it is in the landing folder, links followed; anything else is refused."""
    if source is None:
        raise PermanentError(
            "The step names no source file: run it with --source FILE, or set `source:` in its config."
        )
    if _leads_out(landing, source):
        raise PermanentError(f"{source!r} is not a file in the landing folder: name one that lies there.")
    path = (landing / source).resolve()
    if not path.is_file():
        there = sorted(p.name for p in landing.iterdir() if p.is_file())[:200] if landing.is_dir() else []
        raise PermanentError(
            f"There is no file {source!r} in the landing folder.{nearest(source, there)} "
            "Bring one: main.py run ORG PIPELINE --source FILE"
        )
    return path


def _leads_out(landing: Path, source: str) -> bool:
    """Tell whether the name is a URL, absolute, climbs with ``..``, or ends outside by way of a link."""
    name = PurePath(source)
    if "://" in source or "\0" in source or name.is_absolute() or ".." in name.parts:
        return True
    return not (landing / source).resolve().is_relative_to(landing.resolve())


def date_span(path: Path, params: ExternalFileParams) -> tuple[date, date]:
    """Return the first and the last day of the file's records, but for those whose day can't be read."""
    days: set[date] = set()
    unreadable: _UnreadableError | None = None
    for record in records(path, file_format=params.format, delimiter=params.delimiter):
        try:
            days.add(_day(path, record, params.date_column))
        except _UnreadableError as error:
            unreadable = unreadable or error
    if not days:
        raise _no_rows(path) if unreadable is None else PermanentError(str(unreadable.bad))
    return min(days), max(days)


def _no_rows(path: Path) -> PermanentError:
    return PermanentError(f"{path.name}: the file has a header and no rows: nothing is replaced. Export it again.")


def _outside(path: Path, params: ExternalFileParams, record: Record, day: date, context: StepContext) -> PermanentError:
    first, last = date_span(path, params)
    return PermanentError(
        f"{path.name}: {record.where}, column {params.date_column}: {day} is outside the run's dates "
        f"{context.start_date}..{context.end_date}. The file goes from {first} to {last}: run it with "
        f"--start-date {first} --end-date {last}."
    )


class _UnreadableError(Exception):
    """A value of a record can't be read; ``bad`` is the record, and why."""

    def __init__(self, bad: BadRow) -> None:
        super().__init__(str(bad))
        self.bad = bad


class _Converter:
    """Turns a record into a row of the contract's types."""

    def __init__(self, path: Path, table: Table, params: ExternalFileParams) -> None:
        self._path, self._params = path, params
        columns = {column.name: column for column in table.columns}
        extra = params.extra_column
        if extra is not None and (extra not in columns or columns[extra].type != "JSON"):
            raise PermanentError(f"extra_column: table {table.table} has no JSON column {extra!r}.")
        # A column of the file that is named like one we fill ourselves is one that the table does not have.
        self._columns = {name: c for name, c in columns.items() if name not in (*OWN_COLUMNS, extra)}
        self._required = [c.name for c in self._columns.values() if c.mode == "REQUIRED"]
        self._own = [name in columns for name in OWN_COLUMNS]
        self._checked = False
        self.floats: set[str] = set()

    def __call__(self, record: Record) -> dict[str, Any]:
        if not self._checked:  # names are the same in every record
            self._check_names(record)
            self._checked = True
        extra: dict[str, str] = {}
        row: dict[str, Any] = {DATA_DATE: _day(self._path, record, self._params.date_column)}
        for name, value in record.values.items():
            if value is None or (isinstance(value, str) and value in self._params.null_values):
                continue
            column = self._columns.get(name)
            if column is None:
                extra[name] = self._value(record, name, EXTRA, value)
            else:
                row[name] = self._value(record, name, column, value)
        for name in self._required:
            if name not in row:
                raise _refused(self._path, record, name, record.values[name], "a value, and the table needs one")
        if extra and self._params.extra_column is not None:
            row[self._params.extra_column] = json.dumps(extra, ensure_ascii=False)
        own = (self._path.name, record.number, self._params.provider)
        return row | {name: v for name, v, there in zip(OWN_COLUMNS, own, self._own, strict=True) if there}

    def _check_names(self, record: Record) -> None:
        if self._params.extra_column is None:
            for name in record.values:
                if name not in self._columns:
                    raise PermanentError(
                        f"{self._path.name}: {record.header}: the table has no column {name!r}."
                        f"{nearest(name, self._columns)} Or set extra_column, to keep such columns."
                    )
        for name in self._required:
            if name not in record.values:
                raise PermanentError(
                    f"{self._path.name}: {record.header}: column {name} is missing.{nearest(name, record.values)}"
                )

    def _value(self, record: Record, name: str, column: Column, value: Any) -> Any:
        if isinstance(value, float) and column.type == "BIGNUMERIC":
            self.floats.add(name)
        try:
            return CONVERT[column.type](value)
        except UNREADABLE as error:
            if column.policy != "freeze":
                return value
            raise _refused(self._path, record, name, value, WANTED[column.type]) from error


def _day(path: Path, record: Record, name: str) -> date:
    if name not in record.values:
        raise PermanentError(
            f"{path.name}: {record.header}: there is no date column {name!r}.{nearest(name, record.values)}"
        )
    value = record.values[name]
    try:
        return _timestamp(value).date()
    except UNREADABLE as error:
        raise _refused(path, record, name, value, WANTED["TIMESTAMP"]) from error


def _refused(path: Path, record: Record, column: str, value: Any, wanted: str) -> _UnreadableError:
    where = f"{path.name}: {record.where}"
    return _UnreadableError(BadRow(f"{shown(value)} is not {wanted}", where, row_text(record.values), column))


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(value)
    if isinstance(value, str) and (not value.isascii() or "_" in value):
        raise ValueError(value)
    number = Decimal(repr(value) if isinstance(value, float) else value)
    if not number.is_finite() or (number and number.adjusted() >= WHOLE_DIGITS):
        raise ValueError(value)
    return number


def _timestamp(value: Any) -> datetime:
    """Read ISO 8601 or ``2026-10-01 00:00:00``; without an offset it is UTC, as FOCUS demands of its times."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip().removesuffix(" UTC"))
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        raise ValueError(value)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _whole(value: Any) -> int:
    number = _decimal(value)
    if number != number.to_integral_value():
        raise ValueError(value)
    return int(number)


def _bool(value: Any) -> bool:
    found = {"true": True, "false": False}.get(str(value).strip().lower())
    if found is None:
        raise ValueError(value)
    return found


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
            return _timestamp(value).isoformat()
        case bool() | list() | dict():
            return _json(value)
        case _:
            return str(value)


CONVERT: dict[ColumnType, Callable[[Any], Any]] = {
    "STRING": _text,
    "INT64": _whole,
    "BIGNUMERIC": _decimal,
    "BOOL": _bool,
    "DATE": lambda value: _timestamp(value).date(),
    "TIMESTAMP": _timestamp,
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
