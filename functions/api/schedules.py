"""When pipelines run by themselves for an organisation: read, pause, resume, set a time of its own."""

from datetime import UTC, datetime
from typing import Annotated

from flask import Response, g
from pydantic import Field, field_validator

from common.bootstrap import engine
from common.config.model import check_cron
from common.config.schedule import find_zone
from common.runs.own_schedules import EVERY, Own, OwnSchedules
from common.runs.request import ControlBody
from common.runs.timetable import Entry, Timetable, entries
from functions.api.inputs import Input, NoQuery, OrgPath, PipelinePath
from functions.api.part import part
from functions.api.runs import audit_decision
from functions.api.views import Time, View

routes = part("schedules", __doc__)


class ScheduleView(View):
    """How a pipeline is scheduled for the organisation."""

    pipeline: Annotated[str, Field(description="Its route: provider/domain/pipeline.")]
    schedule: Annotated[str | None, Field(description="Cron expression, the organisation's own if it has set one.")]
    timezone: str
    catchup: str
    enabled: bool
    reason: Annotated[str, Field(description="Why the schedule does not start it; empty if it does.")]
    is_own: Annotated[bool, Field(description="Whether the organisation has set a time, zone or credential.")]
    next_at: Annotated[Time, Field(description="When it is due next, with the organisation's share of the jitter.")]


class SchedulesView(View):
    """The organisation's schedules, by route; and the pipelines that can't be scheduled, with the reason."""

    schedules: list[ScheduleView]
    problems: dict[str, str]


class PauseBody(ControlBody, Input):
    """Body of a request that pauses or resumes."""

    pipeline: str | None = Field(None, max_length=200, description="Only this route; default: all pipelines.")


class OwnBody(Input):
    """What the organisation sets for a pipeline. Null, or left out: the pipeline's own."""

    schedule: str | None = Field(None, max_length=200, description="Five cron fields.")
    timezone: str | None = Field(None, max_length=60, description="IANA name, e.g. Europe/Berlin.")
    credential_id: str | None = Field(None, pattern=r"^[a-z][a-z0-9_-]{0,62}$")

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, value: str | None) -> str | None:
        if value is not None:
            check_cron(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, value: str | None) -> str | None:
        if value is not None:
            find_zone(value)
        return value


@routes.get("/pipelines/schedules/<org>", responses={200: SchedulesView})
def listed(path: OrgPath, query: NoQuery) -> Response:
    """List what runs by itself, when next, and if not, why"""
    return _listed(path.org)


@routes.post("/pipelines/schedules/<org>/pause", responses={200: SchedulesView})
def pause(path: OrgPath, query: NoQuery, body: PauseBody) -> Response:
    """Pause all schedules, or that of one pipeline

    Runs that have started go on. What falls into a pause is not made up for.
    """
    audit_decision(body)
    _own().change(path.org, _target(body), paused=True, reason=body.reason)
    return _listed(path.org)


@routes.post("/pipelines/schedules/<org>/resume", responses={200: SchedulesView})
def resume(path: OrgPath, query: NoQuery, body: PauseBody) -> Response:
    """Resume all schedules, or that of one pipeline, from now on

    A pipeline that was paused by itself stays so when all are resumed.
    """
    audit_decision(body)
    _own().change(path.org, _target(body), paused=False, reason="")
    return _listed(path.org)


@routes.put("/pipelines/schedules/<org>/<provider>/<domain>/<pipeline>", responses={200: SchedulesView})
def replace(path: PipelinePath, query: NoQuery, body: OwnBody) -> Response:
    """Set the organisation's own time, zone and credential for a pipeline, from now on"""
    engine().configs.find(path.route)
    g.target = path.route
    g.details = {name: value or "" for name, value in body.model_dump().items()}
    _own().change(
        path.org,
        path.route,
        cron=body.schedule or "",
        zone=body.timezone or "",
        credential_id=body.credential_id or "",
    )
    return _listed(path.org)


def _own() -> OwnSchedules:
    return OwnSchedules(engine().records, engine().now)


def _target(body: PauseBody) -> str:
    if body.pipeline is not None:
        engine().configs.find(body.pipeline)  # raises for a misspelt one, which would pause nothing
    g.target = body.pipeline or EVERY
    return g.target  # type: ignore[no-any-return]


def _listed(org: str) -> Response:
    built = engine()
    table, status = Timetable.read(built.configs), built.plans.limits(org).status
    found = entries(
        table,
        _own().of(org),
        org,
        status,
        built.credentials.list(org),
        built.settings.landing / org,
        built.now().astimezone(UTC),
    )
    return SchedulesView(schedules=[_view(entry) for entry in found], problems=dict(table.problems)).response()


def _view(entry: Entry) -> ScheduleView:
    own: Own = entry.own
    at: datetime | None = entry.next_at
    return ScheduleView(
        pipeline=entry.pipeline.route,
        schedule=entry.schedule.cron if entry.schedule else None,
        timezone=own.zone or entry.pipeline.zone,
        catchup=entry.pipeline.catchup,
        enabled=not entry.why_not,
        reason=entry.why_not,
        is_own=bool(own.cron or own.zone or own.credential_id),
        next_at=at,
    )
