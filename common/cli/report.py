"""``main.py report``: a month's costs as tables, JSON or an HTML page."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from common import bootstrap
from common.cli import show
from common.cli.base import cli, friendly, json_option, quiet
from common.cli.stack import warehouse_of
from common.focus.conformance import CHARGES
from common.focus.report.data import Line, MonthReport, Part, Query, collect
from common.focus.views import alone, load_views
from common.platform.errors import PipelineOpsError
from common.platform.settings import Settings

SHOWN = 10


@cli.command()
@click.argument("org")
@click.option("--month", type=click.DateTime(["%Y-%m"]), help="E.g. 2026-10. Default: the last month with costs.")
@click.option(
    "--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with charts to this file."
)
@json_option
@click.pass_obj
@friendly
def report(settings: Settings, org: str, month: datetime | None, page: Path | None, as_json: bool) -> None:
    """Show a month's costs and forecast by day, provider, service, model and team.

    The figures come from the views in configs/sql/views (docs/questions.md), which need not be deployed.

    \b
    Examples:
      main.py report acme_corp
      main.py report acme_corp --month 2026-10 --html october.html
      main.py report acme_corp --json
    """
    bootstrap.plans(settings).limits(org)
    with _views(settings, org) as query:
        costs = collect(query, org, month.date() if month else None)
    if page is not None:
        from common.focus.report.page import html  # late: --json needs no Jinja

        page.write_text(html(costs, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"), "utf-8")
    if as_json:
        show.as_json(asdict(costs) | {"parts": [_plain(part) for part in costs.parts]})
    else:
        _show(costs)
        if page is not None:
            click.echo(f"wrote {page}")


@contextmanager
def _views(settings: Settings, org: str) -> Iterator[Query]:
    """Yield the function that queries the organisation's views."""
    quiet(settings)
    views = load_views(settings.configs)
    dataset = f"{settings.project_id}.{settings.dataset(org)}"
    with warehouse_of(settings) as warehouse:
        if warehouse.tables.find(f"{dataset}.{CHARGES}") is None:
            raise PipelineOpsError(f"There is no table {dataset}.{CHARGES}: no costs have been loaded. Run a pipeline.")

        def query(view: str, select: str, params: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
            return warehouse.query(alone(views, view, dataset) + select, params)

        yield query


def _plain(part: Part) -> dict[str, Any]:
    """Return a part for JSON, with what its properties compute."""
    low, high = part.forecast_range
    days = {day.isoformat(): costs for day, costs in part.days.items()}
    unit_costs = [asdict(cost) | {"per_1k": cost.per_1k} for cost in part.unit_costs]
    forecast = {"forecast": part.forecast, "low": low, "high": high, "without_team": part.without_team}
    return asdict(part) | {"days": days, "unit_costs": unit_costs} | forecast


def _show(costs: MonthReport) -> None:
    from common.focus.report.page import amount, share

    click.echo(f"{costs.org}, {costs.month:%B %Y}")
    if not costs.parts:
        others = f" Months with costs: {', '.join(f'{month:%Y-%m}' for month in costs.months)}." if costs.months else ""
        click.echo(f"There are no costs of this month.{others}")
    for part in costs.parts:
        low, high = part.forecast_range
        until = f", forecast {amount(part.forecast)} ({amount(low)} to {amount(high)})" if part.is_running else ""
        without = f"{amount(part.without_team)} ({share(part.without_team, part.effective)})"
        click.echo(
            f"\n{part.currency}: {amount(part.effective)} effective, {amount(part.billed)} billed{until}; "
            f"without a team {without}"
        )
        rows = [
            (f.provider, amount(f.effective), amount(f.billed), f.days_left, amount(f.forecast)) for f in part.forecasts
        ]
        columns = ("provider", "effective", "billed", "days left", "forecast")
        show.table("Providers", columns, rows, columns[1:])
        for title, lines, names in (
            ("Services", part.services, ("provider", "service")),
            ("Models", part.models, ("provider", "model")),
            ("Teams", part.teams, ("team",)),
        ):
            if lines:
                _breakdown(f"{title} ({len(lines)})", lines[:SHOWN], names)
        _tokens_and_anomalies(part)


def _breakdown(title: str, lines: Sequence[Line], names: tuple[str, ...]) -> None:
    from common.focus.report.page import amount

    rows = [(*line.names, amount(line.effective), amount(line.billed)) for line in lines]
    show.table(title, (*names, "effective", "billed"), rows, ("effective", "billed"))


def _tokens_and_anomalies(part: Part) -> None:
    from common.focus.report.page import amount

    if part.unit_costs:
        tokens = [
            (cost.provider, cost.model, cost.token_type, f"{cost.tokens:,.0f}", amount(cost.per_1k))
            for cost in part.unit_costs[:SHOWN]
        ]
        columns = ("provider", "model", "token type", "tokens", "cost of 1,000")
        show.table(f"1,000 tokens ({len(part.unit_costs)})", columns, tokens, columns[3:])
    if part.anomalies:
        days = [(a.day, a.provider, a.service, amount(a.cost), amount(a.expected)) for a in part.anomalies]
        show.table("Anomalies", ("day", "provider", "service", "cost", "expected"), days, ("cost", "expected"))
