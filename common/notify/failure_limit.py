"""At most TOLD_AN_HOUR failures of a pipeline are notified one by one in an hour; then one notice counts the rest.

A night in which everything fails would otherwise send hundreds of messages, and hide the one that matters. Each
pipeline has one record of the failures that were notified and left out, changed by compare-and-set.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from common.platform.errors import StaleRecordError, TransientError
from common.platform.retry import FOR_A_RECORD, retried
from common.ports.records import Record, Records

KIND = "failure_limits"
DUE_KIND, DEPLOYMENT = "failure_limits_due", "_"
"""When left-out failures have to be notified, for all organisations: the sweep reads these records."""

AN_HOUR = timedelta(hours=1)
TOLD_AN_HOUR = 5
MAX_COUNTED = 2_000
"""Run ids that one record can hold; further failures are not counted."""

TRIES = 20


@dataclass(frozen=True, slots=True)
class Admitted:
    """What to do with a failure: notify it, notify that the ``left_out`` runs failed ``since`` a time, or neither."""

    tell: bool
    left_out: Sequence[str] = ()
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Failures:
    """The failures of a pipeline that were notified in the last hour, and those that were left out."""

    told: tuple[tuple[datetime, str], ...] = ()
    left_out: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def read(cls, record: Record | None) -> Self:
        if record is None:
            return cls()
        body = record.body
        told = tuple((_time(at), run_id) for at, run_id in body["told"])
        since, until = (None if body[name] is None else _time(body[name]) for name in ("since", "until"))
        return cls(told, tuple(body["left_out"]), since, until)

    @property
    def runs_told(self) -> frozenset[str]:
        return frozenset(run_id for _, run_id in self.told)

    def body(self) -> dict[str, Any]:
        return {
            "told": [[at.isoformat(), run_id] for at, run_id in self.told],
            "left_out": list(self.left_out),
            "since": self.since and self.since.isoformat(),
            "until": self.until and self.until.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """Counts failures of pipelines (``route``) of organisations."""

    records: Records
    now: Callable[[], datetime]
    sleep: Callable[[float], None] = field(default=time.sleep)

    def admit(self, org_slug: str, route: str, run_id: str, *, again: bool = False) -> Admitted:
        """Count the failure of this run; return what to do with it, the same for repeated calls within the hour.

        One that was announced before (``again``) is not counted again.
        """

        def counted(failures: _Failures, now: datetime) -> _Failures:
            if again or run_id in failures.runs_told or run_id in failures.left_out:
                return failures
            told = tuple((at, notified) for at, notified in failures.told if now - at < AN_HOUR)
            if len(told) < TOLD_AN_HOUR:
                return replace(failures, told=(*told, (now, run_id)))
            if failures.until is None:
                failures = replace(failures, since=now, until=told[0][0] + AN_HOUR)
                self._put_due(org_slug, route, failures)
            return replace(failures, told=told, left_out=(*failures.left_out, run_id)[:MAX_COUNTED])

        failures, now = self._change(org_slug, route, counted)
        if run_id in failures.runs_told:
            return Admitted(tell=True)
        if failures.until is None or now < failures.until:
            return Admitted(tell=False)
        return Admitted(tell=True, left_out=failures.left_out, since=failures.since)

    def told(self, org_slug: str, route: str, left_out: Sequence[str]) -> None:
        """Forget these failures, which were notified. Those left out meanwhile stay for the next call, which is due."""

        def without(failures: _Failures, _now: datetime) -> _Failures:
            remaining = tuple(run_id for run_id in failures.left_out if run_id not in left_out)
            return replace(failures, left_out=remaining) if remaining else _Failures(failures.told)

        self._change(org_slug, route, without)

    def _change(
        self, org_slug: str, route: str, change: Callable[[_Failures, datetime], _Failures]
    ) -> tuple[_Failures, datetime]:
        def once() -> tuple[_Failures, datetime]:
            record = self.records.get(KIND, org_slug, _name(route))
            before, now = _Failures.read(record), self.now().astimezone(UTC)
            after = change(before, now)
            if after != before:
                version = 0 if record is None else record.version
                self.records.put(KIND, org_slug, _name(route), after.body(), expected=version)
            return after, now

        try:
            return retried(once, on=StaleRecordError, backoff=FOR_A_RECORD, tries=TRIES, sleep=self.sleep)
        except StaleRecordError:
            raise TransientError(f"The failures of {route} were counted by others {TRIES} times in a row.") from None

    def _put_due(self, org_slug: str, route: str, failures: _Failures) -> None:
        """Have the sweep look when the hour is over. Written first: after a crash here, it merely looks in vain."""
        assert failures.until is not None
        name = f"{_micros(failures.until):016d}-{org_slug}-{_name(route)}"
        self.records.put(DUE_KIND, DEPLOYMENT, name, {"org": org_slug, "route": route})

    def due(self, limit: int) -> Sequence[tuple[Record, str]]:
        """Return what is due for the sweep: records to pass to ``seen``, with the last run left out, if any."""
        due: list[tuple[Record, str]] = []
        for record in self.records.list(DUE_KIND, DEPLOYMENT, limit=limit):
            if _due_at(record.name) > self.now():
                break
            failures = _Failures.read(self.records.get(KIND, record.body["org"], _name(record.body["route"])))
            due.append((record, failures.left_out[-1] if failures.left_out else ""))
        return due

    def seen(self, record: Record) -> None:
        """Delete a due record, once the message about it is published."""
        self.records.delete(DUE_KIND, DEPLOYMENT, record.name)


def _name(route: str) -> str:
    return route.replace("/", "-")


def _due_at(name: str) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(name[:16]))


def _micros(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
