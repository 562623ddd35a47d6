"""The run logs port in SQL."""

from collections.abc import Iterator
from typing import Any

from common.adapters.cursor import line_number
from common.adapters.sql.dialect import SqlDatabase
from common.adapters.text import storable
from common.ports.logs import LogLine, severities_from

PAGE = 1_000

INSERT = """
INSERT INTO logs (run_id, at, severity, step_id, attempt, message)
VALUES (:run, :at, :severity, :step, :attempt, :message)
"""

READ = """
SELECT {id}, at, severity, message, step_id, attempt FROM logs
WHERE run_id = :run AND {id} > :after AND {severities}{step} ORDER BY {id} LIMIT :limit
"""


class SqlLogs:
    """Log lines in the run store's database."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database, self.settles_s = database, database.dialect.LOGS_SETTLE_S

    def append(self, run_id: str, line: LogLine) -> None:
        values = {
            "run": run_id,
            "at": self._database.dialect.time(line.at),
            "severity": line.severity,
            "step": line.step_id,
            "attempt": line.attempt,
            "message": storable(line.message),
        }
        self._database.write(lambda transaction: transaction.execute(INSERT, values))

    def read(
        self, run_id: str, *, step_id: str | None = None, severity: str | None = None, after: str = ""
    ) -> Iterator[LogLine]:
        dialect = self._database.dialect
        wanted = {
            "run": run_id,
            "step": step_id,
            "severities": dialect.several(severities_from(severity)),
            "after": line_number(after),
            "limit": PAGE,
        }
        step = "" if step_id is None else " AND step_id = :step"
        return self._pages(
            READ.format(id=dialect.LOG_ID, severities=dialect.one_of("severity", "severities"), step=step), wanted
        )

    def _pages(self, select: str, wanted: dict[str, Any]) -> Iterator[LogLine]:
        # A transaction for each page: a slow reader of one long SELECT would hold one of PostgreSQL's few connections,
        # and in SQLite block the checkpoint, so that the write-ahead log grows.
        from_time = self._database.dialect.from_time
        while True:
            rows = self._database.read(
                lambda transaction, values=wanted: transaction.execute(select, values).fetchall()  # type: ignore[misc]
            )
            for number, at, severity, message, step_id, attempt in rows:
                yield LogLine(from_time(at), severity, message, step_id, attempt, str(number))
            if len(rows) < PAGE:
                return
            wanted = {**wanted, "after": rows[-1][0]}
