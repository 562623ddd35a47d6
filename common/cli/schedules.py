"""``main.py schedules``: what runs by itself, pauses, times of an organisation's own, and Cloud Scheduler's jobs."""

import re
import sys
from datetime import UTC
from typing import Any

import click

from common import bootstrap
from common.cli import show
from common.cli.base import cli, friendly, json_option, me
from common.cli.stack import engine_for
from common.config.model import check_cron
from common.config.schedule import find_zone
from common.platform.errors import PipelineOpsError
from common.platform.settings import Settings
from common.runs.own_schedules import EVERY, OwnSchedules
from common.runs.timetable import Timetable, entries

REGION = re.compile(r"[a-z]+-[a-z]+[0-9]{1,2}")


@cli.group()
def schedules() -> None:
    """What runs by itself, when, and if not, why.

    \b
    Examples:
      main.py schedules list acme_corp
      main.py schedules pause acme_corp --reason "moving to another account"
      main.py schedules set acme_corp genai/payg/openai --schedule "30 7 * * *" --timezone Europe/Berlin
      main.py schedules sync --location europe-west1
    """


@schedules.command(name="list")
@click.argument("org")
@json_option
@click.pass_obj
@friendly
def list_schedules(settings: Settings, org: str, as_json: bool) -> None:
    """List the organisation's schedules: next time, and for what is not started, the reason."""
    engine = engine_for(settings, org)
    table, now = Timetable.read(engine.configs), engine.now().astimezone(UTC)
    own = OwnSchedules(engine.records, engine.now).of(org)
    found = [
        {
            "pipeline": entry.pipeline.route,
            "schedule": entry.schedule.cron if entry.schedule else None,
            "timezone": entry.own.zone or entry.pipeline.zone,
            "catchup": entry.pipeline.catchup,
            "enabled": not entry.why_not,
            "reason": entry.why_not,
            "next_at": entry.next_at and entry.next_at.isoformat(),
        }
        for entry in entries(
            table,
            own,
            org,
            engine.plans.limits(org).status,
            engine.credentials.list(org),
            engine.settings.landing / org,
            now,
        )
    ]
    if as_json:
        show.as_json({"schedules": found, "problems": dict(table.problems)})
        return
    columns = ("pipeline", "schedule", "timezone", "catchup", "next_at", "reason")
    show.table(f"Schedules of {org}", columns, [tuple(one[name] for name in columns) for one in found])
    for route, problem in table.problems.items():
        click.echo(f"{route}: {problem}")


def _change(settings: Settings, org: str, route: str | None, action: str, **fields: Any) -> None:
    engine = engine_for(settings, org)
    if route is not None:
        engine.configs.find(route)  # raises for a misspelt one
    OwnSchedules(engine.records, engine.now).change(org, route or EVERY, **fields)
    details = {name: str(value) for name, value in fields.items()}
    engine.audit.record(org, who=me(), action=action, target=route or EVERY, details=details)


@schedules.command()
@click.argument("org")
@click.argument("route", required=False)
@click.option("--reason", required=True, help="Why, for whoever reads the list.")
@click.pass_obj
@friendly
def pause(settings: Settings, org: str, route: str | None, reason: str) -> None:
    """Pause all schedules, or that of one pipeline. Runs that have started go on."""
    _change(settings, org, route, "schedule.pause", paused=True, reason=reason[:500])
    click.echo(f"Paused: {route or 'every schedule'} of {org}. What falls into the pause is not made up for.")


@schedules.command()
@click.argument("org")
@click.argument("route", required=False)
@click.pass_obj
@friendly
def resume(settings: Settings, org: str, route: str | None) -> None:
    """Resume all schedules, or that of one pipeline, from now on."""
    _change(settings, org, route, "schedule.resume", paused=False, reason="")
    click.echo(f"Resumed: {route or 'every schedule that is not paused by itself'} of {org}.")


@schedules.command(name="set")
@click.argument("org")
@click.argument("route")
@click.option("--schedule", default="", help="Five cron fields. Without it: the pipeline's own.")
@click.option("--timezone", default="", help="IANA name, e.g. Europe/Berlin. Without it: the pipeline's own.")
@click.option("--credential", default="", help="Which credential, if the organisation has several.")
@click.pass_obj
@friendly
def set_own(settings: Settings, org: str, route: str, schedule: str, timezone: str, credential: str) -> None:
    """Set the organisation's own time, zone and credential for a pipeline; options left out are reset."""
    try:
        if schedule:
            check_cron(schedule)
        if timezone:
            find_zone(timezone)
    except ValueError as error:
        raise PipelineOpsError(str(error)) from None
    _change(settings, org, route, "schedule.replace", cron=schedule, zone=timezone, credential_id=credential)
    click.echo(f"Set for {org}: {route}. See: main.py schedules list {org}")


@schedules.command()
@click.option("--location", required=True, help="Region of the jobs, e.g. europe-west1.")
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 if anything is to be changed. For CI.")
@click.option("--yes", is_flag=True, help="Do not ask before jobs are removed.")
@click.pass_obj
@friendly
def sync(settings: Settings, location: str, check: bool, yes: bool) -> None:
    """Bring Cloud Scheduler's jobs of this stack (cron, sweep) in line. Others are never touched.

    Shows the plan first, and asks before it removes a job. Safe to repeat. The jobs are named
    pipeline-ops-<PIPELINE_OPS_ENV>-cron and -sweep, in the project of PIPELINE_OPS_PROJECT.
    """
    if not REGION.fullmatch(location):
        raise PipelineOpsError(f"--location: {location[:40]!r} is no region, such as europe-west1.")
    jobs = bootstrap.scheduler_jobs(settings, location)
    steps = jobs.plan()
    for step in steps:
        click.echo(f"{step.action:8}{step.name}: {step.text}")
    if not steps:
        click.echo("The jobs of Cloud Scheduler are as they should be.")
        return
    if check:
        click.echo("Nothing was changed. To apply this: main.py schedules sync --location " + location)
        sys.exit(1)
    removed = [step for step in steps if step.action == "remove"]
    if removed and not yes and not click.confirm(f"Remove {len(removed)} of these jobs?"):
        steps = [step for step in steps if step.action != "remove"]
        click.echo("Nothing is removed.")
    jobs.carry_out(steps)
    click.echo(f"{len(steps)} changes made.")
