"""What processors need from a customer's Google Cloud: tokens, and tables that are not ours.

As in the other ports: adapters implement it, nothing here imports one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # a function that reads no table imports no data library
    import pyarrow


@dataclass(frozen=True, slots=True)
class SourceField:
    """A column of a customer's table, or a field within one: BigQuery's name of its type, and whether it repeats."""

    kind: str
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A customer's table. ``fields`` are by dotted path (``project.id``).

    ``partition`` is the column whose days are its partitions, ``_PARTITIONDATE`` for partitions by ingestion time, or
    empty where it has none (such as a view): then a query can't avoid reading all of it.
    """

    fields: Mapping[str, SourceField]
    partition: str = ""


class GoogleCloud(Protocol):
    """Google Cloud in the name of a service account's ``key`` (its JSON), or with None in our own.

    Raises TransientError for outages, PermanentError for what a retry can't fix. No message contains the key.
    """

    def token(self, key: str | None, scopes: Sequence[str], *, timeout_s: float) -> str:
        """Return an access token for these scopes. Raises TransientError after ``timeout_s``."""

    def find_table(self, key: str | None, table_id: str) -> SourceTable | None:
        """Describe a table ``project.dataset.name``; None if it is not there."""

    def read(
        self, key: str | None, sql: str, params: Mapping[str, Any], *, max_bytes: int
    ) -> "Iterator[pyarrow.RecordBatch]":
        """Run one SELECT with named parameters and yield its rows, a bounded batch at a time.

        A query that would read more than ``max_bytes`` is refused before it costs anything.
        """
