"""What the product promises of pipelines, from end to end: configs, order of steps, processors, lineage, idempotency.

``pytest tests/05_test_pipelines.py -v`` is the gate of a change. Each promise is walked once here, in the words of the
requirements (``docs/requirements.md``); the corner cases are in the folders beside this file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from common.config.check import validate_tree
from common.config.loader import ConfigTree
from common.platform.errors import ConfigError, TransientError
from common.platform.paths import CONFIGS
from common.processors.registry import PROCESSORS, REGISTRY, processor
from common.runs.topics import step_topic
from infra.local.emulator import BigQueryEmulator
from infra.local.host import SUBSCRIPTIONS
from infra.local.sandbox.server import SandboxServer
from tests.bills import BILLS, Bill, deepseek_export
from tests.conftest import PROJECT
from tests.harness import ORG, ROUTE, Harness, Shipped, step

FOCUS = "cost_data_standard_1_3"
LINEAGE = (
    *("x_org_slug", "x_pipeline_id", "x_credential_id", "x_pipeline_run_date"),
    *("x_run_id", "x_ingested_at", "x_ingestion_date"),
)

# Configs


def test_every_pipeline_that_the_requirements_name_is_shipped_and_valid() -> None:
    results = validate_tree(CONFIGS, REGISTRY)
    assert [str(problem) for result in results for problem in result.problems] == []
    assert {result.route for result in results} >= {
        *(f"genai/payg/{provider}" for provider in ("openai", "anthropic", "gemini", "deepseek")),
        *(f"{cloud}/cost/billing" for cloud in ("gcp", "aws", "azure", "oci")),
        "genai/unified/consolidate",
        "subscription/costs/subscription_cost",
    }


OF_A_PIPELINE = ("pipeline_id", "name", "description", "provider", "domain", "version", "schedule", "steps")
OF_A_STEP = ("step_id", "ps_type", "config", "depends_on", "timeout_seconds")
OF_A_RETRY = ("max_attempts", "backoff_seconds")


@pytest.mark.parametrize("name", [*OF_A_PIPELINE, *OF_A_STEP, *OF_A_RETRY])
def test_a_config_may_have_each_field_of_the_requirements_and_no_misspelt_one(harness: Harness, name: str) -> None:
    """Nothing that somebody wrote into a config is ever ignored."""
    path = harness.pipeline(step("a"), step("b", "a", timeout_seconds=60), schedule="0 6 * * *")
    tree = ConfigTree(harness.configs, REGISTRY)
    assert tree.load(ROUTE).config.steps[1].timeout_seconds == 60
    text = path.read_text()
    assert f"{name}:" in text
    path.write_text(text.replace(f"{name}:", f"{name}x:", 1))
    with pytest.raises(ConfigError, match=rf"configs/{ROUTE}\.yml:\d+: .*{name}x"):
        tree.load(ROUTE)


# One run, step by step


def test_a_run_goes_the_way_that_the_requirements_describe(harness: Harness) -> None:
    """Request, quota and reservation, config, steps in order, retry, and the end that settles what was reserved."""
    templates = "{org_slug} ${project_id} ${org_dataset} ${start_date} ${credential_id} ${pipeline_id} ${run_id}"
    worked: list[tuple[str, int, str]] = []

    def work(context: Any, params: Any) -> None:
        worked.append((context.step_id, context.attempt, params.note))
        if (context.step_id, context.attempt) == ("calculate", 1):
            raise TransientError("The provider does not answer.")

    harness.script("work", work)
    harness.pipeline(
        step("unify", "calculate", "costs", script="work"),
        step("calculate", "extract", script="work", attempts=2, backoff=30),
        step("costs", "extract", script="work"),
        step("extract", script="work", note=templates),
    )
    run_id = harness.start({"start_date": "2026-11-01", "end_date": "2026-11-02"})
    assert (used(harness)["concurrent"], used(harness)["daily"]) == (1, 1)
    run = harness.finish(run_id)

    names = [name for name, _, _ in worked]
    assert names[0] == "extract" and names[-1] == "unify", "each after all that it depends on"
    assert sorted(worked[1:-1]) == [("calculate", 1, ""), ("calculate", 2, ""), ("costs", 1, "")]
    dataset = harness.engine.settings.dataset(ORG)
    assert worked[0][2] == f"{ORG} pipeline-ops-local {dataset} 2026-11-01 cred_openai test_demo_pipeline {run_id}"

    changes = harness.http("GET", f"/pipelines/logs/{ORG}/{run_id}/transitions").json["transitions"]
    assert [c["to"] for c in changes if c["step_id"] is None] == ["pending", "validating", "running", "completed"]
    assert {name: s.attempt for name, s in run.steps.items()} == {"extract": 1, "costs": 1, "calculate": 2, "unify": 1}
    assert (used(harness)["concurrent"], used(harness)["completed"], used(harness)["failed"]) == (0, 1, 0)


def used(harness: Harness) -> dict[str, int]:
    """What the API says of the organisation's use."""
    answer = harness.http("GET", f"/pipelines/usage/{ORG}").json
    return {limit["limit"]: limit["used"] for limit in answer["limits"]} | answer["ended_this_month"]


