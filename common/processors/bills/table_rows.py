"""Converts records of a file that has the destination's own columns."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from common.platform.errors import PermanentError, nearest
from common.processors.bills.cells import CONVERT, UNREADABLE, WANTED, missing, refused, timestamp, within
from common.processors.bills.expressions import First, Needed, Read, day_of, needed, time
from common.processors.bills.files import BillRecord, Block
from common.processors.bills.focus_columns import NEEDED, RENAMED, plain_names
from common.processors.bills.layout import DESTINATION
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

    A column is the contract's if its name is, whatever its case and underscores. A FOCUS export must have what the
    unified table needs (``focus_columns.py``).

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
        is_focus = table.table == DESTINATION
        required = {c.name: (c.name,) for c in self._columns.values() if c.mode == "REQUIRED"}
        self._required: dict[str, tuple[str, ...]] = {**required, **(NEEDED if is_focus else {})}
        self._renamed = RENAMED if is_focus else {}
        self._own = [name in columns for name in OWN_COLUMNS]
        self._names: dict[str, str] = {}
        self.floats: set[str] = set()
        self.partial = ""

    def look_into(self, blocks: Callable[[], Iterable[Block]]) -> None:
        """Do nothing: a row has only what its record has."""

    def day(self, record: BillRecord) -> date:
        """Return the day that a record belongs to."""
        day = self._time(record, self._date_column).date()
        if self._period is None:
            return day
        return within(day, *(self._time(record, name) for name in self._period))

    def _time(self, record: BillRecord, name: str) -> datetime:
        own = self._header(list(record.values), record.header).get(name, name)
        value = record.values[own]
        if value is None or (isinstance(value, str) and value in self._nulls):
            raise missing(self._file, record, own)
        try:
            return timestamp(value)
        except UNREADABLE as error:
            raise refused(self._file, record, own, value, WANTED["TIMESTAMP"]) from error

    def __call__(self, record: BillRecord) -> list[dict[str, Any]]:
        """Return the record's single row."""
        names = self._header(list(record.values), record.header)
        extra: dict[str, str] = {}
        row: dict[str, Any] = {DATA_DATE: self.day(record)}
        for name, own in names.items():
            value = record.values[own]
            if value is None or (isinstance(value, str) and value in self._nulls):
                continue
            column = self._columns.get(name)
            if column is None:
                extra[own] = self._value(record, own, EXTRA, value)
            else:
                row[name] = self._value(record, own, column, value)
        for name, any_of in self._required.items():
            if not any(one in row for one in any_of):
                raise missing(self._file, record, names.get(name, name))
        if extra and self._extra is not None:
            row[self._extra] = json.dumps(extra, ensure_ascii=False)
        own_values = (self._file, record.number, self._provider)
        return [row | {name: v for name, v, there in zip(OWN_COLUMNS, own_values, self._own, strict=True) if there}]

    def values(self, block: Block) -> "ArrowValues":
        """Return the vectorised evaluator of a block."""
        from common.processors.bills.arrow_values import ArrowValues

        assert block.batch is not None
        names = self._header(block.columns, block.header)
        nulls = () if block.nulls_read else self._nulls
        return ArrowValues(block.batch, names, nulls, narrow=True)

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
        for any_of in self._required.values():
            there = [known[name] for name in any_of if name in known]
            values.read(Needed(First(tuple(there)), any_of))  # which marks the rows that have none as odd
        rows = RowTable(values, self._table, days, numbers)
        rows.constants({"source_file": self._file, "provider": self._provider})
        rows.add({name: values.read(of) for name, of in known.items()}, None)
        self.floats |= values.floats
        if self._extra is None:
            return rows.table()
        return rows.table(self._extra, values.texts([name for name in values.names if name not in known]))

    def _header(self, columns: Sequence[str], header: str) -> dict[str, str]:
        """Return the file's names by plain names. Raises PermanentError for a header that does not fit the table."""
        if self._names:  # once: every record has the same columns
            return self._names
        where = f"{self._file}: {header}"
        found = plain_names(columns, self._columns)
        for owns in found.values():
            if len(owns) > 1:
                raise PermanentError(f"{where}: the columns {owns[0]!r} and {owns[1]!r} are the same one.")
        names = {name: owns[0] for name, owns in found.items()}
        for new, old in self._renamed.items():
            if old in names and new not in names:
                names[new] = names.pop(old)
        self._check_names(names, columns, where)
        self._names = names
        return names

    def _check_names(self, names: Mapping[str, str], columns: Sequence[str], where: str) -> None:
        for name in (self._date_column, *(self._period or ())):
            if name not in names:
                raise PermanentError(f"{where}: there is no date column {name!r}.{nearest(name, columns)}")
        unknown = [name for name in names if name not in self._columns]  # a known one can't be meant by another
        if unknown and self._extra is None:
            raise PermanentError(
                f"{where}: the table has no column {unknown[0]!r}.{nearest(unknown[0], self._columns)} "
                "Or set extra_column, to keep such columns."
            )
        for name, any_of in self._required.items():
            if not any(one in names for one in any_of):
                raise PermanentError(f"{where}: column {' or '.join(any_of)} is missing.{nearest(name, unknown)}")

    def _value(self, record: BillRecord, name: str, column: Column, value: Any) -> Any:
        if isinstance(value, float) and column.type == "BIGNUMERIC":
            self.floats.add(name)
        try:
            return CONVERT[column.type](value)
        except UNREADABLE as error:
            if column.policy != "freeze":
                return value  # the spool applies the policy, and counts the value as drift
            raise refused(self._file, record, name, value, WANTED[column.type]) from error
