"""``main.py replay``: runs an ended run again beside its tables, shows the changes, and promotes or discards them."""

import sys
from typing import Any, Literal

import click

from common import bootstrap
from common.cli import show
from common.cli.base import cli, friendly, idempotency_option, json_option, my_name
from common.cli.client import ApiClient
from common.cli.stack import OwnStack, attached, follow
from common.domain.model import Run
from common.platform.settings import Settings

SHOWN = 10
IDENTITY_CHARS = 160
"""Longest identity of a sample: without keys it consists of all columns that are not numbers."""

Action = Literal["preview", "show", "promote", "discard"]


@cli.command()
@click.argument("run_id")
@click.option(
    "--preview", "action", flag_value="preview", help="Run everything again beside the tables; show the changes."
)
@click.option("--show", "action", flag_value="show", help="Show again what a preview would change.")
@click.option(
    "--promote", "action", flag_value="promote", help="Replace the tables' rows by the preview's, in one transaction."
)
@click.option("--discard", "action", flag_value="discard", help="Drop the preview's rows.")
@click.option("--reason", default="", help="Why; shown in the run's transitions. Required except for --show.")
@click.option("--by", default=my_name, show_default="your login name", help="Who decided.")
@idempotency_option
@json_option
@click.pass_obj
@friendly
def replay(
    settings: Settings,
    run_id: str,
    action: Action | None,
    reason: str,
    by: str,
    idempotency_key: str | None,
    as_json: bool,
) -> None:
    """Run an ended run again as a reviewed change.

    --preview takes the run to replay; the other options take the preview that it created.

    \b
    Examples:
      main.py replay run_0123 --preview --reason "new prices"
      main.py replay run_4567 --show --json
      main.py replay run_4567 --promote --reason "agreed with finance"
      main.py replay run_4567 --discard --reason "not what we wanted"
    """
    if action is None:
        raise click.UsageError("Choose one: --preview, --show, --promote or --discard.")
    if action != "show" and not reason.strip():
        raise click.UsageError(f"--{action} needs a --reason.")
    org = _run(settings, run_id).request.org_slug
    body = {"by": by, "reason": reason}
    with OwnStack(settings) as client:
        if action == "preview":
            _preview(client, org, run_id, body, idempotency_key, as_json)
        elif action == "show":
            _show(client, org, run_id, as_json)
        else:
            run = client.decide(action, org, run_id, body)
            show.as_json(run) if as_json else click.echo(_decided(run))


def _run(settings: Settings, run_id: str) -> Run:
    return bootstrap.build(attached(settings)).store.load(run_id)


def _preview(client: ApiClient, org: str, run_id: str, body: dict[str, Any], key: str | None, as_json: bool) -> None:
    started = client.rerun(org, run_id, {**body, "preview": True}, key)["run_id"]
    ended = (
        client.watch(org, started, lambda _: None) if as_json else follow(client, org, started, f"preview of {run_id}")
    )
    if ended["status"] != "completed":
        show.as_json(ended) if as_json else show.run_table(ended)
        sys.exit(1)
    _show(client, org, started, as_json)


def _show(client: ApiClient, org: str, run_id: str, as_json: bool) -> None:
    diff = client.preview(org, run_id)
    if as_json:
        show.as_json(diff)
        return
    for table in diff["tables"]:
        _show_table(table)
    click.echo(f"Preview {run_id} of {diff['preview_of']}: {diff['preview']}.")
    if diff["preview"] == "open":
        click.echo(f'  main.py replay {run_id} --promote --reason "..."   applies it')
        click.echo(f'  main.py replay {run_id} --discard --reason "..."   drops it')


def _show_table(table: dict[str, Any]) -> None:
    kinds = ("added", "changed", "removed", "same")
    days = [(day["day"], *(day[kind] for kind in kinds)) for day in table["days"]]
    show.table(table["table"].rpartition(".")[2], ("day", *kinds), days, kinds)
    columns = ("amount", "currency", "before", "after", "change")
    money = [(m["column"], m["currency"], m["before"], m["after"], m["change"]) for m in table["money"]]
    if money:
        show.table("Money", columns, money, columns[2:])
    rows = table["samples"][:SHOWN]
    samples = [(row["kind"], row["day"], _identity(row, rows), _change(row)) for row in rows]
    if samples:
        show.table("Largest differences (--json has more, in full)", ("change", "day", "row", "numbers"), samples)


def _identity(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the fields that distinguish the row from the others shown, in one line."""
    identities = [other["identity"] for other in rows]
    own = {
        name: value
        for name, value in row["identity"].items()
        if len(rows) == 1 or any(other.get(name) != value for other in identities)
    }
    text = ", ".join(f"{name}={value}" for name, value in own.items())
    return text if len(text) <= IDENTITY_CHARS else text[:IDENTITY_CHARS] + "…"


def _change(row: dict[str, Any]) -> str:
    """Return the numbers that differ, as ``cost 1.5 → 2``; for a row on one side only, all its numbers."""
    before, after = row["before"], row["after"]
    if before is None or after is None:
        return ", ".join(f"{name} {value}" for name, value in (before or after).items() if value is not None)
    return ", ".join(f"{name} {before[name]} → {after[name]}" for name in after if before[name] != after[name])


def _decided(run: dict[str, Any]) -> str:
    tables = ", ".join(dict.fromkeys(step["table"] for step in run["steps"] if step["table"]))
    if run["preview"] == "promoted":
        return f"Promoted: {run['rows']} rows are now in {tables}. Check: main.py verify {run['run_id']}"
    return f"Discarded {run['run_id']}: nothing was changed."
