"""The days of a run that nobody has dated, asked for through the API."""

from datetime import date, timedelta
from shutil import copy
from typing import Any

import pytest

from common.platform.paths import PROJECT_ROOT
from tests.harness import ROUTE, Harness, step

FILE_STEP = {
    "step_id": "only",
    "ps_type": "ExternalFileExtractor",
    "config": {
        "source": "bill.csv",
        "date_column": "ChargePeriodStart",
        "destination_table": "cloud_focus_export",
        "provider": "aws",
        "extra_column": "extra",
    },
}


def days(harness: Harness, body: dict[str, Any] | None = None) -> tuple[int, int]:
    """Start a run; return how many days ago it begins and ends."""
    request = harness.run(harness.start(body)).request
    today = harness.clock().date()
    return (today - request.start_date).days, (today - request.end_date).days


@pytest.mark.parametrize(("provider", "first"), [("openai", 4), ("gemini", 2), ("deepseek", 1), ("azure", 37)])
def test_they_are_yesterday_and_those_that_the_pipelines_provider_may_still_correct(
    harness: Harness, provider: str, first: int
) -> None:
    harness.pipeline(step("only"), provider=provider)
    assert days(harness) == (first, 1)


def test_a_date_or_a_named_file_ends_the_window(harness: Harness) -> None:
    day = harness.clock().date() - timedelta(days=2)
    assert days(harness, {"start_date": day.isoformat()}) == days(harness, {"end_date": day.isoformat()}) == (2, 2)
    assert days(harness, {"source": "bill.csv"}) == (1, 1)


def test_a_pipeline_that_reads_a_file_empties_no_day_that_the_file_need_not_hold(harness: Harness) -> None:
    (harness.configs / "schemas").mkdir()
    copy(PROJECT_ROOT / "configs" / "schemas" / "cloud_focus_export.yml", harness.configs / "schemas")
    harness.pipeline(FILE_STEP, provider="aws")
    assert days(harness) == (1, 1)
    assert harness.engine.configs.load(ROUTE)  # it is the valid pipeline of a file, not one that can't be read


def test_of_a_pipeline_that_is_not_valid_they_are_yesterday_and_the_run_tells_what_is_wrong(harness: Harness) -> None:
    harness.pipeline(step("only", nonsense=1))
    run = harness.finish(harness.start())
    assert run.request.start_date == run.request.end_date == harness.clock().date() - timedelta(days=1)
    assert run.error is not None and "nonsense" in run.error


def test_a_window_reaches_over_the_end_of_a_month(harness: Harness) -> None:
    """By hand: three days before the first of March."""
    harness.clock.tick((date(2027, 3, 2) - harness.clock().date()).days * 86400)
    request = harness.run(harness.start()).request
    assert (request.start_date, request.end_date) == (date(2027, 2, 26), date(2027, 3, 1))
