"""Plan limits from YAML, and what they admit."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partialmethod
from pathlib import Path

import pytest

from common.config.plans import YamlPlans
from common.domain.quota import LimitExceeded, Limits, Usage, exceeded, from_micro_usd, to_micro_usd
from common.platform.errors import ConfigError, NotFoundError
from common.ports import store
from common.ports.store import all_organisations

NOW = datetime(2026, 11, 30, 23, 59, 30, tzinfo=UTC)
PLANS = """
plans:
  small: {daily: 1, monthly: 2, concurrent: 3}
organisations:
  acme: {plan: small, status: TRIAL}
"""


def plans(tmp_path: Path, text: str = PLANS) -> YamlPlans:
    (tmp_path / "system").mkdir(exist_ok=True)
    (tmp_path / "system" / "plans.yml").write_text(text)
    return YamlPlans(tmp_path)


def test_an_organisation_has_its_plans_limits(tmp_path: Path) -> None:
    assert plans(tmp_path).limits("acme") == Limits("TRIAL", 1, 2, 3)


def test_organisations_are_listed_in_order_a_page_at_a_time_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"org{number:02}" for number in range(7)]
    more = "".join(f"  {name}: {{plan: small, status: CANCELLED}}\n" for name in reversed(names))
    source = plans(tmp_path, PLANS + more)
    assert [name for name, _ in source.page("acme", size=2)] == names[:2]
    assert source.page(names[-1]) == []
    monkeypatch.setattr(store, "PLANS_PAGE", 2)
    monkeypatch.setattr(YamlPlans, "page", partialmethod(YamlPlans.page, size=2))
    assert list(all_organisations(source)) == ["acme", *names]


def test_an_unknown_organisation_is_not_found_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'acme'"):
        plans(tmp_path).limits("acne")


def test_an_unknown_plan_is_a_config_error_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="plans.yml:6: organisations.lost.plan: .*Did you mean 'small'"):
        plans(tmp_path, PLANS + "  lost: {plan: smal, status: ACTIVE}\n").limits("acme")


@pytest.mark.parametrize(
    "text", ["plans: {", "[]", PLANS.replace("TRIAL", "BROKE"), PLANS.replace("daily", "dayly"), "plans: {}"]
)
def test_a_damaged_file_is_a_config_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="plans.yml"):
        plans(tmp_path, text).limits("acme")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    read = plans(tmp_path)
    read.limits("acme")
    (tmp_path / "system" / "plans.yml").write_text(PLANS.replace("daily: 1,", "daily: 100,"))
    assert read.limits("acme").daily == 100


@pytest.mark.parametrize(
    ("usage", "refused"),
    [
        (Usage(0, 0, 0, 0, 0, 0), None),
        (Usage(1, 0, 0, 0, 0, 0), LimitExceeded("daily", 1, 1, 30)),
        (Usage(1, 2, 3, 0, 0, 0), LimitExceeded("monthly", 2, 2, 30)),
        (Usage(0, 0, 3, 0, 0, 0), LimitExceeded("concurrent", 3, 3, 30)),
    ],
)
def test_the_longest_lasting_limit_is_named_with_the_seconds_until_it_passes(
    usage: Usage, refused: LimitExceeded | None
) -> None:
    assert exceeded(Limits("ACTIVE", 1, 2, 3), usage, NOW) == refused


def test_a_limit_that_was_read_before_its_source_went_away_says_so() -> None:
    refused = exceeded(Limits("ACTIVE", 1, 2, 3, as_of=NOW), Usage(1, 2, 3, 0, 0, 0), NOW)
    assert refused is not None and refused.as_of == NOW


FULL = """
global_concurrent: 40
plans:
  small: {daily: 1, monthly: 2, concurrent: 3, money_usd: "12.50", weight: 4}
organisations:
  acme: {plan: small, status: ACTIVE}
"""


def test_money_weight_and_the_deployments_limit_come_with_the_plan(tmp_path: Path) -> None:
    assert plans(tmp_path, FULL).limits("acme") == Limits("ACTIVE", 1, 2, 3, Decimal("12.50"), 4, None, 40)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"12.50"', "12.50", "plans.small.money_usd"),
        ('"12.50"', '"-1"', "plans.small.money_usd"),
        ("weight: 4", "weight: 0", "plans.small.weight"),
        ("global_concurrent: 40", "global_concurrent: 0", "global_concurrent"),
    ],
)
def test_a_wrong_limit_is_named(tmp_path: Path, old: str, new: str, field: str) -> None:
    with pytest.raises(ConfigError, match=f"plans.yml:[0-9]+: {field}"):
        plans(tmp_path, FULL.replace(old, new)).limits("acme")


FREE = Usage(0, 0, 0, 0, 0, 0)
LIMITS = Limits("ACTIVE", 9, 9, 9, Decimal("1.00"), 1, pipeline=2, global_concurrent=5)


@pytest.mark.parametrize(
    ("usage", "refused"),
    [
        (replace(FREE, pipeline=2, concurrent=9, global_concurrent=5), ("pipeline", 2, 2)),
        (replace(FREE, pipeline=1, concurrent=9, global_concurrent=5), ("concurrent", 9, 9)),
        (replace(FREE, pipeline=1, concurrent=8, global_concurrent=5), ("global", 5, 5)),
        (replace(FREE, pipeline=1, concurrent=8, global_concurrent=4), None),
        (replace(FREE, spent_usd=Decimal("0.5"), reserved_usd=Decimal("0.4")), None),
        (replace(FREE, spent_usd=Decimal("0.5"), reserved_usd=Decimal("0.400001")), ("money", 1, Decimal("0.900001"))),
    ],
)
def test_the_narrowest_slot_that_is_missing_is_named_and_money_before_it(
    usage: Usage, refused: tuple[object, ...] | None
) -> None:
    limit = exceeded(LIMITS, usage, NOW, cost_usd=Decimal("0.1"))
    assert (limit and limit[:3]) == refused


def test_money_that_is_used_up_admits_not_even_what_costs_nothing() -> None:
    assert exceeded(LIMITS, replace(FREE, spent_usd=Decimal("1.00")), NOW) is not None
    assert exceeded(LIMITS, replace(FREE, spent_usd=Decimal("0.999999")), NOW) is None


@pytest.mark.parametrize("scope", ["pipeline", "concurrent", "global"])
def test_whoever_waits_for_a_slot_is_before_a_new_run_and_not_before_one_that_waits_too(scope: str) -> None:
    usage = replace(FREE, ahead={scope: 9})
    limit = exceeded(LIMITS, usage, NOW)
    assert limit is not None and (limit.limit, limit.used, limit.waiting) == (scope, 0, 9)
    assert exceeded(LIMITS, usage, NOW, waited=True) is None


def test_an_amount_is_rounded_up_and_back_again_exactly() -> None:
    assert [to_micro_usd(Decimal(text)) for text in ("0", "0.0000001", "0.000001", "1.0000011")] == [0, 1, 1, 1_000_002]
    assert from_micro_usd(1_000_002) == Decimal("1.000002")
