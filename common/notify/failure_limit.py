"""At most so many failures of a pipeline are told one by one in an hour; then one notice says how many more there were.

A night in which everything fails would otherwise be hundreds of messages, and the one that matters would be lost among
them. What was told, and what was not, is one record a pipeline, changed by compare-and-set.
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
"""When a pipeline's left-out failures are to be told, of all organisations: what the sweep looks at."""

AN_HOUR = timedelta(hours=1)
TOLD_AN_HOUR = 5
MAX_COUNTED = 2_000
"""What one record can hold of run ids; more are not counted."""

TRIES = 20


@dataclass(frozen=True, slots=True)
class Admitted:
    """What to do with a failure: tell it, tell that these ``left_out`` runs failed ``since`` then, or neither."""

    tell: bool
    left_out: Sequence[str] = ()
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Book:
    """What was told of a pipeline in the last hour, and which failures were not."""

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
    rest: Callable[[float], None] = field(default=time.sleep)

    def admit(self, org_slug: str, route: str, run_id: str, *, again: bool = False) -> Admitted:
        """Say what to do with the failure of this run. The same, however often it is asked within the hour.

        One that was dealt with before (``again``) is counted no more.
        """

        def counted(book: _Book, now: datetime) -> _Book:
            if again or run_id in book.runs_told or run_id in book.left_out:
                return book
            told = tuple((at, one) for at, one in book.told if now - at < AN_HOUR)
            if len(told) < TOLD_AN_HOUR:
                return replace(book, told=(*told, (now, run_id)))
            if book.until is None:
                book = replace(book, since=now, until=told[0][0] + AN_HOUR)
                self._put_due(org_slug, route, book)
            return replace(book, told=told, left_out=(*book.left_out, run_id)[:MAX_COUNTED])

        book, now = self._change(org_slug, route, counted)
        if run_id in book.runs_told:
            return Admitted(tell=True)
        if book.until is None or now < book.until:
            return Admitted(tell=False)
        return Admitted(tell=True, left_out=book.left_out, since=book.since)

    def told(self, org_slug: str, route: str, left_out: Sequence[str]) -> None:
        """Forget these, now that they were told. Who left more out meanwhile tells those: the hour is over."""

        def without(book: _Book, _now: datetime) -> _Book:
            rest = tuple(run_id for run_id in book.left_out if run_id not in left_out)
            return replace(book, left_out=rest) if rest else _Book(book.told)

        self._change(org_slug, route, without)

    def _change(self, org_slug: str, route: str, does: Callable[[_Book, datetime], _Book]) -> tuple[_Book, datetime]:
        def once() -> tuple[_Book, datetime]:
            record = self.records.get(KIND, org_slug, _name(route))
            before, now = _Book.read(record), self.now().astimezone(UTC)
            after = does(before, now)
            if after != before:
                version = 0 if record is None else record.version
                self.records.put(KIND, org_slug, _name(route), after.body(), expected=version)
            return after, now

        try:
            return retried(once, on=StaleRecordError, backoff=FOR_A_RECORD, tries=TRIES, sleep=self.rest)
        except StaleRecordError:
            raise TransientError(f"The failures of {route} were counted by others {TRIES} times in a row.") from None

    def _put_due(self, org_slug: str, route: str, book: _Book) -> None:
        """Have the sweep look when the hour is over. Done first: a process that dies here leaves a look in vain."""
        assert book.until is not None
        name = f"{_micros(book.until):016d}-{org_slug}-{_name(route)}"
        self.records.put(DUE_KIND, DEPLOYMENT, name, {"org": org_slug, "route": route})

    def due(self, limit: int) -> Sequence[tuple[Record, str]]:
        """Return what the sweep has to see to: what to give to ``seen``, and the last run that was left out, if any."""
        found: list[tuple[Record, str]] = []
        for one in self.records.list(DUE_KIND, DEPLOYMENT, limit=limit):
            if _due_at(one.name) > self.now():
                break
            book = _Book.read(self.records.get(KIND, one.body["org"], _name(one.body["route"])))
            found.append((one, book.left_out[-1] if book.left_out else ""))
        return found

    def seen(self, record: Record) -> None:
        """Forget that something was due, now that a message about it is safe."""
        self.records.delete(DUE_KIND, DEPLOYMENT, record.name)


def _name(route: str) -> str:
    return route.replace("/", "-")


def _due_at(name: str) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(name[:16]))


def _micros(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
