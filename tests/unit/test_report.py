"""The report: figures put together by currency, charts that are to scale, and a page that hostile names can't harm."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest

from common.focus.report import svg
from common.focus.report.data import Anomaly, Forecast, Line, MonthReport, Part, UnitCost, collect
from common.focus.report.page import ROWS, amount, html, share

MONTH, DAY = date(2026, 10, 1), date(2026, 10, 5)
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</svg><style>*{display:none}</style>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;b&gt; & ' \" `",
]
UNPRINTABLE = "a\x00b\x1b[31m\u202eevil\ud800"


def part(**changes: Any) -> Part:
    one = Part(
        currency="USD",
        effective=Decimal("30.5"),
        billed=Decimal("31"),
        listed=Decimal("40"),
        previous=Decimal("20"),
        days={DAY: {"A": Decimal(20), "B": Decimal("10.5")}},
        forecasts=[
            Forecast("A", Decimal(20), Decimal(20), DAY, 26, Decimal(100), Decimal(80), Decimal(120)),
            Forecast("B", Decimal("10.5"), Decimal(11), DAY, 26, Decimal(50), Decimal(50), Decimal(50)),
        ],
        services=[
            Line(("A", "Machines"), Decimal(20), Decimal(20)),
            Line(("B", "Models"), Decimal("10.5"), Decimal(11)),
        ],
        models=[Line(("B", "gpt"), Decimal("10.5"), Decimal(11))],
        teams=[Line(("shop",), Decimal(20), Decimal(20)), Line(("no team",), Decimal("10.5"), Decimal(11))],
        unit_costs=[UnitCost("B", "gpt", "output_text", Decimal(4000), Decimal("0.01"))],
        anomalies=[Anomaly(DAY, "A", "Machines", Decimal(20), Decimal(2))],
        unallocated=[Line(("B", "Models", "Usage"), Decimal("10.5"), Decimal(11))],
    )
    return replace(one, **changes)


def page(*parts: Part) -> str:
    return html(MonthReport("acme", MONTH, (MONTH,), parts), "2026-10-06 00:00 UTC")


class Read(HTMLParser):
    """All elements of a page with their attributes, and all of its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_is_shown_as_it_is_and_does_nothing(text: str) -> None:
    line = Line((text,), Decimal(1), Decimal(1))
    found = page(
        part(
            days={DAY: {text: Decimal(1)}},
            forecasts=[Forecast(text, Decimal(1), Decimal(1), DAY, 1, Decimal(1), Decimal(1), Decimal(2))],
            services=[replace(line, names=(text, text))],
            teams=[line],
            models=[replace(line, names=(text, text))],
            unit_costs=[UnitCost(text, text, text, Decimal(1), Decimal(1))],
            anomalies=[Anomaly(DAY, text, text, Decimal(9), Decimal(1))],
            unallocated=[replace(line, names=(text, text, text))],
        )
    )
    read = Read(found)
    innocent = Read(page(part()))
    assert {name for name, _ in read.elements} <= {name for name, _ in innocent.elements}
    assert read.count("style") == 1 and read.text.count(text) >= 8
    assert not [name for _, attributes in read.elements for name in attributes if name.startswith("on")]


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    read = Read(page(part()))
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & {name for name, _ in read.elements}
    assert not [a for _, attributes in read.elements for a in attributes if a in ("src", "href", "xlink:href", "style")]
    (policy,) = [a["content"] for name, a in read.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert "http:" not in page(part()) and "https:" not in page(part()) and "url(" not in page(part())


def test_characters_that_no_page_may_hold_or_that_turn_text_around_are_replaced() -> None:
    found = page(part(teams=[Line((UNPRINTABLE,), Decimal(1), Decimal(1))]))
    assert "a\ufffdb\ufffd[31m\ufffdevil\ufffd" in Read(found).text
    found.encode("utf-8")


def test_every_chart_has_a_title_a_description_and_a_table_beside_it() -> None:
    found = page(part())
    charts = [ET.fromstring(piece[: piece.index("</svg>")] + "</svg>") for piece in _pieces(found)]
    assert len(charts) == 7
    for chart in charts:
        assert chart.get("role") == "img" and chart.get("aria-label")
        assert chart.findtext("title") and chart.findtext("desc")
    assert Read(found).count("table") == len(charts) + 1, "that of anomalies has no chart"


def _pieces(found: str) -> list[str]:
    return ["<svg" + piece for piece in found.split("<svg")[1:]]


def test_both_colour_schemes_define_every_colour_that_charts_use() -> None:
    found = page(part())
    light, _, dark = found.partition("prefers-color-scheme: dark")
    for name in [*(f"s{number}" for number in range(1, svg.COLOURS + 1)), "other", "none"]:
        assert f"--{name}:" in light and f"--{name}:" in dark and f".{name} {{" in found


def test_the_exact_figure_stands_behind_the_one_that_is_shown() -> None:
    exact = Decimal("1234.567890123456789")
    found = page(part(teams=[Line(("shop",), exact, exact)]))
    assert '<data value="1234.567890123456789">1,234.57</data>' in found


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0", "0.00"),
        ("1234567.891", "1,234,567.89"),
        ("-1.005", "-1.00"),
        ("0.0001234567", "0.0001235"),
        ("0.000009", "0.000009"),
        ("-0.5", "-0.50"),
    ],
)
def test_an_amount_is_shown_with_two_decimals_or_up_to_four_digits(value: str, shown: str) -> None:
    assert amount(Decimal(value)) == shown


