"""``main.py doctor``: whether BigQuery does for this project and account what the product needs."""

import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from common import bootstrap
from common.cli import show
from common.cli.base import cli, friendly, json_option, quiet
from common.platform.settings import DATASET, PROJECT, Settings

if TYPE_CHECKING:
    from common.adapters.bigquery.doctor import Doctor, Finding

INTERRUPTED = 130
FINE = ("held", "unchecked")


def project_id(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Check the form of a project's id."""
    if value is not None and not PROJECT.match(value):
        raise click.BadParameter(f"{value!r} is not a Google Cloud project id.")
    return value


def dataset_name(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Check the form of a dataset's name."""
    if value is not None and not DATASET.match(value):
        raise click.BadParameter(f"{value!r} is not a dataset's name: letters, digits and '_'.")
    return value


@cli.command()
@click.option("--project", required=True, callback=project_id, help="The Google Cloud project to try.")
@click.option(
    "--dataset",
    callback=dataset_name,
    help="Name of the throw-away dataset: one that does not exist, or an empty one, which stays. Default: a new name.",
)
@click.option("--location", help="Where the dataset is to be (default: PIPELINE_OPS_LOCATION or US).")
@click.option("--yes", is_flag=True, help="Do not ask before anything is made.")
@json_option
@click.pass_obj
@friendly
def doctor(
    settings: Settings, project: str, dataset: str | None, location: str | None, yes: bool, as_json: bool
) -> None:
    """Try on a project, with your own credentials, everything that the product does in BigQuery.

    It makes a throw-away dataset, tables of every column type, loads, commits in each mode, two commits that meet, a
    procedure and a view; shows what held, how long it took and what it was billed; and removes everything, also after
    a failure or Ctrl-C. Exit code 1 if something failed. With BIGQUERY_EMULATOR_HOST it tries the emulator there.

    Credentials: gcloud auth application-default login

    \b
    Examples:
      main.py doctor --project my-test-project
      main.py doctor --project my-test-project --location EU --yes --json
      main.py doctor --project my-test-project --dataset given_to_me --yes
    """
    if as_json and not yes:
        raise click.UsageError("--json asks nothing: add --yes.")
    chosen = replace(settings, project_id=project, location=location or settings.location)
    quiet(chosen)
    check = bootstrap.doctor(chosen, dataset)
    if not yes:
        click.confirm(_question(check, chosen), abort=True)
    found: list[Finding] = []
    interrupted = False
    try:
        with _interruptible():
            for finding in check.findings():
                found.append(finding)
                if not as_json:
                    click.echo(f"{finding.name:<18} {finding.status:<7} {finding.seen}", err=True)
    except KeyboardInterrupt:
        interrupted = True
        found += [check.removed] if check.removed else []
    ok = not interrupted and all(one.status in FINE for one in found)
    if as_json:
        show.as_json(_plain(check, chosen, found, ok=ok, interrupted=interrupted))
    else:
        _show(found, interrupted=interrupted)
    sys.exit(INTERRUPTED if interrupted else 0 if ok else 1)


def _question(check: "Doctor", settings: Settings) -> str:
    where = f"the emulator at {settings.bigquery_url}" if settings.bigquery_url else f"location {settings.location}"
    most = "nobody knows how much" if check.most_usd is None else f"at most ${check.most_usd}"
    return (
        f"doctor uses the dataset {check.dataset} in {where}, makes some 20 tables in it, runs some 60 jobs "
        f"({most} at list prices), and removes what it made. Go on?"
    )


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first SIGINT or SIGTERM, and let no second one break the clean-up off."""

    def once(_number: int, _frame: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        click.echo("Interrupted: removing what was made.", err=True)
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, once) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _total(found: Sequence["Finding"]) -> tuple[int | None, Decimal | None]:
    """Return bytes billed and dollars of all probes, None if those of one are not known."""
    billed = [one.bytes_billed for one in found if one.jobs]
    costs = [one.cost_usd for one in found if one.jobs]
    return (
        None if None in billed else sum(one or 0 for one in billed),
        None if None in costs else sum((one or Decimal(0) for one in costs), Decimal(0)),
    )


def _plain(
    check: "Doctor", settings: Settings, found: Sequence["Finding"], *, ok: bool, interrupted: bool
) -> dict[str, Any]:
    billed, cost = _total(found)
    return {
        "ok": ok,
        "interrupted": interrupted,
        "dataset": check.dataset,
        "location": settings.location,
        "emulator": settings.bigquery_url,
        "seconds": round(sum(one.seconds for one in found), 3),
        "bytes_billed": billed,
        "cost_usd": cost,
        "probes": [
            {
                "name": one.name,
                "what": one.what,
                "status": one.status,
                "seen": one.seen,
                "seconds": one.seconds,
                "jobs": one.jobs,
                "bytes_billed": one.bytes_billed,
                "cost_usd": one.cost_usd,
                "next": one.next,
            }
            for one in found
        ],
    }


def _show(found: Sequence["Finding"], *, interrupted: bool) -> None:
    rows = [
        (
            one.name,
            one.what,
            one.status,
            f"{one.seconds:.1f}",
            one.jobs or "",
            _megabytes(one),
            _dollars(one.cost_usd) if one.jobs else "",
        )
        for one in found
    ]
    numbers = ("seconds", "jobs", "MB billed", "USD")
    show.table("", ("probe", "what", "status", *numbers), rows, numbers)
    for one in found:
        if one.status not in FINE:
            click.echo(f"{one.name} {one.status}: {one.seen} {one.next}".rstrip())
    counts = Counter(one.status for one in found)
    counted = ", ".join(f"{count} {status}" for status, count in counts.items())
    seconds = sum(one.seconds for one in found)
    _, cost = _total(found)
    priced = "at a price that is not known" if cost is None else f"for ${_dollars(cost)} at list prices"
    click.echo(f"{counted} in {seconds:.0f} s, {priced}{', interrupted' if interrupted else ''}.")


def _megabytes(one: "Finding") -> str:
    return "" if not one.jobs else "?" if one.bytes_billed is None else f"{one.bytes_billed / 2**20:.0f}"


def _dollars(cost: Decimal | None) -> str:
    return "?" if cost is None else show.number(cost)
