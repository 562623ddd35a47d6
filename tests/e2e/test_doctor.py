"""``main.py doctor`` on the emulator: the same command as on a real project."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.adapters.bigquery.doctor.probes import PROBES
from common.platform.paths import PROJECT_ROOT
from infra.local.emulator import BigQueryEmulator
from tests.conftest import PROJECT


def command(bigquery_server: BigQueryEmulator, folder: Path, *args: str) -> tuple[list[str], dict[str, str]]:
    environ = {**os.environ, "BIGQUERY_EMULATOR_HOST": bigquery_server.url, "PIPELINE_OPS_STATE_DIR": str(folder)}
    return [sys.executable, "main.py", "doctor", "--project", PROJECT, *args], environ


def run(bigquery_server: BigQueryEmulator, folder: Path, *args: str, answer: str = "") -> Any:
    program, environ = command(bigquery_server, folder, *args)
    return subprocess.run(
        program, cwd=PROJECT_ROOT, env=environ, input=answer, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def datasets(bigquery_emulator: BigQueryEmulator) -> Iterator[Any]:
    client = BigQueryWarehouse(PROJECT, location="US", emulator_url=bigquery_emulator.url).connection.client
    return lambda: {one.dataset_id for one in client.list_datasets()}


def test_everything_that_the_product_does_holds_on_the_emulator_and_nothing_is_left(
    bigquery_emulator: BigQueryEmulator, datasets: Any, tmp_path: Path
) -> None:
    before = datasets()
    done = run(bigquery_emulator, tmp_path, "--yes", "--json")
    found = json.loads(done.stdout)
    others = {one["name"]: (one["status"], one["seen"]) for one in found["probes"] if one["status"] != "held"}
    assert others == {
        "location": ("unchecked", "the emulator has no locations"),
        "permissions": ("unchecked", "the emulator has no permissions"),
    }
    assert done.returncode == 0 and found["ok"] and not found["interrupted"]
    assert [one["name"] for one in found["probes"]] == [*(probe.name for probe in PROBES), "clean_up"]
    assert found["emulator"] == bigquery_emulator.url and found["bytes_billed"] == 0
    assert sum(one["jobs"] for one in found["probes"]) > 30
    assert datasets() == before


def test_it_asks_first_and_a_no_makes_nothing(
    bigquery_emulator: BigQueryEmulator, datasets: Any, tmp_path: Path
) -> None:
    before = datasets()
    done = run(bigquery_emulator, tmp_path, answer="n\n")
    assert done.returncode == 1 and "Go on?" in done.stdout and "at most $0.06" in done.stdout
    assert datasets() == before
    done = run(bigquery_emulator, tmp_path, "--json")
    assert done.returncode == 2 and "add --yes" in done.stderr


def test_an_interrupt_removes_what_was_made(bigquery_emulator: BigQueryEmulator, datasets: Any, tmp_path: Path) -> None:
    before = datasets()
    program, environ = command(bigquery_emulator, tmp_path, "--yes")
    with subprocess.Popen(
        program, cwd=PROJECT_ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stderr is not None and started.stdout is not None
        for line in started.stderr:
            if line.startswith("table "):
                assert len(datasets()) == len(before) + 1
                started.send_signal(signal.SIGINT)
                break
        told, more = started.communicate(timeout=120)
    assert started.returncode == 130 and "interrupted" in told
    assert "clean_up" in told and datasets() == before, told + more


def test_a_dataset_with_tables_is_refused_and_left_alone_and_an_empty_one_stays(
    bigquery_emulator: BigQueryEmulator, datasets: Any, tmp_path: Path
) -> None:
    warehouse = BigQueryWarehouse(PROJECT, location="US", emulator_url=bigquery_emulator.url)
    warehouse.tables.make_dataset(f"{PROJECT}.full")
    warehouse.connection.client.create_table(f"{PROJECT}.full.precious")
    done = run(bigquery_emulator, tmp_path, "--dataset", "full", "--yes")
    assert done.returncode == 1 and "has tables or procedures" in done.stdout and "nothing was made" in done.stderr
    assert warehouse.tables.find(f"{PROJECT}.full.precious") is not None

    warehouse.tables.make_dataset(f"{PROJECT}.given")
    done = run(bigquery_emulator, tmp_path, "--dataset", "given", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "given" in datasets() and list(warehouse.connection.client.list_tables(f"{PROJECT}.given")) == []
    assert list(warehouse.connection.client.list_routines(f"{PROJECT}.given")) == []
