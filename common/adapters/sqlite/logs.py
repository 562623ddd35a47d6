"""The run logs port on SQLite."""

from collections.abc import Iterator

from common.adapters.sqlite.database import Database, from_micros, to_micros
from common.ports import LogLine


class SqliteLogs:
    """Log lines in the run store's file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, run_id: str, line: LogLine) -> None:
        insert = "INSERT INTO logs (run_id, at, severity, step_id, attempt, message) VALUES (?, ?, ?, ?, ?, ?)"
        row = (run_id, to_micros(line.at), line.severity, line.step_id, line.attempt, line.message)
        self._database.write(lambda db: db.execute(insert, row))

    def read(self, run_id: str, *, step_id: str | None = None, severity: str | None = None) -> Iterator[LogLine]:
        rows = self._database.connection().execute(
            "SELECT at, severity, message, step_id, attempt FROM logs WHERE run_id = :run"
            " AND (:step IS NULL OR step_id = :step) AND (:severity IS NULL OR severity = :severity) ORDER BY id",
            {"run": run_id, "step": step_id, "severity": severity},
        )
        for at, *rest in rows:
            yield LogLine(from_micros(at), *rest)
