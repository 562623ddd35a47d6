"""``main.py reconcile`` and ``main.py prices missing``: our GenAI costs against the providers', and unknown prices."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from common.cli import show
from common.cli.base import cli, friendly, json_option
from common.cli.stack import engine_for, warehouse_of
from common.focus.missing_prices import Missing, missing_prices
from common.focus.reconcile import OURS, REPORTED, Line, reconcile
from common.platform.errors import PipelineOpsError, TransientError
from common.platform.logs import logger
from common.platform.settings import Settings
from common.ports.warehouse import Warehouse

DAYS = 31
_DAY = click.DateTime(["%Y-%m-%d"])

Tables = Callable[[str], str]


class Percent(click.ParamType[Decimal]):
    """``1%`` or ``1``: percent, as an exact decimal."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        if isinstance(value, Decimal):
            return value
        try:
            percent = Decimal(str(value).removesuffix("%").strip())
        except InvalidOperation:
            percent = Decimal("NaN")
        if not (percent.is_finite() and 0 <= percent <= 100):
            self.fail(f"{value!r} is not a percentage from 0% to 100%.", param, ctx)
        return percent


def _days(command: Callable[..., None]) -> Callable[..., None]:
    """Add --from and --to to a command."""
    command = click.option("--to", "last", type=_DAY, metavar="YYYY-MM-DD", help="Default: yesterday.")(command)
    since = f"Default: {DAYS} days up to --to."
    return click.option("--from", "first", type=_DAY, metavar="YYYY-MM-DD", help=since)(command)


@cli.command(name="reconcile")
@click.argument("org")
@_days
@click.option(
    "--threshold", type=Percent(), default="1%", show_default=True, help="Share of the reported cost that is tolerated."
)
@json_option
@click.pass_obj
@friendly
def reconcile_command(
    settings: Settings, org: str, first: datetime | None, last: datetime | None, threshold: Decimal, as_json: bool
) -> None:
    """Compare our cost of GenAI usage with the providers' reports, by day and model.

    Exit code 1 and an ALARM line for each difference beyond the threshold.

    \b
    Examples:
      main.py reconcile acme_corp
      main.py reconcile acme_corp --from 2026-11-01 --to 2026-11-30 --threshold 0.5%
    """
    begin, end = _span(first, last)
    with _reading(settings, org, (OURS, REPORTED)) as (warehouse, tables):
        lines = reconcile(warehouse, tables, org, begin, end, threshold)
    alarms = [line for line in lines if line.is_alarm]
    if as_json:
        show.as_json({"ok": not alarms, "lines": [_plain(line) for line in lines]})
    else:
        _show(org, lines)
    for line in alarms:
        text = f"ALARM {_sentence(line)} (threshold {threshold:f} %)"
        logger.error(text)  # where alerting policies on log lines see it, if this runs as a job
        if not as_json:
            click.echo(text)
    sys.exit(1 if alarms else 0)


@cli.group(name="prices")
def prices_group() -> None:
    """Prices of GenAI usage."""


@prices_group.command(name="missing")
@click.argument("org")
@_days
@json_option
@click.pass_obj
@friendly
def missing_command(settings: Settings, org: str, first: datetime | None, last: datetime | None, as_json: bool) -> None:
    """List GenAI usage whose price is unknown. Exit code 1 if there is any."""
    begin, end = _span(first, last)
    with _reading(settings, org, (OURS,)) as (warehouse, tables):
        missing = missing_prices(warehouse, tables, org, begin, end)
    if as_json:
        show.as_json({"ok": not missing, "missing": [item.as_json() for item in missing]})
    elif missing:
        columns = ("provider", "model", "meter", "variant", "quantity", "unit", "days", "first", "last")
        show.table(
            f"Usage of {org} without a price, {begin} to {end}", columns, map(_cells, missing), ("quantity", "days")
        )
        click.echo("Add a price to configs/system/prices/<org>.yml (docs/providers.md), then run these days again.")
    else:
        click.echo(f"All usage of {org} from {begin} to {end} has a price.")
    sys.exit(1 if missing else 0)


