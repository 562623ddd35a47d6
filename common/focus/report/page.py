"""A report as one page that needs nothing else: no script, no network. Beside each chart stands its table.

Names and tags come from whoever tags resources, so all text is escaped (Jinja's autoescape, and the XML library in
charts), and the page forbids itself to run or to load anything.
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
"""Lines of a breakdown that are shown; the rest are one line."""
PROVIDERS = 7
OTHER = "others"
RIGHT = frozenset({"Share", "Tokens"})
"""Columns of texts that are figures."""
DAYS = frozenset({"Day", "Last day"})


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart (or none) beside its table. ``rows`` hold texts and Decimals, which are shown as amounts."""

    title: str
    note: str
    chart: Markup
    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]
    legend: Sequence[tuple[str, str]] = ()


def html(report: MonthReport, made_at: str) -> str:
    """Return the page. ``made_at`` says when it was made."""
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
    """Show an amount: two decimals, or up to four digits of what is less than one."""
    if value == 0 or abs(value) >= 1:
        return f"{value:,.2f}"
    text = f"{round(value, 3 - value.adjusted()):f}".rstrip("0")
    return f"{Decimal(text):.{max(2, len(text.partition('.')[2]))}f}"


def share(part: Decimal, whole: Decimal) -> str:
    """Show what share of the whole a part is."""
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
        cards.append(("The month before", amount(part.previous), f"{change} {when}"))
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
        columns = ("Provider", "Service", "Kind of charge")
        figures.append(_breakdown("Without a team", "Cost that no team answers for", part.unallocated, columns))
    return figures


def _days(part: Part) -> Figure:
    names = [one.provider for one in part.forecasts]
    shown = names if len(names) <= PROVIDERS + 1 else [*names[:PROVIDERS], OTHER]
    days = {day: _gathered(costs, shown) for day, costs in part.days.items()}
    classes = svg.colours(shown)
    marked: dict[date, str] = {}
    for one in part.anomalies:
        marked[one.day] = f"{marked.get(one.day, 'Out of the ordinary:')} {one.service}"
    about = f"{len(days)} days, {part.currency}, by provider: {', '.join(shown)}."
    rows = [
        (day.isoformat(), *(costs.get(name, Decimal(0)) for name in shown), sum(costs.values(), Decimal(0)))
        for day, costs in days.items()
    ]
    chart = Markup(svg.stacked_days(days, classes, marked, about))
    note = "A triangle marks a day that is out of the ordinary." if marked else "By provider."
    return Figure("Each day", note, chart, ("Day", *shown, "All"), rows, [(classes[name], name) for name in shown])


def _gathered(costs: Mapping[str, Decimal], shown: Sequence[str]) -> dict[str, Decimal]:
    found: dict[str, Decimal] = {}
    for name, value in costs.items():
        key = name if name in shown else OTHER
        found[key] = found.get(key, Decimal(0)) + value
    return found


def _forecast(part: Part) -> Figure:
    rows = [
        svg.Bar(one.provider, one.effective, amount(one.forecast), "s1", one.forecast, one.low, one.high)
        for one in part.forecasts
    ]
    columns = ("Provider", "So far", "Last day", "Forecast", "At least", "At most")
    cells = [
        (one.provider, one.effective, one.last_day.isoformat(), one.forecast, one.low, one.high)
        for one in part.forecasts
    ]
    about = "So far is full, the forecast paler; the line is its range."
    chart = Markup(svg.bars(rows, "Month to date and forecast", about))
    note = f"{about} Days that are left are taken at the mean of each provider's last 7." if part.is_running else ""
    return Figure("The month, to its end", note or "The month is over.", chart, columns, cells)


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
    note = f"What 1,000 tokens cost: the {len(shown)} that most was spent on"
    rows = [
        svg.Bar(
            " · ".join(name for name in (one.model or one.provider, one.token_type) if name),
            one.per_1k,
            amount(one.per_1k),
        )
        for one in shown
    ]
    columns = ("Provider", "Model", "Token type", "Tokens", "Cost", "A thousand")
    cells = [
        (one.provider, one.model, one.token_type, f"{one.tokens:,.0f}", one.effective, one.per_1k) for one in shown
    ]
    return Figure("1,000 tokens", note, Markup(svg.bars(rows, "1,000 tokens", note)), columns, cells)


def _anomalies(part: Part) -> Figure:
    note = "Usage that is far from the median of the 28 days before."
    if not part.anomalies:
        return Figure("Out of the ordinary", f"{note} There was none.", Markup(), (), ())
    cells = [
        (one.day.isoformat(), one.provider, one.service, one.cost, one.expected, one.cost - one.expected)
        for one in part.anomalies[-ROWS:]
    ]
    more = len(part.anomalies) - len(cells)
    columns = ("Day", "Provider", "Service", "Cost", "Expected", "Difference")
    told = f"{note} {more} earlier ones are left out." if more else note
    return Figure("Out of the ordinary", told, Markup(), columns, cells)