def test_a_step_is_retried_never_earlier_than_its_backoff_and_no_more_often_than_it_may(harness: Harness) -> None:
    began: list[Any] = []

    def fail(context: Any, _params: Any) -> None:
        began.append(harness.clock.now)
        raise TransientError("The provider does not answer.")

    harness.script("fail", fail)
    harness.pipeline(step("extract", script="fail", attempts=3, backoff=45), step("load", "extract"), step("beside"))
    run = harness.finish(harness.start())
    assert len(began) == 3
    assert all(later - sooner >= timedelta(seconds=45) for sooner, later in pairwise(began))
    assert {name: str(s.status) for name, s in run.steps.items()} == {
        "extract": "failed",
        "load": "omitted",
        "beside": "succeeded",
    }
    assert str(run.status) == "failed" and "extract: The provider does not answer." in run.error


class Killed(BaseException):
    """Stands for the end of a process: nothing of its own runs after it."""


def test_an_attempt_that_is_never_heard_of_again_is_given_up_at_its_timeout(harness: Harness) -> None:
    attempts: list[int] = []

    def vanish(context: Any, _params: Any) -> None:
        attempts.append(context.attempt)
        if context.attempt == 1:
            raise Killed

    harness.script("vanish", vanish)
    harness.pipeline(step("only", script="vanish", attempts=2, timeout_seconds=120))
    run_id = harness.start()
    with pytest.raises(Killed):
        harness.drain()
    harness.clock.tick(119)
    harness.engine.sweep()
    assert str(harness.run(run_id).steps["only"].status) == "running", "it has its whole time"
    assert str(harness.finish(run_id).status) == "completed" and attempts == [1, 2]


# Processors, lineage and idempotency: shipped pipelines on bills with known sums


@pytest.mark.parametrize(
    "ps_type",
    ["genai.payg_usage", "genai.payg_cost", "generic.procedure_executor", "ExternalBqExtractor", "GcpApiExtractor"],
)
def test_every_processor_type_of_the_requirements_has_a_function_of_its_own(ps_type: str) -> None:
    """A slow provider holds up the steps of its own type alone."""
    assert ps_type in PROCESSORS and callable(processor(ps_type).run)
    listeners = [topic for topic, name in SUBSCRIPTIONS.items() if name == SUBSCRIPTIONS[step_topic(ps_type)]]
    assert listeners == [step_topic(ps_type)]


@dataclass(frozen=True)
class Brought:
    """A shipped pipeline, the bill it has brought in, and its rows of each table after the first and the second run."""

    route: str
    pipeline_id: str
    credential_id: str
    bill: Bill
    tables: tuple[str, ...]
    runs: list[str] = field(default_factory=list)
    rows: list[dict[str, list[dict[str, Any]]]] = field(default_factory=list)

    def total(self, table: str, column: str, after: int = -1) -> Decimal:
        return sum((row[column] for row in self.rows[after][table]), Decimal(0))


