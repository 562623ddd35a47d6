"""Records of a file whose columns are those of the destination, as its rows."""

import json
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from common.platform.errors import PermanentError, nearest
from common.processors.bills.cells import CONVERT, UNREADABLE, WANTED, refused, timestamp, within
from common.processors.bills.files import BillRecord
from common.tables.contract import DATA_DATE, Column, Table

EXTRA = Column(name="extra", type="STRING")
"""Stands for each column that the contract does not have: the file's names need not be those of columns."""

OWN_COLUMNS = ("source_file", "source_row", "provider")
"""Filled with the file's name, the record's number and the step's provider, where the contract has them."""


class TableRows:
    """Turns a record into a row of the contract's types.

    Raises UnreadableError for a value that is not of its type, PermanentError for names that do not fit the table.
    With ``period_columns`` (start and end of the billing period) a row belongs to a day of its period.
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
        self._period = period_columns
        columns = {column.name: column for column in table.columns}
        if extra_column is not None and (extra_column not in columns or columns[extra_column].type != "JSON"):
            raise PermanentError(f"extra_column: table {table.table} has no JSON column {extra_column!r}.")
        self._extra = extra_column
        # A column of the file that is named like one we fill ourselves is one that the table does not have.
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
        if name not in record.values:
            raise PermanentError(
                f"{self._file}: {record.header}: there is no date column {name!r}.{nearest(name, record.values)}"
            )
        try:
            return timestamp(record.values[name])
        except UNREADABLE as error:
            raise refused(self._file, record, name, record.values[name], WANTED["TIMESTAMP"]) from error

    def __call__(self, record: BillRecord) -> list[dict[str, Any]]:
        """Return the record's one row."""
        if not self._checked:  # names are the same in every record
            self._check_names(record)
            self._checked = True
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

    def _check_names(self, record: BillRecord) -> None:
        if self._extra is None:
            for name in record.values:
                if name not in self._columns:
                    raise PermanentError(
                        f"{self._file}: {record.header}: the table has no column {name!r}."
                        f"{nearest(name, self._columns)} Or set extra_column, to keep such columns."
                    )
        for name in self._required:
            if name not in record.values:
                raise PermanentError(
                    f"{self._file}: {record.header}: column {name} is missing.{nearest(name, record.values)}"
                )

    def _value(self, record: BillRecord, name: str, column: Column, value: Any) -> Any:
        if isinstance(value, float) and column.type == "BIGNUMERIC":
            self.floats.add(name)
        try:
            return CONVERT[column.type](value)
        except UNREADABLE as error:
            if column.policy != "freeze":
                return value
            raise refused(self._file, record, name, value, WANTED[column.type]) from error
