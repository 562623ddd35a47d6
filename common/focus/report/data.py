"""The figures of a report, one part per currency. Decimals are exact: only the page and the terminal round them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from common.domain.dates import next_month

Query = Callable[[str, str, Mapping[str, Any]], Iterator[Mapping[str, Any]]]
"""Queries a view: its name, a SELECT from it, and the parameters."""

ZERO = Decimal(0)
NO_TEAM = "no team"
BREAKDOWN = """
SELECT {names}, currency, SUM(effective_cost) AS effective, SUM(billed_cost) AS billed, SUM(list_cost) AS listed
FROM cost_daily WHERE day BETWEEN @first AND @last {more}
GROUP BY {names}, currency
"""
TOKENS = """
SELECT provider, model, token_type, currency, SUM(tokens) AS tokens, SUM(effective_cost) AS effective
FROM cost_per_1k_tokens WHERE day BETWEEN @first AND @last
GROUP BY provider, model, token_type, currency
"""
ANOMALIES = "SELECT * FROM cost_anomalies WHERE day BETWEEN @first AND @last"
MONTHS = "SELECT * FROM cost_months"
UNALLOCATED = """
SELECT provider, service, category, currency, SUM(effective_cost) AS effective, SUM(billed_cost) AS billed
FROM cost_unallocated WHERE month = @first
GROUP BY provider, service, category, currency
"""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a breakdown: its names, such as provider and service, and costs."""

    names: tuple[str, ...]
    effective: Decimal
    billed: Decimal


@dataclass(frozen=True, slots=True)
class Forecast:
    """A provider's month to date and at its end. A past month has no days left, and its forecast is its cost."""

    provider: str
    effective: Decimal
    billed: Decimal
    last_day: date
    days_left: int
    forecast: Decimal
    low: Decimal
    high: Decimal


@dataclass(frozen=True, slots=True)
class UnitCost:
    """The cost of a model's tokens of one type."""

    provider: str
    model: str
    token_type: str
    tokens: Decimal
    effective: Decimal

    @property
    def per_1k(self) -> Decimal:
        """The cost of 1,000 tokens."""
        return self.effective * 1000 / self.tokens


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A day on which a service cost far more or less than usual."""

    day: date
    provider: str
    service: str
    cost: Decimal
    expected: Decimal


@dataclass(frozen=True, slots=True)
class Part:
    """All figures in one currency: amounts in different currencies can't be added. Breakdowns are sorted by cost."""

    currency: str
    effective: Decimal
    billed: Decimal
    listed: Decimal
    previous: Decimal | None
    """Effective cost of the month before; None if there is none."""
    days: Mapping[date, Mapping[str, Decimal]]
    """Effective cost by day and provider."""
    forecasts: Sequence[Forecast]
    services: Sequence[Line]
    models: Sequence[Line]
    teams: Sequence[Line]
    unit_costs: Sequence[UnitCost]
    anomalies: Sequence[Anomaly]
    unallocated: Sequence[Line]

    @property
    def forecast(self) -> Decimal:
        """The forecast of the month's cost, all providers together."""
        return sum((forecast.forecast for forecast in self.forecasts), ZERO)

    @property
    def forecast_range(self) -> tuple[Decimal, Decimal]:
        """The forecast if all remaining days were cheap, and if all were expensive."""
        low = sum((forecast.low for forecast in self.forecasts), ZERO)
        return low, sum((forecast.high for forecast in self.forecasts), ZERO)

    @property
    def is_running(self) -> bool:
        """Whether the month is not over yet."""
        return any(forecast.days_left for forecast in self.forecasts)

    @property
    def without_team(self) -> Decimal:
        """Effective cost that is not allocated to a team."""
        return sum((line.effective for line in self.unallocated), ZERO)


@dataclass(frozen=True, slots=True)
class MonthReport:
    """One organisation's month. ``months`` are all months with costs."""

    org: str
    month: date
    months: tuple[date, ...]
    parts: tuple[Part, ...]


