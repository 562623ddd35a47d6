"""The run logs port on PostgreSQL. Lines are read a page at a time: whoever is slow to read keeps no connection."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from common.adapters.postgres.client import Postgres, utc
from common.ports import LogLine

if TYPE_CHECKING:
    from common.adapters.postgres.client import Cursor

PAGE = 500

INSERT = """
INSERT INTO pipeline_ops.logs (run_id, at, severity, step_id, attempt, message) VALUES (%s, %s, %s, %s, %s, %s)
"""

SELECT = """
SELECT log_id, at, severity, message, step_id, attempt FROM pipeline_ops.logs
WHERE run_id = %(run)s AND log_id > %(after)s AND (%(step)s::text IS NULL OR step_id = %(step)s)
  AND (%(severity)s::text IS NULL OR severity = %(severity)s)
ORDER BY log_id LIMIT %(limit)s
"""


class PostgresLogs:
    """Keeps log lines in the run store's database."""

    def __init__(self, database: Postgres) -> None:
        self._database = database

    def append(self, run_id: str, line: LogLine) -> None:
        row = (run_id, line.at, line.severity, line.step_id, line.attempt, _storable(line.message))
        self._database.write(lambda cursor: cursor.execute(INSERT, row))

    def read(self, run_id: str, *, step_id: str | None = None, severity: str | None = None) -> Iterator[LogLine]:
        after = 0
        while True:
            values = {"run": run_id, "after": after, "step": step_id, "severity": severity, "limit": PAGE}
            rows = self._database.read(lambda cursor, values=values: _page(cursor, values))  # type: ignore[misc]
            for _, at, *rest in rows:
                yield LogLine(utc(at), *rest)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]


def _page(cursor: "Cursor", values: dict[str, Any]) -> list[tuple[Any, ...]]:
    return cursor.execute(SELECT, values).fetchall()


def _storable(text: str) -> str:
    """Return the text with a mark for what PostgreSQL can't store: NUL, and halves of characters."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
