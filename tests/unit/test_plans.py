"""Plan limits from YAML, and what they admit."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.config.plans import YamlPlans
from common.domain.quota import Limits, Usage, exceeded
from common.errors import ConfigError, NotFoundError

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
    ("usage", "hit"),
    [
        (Usage(0, 0, 0, 0, 0, 0), None),
        (Usage(1, 0, 0, 0, 0, 0), ("daily", 1, 1, 30, 0)),
        (Usage(1, 2, 3, 0, 0, 0), ("monthly", 2, 2, 30, 0)),
        (Usage(0, 0, 3, 0, 0, 0), ("concurrent", 3, 3, 30, 0)),
    ],
)
def test_the_longest_lasting_limit_is_named_with_the_seconds_until_it_passes(
    usage: Usage, hit: tuple[str, int, int, int, int] | None
) -> None:
    assert exceeded(Limits("ACTIVE", 1, 2, 3), usage, NOW) == hit
