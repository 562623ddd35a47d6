"""Who did what to what, and how it ended: one row per act, never changed, newest first.

Each row is also a log line (severity NOTICE, ``log`` = ``audit``), so Cloud Logging has what the store could not take.
"""

import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from common.platform.errors import PipelineOpsError, RequestError
from common.platform.logs import NOTICE, bound, logger
from common.ports.records import Record, Records

KIND = "audit"
MAX_PAGE = 200
MAX_DETAIL_CHARS = 500
CURSOR = re.compile(r"[0-9]{16}-[0-9a-f]{8}", re.ASCII)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One act. ``who`` is ``key:<id>``, ``cli:<login>`` or ``operator``; ``action`` like ``run.start``."""

    at: datetime
    org_slug: str
    who: str
    action: str
    target: str
    outcome: str = "ok"
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Some rows, newest first, and the cursor of the next page (None on the last)."""

    rows: tuple[AuditRow, ...]
    next_cursor: str | None


class Audit:
    """The audit rows of all organisations."""

    def __init__(self, records: Records, now: Callable[[], datetime]) -> None:
        self._records, self._now = records, now

    def record(
        self,
        org_slug: str,
        *,
        who: str,
        action: str,
        target: str,
        outcome: str = "ok",
        details: Mapping[str, str] | None = None,
    ) -> None:
        """Store one row. ``details`` must hold no secret: every admin can read them.

        A failing store raises nothing, because the act has been done: the row and the error are in the log.
        """
        at = self._now().astimezone(UTC)
        short = {name: value[:MAX_DETAIL_CHARS] for name, value in (details or {}).items()}
        text = json.dumps(short, ensure_ascii=False)
        # Logged before it is stored, so that no failure of the store loses it.
        with bound(log="audit", org=org_slug, who=who, action=action, target=target, outcome=outcome, details=text):
            logger.log(NOTICE, "%s %s by %s: %s", action, target, who, outcome)
        body = {
            "at": at.isoformat(),
            "who": who,
            "action": action,
            "target": target,
            "outcome": outcome,
            "details": short,
        }
        try:
            self._records.put(KIND, org_slug, _name(at), body, expected=0)
        except PipelineOpsError as error:
            logger.error("The audit row of %s %s is in this log only: %s", action, target, error)

    def list(self, org_slug: str, *, limit: int = 50, cursor: str | None = None) -> AuditPage:
        """Return one page of the organisation's rows. Raises RequestError for an invalid cursor."""
        if cursor is not None and not CURSOR.fullmatch(cursor):
            raise RequestError("cursor: not from this API. Leave it out to start at the newest row.")
        limit = min(limit, MAX_PAGE)
        records = self._records.list(KIND, org_slug, limit=limit + 1, after=cursor, newest=True)
        rows = tuple(_row(org_slug, record) for record in records[:limit])
        return AuditPage(rows, records[limit - 1].name if len(records) > limit else None)


def _name(at: datetime) -> str:
    """Return a name that sorts by time; random digits separate two acts of the same microsecond."""
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return f"{micros:016d}-{secrets.token_hex(4)}"


def _row(org_slug: str, record: Record) -> AuditRow:
    body = record.body
    at = datetime.fromisoformat(body["at"])
    return AuditRow(at, org_slug, body["who"], body["action"], body["target"], body["outcome"], body["details"])
