"""What a processor hands to the writer."""

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
"""Rows that are in memory at a time. Between batches the attempt looks at its time limit."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a step's output. Batches are bounded (a page, some thousand rows), so memory stays flat.

    Rows are mappings, or an Arrow table or record batch, whose columns are taken as they are where their types are
    those of the contract. ``bad`` are rows that the processor could not read itself: they go to quarantine, and more
    of them than the step's ``max_bad_rows`` fail it.
    """

    rows: "Sequence[Row] | pyarrow.Table | pyarrow.RecordBatch"
    bad: Sequence[BadRow] = ()

    @property
    def count(self) -> int:
        """How many rows it has, good and bad."""
        return len(self.rows) + len(self.bad)


def batches(rows: Iterable[Row | BadRow]) -> Iterator[Batch]:
    """Yield the rows in batches, in order, the bad ones apart. No rows make no batch."""
    for some in batched(rows, BATCH_ROWS, strict=False):
        bad = [row for row in some if isinstance(row, BadRow)]
        yield Batch([row for row in some if not isinstance(row, BadRow)], bad)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Yielded in the place of a batch: the work goes on in job ``job``, and nobody needs to be there for it.

    The attempt ends here without an outcome, and its function with it. At ``look_at`` the processor is run again, in
    the same attempt, with ``context.waiting_on`` naming the job. A staging table stays as it is until then.
    """

    job: str
    look_at: datetime
