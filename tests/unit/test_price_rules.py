"""An organisation's own prices: which rule holds, what it makes of a list price, and what is wrong in a file."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.config.check import validate_tree
from common.platform.errors import ConfigError
from common.platform.paths import CONFIGS
from common.processors.genai.payg_cost import GenaiPaygCost
from common.processors.genai.price_rules import PriceRules, load_price_rules
from common.processors.registry import REGISTRY
from tests.processors.context import FakeWarehouse, RecordingContext, make_context
from tests.processors.test_genai_payg_cost import PARAMS, usage

DAY = date(2026, 11, 18)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "configs" / "system" / "prices").mkdir(parents=True)
    return tmp_path / "configs"


def rules(folder: Path, *items: str, organisation: str = "globex") -> PriceRules:
    lines = "\n".join(f"  - {{{item}}}" for item in items)
    (folder / "system" / "prices" / "globex.yml").write_text(
        f"organisation: {organisation}\nrules:\n{lines}\n", "utf-8"
    )
    return load_price_rules(folder, "globex")


def refusal(folder: Path, *items: str, **more: str) -> str:
    with pytest.raises(ConfigError) as caught:
        rules(folder, *items, **more)
    return str(caught.value).removeprefix("configs/system/prices/globex.yml:")


def price_of(found: PriceRules, **more: Any) -> Decimal | None:
    asked = {"provider": "openai", "model": "gpt-4o", "meter": "output_text", "variant": "standard", "day": DAY} | more
    rule = found.find(**asked)
    return None if rule is None else rule.price(Decimal("0.00001"))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ('unit_price: "8", per: 1000000', "0.000008"),
        ('unit_price: "0.008", per: 1000', "0.000008"),
        ('unit_price: "0.000008"', "0.000008"),
        ('discount_percent: "12.5"', "0.00000875"),  # 0.00001 x 0.875
        ('discount_percent: "100"', "0"),
        ('unit_price: "0"', "0"),
    ],
)
def test_a_price_is_that_of_one_unit_and_a_discount_is_taken_off_the_list_price(
    folder: Path, rule: str, expected: str
) -> None:
    assert price_of(rules(folder, f"provider: openai, {rule}")) == Decimal(expected)


@pytest.mark.parametrize(
    ("rule", "more", "fits"),
    [
        ("model: gpt-4o", {}, True),
        ("model: gpt-4o", {"model": "gpt-4o-mini"}, False),
        ("model: gpt-4o*", {"model": "gpt-4o-mini"}, True),
        ("model: gpt-4o*", {"model": None}, False),
        ("meter: output_text", {}, True),
        ("meter: output_text", {"meter": "input_text"}, False),
        ("variant: batch", {}, False),
        ("variant: batch", {"variant": "batch"}, True),
        ("meter: output_text", {"provider": "anthropic"}, False),
        ('from: "2026-11-18", to: "2026-11-18"', {}, True),
        ('from: "2026-11-19"', {}, False),
        ('to: "2026-11-17"', {}, False),
        ("meter: sessions", {"model": None, "meter": "sessions"}, True),
    ],
)
def test_a_rule_is_for_what_it_names(folder: Path, rule: str, more: dict[str, Any], fits: bool) -> None:
    assert (price_of(rules(folder, f'provider: openai, {rule}, unit_price: "1"'), **more) is not None) is fits


def test_the_first_rule_that_fits_holds(folder: Path) -> None:
    found = rules(folder, 'provider: openai, model: gpt-4o, unit_price: "1"', 'provider: openai, unit_price: "2"')
    assert (price_of(found), price_of(found, model="gpt-5")) == (1, 2)


def test_an_organisation_without_a_file_has_list_prices(folder: Path) -> None:
    assert load_price_rules(folder, "acme_corp").rules == ()


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("provider: openai", "3: rules[0]: needs either unit_price or discount_percent"),
        ('provider: openai, unit_price: "1", discount_percent: "1"', "3: rules[0]: needs either"),
        ("provider: openai, unit_price: 0.5", "must be a number in quotes"),
        ('provider: openai, unit_price: "-1"', "rules[0].unit_price: "),
        ('provider: openai, unit_price: "NaN"', "rules[0].unit_price: "),
        ('provider: openai, discount_percent: "101"', "rules[0].discount_percent: "),
        ('provider: openai, unit_price: "1", per: 10', "rules[0].per: must be one of 1, 1000 or 1000000"),
        ('provider: openai, discount_percent: "1", per: 1000', "per applies to unit_price only"),
        ('provider: opennai, unit_price: "1"', "Did you mean 'openai'?"),
        ('provider: openai, modle: x, unit_price: "1"', "unknown key. Did you mean 'model'?"),
        ('provider: openai, unit_price: "1", from: "2026-02-30"', "rules[0].from: "),
        ('provider: openai, unit_price: "1", from: "2026-02-02", to: "2026-02-01"', "is before from"),
    ],
)
def test_what_is_wrong_in_a_rule_is_told_with_its_line(folder: Path, rule: str, says: str) -> None:
    assert says in refusal(folder, rule)


def test_a_file_is_of_the_organisation_that_it_is_named_after(folder: Path) -> None:
    says = refusal(folder, 'provider: openai, unit_price: "1"', organisation="acme_corp")
    assert says == "1: organisation: must be 'globex', the name of its file."


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("meter: output_text", "meter: output_text"),
        ("note: all", "model: gpt-4o"),
        ("model: gpt-4*", "model: gpt-4o"),
        ("model: gpt-4*", "model: gpt-4o*"),
        ('from: "2026-01-01"', 'from: "2026-02-01", to: "2026-02-03"'),
    ],
)
def test_a_rule_that_never_has_a_turn_is_refused(folder: Path, first: str, second: str) -> None:
    one, two = (f'provider: openai, {rule}, unit_price: "1"' for rule in (first, second))
    assert refusal(folder, one, two) == (
        "4: rules[1]: is never used: the rule in line 3 matches the same usage. Put this rule first."
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("model: gpt-4o", "model: gpt-4*"),
        ('to: "2026-01-31"', 'from: "2026-02-01"'),
        ('from: "2026-02-01", to: "2026-02-28"', 'from: "2026-02-01"'),
        ("variant: batch", "meter: output_text"),
    ],
)
def test_rules_that_both_have_a_turn_are_right(folder: Path, first: str, second: str) -> None:
    one, two = (f'provider: openai, {rule}, unit_price: "1"' for rule in (first, second))
    assert len(rules(folder, one, two).rules) == 2


def test_validate_looks_at_price_files(tmp_path: Path) -> None:
    results = {result.path: result for result in validate_tree(CONFIGS, REGISTRY)}
    assert results["configs/system/prices/acme_corp.yml"].ok


# What becomes of them on a row. gpt-4o costs 2.50 a million tokens in, 10 out (OpenAI's price list).


def priced(folder: Path, *rows: dict[str, Any]) -> tuple[list[Any], RecordingContext]:
    context = make_context(warehouse=FakeWarehouse(rows), org_slug="globex", configs=folder)
    return [row for batch in GenaiPaygCost().run(context, PARAMS) for row in batch.rows], context


def test_a_negotiated_rate_is_what_is_paid_and_the_list_price_stays_beside_it(folder: Path) -> None:
    rules(folder, 'provider: openai, model: gpt-4o, meter: input_text, unit_price: "2", per: 1000000, note: c-17')
    (row, other), context = priced(folder, usage("input_text", 1_000_000), usage("output_text", 1_000_000))
    assert (row["cost"], row["list_cost"], row["price_source"]) == (2, Decimal("2.5"), "prices of globex: c-17")
    assert (other["cost"], other["list_cost"], other["price_source"]) == (10, 10, "genai-prices 0.2.3")
    assert context.warnings == []


def test_a_discount_has_the_day_of_its_rule(folder: Path) -> None:
    rules(folder, 'provider: openai, from: "2026-11-01", discount_percent: "20"')
    (row,), _ = priced(folder, usage("input_text", 1_000_000))
    assert (row["cost"], row["list_cost"], row["price_date"]) == (2, Decimal("2.5"), date(2026, 11, 1))


def test_a_price_for_what_no_list_has_is_list_price_as_well(folder: Path) -> None:
    rules(folder, 'provider: openai, meter: sessions, unit_price: "0.03"')
    sessions = usage("sessions", 5, None, endpoint="code_interpreter_sessions")
    (row,), context = priced(folder, sessions)
    assert (row["cost"], row["list_cost"], context.warnings) == (Decimal("0.15"), Decimal("0.15"), [])


def test_a_discount_on_a_price_that_nobody_knows_is_no_price(folder: Path) -> None:
    rules(folder, 'provider: openai, discount_percent: "20"')
    (row,), context = priced(folder, usage("input_text", 5, "gpt-unknown"))
    assert row["cost"] is None and "does not know the model" in context.warnings[0]


def test_what_the_provider_states_is_not_overruled(folder: Path) -> None:
    rules(folder, 'provider: openai, unit_price: "7"')
    stated = usage("input_text", 1, stated_price=Decimal(3), stated_currency="USD")
    (row,), _ = priced(folder, stated)
    assert (row["cost"], row["price_source"]) == (3, "stated by OpenAI")


def test_a_file_that_is_wrong_fails_the_step_in_words(folder: Path) -> None:
    (folder / "system" / "prices" / "globex.yml").write_text("organisation: globex\n")
    with pytest.raises(ConfigError, match=r"globex.yml:1: rules: is required"):
        priced(folder, usage("input_text", 1))


def test_the_prices_of_one_organisation_are_never_those_of_another(folder: Path) -> None:
    rules(folder, 'provider: openai, unit_price: "7"')
    context = make_context(
        warehouse=FakeWarehouse([usage("input_text", 1_000_000)]), org_slug="acme_corp", configs=folder
    )
    (row,) = (row for batch in GenaiPaygCost().run(context, PARAMS) for row in batch.rows)
    assert row["cost"] == Decimal("2.5")
