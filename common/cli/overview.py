"""Commands that show what an organisation has: its use of the plan, and the pipelines with their schedules."""

import click

from common.cli import show
from common.cli.base import cli, friendly, json_option
from common.cli.stack import reader
from common.platform.settings import Settings


@cli.command()
@click.argument("org")
@json_option
@click.pass_obj
@friendly
def usage(settings: Settings, org: str, as_json: bool) -> None:
    """Show what an organisation has used of its plan, and when counts start anew."""
    seen = reader(settings).usage(org)
    if as_json:
        show.as_json(seen)
        return
    rows = [(one["limit"], one["used"], one["value"], one["left"], one["resets_at"]) for one in seen["limits"]]
    if money := seen["money_usd"]:
        used = f"{money['spent']} + {money['reserved']} reserved"
        rows.append(("money (USD)", used, money["value"], money["left"], money["resets_at"]))
    title = f"{org}, {seen['subscription']}, {seen['as_of'][:19]}Z"
    show.table(title, ("limit", "used", "of", "left", "starts anew"), rows, ("used", "of", "left"))
    if seen["limits_as_of"]:
        click.echo(f"Limits are as of {seen['limits_as_of'][:19]}Z: their source is away since.")
    ended = ", ".join(f"{count} {how}" for how, count in seen["ended_this_month"].items())
    click.echo(f"{seen['waiting']} wait for a slot. Ended this month: {ended}.")


@cli.command()
@click.argument("org")
@json_option
@click.pass_obj
@friendly
def pipelines(settings: Settings, org: str, as_json: bool) -> None:
    """List all pipelines: steps, schedule and the next time; of a wrong file, what is wrong."""
    found = reader(settings).pipelines(org)
    if as_json:
        show.as_json(found)
        return
    rows = [
        (one["pipeline"], one["name"], ", ".join(one["steps"]), one["schedule"], next(iter(one["next_runs"]), None))
        for one in found["pipelines"]
    ]
    show.table("Pipelines", ("pipeline", "name", "steps", "schedule (UTC)", "next"), rows)
    for one in found["pipelines"]:
        if one["error"]:
            click.echo(f"{one['pipeline']}: {one['error']}")
