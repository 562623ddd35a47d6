"""Layouts of providers' bills: how a record of such a file becomes rows of FOCUS.

A layout maps a provider's columns to those of the table ``cloud_focus_export``, whose procedure
(``sp_lift_focus_export``) lifts rows of any version to FOCUS 1.3. Arithmetic is done here and not in SQL, because
cost = price x quantity must hold to the last digit.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from common.platform.errors import PermanentError
from common.processors.bills.cells import Cells, within
from common.processors.bills.expressions import Expression, Read, Shape
from common.processors.bills.files import BillRecord, Block
from common.processors.bills.row_values import RowValues
from common.tables.contract import DATA_DATE, Table

if TYPE_CHECKING:  # imported with the first block: a function that reads no bill imports no data library
    import pyarrow as pa

    from common.processors.bills.arrow_values import ArrowValues

DESTINATION = "cloud_focus_export"

LayoutName = Literal[
    "table", "aws_cur", "azure_actual_cost", "azure_amortised_cost", "azure_benefit_purchases", "oci_cost", "oci_focus"
]
"""``table``: the file's columns are those of the table."""

LAYOUTS: dict[str, str] = {
    "aws_cur": "common.processors.clouds.aws.cur_layout:AwsCur",
    "azure_actual_cost": "common.processors.clouds.azure.cost_layout:AzureActualCost",
    "azure_amortised_cost": "common.processors.clouds.azure.cost_layout:AzureAmortisedCost",
    "azure_benefit_purchases": "common.processors.clouds.azure.cost_layout:AzureBenefitPurchases",
    "oci_cost": "common.processors.clouds.oci.cost_layout:OciCost",
    "oci_focus": "common.processors.clouds.oci.focus_layout:OciFocus",
}

Row = dict[str, Any]


class Layout(Protocol):
    """One kind of bill: a declaration, evaluated by ``row_values.py`` and ``arrow_values.py``."""

    provider: str
    """The provider's key."""

    needed: Sequence[Sequence[str]]
    """Plain names of required columns, with alternatives: a file that lacks one is not this kind of bill."""

    plain_name: Callable[[str], str]
    """Maps a file's column name to its plain name, which is the same for every spelling."""

    day: Expression
    """The day of the record's charge."""

    period: tuple[Expression, Expression]
    """Start and end (exclusive) of the billing period; NULL for what the record does not state."""

    currency: Read | None
    """The column with the currency, if records of cost 0 may have none: they get that of the file's others."""

    partial: str
    """What a bill of this layout lacks if it has commitments; empty if nothing."""

    shapes: Sequence[Shape]
    """The rows of a record, without day, lineage and ``extra``. A record may have none."""


@cache
def layout(name: str, configs: Path) -> Layout:
    """Return a layout by its name; ``configs`` is the folder with contracts and service categories."""
    path, _, cls = LAYOUTS[name].partition(":")
    built: Layout = getattr(import_module(path), cls)(configs)
    return built


