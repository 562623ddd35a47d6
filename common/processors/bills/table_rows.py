"""Converts records of a file that has the destination's own columns."""

import json
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from common.platform.errors import PermanentError, nearest
from common.processors.bills.cells import CONVERT, UNREADABLE, WANTED, refused, timestamp, within
from common.processors.bills.expressions import Read, day_of, needed, time
from common.processors.bills.files import BillRecord, Block
from common.tables.contract import DATA_DATE, Column, Table

if TYPE_CHECKING:
    import pyarrow as pa

    from common.processors.bills.arrow_values import ArrowValues

EXTRA = Column(name="extra", type="STRING")
"""Type of every column that the contract lacks; its name is not used, since a file's names may be no valid ones."""

OWN_COLUMNS = ("source_file", "source_row", "provider")
"""Filled with the file's name, the record's number and the step's provider if the contract has these columns."""


class TableRows:
    """Turns a record into a row of the contract's types, with either evaluator: the contract is the declaration.

    Raises UnreadableError for a value of the wrong type, PermanentError for columns that do not fit the table. With
    ``period_columns`` (start and end of the billing period) a charge outside its period is moved to the nearest day.
    """

    def __init__(
        self,
        file: str,
        table: Table,
        *,
        date_column: str,
        null_values: Sequence[str],
        extra_column: str | None,
        provider: str | None,
        period_columns: tuple[str, str] | None = None,
    ) -> None:
        self._file, self._date_column, self._nulls, self._provider = file, date_column, null_values, provider
        self._table, self._period = table, period_columns
        columns = {column.name: column for column in table.columns}
        if extra_column is not None and (extra_column not in columns or columns[extra_column].type != "JSON"):
            raise PermanentError(f"extra_column: table {table.table} has no JSON column {extra_column!r}.")
        self._extra = extra_column
        # A file's column with the name of one that we fill goes into ``extra``: it must not overwrite ours.
        self._columns = {name: c for name, c in columns.items() if name not in (*OWN_COLUMNS, extra_column)}
        self._required = [c.name for c in self._columns.values() if c.mode == "REQUIRED"]
        self._own = [name in columns for name in OWN_COLUMNS]
        self._checked = False
        self.floats: set[str] = set()

    def day(self, record: BillRecord) -> date:
        """Return the day that a record belongs to."""
        day = self._time(record, self._date_column).date()
        if self._period is None:
            return day
        return within(day, *(self._time(record, name) for name in self._period))

    def _time(self, record: BillRecord, name: str) -> datetime:
        self._check_date(name, list(record.values), record.header)
        try:
            return timestamp(record.values[name])
        except UNREADABLE as error:
            raise refused(self._file, record, name, record.values[name], WANTED["TIMESTAMP"]) from error

    def __call__(self, record: BillRecord) -> list[dict[str, Any]]:
        """Return the record's single row."""
        self._check_names(list(record.values), record.header)
        extra: dict[str, str] = {}
        row: dict[str, Any] = {DATA_DATE: self.day(record)}
        for name, value in record.values.items():
            if value is None or (isinstance(value, str) and value in self._nulls):
                continue
            column = self._columns.get(name)
            if column is None:
                extra[name] = self._value(record, name, EXTRA, value)
            else:
                row[name] = self._value(record, name, column, value)
        for name in self._required:
            if name not in row:
                raise refused(self._file, record, name, record.values[name], "a value, and the table needs one")
        if extra and self._extra is not None:
            row[self._extra] = json.dumps(extra, ensure_ascii=False)
        own = (self._file, record.number, self._provider)
        return [row | {name: v for name, v, there in zip(OWN_COLUMNS, own, self._own, strict=True) if there}]

    def values(self, block: Block) -> "ArrowValues":
        """Return the vectorised evaluator of a block."""
        from common.processors.bills.arrow_values import ArrowValues

        assert block.batch is not None
        for name in (self._date_column, *(self._period or ())):
            self._check_date(name, block.columns, block.header)
        self._check_names(block.columns, block.header)
        nulls = () if block.nulls_read else self._nulls
        return ArrowValues(block.batch, {name: name for name in block.columns}, nulls, narrow=True)

    def days(self, values: "ArrowValues") -> "pa.Array":
        """Return the day of each record."""
        from common.processors.bills.arrow_values import days_within

        days = values.read(day_of(needed(time(self._date_column))))
        period = [values.read(needed(time(name))) for name in self._period or ()]
        return days_within(days, *period) if period else days

    def rows(self, values: "ArrowValues", days: "pa.Array", numbers: "pa.Array") -> "pa.Table":
        """Return the rows of the records with these numbers."""
        from common.processors.bills.arrow_values import RowTable

        known = {name: Read(column.type, (name,)) for name, column in self._columns.items() if name in values.names}
        needs = {name: needed(known[name]) for name in self._required}
        rows = RowTable(values, self._table, days, numbers)
        rows.constants({"source_file": self._file, "provider": self._provider})
        rows.add({name: values.read(of) for name, of in (known | needs).items()}, None)
        self.floats |= values.floats
        if self._extra is None:
            return rows.table()
        return rows.table(self._extra, values.texts([name for name in values.names if name not in known]))

    def _check_date(self, name: str, columns: Sequence[str], header: str) -> None:
        if name not in columns:
            raise PermanentError(f"{self._file}: {header}: there is no date column {name!r}.{nearest(name, columns)}")

    def _check_names(self, columns: Sequence[str], header: str) -> None:
        if self._checked:  # once: every record has the same columns
            return
        self._checked = True
        if self._extra is None:
            for name in columns:
                if name not in self._columns:
                    raise PermanentError(
                        f"{self._file}: {header}: the table has no column {name!r}."
                        f"{nearest(name, self._columns)} Or set extra_column, to keep such columns."
                    )
        for name in self._required:
            if name not in columns:
                raise PermanentError(f"{self._file}: {header}: column {name} is missing.{nearest(name, columns)}")

    def _value(self, record: BillRecord, name: str, column: Column, value: Any) -> Any:
        if isinstance(value, float) and column.type == "BIGNUMERIC":
            self.floats.add(name)
        try:
            return CONVERT[column.type](value)
        except UNREADABLE as error:
            if column.policy != "freeze":
                return value  # the spool applies the policy, and counts the value as drift
            raise refused(self._file, record, name, value, WANTED[column.type]) from error
