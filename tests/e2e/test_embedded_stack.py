"""The product as a process: served, killed, started again. Real emulator, real functions, real files."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.platform.paths import PROJECT_ROOT
from common.platform.settings import Settings
from infra.local.focus_export import write_focus_export
from infra.local.sandbox.server import SANDBOX_ADMIN_KEY, SandboxServer

ORG, ROUTE = "acme_corp", "genai/payg/openai"
DAYS = {"start_date": "2026-11-01", "end_date": "2026-11-03"}
DEADLINE_S = 90


@contextmanager
def hanging_server() -> Iterator[str]:
    """A provider that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"


class Served:
    """``main.py serve`` as a child process on its own state directory."""

    def __init__(self, state: Path, provider_url: str) -> None:
        environ = {**os.environ, "PIPELINE_OPS_PROVIDER_URL_OPENAI": provider_url}
        self._state = state
        self.process = subprocess.Popen(
            [sys.executable, "main.py", "--state-dir", str(state), "serve", "--port", "0"],
            cwd=PROJECT_ROOT,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=(state.parent / "serve.log").open("a"),
        )
        where = until(self._where)
        key = {"Authorization": f"Bearer {where['operator_token']}"}
        self.http = httpx2.Client(base_url=where["url"], trust_env=False, headers=key)
        self.bigquery_url: str = where["bigquery_url"]

    def _where(self) -> dict[str, Any] | None:
        assert self.process.poll() is None, (self._state.parent / "serve.log").read_text()[-2000:]
        try:
            where: dict[str, Any] = json.loads((self._state / "stack.json").read_text())
            assert (self._state / "stack.json").stat().st_mode & 0o777 == 0o600 and len(where["operator_token"]) == 64
        except (OSError, ValueError):
            return None
        return where if where["pid"] == self.process.pid else None

    def start(self) -> str:
        answer = self.http.post(f"/pipelines/run/{ORG}/{ROUTE}", json=DAYS)
        assert answer.status_code == 202, answer.text
        run_id: str = answer.json()["run_id"]
        return run_id

    def status(self, run_id: str) -> dict[str, Any]:
        run: dict[str, Any] = self.http.get(f"/pipelines/status/{ORG}/{run_id}").json()
        return run

    def ended(self, run_id: str) -> dict[str, Any]:
        return until(lambda: run if (run := self.status(run_id))["ended_at"] else None)

    def rows(self) -> list[tuple[str, ...]]:
        """All rows of the FOCUS table but for what must differ from run to run."""
        found = self._select("* EXCEPT (x_run_id, x_ingested_at, x_ingestion_date)")
        return sorted(tuple(str(value) for value in row.values()) for row in found)

    def total(self) -> Decimal:
        """SUM(BilledCost) of the FOCUS table."""
        total: Decimal = next(self._select("SUM(BilledCost) AS billed"))["billed"]
        return total

    def _select(self, columns: str) -> Iterator[dict[str, Any]]:
        settings = Settings()
        warehouse = BigQueryWarehouse(settings.project_id, location="US", emulator_url=self.bigquery_url)
        table = f"{settings.project_id}.{settings.dataset(ORG)}.cost_data_standard_1_3"
        return warehouse.query(f"SELECT {columns} FROM `{table}`")

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        """End it whatever happened: a failed test must leave no server behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def end(self) -> None:
        self.process.terminate()
        assert self.process.wait(60) == 0


def until[T](look: Callable[[], T | None]) -> T:
    """Look until there is something to see; fail after DEADLINE_S."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.05)
    raise AssertionError("not seen in time")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    subprocess.run(
        [sys.executable, "main.py", "--state-dir", str(state), "credentials", "add", ORG, "openai"],
        cwd=PROJECT_ROOT,
        input=SANDBOX_ADMIN_KEY,
        text=True,
        check=True,
        capture_output=True,
    )
    return state


