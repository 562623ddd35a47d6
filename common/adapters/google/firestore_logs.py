"""The run logs port on Firestore: ``runs/{run_id}/logs/{place}``, one document a line.

Each line that a processor logs costs one write; a step that logs nothing costs none.
"""

import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

from common.adapters.google.firestore_client import Firestore, Operations, standard_time, where
from common.adapters.text import storable
from common.platform.errors import RequestError
from common.ports.logs import LogLine, severities_from

PAGE = 500
PLACE = re.compile(r"[0-9]{20}-[0-9a-f]{8}")

CLOCKS_DIFFER_S = 3.0
"""A line's place is the time by its function's clock, and clocks differ by a little: a reader that follows the log
waits this long before it takes a place as final."""


class FirestoreLogs:
    """Stores log lines in the run store's database; ``operations`` counts what is billed."""

    settles_s = CLOCKS_DIFFER_S

    def __init__(self, project_id: str, emulator_host: str | None = None, operations: Operations | None = None) -> None:
        self._firestore = Firestore(project_id, emulator_host, operations)

    def append(self, run_id: str, line: LogLine) -> None:
        # Ids in order of writing: a filtered query sorted by id needs no composite index. The random end keeps two
        # lines of one nanosecond apart.
        place = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        reference = self._firestore.document("runs", run_id, "logs", place)
        fields = {
            "at": line.at,
            "severity": line.severity,
            "message": storable(line.message),
            "step_id": line.step_id,
            "attempt": line.attempt,
        }
        self._firestore.write(lambda batch: batch.set(reference, fields))

    def read(
        self, run_id: str, *, step_id: str | None = None, severity: str | None = None, after: str = ""
    ) -> Iterator[LogLine]:
        if after and not PLACE.fullmatch(after):
            raise RequestError(f"No line of a log has the place {after[:40]!r}.")
        query = self._firestore.collection("runs", run_id, "logs")
        if step_id is not None:
            query = where(query, "step_id", "==", step_id)
        if severity is not None:
            query = where(query, "severity", "in", list(severities_from(severity)))
        query = query.order_by("__name__").limit(PAGE)
        if after:
            query = query.start_after({"__name__": self._firestore.document("runs", run_id, "logs", after)})
        return self._pages(query)

    def _pages(self, query: Any) -> Iterator[LogLine]:
        page = self._firestore.query(query)
        while page:
            yield from (_line(one) for one in page)
            page = self._firestore.query(query.start_after(page[-1])) if len(page) == PAGE else []


def _line(snapshot: Any) -> LogLine:
    severity, message, step_id, attempt = map(snapshot.get, ("severity", "message", "step_id", "attempt"))
    return LogLine(standard_time(snapshot.get("at")), severity, message, step_id, attempt, snapshot.id)
