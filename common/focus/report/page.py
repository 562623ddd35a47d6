"""A report as one self-contained HTML page: no scripts, no network. Each chart has its table beside it.

Anybody who tags resources chooses names and tags, so all text is escaped (by Jinja's autoescape, and by the XML library
in charts), and the page's Content-Security-Policy allows no script and no request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.focus.report import svg
from common.focus.report.data import NO_TEAM, Line, MonthReport, Part

ROWS = 12
"""Lines of a breakdown; the rest is summed in one more."""
PROVIDERS = 7
"""Providers with a colour of their own in the daily chart, of the eight that can be told apart."""
OTHER = "others"
RIGHT = frozenset({"Share", "Tokens"})
"""Columns with figures as text, aligned like numbers."""
DAYS = frozenset({"Day", "Last day"})


@dataclass(frozen=True, slots=True)
class Figure:
    """A table, with a chart if it has one. ``rows`` have texts, and Decimals that are shown as amounts."""

    title: str
    note: str
    chart: Markup
    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]
    legend: Sequence[tuple[str, str]] = ()


def html(report: MonthReport, made_at: str) -> str:
    """Return the page. ``made_at`` is its time, as text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) or not isinstance(value, str) else svg.plain(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"amount": amount}
    parts = [(part, _cards(part), _figures(part)) for part in report.parts]
    return environment.get_template("page.html.jinja").render(
        report=report, parts=parts, made_at=made_at, right=RIGHT, days=DAYS
    )


def amount(value: Decimal) -> str:
    """Format an amount with two decimals, or with up to four significant digits if it is below one."""
    if value == 0 or abs(value) >= 1:
        return f"{value:,.2f}"
    text = f"{round(value, 3 - value.adjusted()):f}".rstrip("0")
    return f"{Decimal(text):.{max(2, len(text.partition('.')[2]))}f}"


