"""Our cost beside the provider's: what is told, what is an alarm, and how the program ends."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from common.cli import genai
from common.cli.main import cli
from common.focus.reconcile import Line, compare

DAY, NEXT = date(2026, 11, 18), date(2026, 11, 19)


def row(amount: str, subject: str = "gpt-4o", day: date = DAY, unpriced: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "provider": "openai",
        "day": day,
        "currency": "USD",
        "subject": subject,
        "amount": Decimal(amount),
        "unpriced": unpriced,
        **more,
    }


def lines(ours: list[dict[str, Any]], reported: list[dict[str, Any]], threshold: str = "1") -> list[Line]:
    return list(compare(ours, reported, Decimal(threshold)))


@pytest.mark.parametrize(
    ("ours", "reported", "threshold", "is_alarm"),
    [
        ("100", "100", "0", False),
        ("101", "100", "1", False),  # just the threshold
        ("101.01", "100", "1", True),
        ("98.99", "100", "1", True),
        ("100.009", "100", "0", False),  # less than a cent
        ("100.01", "100", "0", True),
        ("1", "0", "1", True),  # nothing is reported for it
        ("0", "1", "1", True),
        ("0", "0.009", "1", False),
        ("-2", "-1", "1", True),  # a credit
    ],
)
def test_an_alarm_is_a_difference_beyond_the_threshold_of_at_least_a_cent(
    ours: str, reported: str, threshold: str, is_alarm: bool
) -> None:
    (line,) = lines([row(ours)], [row(reported)], threshold)
    assert line.is_alarm is is_alarm
    assert line.difference == Decimal(ours) - Decimal(reported)


def test_the_share_is_that_of_what_is_reported() -> None:
    (line,) = lines([row("90")], [row("100")])
    assert line.percent == -10
    assert lines([row("90")], [row("100")])[0].difference == -10
    assert lines([row("1"), row("1", "b")], [row("1", "b")])[1].percent is None


def test_what_one_side_has_alone_is_told() -> None:
    found = lines([row("1", "gpt-4o"), row("0", "images", unpriced=3)], [row("1", "gpt-4o"), row("2", "storage")])
    assert [(line.subject, line.ours, line.reported, line.unpriced) for line in found] == [
        ("gpt-4o", 1, 1, 0),
        ("images", 0, 0, 3),
        ("storage", 0, 2, 0),
    ]


def test_a_day_that_the_provider_has_not_reported_is_no_alarm() -> None:
    told, untold = lines([row("5"), row("5", day=NEXT)], [row("5")])
    assert (told.reported, untold.reported) == (5, None)
    assert not untold.is_alarm and untold.difference is None


def test_currencies_and_providers_are_never_compared_with_each_other() -> None:
    found = lines([row("5", currency="CNY"), row("5", provider="deepseek")], [row("5")])
    assert [(line.provider, line.currency, line.reported) for line in found] == [
        ("deepseek", "USD", None),
        ("openai", "CNY", 0),
        ("openai", "USD", 5),
    ]


class Tables:
    """Answers the query of each table with its rows."""

    def __init__(self, **rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.params: list[Mapping[str, Any]] = []

    def query(self, sql: str, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        self.params.append(params)
        yield from (found for name, rows in self.rows.items() if f"`{name}`" in sql for found in rows)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Tables:
    found = Tables(genai_payg_cost=[row("99")], genai_reported_cost=[row("100")])

    @contextmanager
    def reading(*_: Any) -> Iterator[Any]:
        yield found, lambda name: name

    monkeypatch.setattr(genai, "_reading", reading)
    return found


def run(tmp_path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--state-dir", str(tmp_path), *arguments])


def test_reconcile_ends_with_1_and_an_alarm_line_beyond_the_threshold(tmp_path: Path, tables: Tables) -> None:
    fine = run(tmp_path, "reconcile", "acme_corp", "--threshold", "1%")
    assert fine.exit_code == 0 and "ALARM" not in fine.output
    wrong = run(tmp_path, "reconcile", "acme_corp", "--threshold", "0.5")
    assert wrong.exit_code == 1
    assert "ALARM openai 2026-11-18 gpt-4o: ours 99 USD, reported 100, difference -1, -1.00 %" in wrong.output


def test_reconcile_as_json_has_every_digit(tmp_path: Path, tables: Tables) -> None:
    tables.rows["genai_payg_cost"] = [row("99.000000000000000001")]
    result = run(tmp_path, "reconcile", "acme_corp", "--json", "--from", "2026-11-01", "--to", "2026-11-30")
    told = json.loads(result.output)
    assert told["ok"] is True and told["lines"][0]["difference"] == "-0.999999999999999999"
    assert tables.params[0] == {"org": "acme_corp", "first": date(2026, 11, 1), "last": date(2026, 11, 30)}


@pytest.mark.parametrize("threshold", ["-1", "101", "NaN", "a lot", ""])
def test_a_threshold_is_a_share(tmp_path: Path, tables: Tables, threshold: str) -> None:
    result = run(tmp_path, "reconcile", "acme_corp", "--threshold", threshold)
    assert result.exit_code == 2 and "percentage from 0% to 100%" in result.output


def test_days_in_the_wrong_order_are_refused(tmp_path: Path, tables: Tables) -> None:
    result = run(tmp_path, "reconcile", "acme_corp", "--from", "2026-11-02", "--to", "2026-11-01")
    assert result.exit_code == 1 and "--from 2026-11-02 is after --to 2026-11-01" in result.output


MISSING = {
    "provider": "openai",
    "model": "gpt-new",
    "meter": "input_text",
    "variant": "standard",
    "unit": "Tokens",
    "quantity": Decimal("12E3"),
    "days": 2,
    "first": DAY,
    "last": NEXT,
}


def test_missing_prices_are_listed_and_end_with_1(tmp_path: Path, tables: Tables) -> None:
    tables.rows["genai_payg_cost"] = [MISSING]
    result = run(tmp_path, "prices", "missing", "acme_corp")
    assert result.exit_code == 1
    assert all(text in result.output for text in ("gpt-new", "input_text", "12000", "2026-11-19"))
    told = json.loads(run(tmp_path, "prices", "missing", "acme_corp", "--json").output)
    assert told["missing"] == [MISSING | {"quantity": "12000", "first": "2026-11-18", "last": "2026-11-19"}]


def test_without_missing_prices_the_program_says_so_and_ends_with_0(tmp_path: Path, tables: Tables) -> None:
    tables.rows["genai_payg_cost"] = []
    result = run(tmp_path, "prices", "missing", "acme_corp")
    assert result.exit_code == 0 and "has a price" in result.output


def test_an_organisation_that_there_is_not_needs_no_warehouse(tmp_path: Path) -> None:
    result = run(tmp_path, "prices", "missing", "acme_cor")
    assert result.exit_code == 1 and "no organisation 'acme_cor'" in result.output
