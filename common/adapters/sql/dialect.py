"""What the shared SQL needs of a database, and what SQLite and PostgreSQL say differently.

Statements are written once, with named parameters (``:org``); PostgreSQL's transactions translate them for its driver.
Tables have no schema in front: PostgreSQL's transactions set their ``search_path``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from common.domain.model import Step
from common.ports.store import HistoryQuery

NOTHING: Mapping[str, Any] = {}


class Rows(Protocol):
    """What a statement has brought."""

    @property
    def rowcount(self) -> int:
        """How many rows it has changed."""

    def fetchone(self) -> Any:
        """Return the first row, or None."""

    def fetchall(self) -> list[Any]:
        """Return all rows."""

    def __iter__(self) -> Iterator[Any]: ...


class Transaction(Protocol):
    """Where statements run. The rows of one statement are to be read before the next one runs."""

    def execute(self, statement: str, values: Mapping[str, Any] = NOTHING, /) -> Rows: ...


class Dialect(ABC):
    """What the two say differently."""

    ADD_CHANGES: str
    """Appends ``:body`` to the changes of ``:run``."""

    CHANGES_ORDER: str
    """The column that has the order of a run's changes."""

    LOG_ID: str
    """The column of a log line's number."""

    LOGS_SETTLE_S: float
    """For so many seconds a line that got an earlier number may still be on its way."""

    RUN_ID: str
    """``run_id``, to be compared as Python compares it."""

    PUT_RECORD: str
    """Stores a record whatever is there under its name, and returns its new version, which no record ever had."""

    REFUSES_EARLY: bool
    """Whether requests for one organisation's quota queue for a lock, so that it is better to refuse them before."""

    @abstractmethod
    def time(self, at: datetime | None) -> Any:
        """Return a time as a parameter."""

    @abstractmethod
    def from_time(self, value: Any) -> datetime:
        """Return a stored time in UTC."""

    @abstractmethod
    def json(self, body: bytes) -> Any:
        """Return a document as a parameter."""

    @abstractmethod
    def one_of(self, column: str, parameter: str) -> str:
        """Return the condition that the column has one of the parameter's values."""

    @abstractmethod
    def several(self, values: Collection[str]) -> Any:
        """Return the values of such a parameter."""

    @abstractmethod
    def runs_for(self, query: HistoryQuery) -> tuple[str, str]:
        """Return the table of runs as this query is to read it, and a condition that the index needs, if any."""

    @abstractmethod
    def lock_turns(self, transaction: Transaction, org_slugs: Sequence[str]) -> None:
        """Let no other transaction into the quota of these until this one ends.

        What is read by the statements that follow is what others have left.
        """

    @abstractmethod
    def write_steps(self, transaction: Transaction, run_id: str, steps: Sequence[Step]) -> bool:
        """Insert the steps that have no record (version 0), update the others if they are still at their version.

        Return whether that was so of each. If not, some may have been written all the same: the caller undoes it.
        """


class SqlDatabase(Protocol):
    """One database."""

    @property
    def dialect(self) -> Dialect: ...

    def read[T](self, does: Callable[[Transaction], T]) -> T:
        """Run SELECTs. ``does`` may be called more than once."""

    def write[T](self, does: Callable[[Transaction], T], *, durable: bool = False, fails_first: bool = False) -> T:
        """Run ``does`` in a transaction; return what it returned once that is committed.

        It may be called more than once, each time in a transaction of its own, of which one at most is committed. What
        it raises undoes it. For ``durable`` and ``fails_first``, which may be ignored, see ``sqlite/database.py``.
        """