class LayoutRows:
    """Turns the records of one file into rows, with either evaluator.

    Raises UnreadableError for a value that can't be read, PermanentError for a file of another kind. With ``by_period``
    a charge outside its billing period is moved to the period's nearest day.
    """

    def __init__(
        self, file: str, its: Layout, table: Table, null_values: Sequence[str], *, by_period: bool = False
    ) -> None:
        self._file, self._layout, self._table, self._nulls = file, its, table, null_values
        self._by_period = by_period
        self._blocks: Callable[[], Iterable[Block]] = tuple
        self._currency: str | None = None
        self._names: Mapping[str, str] = {}
        self.floats: set[str] = set()
        self.has_commitments = False

    @property
    def partial(self) -> str:
        """What the file lacks, as far as it was read; empty if nothing."""
        return self._layout.partial if self.has_commitments else ""

    def look_into(self, blocks: Callable[[], Iterable[Block]]) -> None:
        """Say how to read the file from its beginning, which only a record without a currency needs."""
        self._blocks = blocks

    def _file_currency(self) -> str | None:
        """Return the currency of the first record that has one, or None."""
        its = self._layout.currency
        assert its is not None
        if self._currency is None:
            records = (record for block in self._blocks() for record in block.records())
            named = (RowValues(self._cells(record)).value(its) for record in records)
            self._currency = next((currency for currency in named if currency), None)
        return self._currency

    def day(self, record: BillRecord) -> date:
        """Return the day that a record belongs to."""
        return self._day(RowValues(self._cells(record)))

    def _day(self, values: RowValues) -> date:
        day: date = values.value(self._layout.day)
        return within(day, *map(values.value, self._layout.period)) if self._by_period else day

    def __call__(self, record: BillRecord) -> list[Row]:
        """Return the record's rows; the first keeps the columns that the layout does not map."""
        cells = self._cells(record)
        values = RowValues(cells)
        origin = {
            "source_file": self._file,
            "source_row": record.number,
            "provider": self._layout.provider,
            DATA_DATE: self._day(values),
        }
        rows = []
        for shape in self._layout.shapes:
            if shape.when is None or values.true(shape.when):
                for read in shape.reads:
                    values.value(read)
                rows.append(origin | {name: values.value(of) for name, of in shape.columns.items()})
        self.floats |= cells.floats
        if self._layout.currency is not None:
            for row in rows:
                row["BillingCurrency"] = row["BillingCurrency"] or self._file_currency()
                if row["BillingCurrency"] is None:
                    raise cells.wrong(self._layout.currency.names[0], "a currency, and no record of the file has one")
        self.has_commitments |= any(row.get("CommitmentDiscountId") for row in rows)
        # Only on the first: these values belong to the record, and must not count once for each row.
        if rows and (unused := cells.unused()):
            rows[0]["extra"] = json.dumps(unused, ensure_ascii=False)
        return rows

    def values(self, block: Block) -> "ArrowValues":
        """Return the vectorised evaluator of a block."""
        from common.processors.bills.arrow_values import ArrowValues

        if not self._names:
            self._names = self._header(block.columns, block.header)
        assert block.batch is not None
        return ArrowValues(block.batch, self._names, () if block.nulls_read else self._nulls)

    def days(self, values: "ArrowValues") -> "pa.Array":
        """Return the day of each record."""
        from common.processors.bills.arrow_values import days_within

        days = values.read(self._layout.day)
        return days_within(days, *map(values.read, self._layout.period)) if self._by_period else days

    def rows(self, values: "ArrowValues", days: "pa.Array", numbers: "pa.Array") -> "pa.Table":
        """Return the rows of the records with these numbers."""
        from common.processors.bills.arrow_values import RowTable

        rows = RowTable(values, self._table, days, numbers)
        rows.constants({"source_file": self._file, "provider": self._layout.provider})
        for shape in self._layout.shapes:
            kept = None if shape.when is None else values.true(shape.when)
            for read in shape.reads:
                values.read(read, kept)
            rows.add({name: values.read(of, kept) for name, of in shape.columns.items()}, kept)
        self.floats |= values.floats
        table = rows.table("extra", values.unused())
        ids = table["CommitmentDiscountId"]
        self.has_commitments |= ids.null_count < len(ids)
        if self._layout.currency is not None and table["BillingCurrency"].null_count:
            if (currency := self._file_currency()) is None:
                values.all_odd()  # the row evaluator names the record
                return table
            filled = table["BillingCurrency"].fill_null(currency)
            table = table.set_column(table.column_names.index("BillingCurrency"), "BillingCurrency", filled)
        return table

    def _cells(self, record: BillRecord) -> Cells:
        if not self._names:
            self._names = self._header(list(record.values), record.header)
        return Cells(self._file, record, self._names, self._nulls)

    def _header(self, columns: Sequence[str], header: str) -> Mapping[str, str]:
        names: dict[str, str] = {}
        for own in columns:
            plain = self._layout.plain_name(own)
            if plain in names:
                raise PermanentError(
                    f"{self._file}: {header}: the columns {names[plain]!r} and {own!r} are the same one."
                )
            names[plain] = own
        missing = [" or ".join(any_of) for any_of in self._layout.needed if not any(name in names for name in any_of)]
        if missing:
            raise PermanentError(
                f"{self._file}: {header}: no column {', '.join(missing)}: is it the bill that the step's layout is for?"
            )
        return names