def test_a_share_of_nothing_is_no_share() -> None:
    assert (share(Decimal(1), Decimal(8)), share(Decimal(1), Decimal(0))) == ("12.5 %", "–")


def test_a_long_breakdown_ends_with_the_sum_of_the_others() -> None:
    lines = [Line((f"team {number}",), Decimal(100 - number), Decimal(1)) for number in range(ROWS + 3)]
    read = Read(page(part(teams=lines)))
    assert "3 others" in read.text and f"team {ROWS - 1}" in read.text and f"team {ROWS}" not in read.text
    assert amount(sum((line.effective for line in lines[ROWS:]), Decimal(0))) in read.text


def test_many_providers_share_the_last_colour() -> None:
    names = [f"provider {number}" for number in range(12)]
    forecasts = [Forecast(n, Decimal(1), Decimal(1), DAY, 0, Decimal(1), Decimal(1), Decimal(1)) for n in names]
    found = page(part(days={DAY: dict.fromkeys(names, Decimal(1))}, forecasts=forecasts))
    row = found[found.index('<td class="day">2026-10-05</td>') :].split("</tr>")[0]
    assert row.count("<td") == 10 and '<data value="5">5.00</data>' in row and '<data value="12">' in row


def test_a_month_without_costs_says_which_months_have_some() -> None:
    found = html(MonthReport("acme", MONTH, (date(2026, 8, 1), date(2026, 9, 1)), ()), "now")
    assert "There are no costs in this month. Months with costs: August 2026 to September 2026." in Read(found).text
    assert "<table" not in found


def test_a_month_that_is_over_has_no_forecast() -> None:
    over = [replace(one, days_left=0) for one in part().forecasts]
    assert "Forecast, end of month" in page(part()) and "Forecast, end of month" not in page(part(forecasts=over))


def _rects(markup: str) -> list[tuple[str, float, float, float, float]]:
    found = ET.fromstring(markup).iter("rect")
    return [(r.get("class", ""), *(float(r.get(n, "")) for n in ("x", "y", "width", "height"))) for r in found]  # type: ignore[misc]


def test_bars_are_as_long_as_their_values_and_negative_ones_end_at_nought() -> None:
    chart = svg.bars([svg.Bar("a", Decimal(100), "100"), svg.Bar("b", Decimal(-50), "-50", "s2")], "t", "d")
    (first, second) = _rects(chart)
    assert first[3] == pytest.approx(2 * second[3], abs=0.2)
    assert second[1] + second[3] == pytest.approx(first[1], abs=0.2), "both meet at nought"


def test_the_parts_of_a_day_lie_upon_one_another_and_credits_hang_below_nought() -> None:
    days = {DAY: {"A": Decimal(60), "B": Decimal(40), "C": Decimal(-50)}}
    rects = {r[0]: r for r in _rects(svg.stacked_days(days, svg.colours(["A", "B", "C"]), {}, "d"))}
    a, b, c = rects["s1"], rects["s2"], rects["s3"]
    assert b[2] + b[4] == pytest.approx(a[2], abs=0.2), "B ends where A begins"
    assert a[2] + a[4] == pytest.approx(c[2], abs=0.2), "C hangs from nought"
    assert a[4] == pytest.approx(1.5 * b[4], abs=0.2) and c[4] == pytest.approx(1.25 * b[4], abs=0.2)


