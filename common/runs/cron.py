"""The clock of the pipelines: starts what has become due since it last looked, once, for every organisation.

One mark for the whole deployment says up to which moment everything was looked at. A pass goes from the mark to now,
through all organisations in order, and notes how far it has come; one that dies, or runs out of time, is continued
behind that note by the next call. What is between the note and the death is done again, and starts nothing twice: a
run's id derives from pipeline, organisation and scheduled time (``scheduled_request``).

What could not be started while the pass went by (a store that was away, a quota that was used up, more missed times
than fit in one pass) is kept as a document of its own and tried again, so that it holds up nobody else.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from hashlib import sha256
from itertools import batched
from pathlib import Path

from common.config.loader import ConfigTree
from common.domain.model import RunRequest
from common.domain.quota import ADMITTED_STATUSES
from common.platform.errors import (
    ForbiddenPlanError,
    NotFoundError,
    PipelineOpsError,
    QuotaExceededError,
    TransientError,
)
from common.platform.logs import bound, logger
from common.ports.records import Record, Records
from common.ports.secrets import Credentials
from common.ports.store import PLANS_PAGE, PlanLimits
from common.runs.own_schedules import DEPLOYMENT, Own, OwnSchedules
from common.runs.request import scheduled_request
from common.runs.timetable import MOST_MISSED, Scheduled, Timetable, disabled, own_for

MARK_KIND, MARK = "schedule_mark", "mark"
LATER_KIND = "schedule_later"

BUDGET_S = 40.0
"""How long one call starts runs: with the batch that it is at, it ends within the 60 s of its function."""

BATCH = 50
"""Organisations between two looks at the clock. A run takes some 5 to 50 ms to admit, by the store."""

WORKERS = 8
"""Organisations at a time: a store in the cloud is waited for far more than it is worked for. SQLite has one writer."""

MOST_AT_ONCE = 20
"""Runs of one pipeline and organisation in one pass; the rest comes later, so that nobody's catch-up delays others."""

NOTE_EVERY_S = 5.0
BETWEEN_WRITES = timedelta(seconds=1)
"""The mark is one document, and those bear one write a second (docs/limits.md)."""

CLOCK_SKEW = timedelta(minutes=10)
"""A mark that is further ahead than this was made by a wrong clock: nothing would be due until then."""

SILENT_AFTER = timedelta(minutes=10)
"""Without a tick for so long, the clock has stopped: a few lost ticks are no news."""

AGAIN_AFTER = timedelta(minutes=15)
"""When a run that its organisation's quota refused is tried again."""

TOO_MANY = (
    "More than %d times were missed; those before %s are not made up for. Run them as a backfill: "
    "main.py run %s %s --start-date FIRST --end-date LAST --backfill"
)

MOST_LATER = 500
"""Documents of what is left to do that one call looks at."""


Window = tuple[datetime, datetime]
"""What comes after the first moment, up to the second."""


@dataclass(slots=True)
class Result:
    """What one call did. ``ended`` is False if the pass is to be continued by the next one."""

    started: int = 0
    refused: int = 0
    ended: bool = True

    def count(self, done: Counter[str]) -> None:
        """Add what was done for one organisation."""
        self.started += done["started"]
        self.refused += done["refused"]


@dataclass(frozen=True, slots=True)
class _Mark:
    """Everything up to ``done`` was looked at; of the pass up to ``until``, the organisations up to ``cursor``."""

    done: datetime
    until: datetime | None = None
    cursor: str = ""
    written_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Cron:
    """Makes passes. Safe to call at any time, from several processes at once.

    ``request`` admits a run, or returns the one that there is; ``default_days(route, today)`` are the days that a run
    loads. ``workers`` organisations are looked at side by side.
    """

    records: Records
    plans: PlanLimits
    configs: ConfigTree
    credentials: Credentials
    request: Callable[[RunRequest], object]
    default_days: Callable[[str, date], tuple[date, date]]
    now: Callable[[], datetime]
    landing: Path
    workers: int = 1
    clock: Callable[[], float] = field(default=time.monotonic)
    sleep: Callable[[float], None] = field(default=time.sleep)

    def tick(self) -> Result:
        """Start what is due, or as much of it as fits into ``BUDGET_S``. Raises TransientError, StaleRecordError."""
        record, now = self.records.get(MARK_KIND, DEPLOYMENT, MARK), self.now().astimezone(UTC)
        mark = _read(record)
        if mark is not None and mark.done > now + CLOCK_SKEW:
            logger.error("The schedules were looked at up to %s, which is in the future: starting again now", mark.done)
            mark = None
        if mark is None:  # the first call ever: what was due before is not missed, nobody had asked for it
            self._put(record, _Mark(now))
            return Result()
        until = mark.until or now
        if until <= mark.done:  # a clock that was put back
            return Result()
        with ThreadPoolExecutor(self.workers) as pool:
            return _Pass(self, pool, mark.done, until, now, record, mark).run()

    def _put(self, record: Record | None, mark: _Mark) -> Record:
        """Write the mark, not sooner than a second after it was written last. Raises StaleRecordError."""
        before = _read(record)
        if before is not None and before.written_at is not None:
            since = self.now().astimezone(UTC) - before.written_at
            if timedelta() <= since < BETWEEN_WRITES:
                self.sleep((BETWEEN_WRITES - since).total_seconds())
        body = {
            "done": mark.done.isoformat(),
            "until": mark.until and mark.until.isoformat(),
            "cursor": mark.cursor,
            "written_at": self.now().astimezone(UTC).isoformat(),
        }
        version = 0 if record is None else record.version
        return self.records.put(MARK_KIND, DEPLOYMENT, MARK, body, expected=version)


