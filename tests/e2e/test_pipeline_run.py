"""``pytest --run-integration``: from a config file to rows in BigQuery, on the embedded stack as a user starts it.

A pipeline is written and validated, the stack serves it over HTTP, its usage is fetched from a provider's API (a
sandbox that refuses a request now and then), priced, written to BigQuery, and read back.
"""

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from common.config.check import validate_tree
from common.platform.paths import CONFIGS
from common.platform.settings import Settings
from common.ports.secrets import CredentialInfo
from common.processors.registry import REGISTRY
from infra.local.sandbox.server import SANDBOX_ADMIN_KEY, SandboxServer
from infra.local.stack import EmbeddedStack
from tests.harness import ORG

pytestmark = pytest.mark.integration

ROUTE = "openai/payg/embeddings"
FIRST, LAST = date(2026, 11, 1), date(2026, 11, 2)
DEADLINE_S = 120
PIPELINE = {
    "pipeline_id": "openai_embeddings",
    "name": "Embeddings",
    "description": "What this organisation's embeddings cost",
    "provider": "openai",
    "domain": "payg",
    "version": "1.0",
    "steps": [
        {
            "step_id": "extract",
            "ps_type": "genai.payg_usage",
            "config": {"provider": "openai", "endpoints": ["embeddings"], "destination_table": "genai_payg_usage"},
            "write": {"on_empty": "replace"},
            "retry": {"max_attempts": 3, "backoff_seconds": 1},
        },
        {
            "step_id": "calculate",
            "ps_type": "genai.payg_cost",
            "depends_on": ["extract"],
            "config": {"source_table": "genai_payg_usage", "destination_table": "genai_payg_cost"},
        },
        {
            "step_id": "unify",
            "ps_type": "generic.procedure_executor",
            "depends_on": ["calculate"],
            "config": {
                "procedure": "sp_convert_to_focus",
                "source_table": "genai_payg_cost",
                "arguments": [""],
                "destination_table": "cost_data_standard_1_3",
            },
        },
    ],
}


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped tree, and one pipeline more."""
    root = tmp_path / "configs"
    shutil.copytree(CONFIGS, root)
    path = root / f"{ROUTE}.yml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(PIPELINE, sort_keys=False))
    monkeypatch.setenv("PIPELINE_OPS_CONFIGS", str(root))
    return root


@pytest.fixture
def stack(tmp_path: Path, configs: Path) -> Iterator[EmbeddedStack]:
    with SandboxServer() as sandbox:
        settings = Settings(state_dir=tmp_path / "state", configs=configs, provider_urls={"openai": sandbox.url})
        with EmbeddedStack(settings) as stack:
            info = CredentialInfo(ORG, "cred_openai", "openai", datetime.now(UTC))
            stack.engine.credentials.add(info, SANDBOX_ADMIN_KEY)
            yield stack


def completed(api: httpx2.Client) -> dict[str, Any]:
    """Run the pipeline; return its status once it has ended."""
    answer = api.post(f"/pipelines/run/{ORG}/{ROUTE}", json={"start_date": str(FIRST), "end_date": str(LAST)})
    assert answer.status_code == 202, answer.text
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        run: dict[str, Any] = api.get(answer.json()["links"]["status"]).json()
        if run["ended_at"]:
            assert run["status"] == "completed", run["error"]
            return run
        time.sleep(0.05)
    raise AssertionError(f"not ended within {DEADLINE_S} s")


def rows(stack: EmbeddedStack, table: str, columns: str) -> list[dict[str, Any]]:
    settings = stack.engine.settings
    name = f"{settings.project_id}.{settings.dataset(ORG)}.{table}"
    return list(stack.engine.attempts.warehouse().query(f"SELECT {columns} FROM `{name}`"))


def counted(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("x_pipeline_run_date", "model", "meter", "quantity"))


def test_a_pipeline_from_its_config_to_rows_in_bigquery_and_again(configs: Path, stack: EmbeddedStack) -> None:
    problems = [str(problem) for result in validate_tree(configs, REGISTRY) for problem in result.problems]
    assert problems == []

    with httpx2.Client(
        base_url=stack.url, trust_env=False, timeout=30, headers={"Authorization": f"Bearer {stack.token}"}
    ) as api:
        first = completed(api)
        assert [(step["step_id"], step["status"]) for step in first["steps"]] == [
            (name, "succeeded") for name in ("extract", "calculate", "unify")
        ]

        # Extract: what the provider reported. Transform: each meter at its price. Write: the same money in FOCUS.
        usage = rows(stack, "genai_payg_usage", "x_pipeline_run_date, model, meter, quantity")
        costs = rows(stack, "genai_payg_cost", "x_pipeline_run_date, model, meter, quantity, unit_price, cost")
        focus = rows(stack, "cost_data_standard_1_3", "* EXCEPT (x_run_id, x_ingested_at, x_ingestion_date)")
        assert {row["x_pipeline_run_date"] for row in usage} == {FIRST, LAST}
        assert Counter(map(counted, costs)) == Counter(map(counted, usage))
        assert all(row["cost"] == row["quantity"] * row["unit_price"] for row in costs)
        billed = sum((row["BilledCost"] for row in focus), Decimal(0))
        assert billed == sum((row["cost"] for row in costs), Decimal(0)) > 0
        assert first["rows"] == len(usage) + len(costs) + len(focus)

        log = api.get(f"/pipelines/logs/{ORG}/{first['run_id']}").json()["lines"]
        assert {line["step_id"] for line in log} >= {"extract", "calculate", "unify"}

        second = completed(api)
        again = rows(stack, "cost_data_standard_1_3", "* EXCEPT (x_run_id, x_ingested_at, x_ingestion_date)")
        assert second["run_id"] != first["run_id"]
        assert sorted(map(repr, again)) == sorted(map(repr, focus))