def test_a_stack_killed_in_the_middle_of_extract_goes_on_at_its_next_start(state: Path) -> None:
    """SIGKILL while extract waits for the provider; the next start makes attempt 2 and the same rows."""
    with hanging_server() as url, Served(state, url) as first:
        run_id = first.start()
        until(
            lambda: steps[0] if (steps := first.status(run_id)["steps"]) and steps[0]["status"] == "running" else None
        )
        first.kill()
    with SandboxServer() as sandbox, Served(state, sandbox.url) as second:
        killed = second.ended(run_id)
        after_kill = second.rows()
        undisturbed = second.ended(second.start())
        after_rerun = second.rows()
        second.end()
    assert killed["status"] == undisturbed["status"] == "completed", (killed["error"], undisturbed["error"])
    attempts = {s["step_id"]: s["attempt"] for s in killed["steps"]}
    assert attempts.pop("extract_costs") in (1, 2), "it goes beside extract, and may not have begun"
    assert attempts == {"extract": 2, "calculate": 1, "unify": 1}
    assert len(after_kill) > 0 and after_kill == after_rerun
    assert killed["rows"] == undisturbed["rows"]


def run_bill(state: Path, source: Path, *dates: str) -> tuple[int, dict[str, Any]]:
    """``main.py run … --source``: finds the running stack by its state directory."""
    command = [sys.executable, "main.py", "--state-dir", str(state), "run", ORG, "aws/cost/billing"]
    done = subprocess.run(
        [*command, "--source", str(source), *dates, "--json"], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_bill_adds_up_in_the_table_twice_leaves_the_same_rows_and_a_broken_one_none(state: Path) -> None:
    bill = state.parent / "bill.csv.gz"
    billed = write_focus_export(bill, seed=7, first_day=date(2026, 11, 1), days=2, rows_per_day=20)
    with Served(state, "http://127.0.0.1:9/v1") as served:
        codes, runs = zip(*(run_bill(state, bill) for _ in range(2)), strict=True)
        rows, total = served.rows(), served.total()
        broken = state.parent / "broken.csv"
        broken.write_bytes(gzip.decompress(bill.read_bytes())[:-30])
        code, failed = run_bill(state, broken, "--start-date", "2026-11-01", "--end-date", "2026-11-02")
        after = served.rows()
        served.end()
    assert codes == (0, 0) and [run["status"] for run in runs] == ["completed", "completed"]
    assert (runs[0]["start_date"], runs[0]["end_date"]) == ("2026-11-01", "2026-11-02")
    assert len(rows) == runs[0]["steps"][1]["rows"] == 2 * 24 and total == billed
    assert code == 1 and failed["status"] == "failed" and "line " in failed["error"]
    assert [step["attempt"] for step in failed["steps"]] == [1, 0], "a broken file is not tried again"
    assert after == rows


def test_a_second_stack_on_one_state_directory_is_refused_in_words(state: Path) -> None:
    with SandboxServer() as sandbox, Served(state, sandbox.url) as served:
        other = subprocess.run(
            [sys.executable, "main.py", "--state-dir", str(state), "serve"],
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
        )
        served.end()
    assert other.returncode == 1 and "Another process runs a stack" in other.stderr and "Traceback" not in other.stderr


def test_one_function_is_served_alone_as_on_google_cloud(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("functions-framework")), "--target", "api", "--port", str(port)]
    token = "x" * 32
    environ = {**os.environ, "PIPELINE_OPS_STATE_DIR": str(tmp_path), "PIPELINE_OPS_OPERATOR_TOKEN": token}
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1"], cwd=PROJECT_ROOT, env=environ, stderr=subprocess.DEVNULL
    ) as api:

        def answer() -> httpx2.Response | None:
            try:
                return httpx2.get(f"http://127.0.0.1:{port}/health", trust_env=False)
            except httpx2.TransportError:
                return None

        try:
            assert until(answer).json() == {"status": "ok"}
            start, key = f"http://127.0.0.1:{port}/pipelines/run/{ORG}/{ROUTE}", {"Authorization": f"Bearer {token}"}
            assert httpx2.post(start, trust_env=False).status_code == 401
            made = httpx2.post(start, trust_env=False, headers=key)
            assert made.status_code == 202 and made.json()["status"] == "pending"
            log = f"http://127.0.0.1:{port}{made.json()['links']['logs']}/download"
            told = httpx2.get(log, trust_env=False, headers={**key, "Accept-Encoding": "gzip"})
            assert told.headers["Content-Encoding"] == "gzip" and "run pending" in told.text
        finally:
            api.terminate()


def test_an_older_python_gets_one_sentence() -> None:
    code = "import sys; sys.version_info = (3, 11, 7); sys.version = '3.11.7 (main)'; import main"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Pipeline Ops needs Python 3.13 or newer, this is 3.11.7. `make demo` finds one itself."
    ]
