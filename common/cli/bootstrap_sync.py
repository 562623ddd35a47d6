"""``main.py bootstrap-sync``: creates and extends the organisations' datasets, tables and views."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import click

from common import bootstrap
from common.cli import show
from common.cli.base import cli, friendly, json_option, quiet
from common.cli.stack import warehouse_of
from common.platform.errors import PipelineOpsError, TransientError
from common.platform.settings import Settings
from common.ports.store import all_organisations
from infra.bootstrap_sync import Difference, sync


@cli.command(name="bootstrap-sync")
@click.argument("orgs", metavar="[ORG]...", nargs=-1)
@click.option("--apply", is_flag=True, help="Apply the changes. Without it they are only shown.")
@json_option
@click.pass_obj
@friendly
def bootstrap_sync(settings: Settings, orgs: tuple[str, ...], apply: bool, as_json: bool) -> None:
    """Create and extend the datasets, tables and views of organisations (default: all that have a plan).

    Shows the differences from the contracts in configs/schemas; --apply removes them. Columns are only added and
    relaxed, never dropped, retyped or narrowed: any other change is refused, and the exit code is 1. Views are
    replaced if their text in configs/sql/views differs.
    Safe to repeat, and to run twice at once.

    \b
    Examples:
      main.py bootstrap-sync
      main.py bootstrap-sync acme_corp --apply
      infra/run-job.sh prod bootstrap-sync --apply
    """
    plans = bootstrap.plans(settings)
    for org in orgs:
        plans.limits(org)  # raises: a misspelt name must not create a dataset
    quiet(settings)
    chosen = list(dict.fromkeys(orgs)) or list(all_organisations(plans))
    with warehouse_of(settings) as warehouse:
        try:
            differences = list(sync(warehouse, settings, chosen, apply=apply))
        except TransientError as error:
            raise PipelineOpsError(f"{error} Changes made so far are kept: run the command again.") from error
    refused = sum(difference.change.action == "refused" for difference in differences)
    if as_json:
        shown = _plain(differences)
        show.as_json({"ok": not refused, "applied": apply, "organisations": chosen, "differences": shown})
    else:
        _show(differences, chosen, refused, apply=apply)
    sys.exit(1 if refused else 0)


def _plain(differences: Sequence[Difference]) -> list[dict[str, str]]:
    return [
        {
            "org": difference.org,
            "dataset": difference.dataset,
            "table": difference.table,
            "action": difference.change.action,
            "column": difference.change.column,
            "text": difference.change.text,
        }
        for difference in differences
    ]


def _show(differences: Sequence[Difference], orgs: Sequence[str], refused: int, *, apply: bool) -> None:
    if differences:
        show.table("", ("dataset", "table", "action", "column", ""), _rows(differences))
    count = sum(difference.change.is_done for difference in differences)
    done = "made" if apply else "to make"
    names = f"{len(orgs)} organisation{'s' if len(orgs) > 1 else ''}"
    click.echo(f"{names}: {count or 'no'} changes {done}, {refused or 'nothing'} refused.")
    if refused:
        click.echo("A table with a refused change is left as it is. Fix its contract, then run this again.")
    elif count and not apply:
        click.echo("Nothing was changed. To apply the changes, repeat the command with --apply.")


def _rows(differences: Sequence[Difference]) -> Iterator[tuple[str, ...]]:
    """Yield a line for each change. New descriptions, which change no row, are one line per table."""
    described = Counter((d.dataset, d.table) for d in differences if d.change.action == "describe")
    for difference in differences:
        dataset, table, change = difference.dataset, difference.table, difference.change
        if change.action != "describe":
            word = "REFUSED" if change.action == "refused" else change.action
            yield dataset, table, word, change.column, change.text
        elif count := described.pop((dataset, table), 0):
            yield dataset, table, "describe", "", f"{count} new descriptions"
