"""PostgreSQL as the adapters use it: few connections, short transactions, each committed once or not at all.

No session state is used (prepared statements, SET, session locks): behind a pooler in transaction mode, such as
Supabase's on port 6543, the next transaction may be in another session.
"""

import atexit
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from common.adapters.sql.dialect import NOTHING
from common.adapters.sql.postgres.dialect import PostgresDialect
from common.adapters.sql.postgres.dsn import connect_args
from common.domain.model import ErrorKind
from common.platform.errors import PermanentError, TransientError
from common.platform.logs import logger
from common.platform.retry import Backoff, countdown, retried

if TYPE_CHECKING:
    import psycopg
    from psycopg_pool import ConnectionPool

    type Cursor = psycopg.Cursor[tuple[Any, ...]]

CONNECTIONS = 4
"""Most connections of one process: there are many processes, and one pooler serves them all."""

WAIT_S = 5.0
"""Longest wait for a connection from the pool."""

# An idle process gives its connections back: the pooler has few of them for many processes.
IDLE_S = 60.0
PATIENCE_S = 10.0
"""All tries of one transaction together, not counting the wait for a connection."""

TRIES = 10
BACKOFF = Backoff(0.01, 0.5)
"""Random pauses, so that transactions that conflicted do not meet again."""

MAX_CHARS = 300

SETTINGS = """
SET LOCAL statement_timeout = '10s';
SET LOCAL lock_timeout = '5s';
SET LOCAL idle_in_transaction_session_timeout = '10s';
SET LOCAL search_path = pipeline_ops, pg_temp
"""
"""Time limits, because a process that is frozen inside a transaction must not hold its locks for ever. LOCAL, because
the session is the pooler's. The search path, because the shared SQL names tables without their schema; pg_temp last,
so that no temporary table is found before ours."""

READ = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {SETTINGS}; SELECT ''"
WRITE = f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {SETTINGS}; SELECT pg_current_xact_id()::text"
"""The transaction's id shows later whether it was committed, if the reply to COMMIT is lost."""


STATE = "SELECT pg_xact_status(:xid::xid8)"


class AgainError(Exception):
    """The transaction was not committed; retry it."""


class _UnsureError(Exception):
    """The reply to COMMIT was lost. ``xid`` is the transaction's id."""

    def __init__(self, xid: str) -> None:
        super().__init__(xid)
        self.xid = xid


PARAMETER = re.compile(r"(?<![:\w]):([a-z]\w*)")
"""``:name``, but not the type after ``::``."""


@cache
def for_driver(statement: str) -> str:
    """Return a statement with the driver's parameter syntax. The cache stays small: a few dozen statements."""
    return PARAMETER.sub(r"%(\1)s", statement)


class PostgresTransaction:
    """Executes statements with named parameters."""

    def __init__(self, cursor: "Cursor") -> None:
        self._cursor = cursor

    def execute(self, statement: str, values: Mapping[str, Any] = NOTHING, /) -> "Cursor":
        """Execute a statement. Read its rows before executing the next."""
        return self._cursor.execute(for_driver(statement), values)


