"""``ExternalFileExtractor``: a bill from a file in the organisation's landing folder.

Column types are those of the destination table's contract. Every value is checked before anything is written; an error
names file, line and column, and then no row of the file is.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from common.errors import PermanentError, nearest
from common.paths import configs_dir
from common.processors.base import Batch, Params, StepContext, TableParams
from common.processors.files import BATCH_ROWS, Format, Record, records
from common.table import DATA_DATE, Column, ColumnType, Table, load_table

SHOWN_CHARS = 80
SOURCE_COLUMNS = ("source_file", "source_row")
"""Filled with the file's name and the record's number where the contract has them."""


class ExternalFileParams(TableParams):
    """``config:`` of a file step."""

    date_column: str = Field(description="Column whose UTC day is the day a row belongs to, e.g. ChargePeriodStart.")
    source: str | None = Field(None, description="File in the landing folder, unless the run names one (--source).")
    format: Format = Field("auto", description="csv, parquet, or auto: told by the file's first bytes.")
    delimiter: str = Field(",", min_length=1, max_length=1, description="Between the fields of a CSV line.")
    null_values: tuple[str, ...] = Field(("", "NULL"), description="Texts of a CSV that mean that there is no value.")
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
        for record in records(path, file_format=params.format, delimiter=params.delimiter):
            row = convert(record)
            if not context.start_date <= row[DATA_DATE] <= context.end_date:
                raise _outside(path, params, record, row[DATA_DATE], context)
            rows.append(row)
            if len(rows) == BATCH_ROWS:
                context.remaining_s()
                yield Batch(rows)
                rows = []
        yield Batch(rows)
        if convert.floats:
            names = ", ".join(sorted(convert.floats))
            context.warn(f"{path.name} holds floating-point numbers in {names}: taken as their shortest decimal form.")


def inside(landing: Path, source: str | None) -> Path:
    """Return the file's path if it is in the landing folder, links followed; anything else is refused."""
    if source is None:
        raise PermanentError(
            "The step names no source file: run it with --source FILE, or set `source:` in its config."
        )
    path = (landing / source).resolve()
    if "://" in source or "\0" in source or not path.is_relative_to(landing.resolve()):
        raise PermanentError(
            f"{source!r} is not a file in the landing folder: name one that lies there, without folders."
        )
    if not path.is_file():
        there = sorted(p.name for p in landing.iterdir() if p.is_file())[:200] if landing.is_dir() else []
        raise PermanentError(
            f"There is no file {source!r} in the landing folder.{nearest(source, there)} "
            "Bring one: main.py run ORG PIPELINE --source FILE"
        )
    return path


def date_span(path: Path, params: ExternalFileParams) -> tuple[date, date]:
    """Return the first and the last day of the file's records."""
    days = list(_days(path, params))
    if not days:
        raise PermanentError(f"{path.name}: the file has a header and no rows.")
    return min(days), max(days)


def _days(path: Path, params: ExternalFileParams) -> Iterator[date]:
    seen: set[date] = set()
    for record in records(path, file_format=params.format, delimiter=params.delimiter):
        day = _day(path, record, params.date_column)
        if day not in seen:
            seen.add(day)
            yield day


def _outside(path: Path, params: ExternalFileParams, record: Record, day: date, context: StepContext) -> PermanentError:
    first, last = date_span(path, params)
    return PermanentError(
        f"{path.name}: {record.where}, column {params.date_column}: {day} is outside the run's dates "
        f"{context.start_date}..{context.end_date}. The file goes from {first} to {last}: run it with "
        f"--start-date {first} --end-date {last}."
    )


