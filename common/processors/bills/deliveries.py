"""Reads an export that a provider delivered into a bucket, file by file.

One file at a time is on disk and a few thousand rows are in memory, however large the export is. Rows outside the run's
days are skipped; they belong to other runs.
"""

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from common.platform.errors import PermanentError, TransientError
from common.processors.base import Params, StepContext
from common.processors.bills.files import Block, Format, blocks
from common.processors.bills.layout import DESTINATION, LayoutName, LayoutRows, layout
from common.processors.bills.reading import EXACT, Read, Reader
from common.processors.bills.table_rows import TableRows
from common.processors.http.object_store import Stored
from common.tables.contract import load_table
from common.writes.batch import Batch
from common.writes.parts import MOST_PARTS, PartRead, WholeDelivery

MOST_NAMED = 10
FOCUS_PERIOD = ("BillingPeriodStart", "BillingPeriodEnd")

Month = tuple[int, int]
Manifests = dict[Month, Stored]
Tell = Callable[[str], None]


class ExportParams(Params):
    """Parameters common to all providers' exports, which are written to the table ``cloud_focus_export``."""

    task: Literal["all", "list", "part", "commit"] = Field(
        "all",
        description="all: read the whole delivery. Of a delivery with many files each is read by a step of its own: "
        "list puts out `parts`, part (in a map over them) stages one, commit writes all of them at once.",
    )
    part: str | None = Field(None, description="The file that task part reads: {item}.")
    destination_table: Literal["cloud_focus_export"] | None = Field(
        None, description="Table in the organisation's dataset; of tasks all and commit."
    )
    layout: LayoutName = Field("table", description="What kind of bill it is; table: FOCUS, of any version.")
    format: Format = Field("auto", description="csv, parquet, or auto: told by the file's first bytes.")
    delimiter: str = Field(",", min_length=1, max_length=1, description="Between the fields of a CSV line.")
    null_values: tuple[str, ...] = Field(("", "NULL"), description="Texts that mean that there is no value.")
    missing_days: Literal["fail", "accept"] = Field(
        "fail", description="What a day without rows means that lies between days with some."
    )

    @model_validator(mode="after")
    def _of_its_task(self) -> Self:
        if (self.destination_table is not None) is not (self.task in ("all", "commit")):
            raise ValueError("destination_table belongs to the tasks all and commit, and they need it.")
        if (self.part is not None) is not (self.task == "part"):
            raise ValueError("part belongs to task part, which needs it: part: '{item}'")
        return self

    @property
    def staged_for(self) -> str | None:
        """The table that another step will write this step's rows to."""
        return DESTINATION if self.task == "part" else None


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a delivery; ``fetch`` downloads it to a path. If ``day`` is given, all its rows belong to it."""

    name: str
    fetch: Callable[[Path], None]
    day: date | None = None


class Delivery:
    """Reads the files of one export for one run. ``provider`` is the provider's key."""

    def __init__(self, context: StepContext, params: ExportParams, provider: str) -> None:
        self._context, self._params, self._provider = context, params, provider
        self._table = load_table(context.configs, DESTINATION)
        self._delivered: set[date] = set()
        self._sums: dict[str, Decimal] = {}
        self._columns: dict[str, frozenset[str]] = {}
        self._floats: set[str] = set()
        self._partial = ""
        self._rows = 0

    def batches(self, parts: Iterable[Part]) -> Iterator[Batch]:
        """Yield the rows of the run's days, then log a summary.

        Raises PermanentError for a file that can't be read, an export without rows, and a missing day.
        """
        yield from self.rows(parts)
        # At the end, because only then are all days known; the engine commits nothing before the step has returned.
        self.check()

    def rows(self, parts: Iterable[Part]) -> Iterator[Batch]:
        """Yield the rows of the run's days. Raises PermanentError for a file that can't be read."""
        with tempfile.TemporaryDirectory() as folder:
            for part in parts:
                # An object's key is the provider's text: only its last part, without separators, may name a file here.
                path = Path(folder) / re.sub(r"[^\w.-]", "_", part.name.rpartition("/")[2], flags=re.ASCII)
                part.fetch(path)
                yield from self._batches_of(path, part)
                self._context.remaining_s()
                path.unlink()  # before the next download: a function's disk is its memory

    def check(self) -> None:
        """Log a summary. Raises PermanentError for an export without rows, and for a missing day."""
        self._check_days()
        self._log_summary()

    def facts(self) -> str:
        """Return what was read, for ``add`` in the step that commits all parts."""
        return json.dumps(
            {
                "days": sorted(day.isoformat() for day in self._delivered),
                "sums": {currency: str(total) for currency, total in self._sums.items()},
                "columns": {name: sorted(columns) for name, columns in self._columns.items()},
                "floats": sorted(self._floats),
                "rows": self._rows,
            }
        )

    def add(self, facts: str) -> None:
        """Add what another step has read."""
        read = json.loads(facts)
        self._delivered |= {date.fromisoformat(day) for day in read["days"]}
        for currency, total in read["sums"].items():
            self._sums[currency] = EXACT.add(self._sums.get(currency, Decimal(0)), Decimal(total))
        self._columns |= {name: frozenset(columns) for name, columns in read["columns"].items()}
        self._floats |= set(read["floats"])
        self._rows += read["rows"]

    def _batches_of(self, path: Path, part: Part) -> Iterator[Batch]:
        params, convert, read = self._params, self._reader(part.name), Read()

        def found() -> Iterator[Block]:
            return blocks(path, file_format=params.format, delimiter=params.delimiter, null_values=params.null_values)

        convert.look_into(found)
        first, last = self._context.start_date, self._context.end_date
        yield from Reader(convert, first, last, read, day=part.day).batches(found())
        if read.records or read.days:
            self._columns[part.name] = read.columns
        self._delivered |= read.days
        self._rows += read.rows
        for currency, cost in read.billed.items():
            self._sums[currency] = EXACT.add(self._sums.get(currency, Decimal(0)), cost)
        self._floats |= convert.floats
        self._partial = convert.partial or self._partial

    def _reader(self, name: str) -> TableRows | LayoutRows:
        if self._params.layout != "table":
            its = layout(self._params.layout, self._context.configs)
            return LayoutRows(name, its, self._table, self._params.null_values, by_period=True)
        return TableRows(
            name,
            self._table,
            date_column="ChargePeriodStart",
            null_values=self._params.null_values,
            extra_column="extra",
            provider=self._provider,
            period_columns=FOCUS_PERIOD,
        )

    def _check_days(self) -> None:
        """Fail on a day missing between others: such an export is broken, and would delete that day's stored rows."""
        if not self._delivered:
            raise PermanentError("The export has no rows: nothing is replaced. Look at its last delivery.")
        context, begins, ends = self._context, min(self._delivered), max(self._delivered)
        days = (context.end_date - context.start_date).days + 1
        run_days = [context.start_date + timedelta(days=n) for n in range(days)]
        missing = [day for day in run_days if begins < day < ends and day not in self._delivered]
        if missing:
            text = f"The export has rows from {begins} to {ends}, and none for {some(missing)}."
            if self._params.missing_days == "fail":
                raise PermanentError(
                    f"{text} Nothing is replaced. If nothing was used then, set missing_days: accept; else wait for "
                    "the next delivery."
                )
            context.warn(text)
        if late := [day for day in run_days if day > ends]:
            context.info(f"The export ends with {ends}: nothing yet for {some(late)}.")

    def _log_summary(self) -> None:
        first, *others = self._columns.items()
        for name, columns in others:
            if columns != first[1]:
                gone, new = sorted(first[1] - columns), sorted(columns - first[1])
                self._context.warn(
                    f"The export has changed its columns: {name} is without {some(gone)} and has {some(new)}, other "
                    f"than {first[0]}."
                )
        if self._partial:
            self._context.warn(f"The export is half of a bill: {self._partial}")
        if self._floats:
            names = ", ".join(sorted(self._floats))
            self._context.warn(
                f"The export holds floating-point numbers in {names}: taken as their shortest decimal form."
            )
        sums = {currency: f"{EXACT.normalize(total):f}" for currency, total in sorted(self._sums.items())}
        billed = ", ".join(f"{currency} {total}" for currency, total in sums.items()) or "nothing"
        self._context.info(f"{self._rows} rows of {len(self._columns)} files, billed: {billed}.")
        self._context.put_out("billed", sums)


