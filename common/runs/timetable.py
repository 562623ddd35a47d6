"""Which pipeline runs when for which organisation, and if not, why: the pipelines' files and what organisations set."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal

from common.config.loader import ConfigTree
from common.config.schedule import Schedule
from common.domain.quota import ADMITTED_STATUSES
from common.platform.errors import ConfigError
from common.ports.secrets import CredentialInfo
from common.processors.registry import processor
from common.runs.own_schedules import EVERY, NOTHING, Own

GRACE = timedelta(minutes=10)
"""With ``catchup: none``, how late a time may be noticed and still start a run: some lost ticks are no outage."""

MOST_MISSED = 1_000
"""Missed times of a pipeline and organisation that ``catchup: all`` makes up for. Older ones are a backfill, which a
person asks for: nobody wants ten years of runs because a clock was wrong."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A pipeline as the schedule sees it. ``schedule`` is None if only organisations give it a time.

    ``files`` are those of the landing folder that its steps read.
    """

    route: str
    pipeline_id: str
    provider: str
    schedule: Schedule | None
    zone: str
    catchup: Literal["none", "last", "all"]
    jitter: int
    needs_credential: bool
    files: tuple[str, ...] = ()

    def timed(self, own: Own) -> Schedule | None:
        """Return the schedule as the organisation has set it."""
        start = self.schedule.start if self.schedule else None
        cron = own.cron or (self.schedule.cron if self.schedule else "")
        return Schedule(cron, own.zone or self.zone, start) if cron else None

    def delay(self, org_slug: str) -> timedelta:
        """Return the organisation's own share of the jitter: the same every day, and different from the others'."""
        if not self.jitter:
            return timedelta()
        number = int.from_bytes(sha256(f"{org_slug} {self.pipeline_id}".encode()).digest()[:8])
        return timedelta(seconds=number % (self.jitter + 1))

    def due(self, org_slug: str, own: Own, after: datetime, until: datetime, now: datetime) -> Sequence[datetime]:
        """Return the times that are to start a run, oldest first: those whose moment is in the window, as ``catchup``
        says. One more than ``MOST_MISSED`` are returned if there are more."""
        schedule = self.timed(own)
        if schedule is None:
            return ()
        delay = self.delay(org_slug)
        if own.since is not None:
            after = max(after, own.since)
        if self.catchup == "none":
            after = max(after, now - GRACE)
        return _due(schedule, after - delay, until - delay, MOST_MISSED + 1 if self.catchup == "all" else 1)


@lru_cache(maxsize=4096)  # ten thousand organisations ask the same of one pipeline in one tick
def _due(schedule: Schedule, after: datetime, until: datetime, most: int) -> Sequence[datetime]:
    return tuple(schedule.due(after, until, most))


@dataclass(frozen=True, slots=True)
class Timetable:
    """Every pipeline that can have a schedule, by route; and those that can't, with the reason."""

    pipelines: Mapping[str, Scheduled]
    problems: Mapping[str, str]

    @classmethod
    def read(cls, configs: ConfigTree) -> "Timetable":
        """Read all pipelines. One that is invalid, or has the id of another, is a problem and never due."""
        found, problems = list[Scheduled](), dict[str, str]()
        for route in sorted(configs.scan().routes):
            try:
                found.append(_scheduled(configs, route))
            except ConfigError as error:
                problems[route] = str(error)
        ids = Counter(pipeline.pipeline_id for pipeline in found)
        for pipeline in found:
            if ids[pipeline.pipeline_id] > 1:
                others = ", ".join(p.route for p in found if p.pipeline_id == pipeline.pipeline_id)
                problems[pipeline.route] = f"{others} have the same pipeline_id, and would replace each other's rows."
        return cls({p.route: p for p in found if p.route not in problems}, problems)


def _scheduled(configs: ConfigTree, route: str) -> Scheduled:
    config = configs.load(route).config
    schedule = None if config.schedule is None else Schedule(config.schedule, config.timezone, config.start_date)
    return Scheduled(
        route=route,
        pipeline_id=config.pipeline_id,
        provider=config.provider,
        schedule=schedule,
        zone=config.timezone,
        catchup=config.catchup,
        jitter=config.jitter,
        needs_credential=any(processor(step.ps_type).needs_credential for step in config.steps),
        files=tuple(str(step.config["source"]) for step in config.steps if step.config.get("source")),
    )


def own_for(own: Mapping[str, Own], route: str) -> Own:
    """Return what an organisation has set for a route, together with what it has set for all of its pipelines."""
    every, one = own.get(EVERY, NOTHING), own.get(route, NOTHING)
    since = max((at for at in (every.since, one.since) if at is not None), default=None)
    paused = next((set_ for set_ in (every, one) if set_.paused), NOTHING)
    return replace(one, paused=paused.paused, reason=paused.reason, since=since)


def disabled(pipeline: Scheduled, own: Own, status: str, credentials: Iterable[CredentialInfo], landing: Path) -> str:
    """Return why the schedule does not start the pipeline for an organisation; empty if it does.

    ``landing`` is the organisation's folder: a bill that nobody has brought would fail the run of every organisation,
    every day.
    """
    if status not in ADMITTED_STATUSES:
        return f"the subscription is {status}"
    if own.paused:
        return f"paused: {own.reason}" if own.reason else "paused"
    if pipeline.timed(own) is None:
        return "no schedule"
    for name in pipeline.files:
        if not (landing / name).exists():
            return f"no file {name!r} in the landing folder"
    if not pipeline.needs_credential:
        return ""
    matching = [info.credential_id for info in credentials if info.provider == pipeline.provider]
    if own.credential_id:
        return "" if own.credential_id in matching else f"no credential {own.credential_id!r} for {pipeline.provider}"
    if len(matching) > 1:
        return f"{len(matching)} credentials for {pipeline.provider} ({', '.join(matching)}): set one of them"
    return "" if matching else f"no credential for {pipeline.provider}"


@dataclass(frozen=True, slots=True)
class Entry:
    """How a pipeline is scheduled for an organisation. ``why_not`` is empty if it is; ``next_at`` is None if not."""

    pipeline: Scheduled
    own: Own
    schedule: Schedule | None
    why_not: str
    next_at: datetime | None


def entries(
    table: Timetable,
    own: Mapping[str, Own],
    org_slug: str,
    status: str,
    credentials: Sequence[CredentialInfo],
    landing: Path,
    now: datetime,
) -> Iterator[Entry]:
    """Yield every pipeline that has a schedule for the organisation, or that it has set something for, by route."""
    for route, pipeline in table.pipelines.items():
        mine = own_for(own, route)
        schedule = pipeline.timed(mine)
        if schedule is None and route not in own:
            continue
        why_not = disabled(pipeline, mine, status, credentials, landing)
        next_at = None
        if schedule is not None and not why_not:
            delay = pipeline.delay(org_slug)
            next_at = next(schedule.following(now - delay)) + delay
        yield Entry(pipeline, mine, schedule, why_not, next_at)
