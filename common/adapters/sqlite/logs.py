"""The run logs port on SQLite."""

import json
from collections.abc import Iterator

from common.adapters.cursor import line_number
from common.adapters.sqlite.database import Database, from_micros, to_micros
from common.ports.logs import LogLine, severities_from

PAGE = 1_000

READ = """
SELECT id, at, severity, message, step_id, attempt FROM logs
WHERE run_id = :run AND id > :after AND (:step IS NULL OR step_id = :step)
  AND severity IN (SELECT value FROM json_each(:severities))
ORDER BY id LIMIT :limit
"""


class SqliteLogs:
    """Log lines in the run store's file. Their ids are in the order of their commits."""

    settles_s = 0.0

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, run_id: str, line: LogLine) -> None:
        insert = "INSERT INTO logs (run_id, at, severity, step_id, attempt, message) VALUES (?, ?, ?, ?, ?, ?)"
        row = (run_id, to_micros(line.at), line.severity, line.step_id, line.attempt, line.message)
        self._database.write(lambda db: db.execute(insert, row))

    def read(
        self, run_id: str, *, step_id: str | None = None, severity: str | None = None, after: str = ""
    ) -> Iterator[LogLine]:
        wanted = {
            "run": run_id,
            "step": step_id,
            "severities": json.dumps(severities_from(severity)),
            "after": line_number(after),
            "limit": PAGE,
        }
        return self._pages(wanted)

    def _pages(self, wanted: dict[str, str | int | None]) -> Iterator[LogLine]:
        # Page by page: a cursor that is left open, for a reader that takes its time, keeps the file from a checkpoint.
        while True:
            rows = self._database.connection().execute(READ, wanted).fetchall()
            for number, at, severity, message, step_id, attempt in rows:
                yield LogLine(from_micros(at), severity, message, step_id, attempt, str(number))
            if len(rows) < PAGE:
                return
            wanted = {**wanted, "after": rows[-1][0]}
