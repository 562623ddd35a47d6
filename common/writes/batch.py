"""What a processor yields to the writer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from common.writes.bad_rows import BadRow

if TYPE_CHECKING:  # a function that writes nothing imports no data library
    import pyarrow


Row = Mapping[str, Any]
"""A row by column name. Money and quantities are Decimal, times aware datetimes, JSON text, dict or list."""

BATCH_ROWS = 5_000
BATCH_CHARS = 8 * 2**20
"""Most rows, and most characters of text in them, in memory at a time; a batch has at least one row, however long that
is. The attempt checks its time limit between batches."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of a step's output. Batches are bounded (a page, a few thousand rows), so memory stays flat.

    Rows are mappings, or an Arrow table or record batch, whose columns are used unchanged if they have the contract's
    types. ``bad`` are rows that the processor could not read: they go to quarantine, and more than ``max_bad_rows`` of
    them fail the step.
    """

    rows: "Sequence[Row] | pyarrow.Table | pyarrow.RecordBatch"
    bad: Sequence[BadRow] = ()

    @property
    def count(self) -> int:
        """Number of rows, good and bad."""
        return len(self.rows) + len(self.bad)


def batches(rows: Iterable[Row | BadRow]) -> Iterator[Batch]:
    """Yield the rows in batches, in order, bad rows separately. No rows make no batch."""
    good: list[Row] = []
    bad: list[BadRow] = []
    chars = 0
    for row in rows:
        if isinstance(row, BadRow):
            bad.append(row)
            chars += len(row.row)
        else:
            good.append(row)
            chars += sum([len(value) for value in row.values() if type(value) is str])
        if len(good) + len(bad) == BATCH_ROWS or chars >= BATCH_CHARS:
            yield Batch(good, bad)
            good, bad, chars = [], [], 0
    if good or bad:
        yield Batch(good, bad)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Yielded instead of a batch: the work goes on in job ``job``, and no function needs to wait for it.

    The function ends here, and the attempt is suspended. At ``look_at`` the processor runs again, in the same attempt,
    with ``context.waiting_on`` naming the job. The staging table is kept until then.
    """

    job: str
    look_at: datetime
