"""``main.py verify`` on both example pipelines' tables, beside a running stack and without one."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from common.adapters.bigquery import BigQueryWarehouse
from common.cli.client import ApiClient
from common.cli.main import cli
from common.platform.logs import logger
from common.platform.settings import Settings
from common.ports.secrets import CredentialInfo
from infra.local.sandbox.server import SANDBOX_ADMIN_KEY, SandboxServer
from infra.local.stack import EmbeddedStack

ORG = "acme_corp"
DAYS = {"start_date": "2026-11-01", "end_date": "2026-11-02"}


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    handlers = list(logger.handlers)
    yield Settings(state_dir=tmp_path / "state")
    logger.handlers[:] = handlers


def verify(settings: Settings, *args: str) -> Result:
    return CliRunner().invoke(cli, ["--state-dir", str(settings.state_dir), "verify", *args])


def test_it_finds_nothing_then_what_was_tampered_with_and_says_how_to_mend_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SandboxServer(seed=7) as sandbox:
        served = replace(settings, provider_urls={"openai": sandbox.url})
        with EmbeddedStack(served) as stack:
            stack.engine.credentials.add(
                CredentialInfo(ORG, "cred_openai", "openai", datetime.now(UTC)), SANDBOX_ADMIN_KEY
            )
            client = ApiClient(stack.url, stack.token)
            run_id = client.start(ORG, "genai/payg/openai", DAYS)["run_id"]
            ended = client.watch(ORG, run_id, lambda _: None)
            assert ended["status"] == "completed", ended
            assert stack.engine.settings.bigquery_url
            right = verify(settings, run_id)
            _tamper(served, stack.engine.settings.bigquery_url, ended["steps"][0]["table"])
            wrong = verify(settings, run_id)
    assert right.exit_code == 0, right.output
    assert "4 receipts checked: nothing wrong" in right.output
    assert wrong.exit_code == 1
    assert f"main.py rerun {ORG} {run_id} --step extract" in wrong.output

    every = verify(settings, "--all", "--org", ORG, "--json")
    assert every.exit_code == 1, every.output
    report: dict[str, Any] = json.loads(every.stdout)
    found = [(f["kind"], f["run_id"], f["step_id"]) for f in report["findings"] if f["is_wrong"]]
    assert (report["ok"], report["receipts_checked"], found) == (False, 4, [("missing", run_id, "extract")])

    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:9")
    nowhere = verify(settings, run_id)
    assert nowhere.exit_code == 1 and "no answer" in nowhere.output
    assert "unset BIGQUERY_EMULATOR_HOST" in nowhere.output


def _tamper(settings: Settings, url: str, table: str) -> None:
    warehouse = BigQueryWarehouse(settings.project_id, location="US", emulator_url=url)
    list(warehouse.query(f"DELETE FROM `{table}` WHERE x_pipeline_run_date = DATE '2026-11-02'"))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "Name a run, or use --all."),
        (("run_1", "--all"), "Name a run, or use --all."),
        (("run_1", "--org", ORG), "--org needs --all"),
    ],
)
def test_what_is_asked_has_to_be_clear(settings: Settings, args: tuple[str, ...], says: str) -> None:
    asked = verify(settings, *args)
    assert asked.exit_code == 2 and says in asked.output


def test_a_run_or_an_organisation_that_there_is_not_is_said_in_a_sentence(settings: Settings) -> None:
    asked = verify(settings, "run_nowhere")
    assert asked.exit_code == 1 and "Error: Not found (404): There is no run 'run_nowhere'." in asked.output
    asked = verify(settings, "--all", "--org", "acme_cor")
    assert asked.exit_code == 1 and "Did you mean 'acme_corp'?" in asked.output