def share(part: Decimal, whole: Decimal) -> str:
    """Format a part's percentage of the whole."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _cards(part: Part) -> list[tuple[str, str, str]]:
    """Return the figures at the top: name, value, and a line below."""
    cards = [("Cost", amount(part.effective), f"billed {amount(part.billed)} · at list price {amount(part.listed)}")]
    if part.is_running:
        low, high = part.forecast_range
        cards.append(("Forecast, end of month", amount(part.forecast), f"between {amount(low)} and {amount(high)}"))
    if part.previous is not None:
        change = share(part.forecast - part.previous, part.previous)
        when = "by the end of this month" if part.is_running else "in this month"
        cards.append(("Previous month", amount(part.previous), f"{change} {when}"))
    cards.append(
        ("Without a team", amount(part.without_team), f"{share(part.without_team, part.effective)} of the cost")
    )
    return cards


def _figures(part: Part) -> list[Figure]:
    figures = [_days(part), _forecast(part)]
    figures.append(_breakdown("Services", "Effective cost of each service", part.services, ("Provider", "Service")))
    if part.models:
        figures.append(_breakdown("Models", "Effective cost of each model", part.models, ("Provider", "Model")))
    figures.append(_breakdown("Teams", "By the tag “team”", part.teams, ("Team",)))
    if part.unit_costs:
        figures.append(_unit_costs(part))
    figures.append(_anomalies(part))
    if part.unallocated:
        columns = ("Provider", "Service", "Charge category")
        figures.append(_breakdown("Without a team", "Cost that is not allocated to a team", part.unallocated, columns))
    return figures


def _days(part: Part) -> Figure:
    names = [forecast.provider for forecast in part.forecasts]
    shown = names if len(names) <= PROVIDERS + 1 else [*names[:PROVIDERS], OTHER]
    days = {day: _with_others(costs, shown) for day, costs in part.days.items()}
    classes = svg.colours(shown)
    marked: dict[date, str] = {}
    for anomaly in part.anomalies:
        marked[anomaly.day] = f"{marked.get(anomaly.day, 'Anomaly:')} {anomaly.service}"
    about = f"{len(days)} days, {part.currency}, by provider: {', '.join(shown)}."
    rows = [
        (day.isoformat(), *(costs.get(name, Decimal(0)) for name in shown), sum(costs.values(), Decimal(0)))
        for day, costs in days.items()
    ]
    chart = Markup(svg.stacked_days(days, classes, marked, about))
    note = "A triangle marks a day with an anomaly." if marked else "By provider."
    legend = [(classes[name], name) for name in shown]
    return Figure("Daily cost", note, chart, ("Day", *shown, "Total"), rows, legend)


def _with_others(costs: Mapping[str, Decimal], shown: Sequence[str]) -> dict[str, Decimal]:
    """Return the costs of the providers shown, and the sum of all others."""
    grouped: dict[str, Decimal] = {}
    for name, value in costs.items():
        key = name if name in shown else OTHER
        grouped[key] = grouped.get(key, Decimal(0)) + value
    return grouped


def _forecast(part: Part) -> Figure:
    rows = [
        svg.Bar(f.provider, f.effective, amount(f.forecast), "s1", f.forecast, f.low, f.high) for f in part.forecasts
    ]
    columns = ("Provider", "To date", "Last day", "Forecast", "At least", "At most")
    cells = [(f.provider, f.effective, f.last_day.isoformat(), f.forecast, f.low, f.high) for f in part.forecasts]
    about = "Month to date in full colour, the forecast paler; the line is its range."
    chart = Markup(svg.bars(rows, "Month to date and forecast", about))
    note = f"{about} Each remaining day is the mean of the provider's last 7 days." if part.is_running else ""
    return Figure("Forecast", note or "The month is over.", chart, columns, cells)


def _breakdown(title: str, note: str, lines: Sequence[Line], columns: tuple[str, ...]) -> Figure:
    shown = list(lines[:ROWS])
    if rest := lines[ROWS:]:
        names = (f"{len(rest)} {OTHER}", *[""] * (len(columns) - 1))
        shown.append(
            Line(names, sum((x.effective for x in rest), Decimal(0)), sum((x.billed for x in rest), Decimal(0)))
        )
    total = sum((line.effective for line in lines), Decimal(0))
    rows = [
        svg.Bar(
            " · ".join(name for name in line.names if name),
            line.effective,
            f"{amount(line.effective)} ({share(line.effective, total)})",
            "none" if line.names == (NO_TEAM,) else "other" if line.names[0].endswith(OTHER) else "s1",
        )
        for line in shown
    ]
    cells = [(*line.names, line.effective, line.billed, share(line.effective, total)) for line in shown]
    chart = Markup(svg.bars(rows, title, f"{note}: {len(lines)} in all."))
    return Figure(title, note, chart, (*columns, "Cost", "Billed", "Share"), cells)


def _unit_costs(part: Part) -> Figure:
    shown = part.unit_costs[:ROWS]
    note = f"Cost of 1,000 tokens: the {len(shown)} model and token types with the highest cost"
    rows = [
        svg.Bar(
            " · ".join(name for name in (cost.model or cost.provider, cost.token_type) if name),
            cost.per_1k,
            amount(cost.per_1k),
        )
        for cost in shown
    ]
    columns = ("Provider", "Model", "Token type", "Tokens", "Cost", "Per 1,000")
    cells = [(c.provider, c.model, c.token_type, f"{c.tokens:,.0f}", c.effective, c.per_1k) for c in shown]
    return Figure("1,000 tokens", note, Markup(svg.bars(rows, "1,000 tokens", note)), columns, cells)


def _anomalies(part: Part) -> Figure:
    note = "Usage far from the median of the 28 days before."
    if not part.anomalies:
        return Figure("Anomalies", f"{note} There are none.", Markup(), (), ())
    cells = [
        (a.day.isoformat(), a.provider, a.service, a.cost, a.expected, a.cost - a.expected)
        for a in part.anomalies[-ROWS:]
    ]
    earlier = len(part.anomalies) - len(cells)
    columns = ("Day", "Provider", "Service", "Cost", "Expected", "Difference")
    return Figure(
        "Anomalies", f"{note} {earlier} earlier ones are omitted." if earlier else note, Markup(), columns, cells
    )
