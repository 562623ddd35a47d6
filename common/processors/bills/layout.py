"""Layouts of providers' bills: how a record of such a file becomes rows of FOCUS.

A layout maps a provider's columns to those of the table ``cloud_focus_export``, whose procedure
(``sp_lift_focus_export``) lifts rows of any version to FOCUS 1.3. Arithmetic is done here and not in SQL, because
cost = price x quantity must hold to the last digit.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from common.platform.errors import PermanentError
from common.processors.bills.cells import Cells, within
from common.processors.bills.files import BillRecord
from common.tables.contract import DATA_DATE

DESTINATION = "cloud_focus_export"

LayoutName = Literal["table", "aws_cur", "azure_actual_cost", "azure_amortised_cost", "oci_cost", "oci_focus"]
"""``table``: the file's columns are those of the table."""

LAYOUTS: dict[str, str] = {
    "aws_cur": "common.processors.clouds.aws.cur_layout:AwsCur",
    "azure_actual_cost": "common.processors.clouds.azure.cost_layout:AzureActualCost",
    "azure_amortised_cost": "common.processors.clouds.azure.cost_layout:AzureAmortisedCost",
    "oci_cost": "common.processors.clouds.oci.cost_layout:OciCost",
    "oci_focus": "common.processors.clouds.oci.focus_layout:OciFocus",
}

Row = dict[str, Any]
Period = tuple[datetime | None, datetime | None]


class Layout(Protocol):
    """One kind of bill."""

    provider: str
    """The provider's key."""

    needed: Sequence[Sequence[str]]
    """Plain names of required columns, with alternatives: a file that lacks one is not this kind of bill."""

    plain_name: Callable[[str], str]
    """Maps a file's column name to its plain name, which is the same for every spelling."""

    def day(self, cells: Cells) -> date:
        """Return the day of the record's charge."""

    def period(self, cells: Cells) -> Period:
        """Return start and end (exclusive) of the billing period; None for what the record does not state."""

    def rows(self, cells: Cells) -> Iterator[Row]:
        """Yield the record's rows, without day, lineage and ``extra``: LayoutRows adds them."""


@cache
def layout(name: str, configs: Path) -> Layout:
    """Return a layout by its name; ``configs`` is the folder with contracts and service categories."""
    path, _, cls = LAYOUTS[name].partition(":")
    built: Layout = getattr(import_module(path), cls)(configs)
    return built


class LayoutRows:
    """Turns the records of one file into rows.

    Raises UnreadableError for a value that can't be read, PermanentError for a file of another kind. With ``by_period``
    a charge outside its billing period is moved to the period's nearest day.
    """

    def __init__(self, file: str, its: Layout, null_values: Sequence[str], *, by_period: bool = False) -> None:
        self._file, self._layout, self._nulls = file, its, null_values
        self._by_period = by_period
        self._names: Mapping[str, str] = {}
        self.floats: set[str] = set()

    def day(self, record: BillRecord) -> date:
        """Return the day that a record belongs to."""
        return self._day(self._cells(record))

    def _day(self, cells: Cells) -> date:
        day = self._layout.day(cells)
        return within(day, *self._layout.period(cells)) if self._by_period else day

    def __call__(self, record: BillRecord) -> list[Row]:
        """Return the record's rows; the first keeps the columns that the layout does not map."""
        cells = self._cells(record)
        day = self._day(cells)
        rows = list(self._layout.rows(cells))
        self.floats |= cells.floats
        origin = {
            "source_file": self._file,
            "source_row": record.number,
            "provider": self._layout.provider,
            DATA_DATE: day,
        }
        unused = cells.unused()
        extra = {"extra": json.dumps(unused, ensure_ascii=False)} if unused else {}
        # Only on the first: these values belong to the record, and must not count once for each row.
        return [origin | (extra if number == 0 else {}) | row for number, row in enumerate(rows)]

    def _cells(self, record: BillRecord) -> Cells:
        if not self._names:
            self._names = self._header(record)
        return Cells(self._file, record, self._names, self._nulls)

    def _header(self, record: BillRecord) -> Mapping[str, str]:
        names: dict[str, str] = {}
        for own in record.values:
            plain = self._layout.plain_name(own)
            if plain in names:
                raise PermanentError(
                    f"{self._file}: {record.header}: the columns {names[plain]!r} and {own!r} are the same one."
                )
            names[plain] = own
        missing = [" or ".join(any_of) for any_of in self._layout.needed if not any(name in names for name in any_of)]
        if missing:
            raise PermanentError(
                f"{self._file}: {record.header}: no column {', '.join(missing)}: is it the bill that the step's layout "
                "is for?"
            )
        return names
