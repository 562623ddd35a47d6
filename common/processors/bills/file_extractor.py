"""``ExternalFileExtractor``: a bill from a file in the organisation's landing folder.

Column types are those of the destination table's contract. Every value is checked before anything is written. A row
with a value that can't be read is a bad row, reported with file, line and column: it is quarantined if the step's
``max_bad_rows`` allows, else no row of the file is written. If the column's ``policy`` is not ``freeze``, the value is
passed on unchanged, because the spool applies policies.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path, PurePath
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from common.platform.errors import PermanentError, nearest
from common.processors.base import Params, StepContext, TableParams
from common.processors.bills.deliveries import some
from common.processors.bills.files import BillRecord, Block, Format, blocks
from common.processors.bills.layout import DESTINATION, LayoutName, LayoutRows, layout
from common.processors.bills.reading import Read, Reader, days_of
from common.processors.bills.table_rows import TableRows
from common.tables.contract import load_table
from common.writes.batch import Batch


class ExternalFileParams(TableParams):
    """``config:`` of a file step."""

    layout: LayoutName = Field("table", description="What kind of bill it is; table: its columns are the table's own.")
    date_column: str | None = Field(
        None, description="Column whose UTC day is the day a row belongs to, e.g. ChargePeriodStart; a layout knows it."
    )
    source: str | None = Field(None, description="File in the landing folder, unless the run names one (--source).")
    purchases_source: str | None = Field(
        None,
        description="Of layout azure_amortised_cost: the ActualCost file of the same days in the landing folder, from "
        "which the purchases and refunds of reservations and savings plans are added.",
    )
    format: Format = Field("auto", description="csv, parquet, or auto: told by the file's first bytes.")
    delimiter: str = Field(",", min_length=1, max_length=1, description="Between the fields of a CSV line.")
    null_values: tuple[str, ...] = Field(("", "NULL"), description="Texts that mean that there is no value.")
    provider: str | None = Field(None, description="Whose bill it is, for a table with the column `provider`.")
    extra_column: str | None = Field(
        None, description="JSON column for what the contract has no column for; without it such a column is an error."
    )
    missing_days: Literal["fail", "accept", "expected"] = Field(
        "accept",
        description="What to do if the file has no rows for a day of the run. accept: log a warning and delete that "
        "day's stored rows. expected: the same without a warning. fail: stop, and replace nothing.",
    )

    @model_validator(mode="after")
    def _of_a_layout(self) -> Self:
        if self.purchases_source is not None and self.layout != "azure_amortised_cost":
            raise ValueError("purchases_source is for layout azure_amortised_cost: no other bill lacks purchases.")
        if self.layout == "table":
            if self.date_column is None:
                raise ValueError("date_column is required: only a layout knows it by itself.")
        elif self.destination_table != DESTINATION or self.date_column or self.extra_column:
            raise ValueError(
                f"layout {self.layout} writes the table {DESTINATION}, and knows its date_column and extra_column."
            )
        return self

    def blocks(self, path: Path) -> Iterator[Block]:
        """Yield the blocks of a file."""
        return blocks(path, file_format=self.format, delimiter=self.delimiter, null_values=self.null_values)

    def reader(self, file: str, configs: Path) -> TableRows | LayoutRows:
        """Return the converter from the file's records to rows; ``configs`` holds the table's contract."""
        if self.layout != "table":
            table = load_table(configs, DESTINATION)
            return LayoutRows(file, layout(self.layout, configs), table, self.null_values)
        assert self.date_column is not None
        return TableRows(
            file,
            load_table(configs, self.destination_table),
            date_column=self.date_column,
            null_values=self.null_values,
            extra_column=self.extra_column,
            provider=self.provider,
        )


class ExternalFileExtractor:
    """Reads a CSV or Parquet file, plain or gzip, a block of records at a time."""

    params_type: ClassVar[type[Params]] = ExternalFileParams
    needs_credential: ClassVar[bool] = False

    def run(self, context: StepContext, params: ExternalFileParams) -> Iterator[Batch]:
        path = inside(context.landing, context.source or params.source)
        convert, found = params.reader(path.name, context.configs), Read()
        convert.look_into(lambda: params.blocks(path))

        def outside(record: BillRecord, day: date) -> PermanentError:
            return _outside(path, params, record, day, context)

        yield from Reader(convert, context.start_date, context.end_date, found, outside=outside).batches(
            params.blocks(path)
        )
        if not found.records:  # an export that was cut off must not delete its days' stored rows
            raise _no_rows(path)
        if params.purchases_source is not None:
            yield from _purchases(context, params, inside(context.landing, params.purchases_source), found)
        elif convert.partial:
            context.warn(f"{path.name} is half of a bill: {convert.partial}")
        _check_missing(path, params, found.days, context)
        if convert.floats:
            names = ", ".join(sorted(convert.floats))
            context.warn(f"{path.name} holds floating-point numbers in {names}: taken as their shortest decimal form.")


def _purchases(context: StepContext, params: ExternalFileParams, path: Path, found: Read) -> Iterator[Batch]:
    """Yield what the other view of the bill has of purchases; its days count as those of the file."""
    params = params.model_copy(update={"layout": "azure_benefit_purchases", "purchases_source": None})
    read = Read()

    def outside(record: BillRecord, day: date) -> PermanentError:
        return _outside(path, params, record, day, context)

    convert = params.reader(path.name, context.configs)
    yield from Reader(convert, context.start_date, context.end_date, read, outside=outside).batches(params.blocks(path))
    if not read.records:
        raise _no_rows(path)
    found.days |= read.days


def _check_missing(path: Path, params: ExternalFileParams, days: set[date], context: StepContext) -> None:
    """Fail or warn about days of the run without rows: the commit deletes their stored rows."""
    run = (context.start_date + timedelta(days=n) for n in range((context.end_date - context.start_date).days + 1))
    missing = [day for day in run if day not in days]
    if not missing or params.missing_days == "expected":
        return
    text = f"{path.name} has no rows for {some(missing)}, which the run is for."
    if params.missing_days == "fail":
        raise PermanentError(f"{text} Nothing is replaced. Export it again, or set missing_days: accept.")
    context.warn(f"{text} Their stored rows are deleted.")


def inside(landing: Path, source: str | None) -> Path:
    """Return the path of a file in the landing folder, links resolved. Raises PermanentError for any other."""
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
    """Whether the name is a URL, absolute, contains ``..``, or leads outside through a link."""
    name = PurePath(source)
    if "://" in source or "\0" in source or name.is_absolute() or ".." in name.parts:
        return True
    return not (landing / source).resolve().is_relative_to(landing.resolve())


def date_span(path: Path, params: ExternalFileParams, configs: Path) -> tuple[date, date]:
    """Return the first and the last day of the file's records, ignoring those whose day can't be read."""
    days, unreadable = days_of(params.blocks(path), params.reader(path.name, configs))
    if not days:
        raise _no_rows(path) if unreadable is None else PermanentError(str(unreadable))
    return min(days), max(days)


def _no_rows(path: Path) -> PermanentError:
    return PermanentError(f"{path.name}: the file has a header and no rows: nothing is replaced. Export it again.")


def _outside(
    path: Path, params: ExternalFileParams, record: BillRecord, day: date, context: StepContext
) -> PermanentError:
    first, last = date_span(path, params, context.configs)
    column = f", column {params.date_column}" if params.date_column else ""
    return PermanentError(
        f"{path.name}: {record.where}{column}: {day} is outside the run's dates "
        f"{context.start_date}..{context.end_date}. The file goes from {first} to {last}: run it with "
        f"--start-date {first} --end-date {last}."
    )
