"""What a processor yields to the writer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import batched
from typing import TYPE_CHECKING, Any

from common.writes.bad_rows import BadRow

if TYPE_CHECKING:  # a function that writes nothing imports no data library
    import pyarrow


Row = Mapping[str, Any]
"""A row by column name. Money and quantities are Decimal, times aware datetimes, JSON text, dict or list."""

BATCH_ROWS = 5_000
"""Rows in memory at a time. The attempt checks its time limit between batches."""


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
    for batch in batched(rows, BATCH_ROWS, strict=False):
        bad = [row for row in batch if isinstance(row, BadRow)]
        yield Batch([row for row in batch if not isinstance(row, BadRow)], bad)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Yielded instead of a batch: the work goes on in job ``job``, and no function needs to wait for it.

    The function ends here, and the attempt is suspended. At ``look_at`` the processor runs again, in the same attempt,
    with ``context.waiting_on`` naming the job. The staging table is kept until then.
    """

    job: str
    look_at: datetime
