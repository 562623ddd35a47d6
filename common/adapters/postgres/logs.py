"""The run logs port on PostgreSQL. Lines are read a page at a time: whoever is slow to read keeps no connection."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from common.adapters.cursor import line_number
from common.adapters.postgres.client import Postgres, utc
from common.ports.logs import LogLine, severities_from

if TYPE_CHECKING:
    from common.adapters.postgres.client import Cursor

PAGE = 500

INSERT = """
INSERT INTO pipeline_ops.logs (run_id, at, severity, step_id, attempt, message) VALUES (%s, %s, %s, %s, %s, %s)
"""

SELECT = """
SELECT log_id, at, severity, message, step_id, attempt FROM pipeline_ops.logs
WHERE run_id = %(run)s AND log_id > %(after)s AND (%(step)s::text IS NULL OR step_id = %(step)s)
  AND severity = ANY(%(severities)s)
ORDER BY log_id LIMIT %(limit)s
"""


class PostgresLogs:
    """Keeps log lines in the run store's database."""

    settles_s = 10.0
    """Ids are taken before they are committed, and the server gives up a statement that takes longer than this."""

    def __init__(self, database: Postgres) -> None:
        self._database = database

    def append(self, run_id: str, line: LogLine) -> None:
        row = (run_id, line.at, line.severity, line.step_id, line.attempt, _storable(line.message))
        self._database.write(lambda cursor: cursor.execute(INSERT, row))

    def read(
        self, run_id: str, *, step_id: str | None = None, severity: str | None = None, after: str = ""
    ) -> Iterator[LogLine]:
        wanted = {
            "run": run_id,
            "after": line_number(after),
            "step": step_id,
            "severities": list(severities_from(severity)),
            "limit": PAGE,
        }
        return self._pages(wanted)

    def _pages(self, wanted: dict[str, Any]) -> Iterator[LogLine]:
        while True:
            rows = self._database.read(lambda cursor, values=wanted: _page(cursor, values))  # type: ignore[misc]
            for number, at, severity, message, step_id, attempt in rows:
                yield LogLine(utc(at), severity, message, step_id, attempt, str(number))
            if len(rows) < PAGE:
                return
            wanted = {**wanted, "after": rows[-1][0]}


def _page(cursor: "Cursor", values: dict[str, Any]) -> list[tuple[Any, ...]]:
    return cursor.execute(SELECT, values).fetchall()


def _storable(text: str) -> str:
    """Return the text with a mark for what PostgreSQL can't store: NUL, and halves of characters."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
