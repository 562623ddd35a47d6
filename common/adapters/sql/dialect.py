"""What the shared SQL needs from a database, and where SQLite and PostgreSQL differ.

Statements are written once, with named parameters (``:org``); PostgreSQL's transactions translate them for its driver.
Tables are named without a schema: PostgreSQL's transactions set their ``search_path``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from common.domain.model import Step
from common.ports.store import HistoryQuery

NOTHING: Mapping[str, Any] = {}


class Rows(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed."""

    def fetchone(self) -> Any:
        """Return the first row, or None."""

    def fetchall(self) -> list[Any]:
        """Return all rows."""

    def __iter__(self) -> Iterator[Any]: ...


class Transaction(Protocol):
    """Executes statements. Read the rows of one statement before executing the next."""

    def execute(self, statement: str, values: Mapping[str, Any] = NOTHING, /) -> Rows: ...


class Dialect(ABC):
    """The SQL and the parameter types in which the two databases differ."""

    ADD_CHANGES: str
    """Statement that appends ``:body`` to the changes of ``:run``."""

    CHANGES_ORDER: str
    """Column that orders a run's changes."""

    LOG_ID: str
    """Column with a log line's number."""

    LOGS_SETTLE_S: float
    """For this many seconds, a line with a lower number may still be uncommitted."""

    RUN_ID: str
    """``run_id``, compared by code point as Python compares strings: cursors are compared in both."""

    PUT_RECORD: str
    """Statement that inserts or replaces a record and returns its new version, which no record ever had before."""

    REFUSES_EARLY: bool
    """Whether requests for one organisation's quota queue for a lock, so that hopeless ones are refused before it."""

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
        """Return the values as a parameter of ``one_of``."""

    @abstractmethod
    def runs_for(self, query: HistoryQuery) -> tuple[str, str]:
        """Return the FROM item for this query's runs, and a condition that its index needs, or ""."""

    @abstractmethod
    def lock_turns(self, transaction: Transaction, org_slugs: Sequence[str]) -> None:
        """Keep other transactions out of the quota of these organisations until this one ends.

        Statements after it see everything that earlier lock holders committed.
        """

    @abstractmethod
    def write_steps(self, transaction: Transaction, run_id: str, steps: Sequence[Step]) -> bool:
        """Insert the steps that have no record (version 0), update the others if they are still at their version.

        Return whether every step was written. If not, some may have been: the caller must roll back.
        """


class SqlDatabase(Protocol):
    """One database."""

    @property
    def dialect(self) -> Dialect: ...

    def read[T](self, does: Callable[[Transaction], T]) -> T:
        """Run SELECTs. ``does`` may be called more than once."""

    def write[T](self, does: Callable[[Transaction], T], *, durable: bool = False, fails_first: bool = False) -> T:
        """Run ``does`` in a transaction; return its result once that is committed.

        ``does`` may be called more than once, each time in a new transaction, of which at most one is committed. An
        exception rolls back. For ``durable`` and ``fails_first``, which may be ignored, see ``sqlite/database.py``.
        """
