"""The days of a run that nobody has dated."""

from datetime import UTC, date, datetime

import pytest

from common.config.providers import load_providers
from common.paths import configs_dir
from common.processors.sources import known
from common.restatement import default_days, restatement_days

NOW = datetime(2026, 3, 2, 0, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("days", "first"), [(0, date(2026, 3, 1)), (1, date(2026, 2, 28)), (3, date(2026, 2, 26)), (60, date(2025, 12, 31))]
)
def test_yesterday_and_what_may_still_be_corrected(days: int, first: date) -> None:
    assert default_days(NOW, days) == (first, date(2026, 3, 1))


def test_a_provider_says_itself_how_long_it_corrects() -> None:
    providers = load_providers(configs_dir())
    assert restatement_days(providers, "openai") == restatement_days(providers, "anthropic") == 3
    assert restatement_days(providers, "deepseek") == 0  # its export is read by hand, whole
    assert restatement_days(providers, "nobody") == 0


@pytest.mark.parametrize("key", known())
def test_every_provider_with_a_module_is_registered_with_its_address_and_what_to_paste(key: str) -> None:
    its = load_providers(configs_dir())[key]
    assert its.base_url and its.credential_hint and its.limits and its.auth != "none"
