"""Commands that show an organisation's usage of its plan, and the pipelines with their schedules."""

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
    """Show an organisation's limits and usage, and when counts restart."""
    view = reader(settings).usage(org)
    if as_json:
        show.as_json(view)
        return
    rows = [(row["limit"], row["used"], row["value"], row["left"], row["resets_at"]) for row in view["limits"]]
    if money := view["money_usd"]:
        used = f"{money['spent']} + {money['reserved']} reserved"
        rows.append(("money (USD)", used, money["value"], money["left"], money["resets_at"]))
    title = f"{org}, {view['subscription']}, {view['as_of'][:19]}Z"
    show.table(title, ("limit", "used", "of", "left", "restarts"), rows, ("used", "of", "left"))
    if view["limits_as_of"]:
        click.echo(f"Limits are as of {view['limits_as_of'][:19]}Z: their source has been down since.")
    ended = ", ".join(f"{count} {status}" for status, count in view["ended_this_month"].items())
    click.echo(f"{view['waiting']} runs wait for a slot. Ended this month: {ended}.")


@cli.command()
@click.argument("org")
@json_option
@click.pass_obj
@friendly
def pipelines(settings: Settings, org: str, as_json: bool) -> None:
    """List all pipelines: steps, schedule and next time, and the problems of wrong files."""
    view = reader(settings).pipelines(org)
    if as_json:
        show.as_json(view)
        return
    rows = [
        (
            entry["pipeline"],
            entry["name"],
            ", ".join(entry["steps"]),
            entry["schedule"],
            *(entry["next_runs"] or [None])[:1],
        )
        for entry in view["pipelines"]
    ]
    show.table("Pipelines", ("pipeline", "name", "steps", "schedule", "next"), rows)
    for entry in view["pipelines"]:
        if entry["error"]:
            click.echo(f"{entry['pipeline']}: {entry['error']}")
