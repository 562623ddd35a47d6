"""What a run is going to cost: a dry run where one tells, else the last run, else the least."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.domain.model import MapSpec, Run, RunRequest, StepSpec
from common.meta.costs import TIB
from common.platform.errors import PermanentError
from common.platform.settings import Settings
from common.runs.estimate import Estimator

PRICES = """
source: a page
read_on: "2026-11-21"
usd_per_tib: {US: "6.25"}
floor_usd_per_run: "0.001"
"""
PROVIDERS = """
providers:
  openai: {display_name: OpenAI, base_url: "https://x.example", usd_per_call: "0.01"}
"""
REQUEST = RunRequest("run_1", "acme", "a/b/c", date(2026, 11, 1), date(2026, 11, 8), datetime(2026, 11, 21, tzinfo=UTC))
PROCEDURE = {"procedure": "sp_do", "source_table": "s", "destination_table": "d", "arguments": ["x"]}
USAGE = {"provider": "openai", "endpoints": ["completions", "embeddings"], "destination_table": "t"}


class DryRuns:
    """Answers dry runs with what it is given, in order."""

    def __init__(self, *answers: int | Exception | None) -> None:
        self.answers, self.asked = list(answers), list[tuple[str, tuple[Any, ...]]]()

    def dry_run_bytes(self, procedure: str, args: Any) -> int | None:
        self.asked.append((procedure, tuple(args)))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def run_of(*specs: StepSpec) -> Run:
    return Run(REQUEST, pipeline_id="pipe", credential_id="cred", specs=specs)


def call(number: int = 1, **more: Any) -> StepSpec:
    return StepSpec(f"call{number}", "generic.procedure_executor", config=PROCEDURE, **more)


def usage(**more: Any) -> StepSpec:
    return StepSpec("usage", "genai.payg_usage", config=USAGE, **more)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "system").mkdir()
    (tmp_path / "system" / "bigquery_prices.yml").write_text(PRICES)
    (tmp_path / "system" / "providers.yml").write_text(PROVIDERS)
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "sp_do.sql").touch()
    return Settings(project_id="proj-ect", location="US", configs=tmp_path)


def estimated(settings: Settings, run: Run, last: str | None = None, *answers: int | Exception | None) -> Any:
    warehouse: Any = DryRuns(*answers)
    return Estimator(settings, lambda: warehouse)(run, None if last is None else Decimal(last)), warehouse.asked


def test_the_bytes_of_every_procedures_dry_run_are_priced_on_top_of_the_least(settings: Settings) -> None:
    found, asked = estimated(settings, run_of(call(1), call(2)), "99", TIB // 2, TIB // 2)
    assert (found.queries_usd, found.calls_usd) == (Decimal("6.251"), 0) and "dry run" in found.source
    assert asked[0] == (
        "proj-ect.acme_local.sp_do",
        (
            "proj-ect.acme_local.s",
            "proj-ect.acme_local.d__staging",
            "acme",
            "pipe",
            "cred",
            REQUEST.start_date,
            REQUEST.end_date,
            "x",
        ),
    )


@pytest.mark.parametrize("silent", [None, PermanentError("there is no such procedure yet")])
def test_where_one_dry_run_says_nothing_it_is_what_the_last_run_has_cost(settings: Settings, silent: Any) -> None:
    found, _ = estimated(settings, run_of(call(1), call(2)), "0.75", 100, silent)
    assert (found.usd, found.source) == (Decimal("0.75"), "as the last run cost")


def test_of_a_first_run_that_no_dry_run_tells_about_it_is_the_least(settings: Settings) -> None:
    found, _ = estimated(settings, run_of(call()), None, None)
    assert found.usd == Decimal("0.001") and "the least" in found.source


def test_a_run_without_procedures_asks_for_no_dry_run(settings: Settings) -> None:
    found, asked = estimated(settings, run_of(usage()), "0.75")
    assert asked == [] and found.usd == Decimal("0.75")


def test_a_procedure_that_is_called_for_each_item_of_a_list_has_no_known_cost(settings: Settings) -> None:
    found, asked = estimated(settings, run_of(call(map=MapSpec("a.outputs.x"))), "0.75")
    assert asked == [] and found.usd == Decimal("0.75")


def test_calls_are_counted_by_endpoint_and_page_and_are_part_of_what_the_last_run_has_cost(settings: Settings) -> None:
    found, _ = estimated(settings, run_of(usage()), "0.75")
    assert (found.calls_usd, found.queries_usd) == (Decimal("0.04"), Decimal("0.71"))  # 2 endpoints, 8 days, 7 a page
    found, _ = estimated(settings, run_of(usage()), None)
    assert (found.calls_usd, found.queries_usd) == (Decimal("0.04"), Decimal("0.001"))


def test_a_location_without_a_price_asks_for_no_dry_run(settings: Settings) -> None:
    elsewhere = Settings(project_id="proj-ect", location="mars-east1", configs=settings.configs)
    found, asked = estimated(elsewhere, run_of(call()), "0.75")
    assert asked == [] and found.usd == Decimal("0.75")


def test_an_estimate_is_rounded_up_to_a_millionth(settings: Settings) -> None:
    found, _ = estimated(settings, run_of(call()), None, 1)
    assert found.queries_usd == Decimal("0.001001")