def test_a_marked_day_has_a_sign_that_says_why() -> None:
    chart = ET.fromstring(svg.stacked_days({DAY: {"A": Decimal(1)}}, {"A": "s1"}, {DAY: "why"}, "d"))
    assert len(list(chart.iter("polygon"))) == 1
    assert any((title.text or "").endswith("why") for title in chart.iter("title"))


@pytest.mark.parametrize("values", [[], ["0"], ["1e-12"], ["-1e-12"], ["1e15", "-1e15"], ["0.3"]])
def test_any_figures_make_a_chart(values: list[str]) -> None:
    rows = [svg.Bar(value, Decimal(value), value) for value in values]
    for _, x, _, width, _ in _rects(svg.bars(rows, "t", "d")):
        assert x >= 0 and x + width <= svg.WIDTH
    ET.fromstring(svg.stacked_days({DAY: {v: Decimal(v) for v in values}}, svg.colours(values), {}, "d"))
    ET.fromstring(svg.stacked_days({}, {}, {}, "d"))


class Asked:
    """Answers of views, and what was asked of them."""

    def __init__(self, **answers: list[dict[str, Any]]) -> None:
        self._answers = answers
        self.params: list[Mapping[str, Any]] = []

    def __call__(self, view: str, select: str, params: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        self.params.append(params)
        key = next(
            (name for name in ("day, provider", "provider, service", "provider, model", "team") if name in select), ""
        )
        return iter(self._answers.get(f"{view} {key}".strip() if view == "cost_daily" else view, []))


def month_row(currency: str, month: date, provider: str, cost: str, forecast: str) -> dict[str, Any]:
    figures = dict.fromkeys(("effective_to_date", "billed_to_date", "forecast_low", "forecast_high"), Decimal(cost))
    more = {"forecast": Decimal(forecast), "days_left": 1, "last_day": DAY}
    return {"currency": currency, "month": month, "provider": provider, **figures, **more}


def cost_row(currency: str, cost: str, **names: Any) -> dict[str, Any]:
    return {"currency": currency, **names, **dict.fromkeys(("effective", "billed", "listed"), Decimal(cost))}


def test_currencies_are_kept_apart_and_the_last_month_with_data_is_shown() -> None:
    september = date(2026, 9, 1)
    ask = Asked(
        cost_months=[
            month_row("USD", september, "A", "7", "7"),
            month_row("USD", MONTH, "A", "10", "30"),
            month_row("USD", MONTH, "B", "1", "40"),
            month_row("EUR", MONTH, "A", "5", "6"),
        ],
        **{
            "cost_daily day, provider": [
                cost_row("USD", "10", day=DAY, provider="A"),
                cost_row("USD", "1", day=DAY, provider="B"),
                cost_row("EUR", "5", day=DAY, provider="A"),
            ],
            "cost_daily team": [cost_row("USD", "1", team="x"), cost_row("USD", "10", team=None)],
        },
    )
    report = collect(ask, "acme", None)
    assert (report.month, report.months) == (MONTH, (september, MONTH))
    assert ask.params[1] == {"first": MONTH, "last": date(2026, 10, 31)}
    euro, dollar = report.parts
    assert (euro.currency, euro.effective, euro.previous) == ("EUR", 5, None)
    assert (dollar.currency, dollar.effective, dollar.previous, dollar.forecast) == ("USD", 11, 7, 70)
    assert [one.provider for one in dollar.forecasts] == ["B", "A"], "the dearest first"
    assert [line.names for line in dollar.teams] == [("no team",), ("x",)]
    assert collect(ask, "acme", date(2026, 8, 1)).parts == ()


def test_the_month_before_january_is_december() -> None:
    january, december = date(2027, 1, 1), date(2026, 12, 1)
    ask = Asked(cost_months=[month_row("USD", december, "A", "7", "7"), month_row("USD", january, "A", "1", "2")])
    assert collect(ask, "acme", january).parts[0].previous == 7


def test_what_a_program_gets_is_exact() -> None:
    from common.cli.report import _plain

    plain = json.loads(json.dumps(_plain(part()), default=str))
    assert plain["unit_costs"][0]["per_1k"] == "0.0025" and plain["days"] == {"2026-10-05": {"A": "20", "B": "10.5"}}
    assert (plain["forecast"], plain["low"], plain["high"], plain["without_team"]) == ("150", "130", "170", "10.5")
