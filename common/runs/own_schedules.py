"""What organisations have set for their schedules: paused pipelines, a time or zone of their own, the credential.

One small document per organisation that has set anything, all in one list, so that a tick reads them in one query.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from common.platform.errors import StaleRecordError, TransientError
from common.platform.retry import FOR_A_RECORD, retried
from common.ports.records import Record, Records

KIND, DEPLOYMENT = "schedules", "_"
EVERY = "*"
"""In place of a route: all pipelines of the organisation."""

PAGE = 1_000
TRIES = 20


@dataclass(frozen=True, slots=True)
class Own:
    """What an organisation has set for a pipeline; empty fields leave the pipeline's own.

    Times that are not later than ``since`` are not made up for: it is when the schedule was resumed or changed.
    """

    cron: str = ""
    zone: str = ""
    credential_id: str = ""
    paused: bool = False
    reason: str = ""
    since: datetime | None = None

    def body(self) -> dict[str, Any]:
        return {
            "cron": self.cron,
            "zone": self.zone,
            "credential_id": self.credential_id,
            "paused": self.paused,
            "reason": self.reason,
            "since": self.since and self.since.isoformat(),
        }


NOTHING = Own()


@dataclass(frozen=True, slots=True)
class OwnSchedules:
    """Reads and changes them, over records."""

    records: Records
    now: Callable[[], datetime]

    def all(self) -> Iterator[tuple[str, Mapping[str, Own]]]:
        """Yield the organisations that have set anything, with that by route (``EVERY``: all of its pipelines)."""
        after = None
        while page := self.records.list(KIND, DEPLOYMENT, limit=PAGE, after=after):
            yield from ((record.name, _read(record)) for record in page)
            after = page[-1].name

    def of(self, org_slug: str) -> Mapping[str, Own]:
        """Return what one organisation has set, by route."""
        return _read(self.records.get(KIND, DEPLOYMENT, org_slug))

    def change(self, org_slug: str, route: str, **fields: Any) -> Own:
        """Set these fields for a route, or ``EVERY``; return all that is set for it now. From now on: see ``since``."""

        def once() -> Own:
            record = self.records.get(KIND, DEPLOYMENT, org_slug)
            known = dict(_read(record))
            known[route] = changed = replace(known.get(route, NOTHING), since=self.now().astimezone(UTC), **fields)
            body = {name: own.body() for name, own in known.items()}
            self.records.put(KIND, DEPLOYMENT, org_slug, body, expected=0 if record is None else record.version)
            return changed

        try:
            return retried(once, on=StaleRecordError, backoff=FOR_A_RECORD, tries=TRIES)
        except StaleRecordError:
            raise TransientError(
                f"The schedules of {org_slug} were changed by others {TRIES} times in a row."
            ) from None


def _read(record: Record | None) -> Mapping[str, Own]:
    if record is None:
        return {}
    return {
        route: Own(**{**body, "since": body["since"] and datetime.fromisoformat(body["since"])})
        for route, body in record.body.items()
    }
