"""Bounded slices of a batch's rows, from dicts or Arrow, read column by column."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from common.platform.errors import PermanentError
from common.tables.contract import Column
from common.writes.spool import arrow
from common.writes.spool.columns import Converted, Converter

MAX_ROWS = 10_000
MAX_BYTES = 16 * 2**20
"""Most rows, and most characters of text (Arrow: bytes), converted at a time."""


class Rows(Protocol):
    """Some rows, counted from 0."""

    names: Collection[Any]
    """The columns of these rows; for dicts, those of any row."""

    tell_columns: bool
    """Whether a column that is not in ``names`` is missing; dicts may leave out NULLs."""

    def __len__(self) -> int: ...

    def converted(self, converter: Converter, column: Column) -> Converted:
        """Return the converted column."""

    def values(self, name: Any) -> Sequence[Any]:
        """Return a column's original values."""

    def row(self, position: int) -> Mapping[Any, Any]:
        """Return an original row."""

    def positions(self, kept: Sequence[int]) -> "Rows":
        """Return only the rows at these positions."""


def stretches(rows: Any) -> Iterator[Rows]:
    """Yield a batch's rows in bounded slices; a slice has at least one row, however long that is."""
    if isinstance(rows, pa.RecordBatch):
        rows = pa.Table.from_batches([rows])
    if isinstance(rows, pa.Table):
        yield from _tables(rows)
        return
    for begin in range(0, len(rows), MAX_ROWS):
        yield from _dicts(rows[begin : begin + MAX_ROWS])


def _dicts(rows: Sequence[Mapping[str, Any]]) -> Iterator[Rows]:
    if len(rows) > 1 and _chars(rows) > MAX_BYTES:
        half = len(rows) // 2
        yield from _dicts(rows[:half])
        yield from _dicts(rows[half:])
    else:
        yield DictRows(rows)


def _chars(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum([len(value) for row in rows for value in row.values() if type(value) is str])


def _tables(table: pa.Table) -> Iterator[Rows]:
    if len(set(table.column_names)) < table.num_columns:
        twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
        raise PermanentError(f"The Arrow table has these columns twice: {', '.join(twice)}.")
    for begin in range(0, table.num_rows, MAX_ROWS):
        yield from _halves(table.slice(begin, MAX_ROWS))


def _halves(table: pa.Table) -> Iterator[Rows]:
    if table.num_rows > 1 and sum(map(arrow.size, table.columns)) > MAX_BYTES:
        half = table.num_rows // 2
        yield from _halves(table.slice(0, half))
        yield from _halves(table.slice(half))
    else:
        yield ArrowRows(table)


class DictRows:
    """Rows that came as mappings."""

    tell_columns = False

    def __init__(self, rows: Sequence[Mapping[Any, Any]]) -> None:
        self._rows = rows
        shapes = set(map(tuple, rows))
        self.names: Collection[Any] = {name for shape in shapes for name in shape}

    def __len__(self) -> int:
        return len(self._rows)

    def converted(self, converter: Converter, column: Column) -> Converted:
        return converter.values(column, self.values(column.name))

    def values(self, name: Any) -> Sequence[Any]:
        return [row.get(name) for row in self._rows]

    def row(self, position: int) -> Mapping[Any, Any]:
        return self._rows[position]

    def positions(self, kept: Sequence[int]) -> "DictRows":
        return DictRows([self._rows[position] for position in kept])


class ArrowRows:
    """Rows of an Arrow table."""

    tell_columns = True

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.names: Collection[Any] = table.column_names

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def converted(self, converter: Converter, column: Column) -> Converted:
        if column.name not in self.names:
            return arrow.convert(converter, column, pa.nulls(len(self)))
        return arrow.convert(converter, column, arrow.plain(self._table[column.name]))

    def values(self, name: Any) -> Sequence[Any]:
        return arrow.as_python(arrow.plain(self._table[name]))

    def row(self, position: int) -> Mapping[Any, Any]:
        one = self._table.slice(position, 1)
        return {name: arrow.as_python(arrow.plain(one[name]))[0] for name in self.names}

    def positions(self, kept: Sequence[int]) -> "ArrowRows":
        return ArrowRows(self._table.take(pa.array(kept, pa.int64())))