class _Converter:
    """Turns a record into a row of the contract's types."""

    def __init__(self, path: Path, table: Table, params: ExternalFileParams) -> None:
        self._path, self._params = path, params
        self._columns = {column.name: column for column in table.columns}
        self._nulls = frozenset(params.null_values)
        self._known: frozenset[str] = frozenset()
        self.floats: set[str] = set()
        extra = params.extra_column
        if extra is not None and (extra not in self._columns or self._columns[extra].type != "JSON"):
            raise PermanentError(f"extra_column: table {table.table} has no JSON column {extra!r}.")

    def __call__(self, record: Record) -> dict[str, Any]:
        self._check_columns(record)
        extra: dict[str, Any] = {}
        row: dict[str, Any] = {DATA_DATE: _day(self._path, record, self._params.date_column)}
        for name, value in record.values.items():
            if value is None or (isinstance(value, str) and value in self._nulls):
                continue
            column = self._columns.get(name)
            if column is None or name == self._params.extra_column:
                extra[name] = value if isinstance(value, str) else str(value)
            else:
                row[name] = self._value(record, column, value)
        if extra and self._params.extra_column is not None:
            row[self._params.extra_column] = json.dumps(extra, ensure_ascii=False)
        for name, value in zip(SOURCE_COLUMNS, (self._path.name, record.number), strict=True):
            if name in self._columns:
                row[name] = value
        return row

    def _check_columns(self, record: Record) -> None:
        """Look at the column names once: they are the same in every record."""
        if self._known:
            return
        names = frozenset(record.values)
        if self._params.extra_column is None:
            for name in record.values:
                if name not in self._columns:
                    raise PermanentError(
                        f"{self._path.name}: line 1: the table has no column {name!r}."
                        f"{nearest(name, self._columns)} Or set extra_column, to keep such columns."
                    )
        missing = [c.name for c in self._columns.values() if c.mode == "REQUIRED" and c.name not in names]
        missing = [name for name in missing if name not in SOURCE_COLUMNS]
        if missing:
            raise PermanentError(
                f"{self._path.name}: line 1: column {missing[0]} is missing.{nearest(missing[0], names)}"
            )
        self._known = names

    def _value(self, record: Record, column: Column, value: Any) -> Any:
        if isinstance(value, float) and column.type == "BIGNUMERIC":
            self.floats.add(column.name)
        try:
            return CONVERT[column.type](value)
        except (ValueError, InvalidOperation, RecursionError) as error:
            raise _refused(self._path, record, column.name, value, WANTED[column.type]) from error


def _day(path: Path, record: Record, name: str) -> date:
    if name not in record.values:
        raise PermanentError(f"{path.name}: line 1: there is no date column {name!r}.{nearest(name, record.values)}")
    value = record.values[name]
    try:
        return _timestamp(value).date()
    except ValueError as error:
        raise _refused(path, record, name, value, WANTED["TIMESTAMP"]) from error


def _refused(path: Path, record: Record, column: str, value: Any, wanted: str) -> PermanentError:
    shown = str(value)
    shown = shown if len(shown) <= SHOWN_CHARS else shown[:SHOWN_CHARS] + "…"
    return PermanentError(f"{path.name}: {record.where}, column {column}: {shown!r} is not {wanted}.")


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(value)
    if isinstance(value, str) and (not value.isascii() or "_" in value):
        raise ValueError(value)
    number = Decimal(repr(value) if isinstance(value, float) else value)
    if not number.is_finite():
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
    if not isinstance(value, str):
        if isinstance(value, list):  # a Parquet map comes as a list of pairs
            value = dict(value)
        return json.dumps(value, ensure_ascii=False, default=str)
    json.loads(value)
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


CONVERT: dict[ColumnType, Callable[[Any], Any]] = {
    "STRING": _text,
    "INT64": _whole,
    "BIGNUMERIC": _decimal,
    "BOOL": _bool,
    "DATE": lambda value: _timestamp(value).date(),
    "TIMESTAMP": _timestamp,
    "JSON": _json,
}

WANTED: dict[ColumnType, str] = {
    "STRING": "text",
    "INT64": "a whole number",
    "BIGNUMERIC": "a number",
    "BOOL": "true or false",
    "DATE": "a date",
    "TIMESTAMP": "a time such as 2026-10-01T00:00:00Z",
    "JSON": "JSON",
}
