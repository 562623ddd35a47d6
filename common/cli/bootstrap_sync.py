"""``main.py bootstrap-sync``: datasets and tables of organisations, as the contracts say."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import click

from common.cli import show
from common.cli.base import cli, friendly, json_option, quiet
from common.cli.stack import warehouse_of
from common.config.plans import YamlPlans, load_plans
from common.platform.errors import PipelineOpsError, TransientError
from common.platform.settings import Settings
from infra.bootstrap_sync import Difference, sync


@cli.command(name="bootstrap-sync")
@click.argument("orgs", metavar="[ORG]...", nargs=-1)
@click.option("--apply", is_flag=True, help="Make the changes. Without it they are only shown.")
@json_option
@click.pass_obj
@friendly
def bootstrap_sync(settings: Settings, orgs: tuple[str, ...], apply: bool, as_json: bool) -> None:
    """Create and extend the datasets, tables and views of organisations (default: all that have a plan).

    Shows what differs from the contracts in configs/schemas; --apply does it. Columns are only added and relaxed,
    never dropped, retyped or narrowed: what a contract asks for beyond that is refused, and the exit code is 1. The
    views of configs/sql/views are made by their text.
    Safe to repeat, and to run twice at once.

    \b
    Examples:
      main.py bootstrap-sync
      main.py bootstrap-sync acme_corp --apply
      infra/run-job.sh prod bootstrap-sync --apply
    """
    plans = YamlPlans(settings.configs)
    for org in orgs:
        plans.limits(org)  # a name that is none makes no dataset
    quiet(settings)
    chosen = list(dict.fromkeys(orgs)) or sorted(load_plans(settings.configs).organisations)
    with warehouse_of(settings) as warehouse:
        try:
            found = list(sync(warehouse, settings, chosen, apply=apply))
        except TransientError as error:
            raise PipelineOpsError(f"{error} What is done stays done: run it again.") from error
    refused = sum(one.change.action == "refused" for one in found)
    if as_json:
        show.as_json({"ok": not refused, "applied": apply, "organisations": chosen, "differences": _plain(found)})
    else:
        _show(found, chosen, refused, apply=apply)
    sys.exit(1 if refused else 0)


def _plain(found: Sequence[Difference]) -> list[dict[str, str]]:
    return [
        {
            "org": one.org,
            "dataset": one.dataset,
            "table": one.table,
            "action": one.change.action,
            "column": one.change.column,
            "text": one.change.text,
        }
        for one in found
    ]


def _show(found: Sequence[Difference], orgs: Sequence[str], refused: int, *, apply: bool) -> None:
    if found:
        show.table("", ("dataset", "table", "what", "column", ""), _rows(found))
    count = sum(one.change.is_done for one in found)
    done = "made" if apply else "to make"
    names = f"{len(orgs)} organisation{'s' if len(orgs) > 1 else ''}"
    click.echo(f"{names}: {count or 'no'} changes {done}, {refused or 'nothing'} refused.")
    if refused:
        click.echo("A table with something refused is left as it is. Mend its contract, then run this again.")
    elif count and not apply:
        click.echo("Nothing was changed. To do it: the same command with --apply.")


def _rows(found: Sequence[Difference]) -> Iterator[tuple[str, ...]]:
    """A line for each change; those of descriptions, which change no row, are one line a table."""
    described = Counter((one.dataset, one.table) for one in found if one.change.action == "describe")
    for one in found:
        change = one.change
        if change.action != "describe":
            word = "REFUSED" if change.action == "refused" else change.action
            yield one.dataset, one.table, word, change.column, change.text
        elif count := described.pop((one.dataset, one.table), 0):
            yield one.dataset, one.table, "describe", "", f"{count} new descriptions"