BROUGHT = (
    Brought(
        "aws/cost/billing", "cloud_aws_cost_billing", "none", BILLS["focus_1_0.csv"], ("cloud_focus_export", FOCUS)
    ),
    Brought(
        "genai/payg/deepseek",
        "genai_deepseek_payg",
        "cred_deepseek",
        BILLS["deepseek"],
        ("genai_payg_usage", "genai_payg_cost", "genai_reported_cost", FOCUS),
    ),
)


@pytest.fixture(scope="module")
def brought(
    bigquery_emulator: BigQueryEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Brought]]:
    """Run each of them twice, on the same tables."""
    folder = tmp_path_factory.mktemp("shipped")
    with SandboxServer(rate_limit_every=0) as sandbox:
        shipped = Shipped(folder, PROJECT, bigquery_emulator.url, {"deepseek": sandbox.urls["deepseek"]})
        shipped.credential("cred_deepseek", "deepseek", sandbox.secrets["deepseek"])
        sources = {
            "aws/cost/billing": shipped.land(BILLS["focus_1_0.csv"].path),
            "genai/payg/deepseek": shipped.land(deepseek_export(folder)),
        }
        for _ in range(2):
            for one in BROUGHT:
                first, last = (day.isoformat() for day in one.bill.days)
                body = {"start_date": first, "end_date": last, "source": sources.get(one.route)}
                run = shipped.completed(one.route, {name: value for name, value in body.items() if value})
                one.runs.append(run.run_id)
            for one in BROUGHT:
                one.rows.append({table: shipped.rows(table, one.pipeline_id) for table in one.tables})
    yield {one.route: one for one in BROUGHT}


ROUTES = [one.route for one in BROUGHT]


@pytest.mark.parametrize("route", ROUTES)
def test_a_bill_has_the_rows_and_the_sums_in_the_focus_table_that_were_added_up_by_hand(
    brought: dict[str, Brought], route: str
) -> None:
    one = brought[route]
    money = {column: amount for column, amount in one.bill.sums.items() if column.endswith("Cost")}
    assert money and {column: one.total(FOCUS, column) for column in money} == money
    if route != "genai/payg/deepseek":  # there, a row is a meter's or a credit's
        assert len(one.rows[-1][FOCUS]) == one.bill.rows


def test_usage_times_price_is_what_the_provider_says_it_costs(brought: dict[str, Brought]) -> None:
    """genai.payg_usage counts, genai.payg_cost multiplies: 1,000, 20,000 and 4,000 tokens at three prices."""
    one, sums = brought["genai/payg/deepseek"], BILLS["deepseek"].sums
    assert one.total("genai_payg_usage", "quantity") == sums["quantity"]
    assert one.total("genai_payg_cost", "cost") == sums["cost"]
    assert one.total("genai_reported_cost", "amount") == sums["amount"]


@pytest.mark.parametrize("route", ROUTES)
def test_every_row_of_every_table_has_all_seven_lineage_fields(brought: dict[str, Brought], route: str) -> None:
    one = brought[route]
    first, last = one.bill.days
    for table in one.tables:
        for row in one.rows[-1][table]:
            assert {name for name in LINEAGE if row[name] is None} == set(), table
            assert (row["x_org_slug"], row["x_pipeline_id"]) == (ORG, one.pipeline_id)
            assert row["x_credential_id"] == one.credential_id
            assert first <= row["x_pipeline_run_date"] <= last
            assert row["x_run_id"] == one.runs[-1]
            assert row["x_ingestion_date"] == row["x_ingested_at"].astimezone(UTC).date()


@pytest.mark.parametrize("route", ROUTES)
def test_a_second_run_leaves_the_same_rows_and_no_duplicate(brought: dict[str, Brought], route: str) -> None:
    """Its rows replace those of the first one, by organisation, pipeline, credential and day."""
    one = brought[route]
    for table in one.tables:
        before, after = (sorted(map(content, rows[table])) for rows in one.rows)
        assert before == after and len(after) > 0
    assert one.runs[0] != one.runs[1]


def content(row: dict[str, Any]) -> str:
    """A row without what must differ from run to run."""
    return repr({name: value for name, value in row.items() if name not in LINEAGE[4:]})