class _Pass:
    """One call's share of a pass over all organisations."""

    def __init__(
        self,
        cron: Cron,
        pool: ThreadPoolExecutor,
        after: datetime,
        until: datetime,
        now: datetime,
        record: Record | None,
        mark: _Mark,
    ) -> None:
        self._cron, self._pool = cron, pool
        self._after, self._until, self._now = after, until, now
        self._record, self._cursor = record, mark.cursor
        self._result = Result()
        self._began = self._noted = cron.clock()
        self._table = Timetable.read(cron.configs)
        self._own = dict(OwnSchedules(cron.records, cron.now).all())
        for route, problem in self._table.problems.items():
            logger.error("The schedule of %s is not carried out: %s", route, problem)

    def run(self) -> Result:
        self._later()
        for batch in batched(self._organisations(), BATCH, strict=False):
            if self._cron.clock() - self._began > BUDGET_S:
                self._note(_Mark(self._after, self._until, self._cursor))
                self._result.ended = False
                return self._result
            for done in self._pool.map(self._visit, batch):  # raises if something could not be kept for later
                self._result.count(done)
            self._cursor = batch[-1][0]
            if self._cron.clock() - self._noted >= NOTE_EVERY_S:
                self._note(_Mark(self._after, self._until, self._cursor))
        self._note(_Mark(self._until))
        return self._result

    def _note(self, mark: _Mark) -> None:
        self._record = self._cron._put(self._record, mark)
        self._noted = self._cron.clock()

    @cached_property
    def _due_by_default(self) -> Sequence[Scheduled]:
        """Return the pipelines that may be due for an organisation that has set nothing."""
        return [
            pipeline
            for pipeline in self._table.pipelines.values()
            if pipeline.schedule is not None
            and pipeline.schedule.due(self._after - timedelta(seconds=pipeline.jitter), self._until, 1)
        ]

    def _organisations(self) -> Iterator[tuple[str, str]]:
        """Yield the organisations for which anything may be due, behind the cursor, with their status."""
        if not self._due_by_default:  # most minutes: only those with times of their own
            for org in sorted(org for org in self._own if org > self._cursor):
                try:
                    yield org, self._cron.plans.limits(org).status
                except NotFoundError:
                    continue  # it is gone, and its settings stay for when it comes back
            return
        after = self._cursor
        while page := self._cron.plans.page(after):
            yield from ((org, limits.status) for org, limits in page)
            if len(page) < PLANS_PAGE:
                return
            after = page[-1][0]

    def _visit(self, organisation: tuple[str, str]) -> Counter[str]:
        org, status = organisation
        if status not in ADMITTED_STATUSES:
            return Counter()
        own = self._own.get(org, {})
        pipelines = self._table.pipelines.values() if own else self._due_by_default
        return sum(
            (self._start(org, status, each, own, (self._after, self._until)) for each in pipelines), Counter[str]()
        )

    def _start(
        self,
        org: str,
        status: str,
        pipeline: Scheduled,
        all_own: Mapping[str, Own],
        window: Window,
    ) -> Counter[str]:
        """Start what is due in the window, at most ``MOST_AT_ONCE`` runs; keep what remains for later."""
        own, done, until = own_for(all_own, pipeline.route), Counter[str](), window[1]
        times = pipeline.due(org, own, *window, self._now)
        if not times:
            return done
        at = times[0]
        with bound(org=org, route=pipeline.route):
            try:
                credentials = self._cron.credentials.list(org) if pipeline.needs_credential else ()
                if disabled(pipeline, own, status, credentials, self._cron.landing / org):
                    return done
                if len(times) > MOST_MISSED:
                    times = times[1:]
                    logger.error(TOO_MANY, MOST_MISSED, times[0].isoformat(), org, pipeline.route)
                for at in times[:MOST_AT_ONCE]:
                    self._request(org, pipeline, own, at)
                    done["started"] += 1
                if len(times) > MOST_AT_ONCE:
                    self._keep(org, pipeline, times[MOST_AT_ONCE], until, self._now)
            except Exception as error:  # whatever is wrong with one organisation must not stop the clock of the others
                done["refused"] += 1
                self._failed(error, org, pipeline, (at, until))
        return done

    def _failed(self, error: Exception, org: str, pipeline: Scheduled, left: Window) -> None:
        """Say why a time could not be started, and keep it and those after it if that may pass."""
        at, until = left
        match error:
            case QuotaExceededError() | ForbiddenPlanError():
                logger.warning("The run of %s was refused: %s", at.isoformat(), error)
                if pipeline.catchup != "none":
                    self._keep(org, pipeline, at, until, self._now + AGAIN_AFTER)
            case TransientError():
                logger.warning("The run of %s could not be started now, and is tried again: %s", at.isoformat(), error)
                self._keep(org, pipeline, at, until, self._now)
            case PipelineOpsError():
                logger.error("The run of %s can't be started: %s", at.isoformat(), error)
            case _:  # a bug
                logger.error("The run of %s could not be started, and is tried again", at.isoformat(), exc_info=error)
                self._keep(org, pipeline, at, until, self._now + AGAIN_AFTER)

    def _request(self, org: str, pipeline: Scheduled, own: Own, at: datetime) -> None:
        request = scheduled_request(
            org,
            pipeline.route,
            pipeline.pipeline_id,
            at,
            now=self._cron.now(),
            # As of the scheduled time: a run that is made up for loads the days that it would have loaded then.
            days=self._cron.default_days(pipeline.route, at.date()),
            credential_id=own.credential_id or None,
        )
        self._cron.request(request)

    def _keep(self, org: str, pipeline: Scheduled, first: datetime, until: datetime, again_at: datetime) -> None:
        """Keep the times from ``first`` on for a later call: stored before the mark moves on, or they would be lost."""
        after = first + pipeline.delay(org) - timedelta(microseconds=1)
        body = {"org": org, "route": pipeline.route, "after": after.isoformat(), "until": until.isoformat()}
        # In order of the time at which it is looked at again, so that one that always fails delays no other.
        what = sha256(f"{org} {pipeline.route} {until.isoformat()}".encode()).hexdigest()[:16]
        self._cron.records.put(LATER_KIND, DEPLOYMENT, f"{_seconds(again_at):012d}-{what}", body)

    def _later(self) -> None:
        """Try again what earlier calls have kept, with half of the time at most."""
        for record in self._cron.records.list(LATER_KIND, DEPLOYMENT, limit=MOST_LATER):
            late = self._cron.clock() - self._began > BUDGET_S / 2
            if late or int(record.name[:12]) > _seconds(self._now):
                return
            body = record.body
            org, pipeline = body["org"], self._table.pipelines.get(body["route"])
            after, until = datetime.fromisoformat(body["after"]), datetime.fromisoformat(body["until"])
            try:
                status = self._cron.plans.limits(org).status
            except NotFoundError:
                pipeline = None  # there is nothing left to run it for
            except TransientError as error:
                logger.warning("What was kept for %s waits on: %s", org, error)
                continue
            if pipeline is not None and not self._is_superseded(org, pipeline, until):
                self._result.count(self._start(org, status, pipeline, self._own.get(org, {}), (after, until)))
            # After the start, which may have kept the rest of it under a new name: a crash between repeats it.
            self._cron.records.delete(LATER_KIND, DEPLOYMENT, record.name)

    def _is_superseded(self, org: str, pipeline: Scheduled, until: datetime) -> bool:
        """Return whether only the latest time matters, and a later one has come."""
        own = own_for(self._own.get(org, {}), pipeline.route)
        return pipeline.catchup == "last" and bool(pipeline.due(org, own, until, self._now, self._now))


def watch(records: Records, now: datetime) -> bool:
    """Log an error if nobody looks at the schedules any more; return whether that is so.

    The sweep calls it, which another job of Cloud Scheduler wakes: a clock can't notice that it has stopped. Where the
    schedules were never looked at, nothing is missed.
    """
    mark = _read(records.get(MARK_KIND, DEPLOYMENT, MARK))
    looked_at = None if mark is None else max(mark.done, mark.written_at or mark.done)
    if looked_at is None or now - looked_at < SILENT_AFTER:
        return False
    logger.error(
        "Nothing has looked at the schedules since %s: no pipeline starts by itself. In the cloud, see whether the job "
        "of cron is there and runs (main.py schedules sync --check), and what its function logs; elsewhere, start "
        "main.py serve",
        looked_at.isoformat(),
    )
    return True


def _seconds(at: datetime) -> int:
    return int(at.timestamp())


def _read(record: Record | None) -> _Mark | None:
    if record is None:
        return None
    body = record.body
    until = body["until"]
    return _Mark(
        datetime.fromisoformat(body["done"]),
        datetime.fromisoformat(until) if until else None,
        body["cursor"],
        datetime.fromisoformat(body["written_at"]),
    )
