"""Pipelines and their schedules."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

from flask import Response
from pydantic import Field

from common.bootstrap import engine
from common.config.loader import PipelineFile
from common.config.schedule import Schedule
from common.platform.errors import ConfigError
from functions.api.inputs import NoQuery, OrgPath, PipelinePath
from functions.api.part import part
from functions.api.views import View

NEXT = 5

routes = part("pipelines", __doc__)


class EntryView(View):
    """A pipeline in the list. If its file is wrong, ``error`` says why and most of the rest is null."""

    pipeline: Annotated[str, Field(description="Its route: provider/domain/pipeline.")]
    pipeline_id: str | None = None
    name: str | None = None
    description: str | None = None
    version: str | None = None
    schedule: str | None = None
    next_runs: list[datetime] = Field(default_factory=list)
    steps: list[str] = Field(default_factory=list)
    error: str | None = None


class EntriesView(View):
    """All pipelines, by route."""

    pipelines: list[EntryView]


class ConfigView(View):
    """A pipeline's current config, and when it is due."""

    pipeline: str
    config_hash: Annotated[str, Field(description="SHA-256 of the file; a run records that of the file it used.")]
    schedule: Annotated[str | None, Field(description="Cron expression, on the clock of the zone in `config`.")]
    next_runs: Annotated[list[datetime], Field(description="The next five times, UTC.")]
    config: dict[str, Any]


@routes.get("/pipelines/configs/<org>", responses={200: EntriesView})
def configs(path: OrgPath, query: NoQuery) -> Response:
    """List all pipelines: route, name, steps, schedule and next times"""
    return EntriesView(pipelines=[_entry(route) for route in sorted(engine().configs.scan().routes)]).response()


@routes.get("/pipelines/configs/<org>/<provider>/<domain>/<pipeline>", responses={200: ConfigView})
def config(path: PipelinePath, query: NoQuery) -> Response:
    """Read one pipeline's config, hash and schedule"""
    file = engine().configs.load(path.route)
    view = ConfigView(
        pipeline=path.route,
        config_hash=file.text_hash,
        schedule=file.config.schedule,
        next_runs=list(_next_runs(file)),
        config=file.config.model_dump(mode="json"),
    )
    return view.response()


def _entry(route: str) -> EntryView:
    try:
        file = engine().configs.load(route)
    except ConfigError as error:  # one wrong file must not hide the other pipelines
        return EntryView(pipeline=route, error=str(error))
    config = file.config
    return EntryView(
        pipeline=route,
        pipeline_id=config.pipeline_id,
        name=config.name,
        description=config.description,
        version=config.version,
        schedule=config.schedule,
        next_runs=list(_next_runs(file)),
        steps=[step.step_id for step in config.steps],
    )


def _next_runs(file: PipelineFile) -> Sequence[datetime]:
    if file.config.schedule is None:
        return ()
    schedule = Schedule(file.config.schedule, file.config.timezone, file.config.start_date)
    return tuple(islice(schedule.following(engine().now().astimezone(UTC)), NEXT))