def months_of(first: date, last: date) -> list[Month]:
    """Return the months of the days ``first`` to ``last``."""
    begins, ends = first.year * 12 + first.month - 1, last.year * 12 + last.month - 1
    return [(number // 12, number % 12 + 1) for number in range(begins, ends + 1)]


def shown(months: Iterable[Month]) -> str:
    """Format months for a message."""
    return ", ".join(f"{year}-{month:02}" for year, month in months)


def newest(listed: Iterable[tuple[Month, Stored]], months: Iterable[Month], tell: Tell) -> Manifests:
    """Return the newest manifest of each month. Exports that keep every delivery have several for a month.

    Raises PermanentError if the two newest have the same time: which one is right must not be guessed.
    """
    by_month: dict[Month, list[Stored]] = {}
    for month, item in listed:
        by_month.setdefault(month, []).append(item)
    chosen: dict[Month, Stored] = {}
    for month in (month for month in months if month in by_month):
        *older, last = sorted(by_month[month], key=lambda item: item.modified)
        if older and older[-1].modified == last.modified:
            raise PermanentError(
                f"There are two manifests of {shown([month])} from the same second: {older[-1].key} and {last.key}. "
                "Which one is right? Delete the other."
            )
        if older:
            tell(f"{len(older) + 1} manifests of {shown([month])}: the newest is read, {last.key}.")
        chosen[month] = last
    return chosen


def delivered(
    context: StepContext,
    params: ExportParams,
    provider: str,
    *,
    find: Callable[[list[Month], Tell], Manifests],
    parts: Callable[[Manifests], Iterable[Part]],
    missing: str,
) -> Iterator[Batch | PartRead | WholeDelivery]:
    """Yield the rows of an export with a manifest for each month; ``missing`` explains what to do if there is none.

    A refresh replaces files, and a mixture of old and new ones would be no valid month. So the manifests are listed
    again at the end; TransientError if they have changed, so that the next attempt reads everything again. The params'
    ``task`` says how much of the delivery is done here (docs/decisions/0017).
    """
    months = months_of(context.start_date, context.end_date)
    manifests = find(months, context.info)
    if not manifests:
        raise PermanentError(f"There is no manifest for {shown(months)}. {missing}")
    delivery = Delivery(context, params, provider)
    if params.task == "all":
        yield from delivery.batches(parts(manifests))
    else:
        yield from _done(context, params, delivery, _identity(manifests), list(parts(manifests)))
    if find(months, lambda _text: None) != manifests:
        raise TransientError("The export was refreshed while it was being read. The next attempt reads it again.")


def _done(
    context: StepContext, params: ExportParams, delivery: Delivery, identity: str, parts: Sequence[Part]
) -> Iterator[Batch | PartRead | WholeDelivery]:
    """Do the task of a step that does not read the whole delivery."""
    if len(parts) > MOST_PARTS:
        raise PermanentError(f"The delivery has {len(parts)} files, the limit is {MOST_PARTS}: run fewer days.")
    if params.task == "list":
        context.put_out("parts", [part.name for part in parts])
    elif params.task == "part":
        own = [part for part in parts if part.name == params.part]
        if not own:
            raise PermanentError(
                f"{params.part!r} is not in the newest manifest any more: the export was refreshed. Run the pipeline "
                "again."
            )
        yield from delivery.rows(own)
        yield PartRead(own[0].name, identity, delivery.facts())
    else:

        def check(facts: Sequence[str]) -> None:
            for one in facts:
                delivery.add(one)
            delivery.check()

        yield WholeDelivery([part.name for part in parts], identity, check)


def _identity(manifests: Manifests) -> str:
    """Return a text that is another one once a month has been delivered anew."""
    return json.dumps([[*month, item.key, item.etag, str(item.modified)] for month, item in sorted(manifests.items())])


def some(names: Sequence[Any]) -> str:
    """Format names for a message, at most ten of them."""
    shown = ", ".join(map(str, names[:MOST_NAMED]))
    return f"{shown} and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else shown or "none"
