"""``BigQueryWarehouse``: the port, composed of jobs, tables and commits."""

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from common.adapters.bigquery import commits
from common.adapters.bigquery.errors import translated
from common.adapters.bigquery.jobs import JOB_TIMEOUT_S, Connection, Jobs, patience
from common.adapters.bigquery.meta import BigQueryMeta
from common.adapters.bigquery.names import checked, quarantine_of, quoted
from common.adapters.bigquery.tables import Tables, spooled_fields
from common.domain.model import Receipt
from common.platform.errors import PermanentError
from common.ports.warehouse import NO_INTERRUPTION, Commit, Interruption
from common.tables.contract import Table

PING_TIMEOUT_S = 5.0
"""Far longer than a listing takes, and shorter than a load balancer waits for a readiness check."""


class BigQueryWarehouse:
    """One project's datasets. With ``emulator_url`` it connects to the emulator there, without credentials."""

    def __init__(self, project: str, *, location: str, emulator_url: str | None = None) -> None:
        # The emulator reads decimals of more than 38 digits through a double and loses their last digits.
        self.decimal_digits = (76, 38) if emulator_url is None else (38, 18)
        self.connection = Connection(project, location, emulator_url)
        self._jobs = Jobs(self.connection, {})
        self._tables = Tables(self.connection)
        self.tables = self._tables.schema
        self.meta = BigQueryMeta(self.connection, is_emulator=emulator_url is not None)
        self._queues = commits.Queues()
        self._deployed: dict[str, str] = {}
        self._deploying = threading.Lock()

    def labelled(self, labels: Mapping[str, str], seen: Callable[[str], None]) -> Self:
        view = copy.copy(self)  # shares the connection, the cache of existing tables, and the queues
        view._jobs = self._jobs.labelled(labels, seen)
        return view

    def ping(self) -> None:
        from google.api_core.exceptions import Forbidden

        with translated("list datasets"), suppress(Forbidden):  # whoever may not list them still gets a response
            # Free of charge. One try: whoever asks wants to know how it is now, not whether a retry would help.
            once: Any = None
            next(iter(self.connection.client.list_datasets(max_results=1, retry=once, timeout=PING_TIMEOUT_S)), None)

    def ensure_table(self, target: str, table: Table) -> None:
        self._tables.ensure(target, table)

    def create_staging(self, target: str, table: Table, name: str, *, keep: bool = False, spooled: bool = False) -> str:
        return self._tables.create_staging(target, table, name, keep=keep, spooled=spooled)

    def load(self, staging: str, table: Table, spool: Path, *, job_id: str) -> None:
        self._jobs.load(staging, spooled_fields(table), spool, job_id=job_id)

    def quarantine(self, target: str, bad_rows: Path, *, job_id: str) -> None:
        table_id = quarantine_of(target)
        self._jobs.load(table_id, self._tables.ensure_quarantine(table_id), bad_rows, job_id=job_id)

    def commit(self, write: Commit, waiting: Callable[[str], None], stop: Interruption = NO_INTERRUPTION) -> Receipt:
        return self.commit_all([write], waiting, stop)[0]

    def commit_all(
        self, writes: Sequence[Commit], waiting: Callable[[str], None], stop: Interruption = NO_INTERRUPTION
    ) -> tuple[Receipt, ...]:
        for write in writes:
            self._tables.ensure_ledger(write.target, self._jobs)
        try:
            return commits.commit(
                self._jobs,
                self._queues,
                writes,
                waiting,
                lambda target: self._tables.fill_ledger(target, self._jobs),
                stop,
            )
        except PermanentError as error:
            # The ledger was dropped after this process had seen it: the next attempt must create it again.
            if "__commits" in str(error) and "not found" in str(error).lower():
                for write in writes:
                    self._tables.forget_ledger(write.target)
            raise

    def seat(self, target: str) -> AbstractContextManager[bool]:
        return self._queues.seat(target)

    def drop(self, table_id: str) -> None:
        self._tables.drop(table_id)

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        with translated("query"):
            yield from self._jobs.rows(self._jobs.query(sql, params))

    def start_call(self, procedure: str, args: Sequence[Any], *, job_id: str) -> None:
        with translated(f"call {procedure}"):
            self._jobs.query(*_call(procedure, args), job_id=job_id)

    def dry_run_bytes(self, procedure: str, args: Sequence[Any]) -> int | None:
        with translated(f"dry-run {procedure}"):
            return self._jobs.dry_run_bytes(*_call(procedure, args))

    def job_done(self, job_id: str, wait_s: float) -> bool | None:
        import concurrent.futures

        from google.api_core.exceptions import NotFound

        with translated(f"finish job {job_id}"):
            try:
                job = self._jobs.found(job_id)
            except NotFound:
                return None
            if wait_s <= 0 and not job.done(retry=patience(), timeout=30.0):
                return False
            try:
                job.result(retry=patience(), timeout=max(wait_s, 1.0))
            except (concurrent.futures.TimeoutError, TimeoutError):
                return False
            return True

    def ensure_procedure(self, procedure: str, ddl: str) -> None:
        text = sha256(ddl.encode()).hexdigest()
        with self._deploying:
            if self._deployed.get(checked(procedure)) == text:
                return
            with translated(f"make procedure {procedure}"):
                self._jobs.query(ddl).result(retry=patience(), timeout=JOB_TIMEOUT_S)
            self._deployed[procedure] = text


def _call(procedure: str, args: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """Return the statement that calls the procedure, and its parameters."""
    names = [f"a{number}" for number in range(len(args))]
    sql = f"CALL {quoted(procedure)}({', '.join('@' + name for name in names)})"
    return sql, dict(zip(names, args, strict=True))
