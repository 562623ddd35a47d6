"""``main.py run --bigquery-project``, with the endpoint pointed at an emulator in the project's place."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from common.adapters.bigquery import BigQueryWarehouse
from common.platform.paths import PROJECT_ROOT
from infra.local.emulator import BigQueryEmulator
from infra.local.sandbox.server import SANDBOX_ADMIN_KEY, SandboxServer
from tests.conftest import PROJECT

ORG = "acme_corp"


def test_a_run_and_its_verification_are_in_the_project_in_a_dataset_of_the_user(
    bigquery_emulator: BigQueryEmulator, tmp_path: Path
) -> None:
    with SandboxServer(0, rate_limit_every=0) as sandbox:
        environ = {
            **os.environ,
            "BIGQUERY_EMULATOR_HOST": bigquery_emulator.url,
            "PIPELINE_OPS_PROVIDER_URL_OPENAI": sandbox.urls["openai"],
            "LOGNAME": "jane",
        }

        def main(*args: str, stdin: str = "") -> Any:
            program = [sys.executable, "main.py", "--state-dir", str(tmp_path / "state"), *args]
            return subprocess.run(
                program,
                cwd=PROJECT_ROOT,
                env=environ,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )

        added = main("credentials", "add", ORG, "openai", stdin=SANDBOX_ADMIN_KEY + "\n")
        assert added.returncode == 0, added.stderr
        days = ("--start-date", "2026-11-01", "--end-date", "2026-11-01")
        started = ("run", ORG, "genai/payg/openai", *days, "--bigquery-project", PROJECT, "--yes", "--json")
        done = main(*started)
        assert done.returncode == 0, done.stdout + done.stderr
        verified = main("verify", json.loads(done.stdout)["run_id"], "--json")
    assert verified.returncode == 0 and json.loads(verified.stdout)["receipts_checked"] > 0
    assert not (tmp_path / "state" / "bigquery").exists()
    client = BigQueryWarehouse(PROJECT, location="US", emulator_url=bigquery_emulator.url).connection.client
    assert [one.dataset_id for one in client.list_datasets() if one.dataset_id.startswith(ORG)] == [f"{ORG}_local_jane"]