def _span(first: datetime | None, last: datetime | None) -> tuple[date, date]:
    # Yesterday: providers report whole UTC days, so today would always differ.
    end = last.date() if last else datetime.now(UTC).date() - timedelta(days=1)
    begin = first.date() if first else end - timedelta(days=DAYS - 1)
    if begin > end:
        raise PipelineOpsError(f"--from {begin} is after --to {end}.")
    return begin, end


@contextmanager
def _reading(settings: Settings, org: str, needed: tuple[str, ...]) -> Iterator[tuple[Warehouse, Tables]]:
    """Yield the warehouse and the organisation's tables, or raise PipelineOpsError that says why they can't be read."""
    engine_for(settings, org)
    with warehouse_of(settings) as warehouse:

        def table(name: str) -> str:
            return f"{settings.project_id}.{settings.dataset(org)}.{name}"

        try:
            for name in needed:
                if warehouse.tables.find(table(name)) is None:
                    raise PipelineOpsError(
                        f"{org} has no table {name} yet: run a pipeline that writes it, such as genai/payg/openai."
                    )
            yield warehouse, table
        except TransientError as error:
            raise PipelineOpsError(f"{error} This needs the warehouse: start `main.py serve`, or try again.") from error


def _cells(item: Missing) -> tuple[Any, ...]:
    return (
        item.provider,
        item.model or "",
        item.meter,
        item.variant,
        show.number(item.quantity),
        item.unit,
        item.days,
        item.first,
        item.last,
    )


def _show(org: str, lines: list[Line]) -> None:
    different = [line for line in lines if line.difference or line.reported is None]
    columns = ("provider", "day", "model or tool", "ours", "reported", "difference", "%", "")
    rows = [
        (
            line.provider,
            line.day,
            line.subject,
            show.number(line.ours),
            "not reported" if line.reported is None else show.number(line.reported),
            show.number(line.difference),
            _percent(line),
            " ".join(("ALARM" if line.is_alarm else "", f"{line.unpriced} unpriced" if line.unpriced else "")).strip(),
        )
        for line in different
    ]
    if rows:
        show.table(f"Cost of {org}: ours and the providers'", columns, rows, ("ours", "reported", "difference", "%"))
    sums: dict[tuple[str, str], list[Decimal]] = {}
    for line in lines:
        if line.reported is not None:
            ours, reported = sums.setdefault((line.provider, line.currency), [Decimal(0), Decimal(0)])
            sums[line.provider, line.currency] = [ours + line.ours, reported + line.reported]
    totals = [
        (provider, currency, show.number(ours), show.number(reported), show.number(ours - reported))
        for (provider, currency), (ours, reported) in sorted(sums.items())
    ]
    show.table("Totals", ("provider", "currency", "ours", "reported", "difference"), totals, columns[3:6])
    click.echo(f"{len(lines) - len(different)} of {len(lines)} lines agree to the last digit.")


def _percent(line: Line) -> str:
    return "" if line.percent is None else f"{line.percent:+.2f}"


def _sentence(line: Line) -> str:
    assert line.reported is not None and line.difference is not None
    share = f", {_percent(line)} %" if line.percent is not None else ""
    return (
        f"{line.provider} {line.day} {line.subject}: ours {show.number(line.ours)} {line.currency}, reported "
        f"{show.number(line.reported)}, difference {show.number(line.difference)}{share}"
        + (f", {line.unpriced} rows without a price" if line.unpriced else "")
    )


def _plain(line: Line) -> dict[str, Any]:
    def text(value: Decimal | None) -> str | None:
        return None if value is None else f"{value:f}"

    return {
        "provider": line.provider,
        "day": line.day.isoformat(),
        "currency": line.currency,
        "subject": line.subject,
        "ours": text(line.ours),
        "reported": text(line.reported),
        "difference": text(line.difference),
        "percent": None if line.percent is None else f"{line.percent:.4f}",
        "unpriced_rows": line.unpriced,
        "alarm": line.is_alarm,
    }
