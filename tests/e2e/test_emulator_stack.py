"""The whole product on Google's own Firestore and Pub/Sub emulators: real clients, real pushes over HTTP."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from common.platform.paths import CONFIGS
from common.platform.settings import Settings
from common.ports.secrets import CredentialInfo
from common.processors import registry
from infra.local.emulator_stack import EmulatorStack
from infra.local.google_emulators import sdk_root
from infra.local.sandbox.server import SANDBOX_ADMIN_KEY, SandboxServer
from tests.fakes import Scripted
from tests.harness import ORG, PROVIDERS, PS_TYPE, SYSTEM

ROUTE = "genai/payg/openai"
DAYS = {"start_date": "2026-11-01", "end_date": "2026-11-03"}
DEADLINE_S = 120


@pytest.fixture(autouse=True)
def emulators_are_installed() -> None:
    try:
        sdk_root()
    except Exception as error:
        pytest.skip(f"needs Google's emulators: {error}")


def until[T](look: Callable[[], T | None]) -> T:
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        found = look()
        if found is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {DEADLINE_S} s")


class Running:
    """A stack in this process, and its API over HTTP."""

    def __init__(self, stack: EmulatorStack) -> None:
        self.stack = stack
        key = {"Authorization": f"Bearer {stack.token}"}
        self.http = httpx2.Client(base_url=stack.url, trust_env=False, timeout=30, headers=key)

    def post(self, path: str, body: Any) -> dict[str, Any]:
        answer = self.http.post(path, json=body)
        assert answer.status_code in (200, 202), answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ended(self, run_id: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            run: dict[str, Any] = self.http.get(f"/pipelines/status/{ORG}/{run_id}").json()
            return run if run["ended_at"] else None

        return until(look)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start stacks that end with the test."""
    stacks: list[EmulatorStack] = []

    def start(**settings: Any) -> Running:
        stack = EmulatorStack(replace(Settings(state_dir=tmp_path / "state"), **settings))
        stacks.append(stack)
        stack.start()
        stack.engine.credentials.add(CredentialInfo(ORG, "cred_openai", "openai", datetime.now(UTC)), SANDBOX_ADMIN_KEY)
        return Running(stack)

    yield start
    for stack in stacks:
        stack.stop()


def test_a_pipeline_runs_from_request_to_rows_and_its_history_can_be_read(running: Callable[..., Running]) -> None:
    with SandboxServer() as sandbox:
        found = running(provider_urls={"openai": sandbox.url})
        run = found.ended(found.post(f"/pipelines/run/{ORG}/{ROUTE}", DAYS)["run_id"])
    assert run["status"] == "completed", run["error"]
    assert all(step["status"] == "succeeded" for step in run["steps"])
    engine = found.stack.engine
    table = f"{engine.settings.project_id}.{engine.settings.dataset(ORG)}.cost_data_standard_1_3"
    (total,) = engine.attempts.warehouse().query(f"SELECT COUNT(*) AS n, SUM(BilledCost) AS billed FROM `{table}`")
    assert total["n"] == run["steps"][-1]["rows"] > 0 and total["billed"] > Decimal(0)
    states = found.http.get(f"/pipelines/logs/{ORG}/{run['run_id']}/transitions").json()["transitions"]
    of_run = [change["to"] for change in states if change["step_id"] is None]
    assert of_run == ["pending", "validating", "running", "completed"]
    usage = engine.store.usage(ORG, engine.now())
    assert (usage.concurrent, usage.completed, usage.daily) == (0, 1, 1)


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Configs in which every step is scripted, and no warehouse."""
    monkeypatch.setitem(registry.PROCESSORS, PS_TYPE, "tests.fakes:Scripted")
    monkeypatch.setattr(Scripted, "scripts", {})
    registry.processor.cache_clear()
    configs = tmp_path / "configs"
    (configs / "system").mkdir(parents=True)
    (configs / "system" / "plans.yml").write_text(yaml.safe_dump(SYSTEM["plans.yml"]))
    (configs / "system" / "providers.yml").write_text(PROVIDERS.read_text())
    yield configs
    registry.processor.cache_clear()


def write_pipeline(configs: Path, steps: list[dict[str, Any]]) -> str:
    path = configs / "test" / "demo" / "wide.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {"pipeline_id": "wide", "name": "Wide", "provider": "openai", "domain": "demo", "version": "1"}
    path.write_text(yaml.safe_dump({**head, "steps": steps}))
    return "test/demo/wide"


def test_a_run_of_two_hundred_parallel_steps_joins_and_ends(
    running: Callable[..., Running], scripted: Path, record_property: Callable[[str, object], None]
) -> None:
    width = 200
    names = [f"s{number}" for number in range(width)]
    steps = [{"step_id": name, "ps_type": PS_TYPE, "config": {"script": "ok"}} for name in names]
    join = {"step_id": "join", "ps_type": PS_TYPE, "depends_on": names, "config": {"script": "ok"}}
    route = write_pipeline(scripted, [*steps, join])
    found = running(configs=scripted, bigquery_url="http://127.0.0.1:1")
    began = time.monotonic()
    run = found.ended(found.post(f"/pipelines/run/{ORG}/{route}", {})["run_id"])
    seconds = time.monotonic() - began
    record_property("seconds", round(seconds, 1))
    assert run["status"] == "completed", run["error"]
    assert {step["attempt"] for step in run["steps"]} == {1}
    sys_out = f"{width} parallel steps and their join on the Firestore emulator: {seconds:.1f} s"
    print(sys_out)  # noqa: T201


def test_a_message_that_no_function_can_take_ends_its_run_by_way_of_the_dead_letters(
    running: Callable[..., Running], scripted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = write_pipeline(scripted, [{"step_id": "only", "ps_type": PS_TYPE, "config": {"script": "ok"}}])
    found = running(configs=scripted, bigquery_url="http://127.0.0.1:1")

    def broken(*_args: Any) -> None:
        raise RuntimeError("no step function can take this")

    monkeypatch.setattr(type(found.stack.engine), "run_step", broken)
    run = found.ended(found.post(f"/pipelines/run/{ORG}/{route}", {})["run_id"])
    assert run["status"] == "failed" and f"topic step-{PS_TYPE} became a dead letter" in run["error"]
    assert found.stack.engine.store.usage(ORG, datetime.now(UTC)).concurrent == 0


def test_the_examples_are_those_of_the_configs_folder() -> None:
    assert (CONFIGS / f"{ROUTE}.yml").is_file()