class Postgres:
    """One database. Messages name ``setting``, the variable that holds ``dsn``, and never show the string itself."""

    dialect = PostgresDialect()

    def __init__(self, dsn: str, setting: str, *, connections: int = CONNECTIONS) -> None:
        self._dsn, self._setting, self._connections = dsn, setting, connections
        self._lock = threading.Lock()
        self._pool: ConnectionPool[Any] | None = None

    def read[T](self, does: Callable[[PostgresTransaction], T]) -> T:
        """Run SELECTs, all on one snapshot. ``does`` may be called more than once."""
        return self._tried(READ, does)

    def write[T](
        self, does: Callable[[PostgresTransaction], T], *, durable: bool = True, fails_first: bool = False
    ) -> T:
        """Run ``does`` in a READ COMMITTED transaction; return its result once that is committed and durable.

        ``does`` may be called more than once, each time in a new transaction, of which at most one is committed.
        Raises what ``does`` raises, TransientError for conflicts and outages, PermanentError for a missing table.
        """
        return self._tried(WRITE, does)

    def close(self) -> None:
        """Give all connections back; the next use opens new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            atexit.unregister(self.close)
            pool.close()

    def _tried[T](self, begin: str, does: Callable[[PostgresTransaction], T]) -> T:
        def once() -> T:
            return self._once(begin, does)  # returns the connection, so others can use it during a pause

        try:
            return retried(once, on=AgainError, backoff=BACKOFF, tries=TRIES, left_s=countdown(PATIENCE_S))
        except AgainError as error:
            logger.warning("PostgreSQL (%s) gave up a transaction: %s", self._setting, error.__cause__ or error)
            raise TransientError(
                "PostgreSQL did not commit the transaction after several tries: too many write the same rows, or it is "
                "restarting. Try again.",
                kind=ErrorKind.CONFLICT,
            ) from error

    def _once[T](self, begin: str, does: Callable[[PostgresTransaction], T]) -> T:
        import psycopg
        from psycopg.types.string import TextLoader

        result: list[T] = []
        try:
            with self._connection() as connection:
                cursor = connection.cursor()
                # JSON as the stored text: our own decoder parses and checks it.
                cursor.adapters.register_loader("json", TextLoader)
                xid = _last_value(cursor.execute(begin))
                result.append(does(PostgresTransaction(cursor)))
                try:
                    connection.commit()
                except psycopg.OperationalError as error:
                    # The connection broke during COMMIT, which may have been executed. A blind retry would write twice,
                    # or take our own commit for somebody else's (StaleRunError).
                    if connection.broken and xid:
                        raise _UnsureError(xid) from error
                    raise
        except _UnsureError as unsure:
            if not self._was_committed(unsure.xid):
                raise AgainError from unsure
        except psycopg.Error as error:
            raise self._translated(error) from error
        return result[0]

    def _was_committed(self, xid: str) -> bool:
        """Return whether the transaction whose reply was lost was committed. Raises TransientError if it stays open."""
        # The server may still be at work on it: it notices a lost connection late.
        for pause_s in (0.0, 0.1, 0.5, 1.0, 2.0):
            time.sleep(pause_s)
            state = self.read(lambda transaction: _last_value(transaction.execute(STATE, {"xid": xid})))
            if state in ("committed", "aborted"):
                return state == "committed"
        raise TransientError("PostgreSQL did not say whether it committed. Check what is stored before trying again.")

    @contextmanager
    def _connection(self) -> Iterator["psycopg.Connection[Any]"]:
        from psycopg_pool import PoolClosed, PoolTimeout

        try:
            with self._opened().connection() as connection:
                yield connection
        except PoolClosed as error:
            raise AgainError from error
        except PoolTimeout as error:
            raise TransientError(
                f"PostgreSQL ({self._setting}) gave no connection within {WAIT_S:.0f} s. Our log says why. Try again."
            ) from error

    def _opened(self) -> "ConnectionPool[Any]":
        with self._lock:
            if self._pool is None:
                self._pool = _open_pool(connect_args(self._dsn, self._setting), self._connections)
                atexit.register(self.close)
            return self._pool

    def _translated(self, error: "psycopg.Error") -> Exception:
        """Return what to raise instead of the driver's error."""
        from psycopg import errors

        match error:
            case errors.LockNotAvailable():
                return TransientError(
                    "PostgreSQL: what is to be changed is asked for by too many at once. Try again.",
                    retry_after_s=1.0,
                    kind=ErrorKind.CONFLICT,
                )
            case errors.QueryCanceled():
                return TransientError("PostgreSQL took too long to answer. Try again.")
            case errors.InsufficientPrivilege() | errors.UndefinedTable() | errors.InvalidSchemaName():
                return PermanentError(
                    f"PostgreSQL ({self._setting}) lacks a table or a right: {_short(error)}. Apply "
                    "infra/supabase/migrations, and connect as the role that they make for it."
                )
            case errors.OperationalError() | errors.InternalError() | errors.InterfaceError():
                # A deadlock, a restart, a connection that broke: nothing was committed.
                logger.info("PostgreSQL (%s) lost a transaction, trying again: %s", self._setting, _short(error))
                return AgainError(error)
        return PermanentError(f"PostgreSQL ({self._setting}) refused a statement: {_short(error)}")


def _open_pool(args: dict[str, Any], connections: int) -> "ConnectionPool[Any]":
    """Return a pool that connects on demand and closes idle connections: the process may be frozen at any time."""
    import psycopg
    from psycopg_pool import ConnectionPool

    class PooledConnection(psycopg.Connection[Any]):
        """Logs why it can't connect: the pool tells its callers only that there is no connection."""

        @classmethod
        def connect(cls, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().connect(*args, **kwargs)
            except psycopg.Error as error:
                logger.warning("PostgreSQL can't be reached: %s", _short(error))
                raise

    # The pool would log each failed attempt once more.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    return ConnectionPool(
        connection_class=PooledConnection,
        kwargs=args,
        min_size=0,
        max_size=connections,
        timeout=WAIT_S,
        reconnect_timeout=WAIT_S,
        max_idle=IDLE_S,
        num_workers=2,
        open=True,
    )


def _last_value(cursor: "Cursor") -> str:
    """Return the one value of the last statement's result."""
    while cursor.nextset():
        pass
    row = cursor.fetchone()
    return "" if row is None else row[0]


def _short(error: "psycopg.Error") -> str:
    """Return the error in one line, without DETAIL, which shows values of rows."""
    text = " ".join((error.diag.message_primary or str(error)).split())
    return text if len(text) <= MAX_CHARS else text[:MAX_CHARS] + "…"
