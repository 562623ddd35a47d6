"""The figures of a report, one part for each currency. Decimals as they are in the table: nothing is rounded here."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from common.domain.dates import next_month

Query = Callable[[str, str, Mapping[str, Any]], Iterator[Mapping[str, Any]]]
"""Asks a view: its name, a SELECT from it, and the parameters of that."""

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
    """A line of a breakdown: what it is of, and its costs."""

    names: tuple[str, ...]
    effective: Decimal
    billed: Decimal


@dataclass(frozen=True, slots=True)
class Forecast:
    """A provider's month: so far, and at its end. What is over has no days left, and its forecast is what it cost."""

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
    """What tokens of a model and type have cost."""

    provider: str
    model: str
    token_type: str
    tokens: Decimal
    effective: Decimal

    @property
    def per_1k(self) -> Decimal:
        """What 1,000 of them cost."""
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
    """All of one currency. Breakdowns are sorted, the dearest first."""

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
        """What the month will have cost, all providers together."""
        return sum((one.forecast for one in self.forecasts), ZERO)

    @property
    def forecast_range(self) -> tuple[Decimal, Decimal]:
        """The forecast if all providers had cheap days, or dear ones."""
        low = sum((one.low for one in self.forecasts), ZERO)
        return low, sum((one.high for one in self.forecasts), ZERO)

    @property
    def is_running(self) -> bool:
        """Whether the month is not over yet."""
        return any(one.days_left for one in self.forecasts)

    @property
    def without_team(self) -> Decimal:
        """Effective cost that no team answers for."""
        return sum((line.effective for line in self.unallocated), ZERO)


@dataclass(frozen=True, slots=True)
class MonthReport:
    """One organisation's month. ``months`` are those that there is data of."""

    org: str
    month: date
    months: tuple[date, ...]
    parts: tuple[Part, ...]


def collect(ask: Query, org: str, month: date | None) -> MonthReport:
    """Read a month (its first day; None: the last that has data). Without data, a report has no parts."""
    rows = list(ask("cost_months", MONTHS, {}))
    months = tuple(sorted({row["month"] for row in rows}))
    chosen = month or (months[-1] if months else date.today().replace(day=1))  # noqa: DTZ011 - only a heading then
    if chosen not in months:
        return MonthReport(org, chosen, months, ())
    days = {"first": chosen, "last": next_month(chosen) - timedelta(days=1)}
    answers = _Answers(
        {
            "days": ask("cost_daily", BREAKDOWN.format(names="day, provider", more=""), days),
            "services": ask("cost_daily", BREAKDOWN.format(names="provider, service", more=""), days),
            "models": ask("cost_daily", BREAKDOWN.format(names="provider, model", more="AND model IS NOT NULL"), days),
            "teams": ask("cost_daily", BREAKDOWN.format(names="team", more=""), days),
            "tokens": ask("cost_per_1k_tokens", TOKENS, days),
            "anomalies": ask("cost_anomalies", ANOMALIES, days),
            "unallocated": ask("cost_unallocated", UNALLOCATED, {"first": chosen}),
            "months": iter(rows),
        }
    )
    currencies = sorted({row["currency"] for row in rows if row["month"] == chosen})
    return MonthReport(org, chosen, months, tuple(_part(answers, currency, chosen) for currency in currencies))


class _Answers:
    """The rows of all questions, by question and currency."""

    def __init__(self, answers: Mapping[str, Iterator[Mapping[str, Any]]]) -> None:
        self._rows = {name: list(rows) for name, rows in answers.items()}

    def of(self, name: str, currency: str) -> list[Mapping[str, Any]]:
        return [row for row in self._rows[name] if row["currency"] == currency]


def _part(answers: _Answers, currency: str, month: date) -> Part:
    daily = answers.of("days", currency)
    days: dict[date, dict[str, Decimal]] = {}
    for row in sorted(daily, key=lambda row: (row["day"], row["provider"])):
        days.setdefault(row["day"], {})[row["provider"]] = row["effective"]
    months = answers.of("months", currency)
    before = [row["effective_to_date"] for row in months if next_month(row["month"]) == month]
    return Part(
        currency=currency,
        effective=sum((row["effective"] for row in daily), ZERO),
        billed=sum((row["billed"] for row in daily), ZERO),
        listed=sum((row["listed"] for row in daily), ZERO),
        previous=sum(before, ZERO) if before else None,
        days=days,
        forecasts=_forecasts(row for row in months if row["month"] == month),
        services=_lines(answers.of("services", currency), "provider", "service"),
        models=_lines(answers.of("models", currency), "provider", "model"),
        teams=_lines(answers.of("teams", currency), "team"),
        unit_costs=_unit_costs(answers.of("tokens", currency)),
        anomalies=_anomalies(answers.of("anomalies", currency)),
        unallocated=_lines(answers.of("unallocated", currency), "provider", "service", "category"),
    )


def _lines(rows: Sequence[Mapping[str, Any]], *names: str) -> list[Line]:
    lines = [Line(tuple(row[name] or NO_TEAM for name in names), row["effective"], row["billed"]) for row in rows]
    return sorted(lines, key=lambda line: (-line.effective, line.names))


def _forecasts(rows: Iterable[Mapping[str, Any]]) -> list[Forecast]:
    found = [
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
    return sorted(found, key=lambda one: (-one.forecast, one.provider))


def _unit_costs(rows: Sequence[Mapping[str, Any]]) -> list[UnitCost]:
    found = [
        UnitCost(row["provider"], row["model"] or "", row["token_type"] or "", row["tokens"], row["effective"])
        for row in rows
    ]
    return sorted(found, key=lambda one: (-one.effective, one.provider, one.model, one.token_type))


def _anomalies(rows: Sequence[Mapping[str, Any]]) -> list[Anomaly]:
    found = [Anomaly(row["day"], row["provider"], row["service"], row["cost"], row["expected"]) for row in rows]
    return sorted(found, key=lambda one: (one.day, one.provider, one.service))