def collect(query: Query, org: str, month: date | None) -> MonthReport:
    """Read a month, given by its first day; None is the last month with costs. Without costs, it has no parts."""
    rows = list(query("cost_months", MONTHS, {}))
    months = tuple(sorted({row["month"] for row in rows}))
    chosen = month or (months[-1] if months else date.today().replace(day=1))  # noqa: DTZ011 - only a heading then
    if chosen not in months:
        return MonthReport(org, chosen, months, ())
    days = {"first": chosen, "last": next_month(chosen) - timedelta(days=1)}
    results = _Results(
        {
            "days": query("cost_daily", BREAKDOWN.format(names="day, provider", more=""), days),
            "services": query("cost_daily", BREAKDOWN.format(names="provider, service", more=""), days),
            "models": query(
                "cost_daily", BREAKDOWN.format(names="provider, model", more="AND model IS NOT NULL"), days
            ),
            "teams": query("cost_daily", BREAKDOWN.format(names="team", more=""), days),
            "tokens": query("cost_per_1k_tokens", TOKENS, days),
            "anomalies": query("cost_anomalies", ANOMALIES, days),
            "unallocated": query("cost_unallocated", UNALLOCATED, {"first": chosen}),
            "months": iter(rows),
        }
    )
    currencies = sorted({row["currency"] for row in rows if row["month"] == chosen})
    return MonthReport(org, chosen, months, tuple(_part(results, currency, chosen) for currency in currencies))


class _Results:
    """The rows of all queries, by query and currency."""

    def __init__(self, queries: Mapping[str, Iterator[Mapping[str, Any]]]) -> None:
        self._rows = {name: list(rows) for name, rows in queries.items()}

    def of(self, name: str, currency: str) -> list[Mapping[str, Any]]:
        return [row for row in self._rows[name] if row["currency"] == currency]


def _part(results: _Results, currency: str, month: date) -> Part:
    daily = results.of("days", currency)
    days: dict[date, dict[str, Decimal]] = {}
    for row in sorted(daily, key=lambda row: (row["day"], row["provider"])):
        days.setdefault(row["day"], {})[row["provider"]] = row["effective"]
    months = results.of("months", currency)
    before = [row["effective_to_date"] for row in months if next_month(row["month"]) == month]
    return Part(
        currency=currency,
        effective=sum((row["effective"] for row in daily), ZERO),
        billed=sum((row["billed"] for row in daily), ZERO),
        listed=sum((row["listed"] for row in daily), ZERO),
        previous=sum(before, ZERO) if before else None,
        days=days,
        forecasts=_forecasts(row for row in months if row["month"] == month),
        services=_lines(results.of("services", currency), "provider", "service"),
        models=_lines(results.of("models", currency), "provider", "model"),
        teams=_lines(results.of("teams", currency), "team"),
        unit_costs=_unit_costs(results.of("tokens", currency)),
        anomalies=_anomalies(results.of("anomalies", currency)),
        unallocated=_lines(results.of("unallocated", currency), "provider", "service", "category"),
    )


def _lines(rows: Sequence[Mapping[str, Any]], *names: str) -> list[Line]:
    lines = [Line(tuple(row[name] or NO_TEAM for name in names), row["effective"], row["billed"]) for row in rows]
    return sorted(lines, key=lambda line: (-line.effective, line.names))


def _forecasts(rows: Iterable[Mapping[str, Any]]) -> list[Forecast]:
    forecasts = [
        Forecast(
            row["provider"],
            row["effective_to_date"],
            row["billed_to_date"],
            row["last_day"],
            row["days_left"],
            row["forecast"],
            row["forecast_low"],
            row["forecast_high"],
        )
        for row in rows
    ]
    return sorted(forecasts, key=lambda forecast: (-forecast.forecast, forecast.provider))


def _unit_costs(rows: Sequence[Mapping[str, Any]]) -> list[UnitCost]:
    costs = [
        UnitCost(row["provider"], row["model"] or "", row["token_type"] or "", row["tokens"], row["effective"])
        for row in rows
    ]
    return sorted(costs, key=lambda cost: (-cost.effective, cost.provider, cost.model, cost.token_type))


def _anomalies(rows: Sequence[Mapping[str, Any]]) -> list[Anomaly]:
    days = [Anomaly(row["day"], row["provider"], row["service"], row["cost"], row["expected"]) for row in rows]
    return sorted(days, key=lambda anomaly: (anomaly.day, anomaly.provider, anomaly.service))
