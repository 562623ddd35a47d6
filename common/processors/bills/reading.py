"""Turns the blocks of a file into batches of rows: whole blocks at once, and record by record where something is odd.

What is odd in a block is left to the row evaluator, in its place among the others: it may find a row after all, or a
bad one, which it reports with file, line, column and value.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Context, Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any

from common.processors.bills.cells import UnreadableError
from common.processors.bills.files import BLOCK_BYTES, BillRecord, Block
from common.processors.bills.layout import LayoutRows
from common.processors.bills.table_rows import TableRows
from common.tables.contract import DATA_DATE
from common.writes.bad_rows import BadRow
from common.writes.batch import Batch, Row, batches

if TYPE_CHECKING:
    import pyarrow as pa

# The sums must match the bill to the last digit; Python's default of 28 digits could round them.
EXACT = Context(prec=100)

MOST_ODD = 16
"""Most odd records of a block for which it is cut into pieces: with more, reading all of it by records is faster."""

MOST_AHEAD_BYTES = 2 * BLOCK_BYTES
"""The next block is not read while a larger one is in use."""

Rows = TableRows | LayoutRows


@dataclass(slots=True)
class Read:
    """What was read: the days with records, the rows, their BilledCost by currency, and the columns of the file."""

    days: set[date] = field(default_factory=set)
    rows: int = 0
    records: int = 0
    billed: dict[str, Decimal] = field(default_factory=dict)
    columns: frozenset[str] = frozenset()

    def count(self, rows: Iterable[Row]) -> None:
        """Count rows."""
        for row in rows:
            self.rows += 1
            self._bill(str(row.get("BillingCurrency")), row.get("BilledCost"))

    def count_table(self, table: "pa.Table") -> None:
        """Count the rows of a table."""
        self.rows += table.num_rows
        if not {"BillingCurrency", "BilledCost"} <= set(table.column_names):
            return
        from common.processors.bills.arrow_cells import MONEY, NARROW_MONEY

        if table.schema.field("BilledCost").type not in (MONEY, NARROW_MONEY):
            return
        costs = table.select(["BillingCurrency"]).append_column("BilledCost", table["BilledCost"].cast(MONEY))
        sums = costs.group_by("BillingCurrency").aggregate([("BilledCost", "sum")])
        for row in sums.to_pylist():
            self._bill(str(row["BillingCurrency"]), row["BilledCost_sum"])

    def _bill(self, currency: str, cost: Any) -> None:
        if isinstance(cost, Decimal):  # not so if its column's policy lets other values pass
            self.billed[currency] = EXACT.add(self.billed.get(currency, Decimal(0)), cost)


def ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    """Yield the blocks, reading the next one on a second core while one is in use: Arrow reads without the GIL."""
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        following = reader.submit(next, blocks, None)
        while (block := following.result()) is not None:
            # Records that are still in the file would be taken away, and of blocks of one huge record memory holds one.
            if block.batch is None or block.batch.nbytes > MOST_AHEAD_BYTES:
                yield block
                following = reader.submit(next, blocks, None)
            else:
                following = reader.submit(next, blocks, None)
                yield block


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one file. ``outside`` returns the error for a record of a day that is not of the run; None skips it.

    With ``day``, all records belong to that day.
    """

    convert: Rows
    first: date
    last: date
    read: Read
    day: date | None = None
    outside: Callable[[BillRecord, date], Exception] | None = None

    def batches(self, blocks: Iterable[Block]) -> Iterator[Batch]:
        """Yield the rows of the blocks. Raises what ``convert`` and ``outside`` do."""
        for block in ahead(iter(blocks)):
            self.read.columns = self.read.columns or frozenset(block.columns)
            if block.batch is None:
                yield from self._by_record(block.records())
            else:
                yield from self._block(block, block.batch)

    def _block(self, block: Block, batch: "pa.RecordBatch") -> Iterator[Batch]:
        import pyarrow as pa
        import pyarrow.compute as pc

        values = self.convert.values(block)
        days = self._days(values)
        numbers = pa.array(range(block.first, block.first + batch.num_rows), pa.int64())
        inside = pc.and_(pc.greater_equal(days, pa.scalar(self.first)), pc.less_equal(days, pa.scalar(self.last)))
        inside = pc.fill_null(inside, False)
        if self.outside is not None:
            values.odd = pc.or_(values.odd, pc.invert(inside))  # which raises, but in its place
        elif not pc.all(inside).as_py():
            self.read.days |= set(days.filter(pc.invert(values.odd)).unique().to_pylist())
            kept = pc.or_(inside, values.odd)
            numbers, batch = numbers.filter(kept), batch.filter(kept)
            values = self.convert.values(replace(block, batch=batch))
            days = self._days(values)
        table = self.convert.rows(values, days, numbers)
        odd = numbers.filter(values.odd).to_pylist()
        if len(odd) > min(MOST_ODD, batch.num_rows // 8):
            wanted = set(numbers.to_pylist())
            yield from self._by_record(record for record in block.records() if record.number in wanted)
            return
        self.read.records += batch.num_rows - len(odd)
        yield from self._pieces(block, table, odd)

    def _days(self, values: Any) -> "pa.Array":
        import pyarrow as pa

        days = self.convert.days(values)
        return days if self.day is None else pa.repeat(pa.scalar(self.day), len(days))

    def _pieces(self, block: Block, table: "pa.Table", odd: list[int]) -> Iterator[Batch]:
        """Yield the table's rows, with the odd records in their places."""
        if not odd:
            yield self._whole(table)
            return
        import pyarrow.compute as pc

        from common.processors.bills.arrow_values import NUMBER

        wanted = set(odd)
        records = (record for record in block.records() if record.number in wanted)
        begin = 0
        for record in chain(records, (None,)):
            here = pc.greater(table[NUMBER], begin)
            if record is not None:
                here = pc.and_(here, pc.less(table[NUMBER], record.number))
            if pc.any(here).as_py():
                yield self._whole(table.filter(here))
            if record is not None:
                begin = record.number
                yield from self._by_record([record])

    def _whole(self, table: "pa.Table") -> Batch:
        import pyarrow.compute as pc

        from common.processors.bills.arrow_values import NUMBER

        table = table.drop_columns([NUMBER])
        self.read.days |= set(pc.unique(table[DATA_DATE]).to_pylist())
        self.read.count_table(table)
        return Batch(table)

    def _by_record(self, records: Iterable[BillRecord]) -> Iterator[Batch]:
        return batches(chain.from_iterable(map(self._rows, records)))

    def _rows(self, record: BillRecord) -> Iterator[Row | BadRow]:
        self.read.records += 1
        try:
            made = self._inside(record)
        except UnreadableError as error:
            yield error.bad
            return
        self.read.count(made)
        yield from made

    def _inside(self, record: BillRecord) -> list[dict[str, Any]]:
        if self.outside is None:
            day = self.day or self.convert.day(record)
            self.read.days.add(day)
            if not self.first <= day <= self.last:
                return []
            return [row | {DATA_DATE: day} for row in self.convert(record)]
        made = self.convert(record)
        for row in made:
            if not self.first <= row[DATA_DATE] <= self.last:
                raise self.outside(record, row[DATA_DATE])
            self.read.days.add(row[DATA_DATE])
        return made


def days_of(blocks: Iterable[Block], convert: Rows) -> tuple[set[date], BadRow | None]:
    """Return the days of a file's records, and the first record whose day can't be read."""
    days: set[date] = set()
    unreadable: BadRow | None = None
    for block in blocks:
        records: Iterable[BillRecord] = ()
        if block.batch is None:
            records = block.records()
        else:
            import pyarrow.compute as pc

            values = convert.values(block)
            found = convert.days(values)
            days |= set(found.filter(pc.invert(values.odd)).unique().to_pylist())
            if pc.any(values.odd).as_py():
                odd = zip(block.records(), values.odd.to_pylist(), strict=True)
                records = (record for record, is_odd in odd if is_odd)
        for record in records:
            try:
                days.add(convert.day(record))
            except UnreadableError as error:
                unreadable = unreadable or error.bad
    return days, unreadable
