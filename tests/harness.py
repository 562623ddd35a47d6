"""The real engine, SQLite file and functions, with a standing clock and scripted steps; no warehouse."""

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from werkzeug.test import Client, TestResponse

from common import bootstrap
from common.access.api_keys import Scope
from common.adapters.bigquery import BigQueryWarehouse
from common.adapters.sql.sqlite.bus import Delivery, SqliteBus
from common.domain.model import Run, RunStatus
from common.platform.settings import Settings
from common.ports.secrets import CredentialInfo
from common.processors import registry
from common.runs.landing import place
from infra.local.host import SUBSCRIPTIONS, cloud_event, wsgi_app
from tests.fakes import FakeClock, Scripted

PS_TYPE = "genai.payg_usage"
"""Taken over by the scripted processor, because every ps_type has its own function."""

SECRET = "sk-admin-canary-5d41"
OPERATOR = "operator-canary-77c0-of-the-tests-alone"
INVOKER_TOKEN = "canary-invoker-token-of-this-process"
ROUTE = "test/demo/pipeline"
ORG = "acme_corp"

SYSTEM = {
    "plans.yml": {
        "plans": {"p": {"daily": 1000, "monthly": 1000, "concurrent": 5}},
        "organisations": {
            ORG: {"plan": "p", "status": "ACTIVE"},
            "globex": {"plan": "p", "status": "TRIAL"},
            "lapsed": {"plan": "p", "status": "PAST_DUE"},
        },
    },
}
PROVIDERS = Path(__file__).resolve().parent.parent / "configs" / "system" / "providers.yml"


def step(step_id: str, *after: str, script: str = "ok", attempts: int = 1, **more: Any) -> dict[str, Any]:
    """Return one scripted step's YAML data."""
    return {
        "step_id": step_id,
        "ps_type": PS_TYPE,
        "depends_on": list(after),
        "retry": {"max_attempts": attempts, "backoff_seconds": more.pop("backoff", 0)},
        "config": {"script": script, "note": more.pop("note", "")},
        **more,
    }


@cache
def app() -> Any:
    """Return the functions' application, one for the process: it keeps nothing and looks the engine up at each call."""
    return wsgi_app()


class Harness:
    """One engine on one file. ``drain`` delivers what is due, as the dispatcher would."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.configs, self.clock = folder, folder / "configs", FakeClock()
        monkeypatch.setitem(registry.PROCESSORS, PS_TYPE, "tests.fakes:Scripted")
        monkeypatch.setattr(Scripted, "scripts", {})
        registry.processor.cache_clear()
        (self.configs / "system").mkdir(parents=True)
        for name, data in SYSTEM.items():
            (self.configs / "system" / name).write_text(yaml.safe_dump(data))
        (self.configs / "system" / "providers.yml").write_text(PROVIDERS.read_text())
        self.pipeline(step("only"))
        self.app = app()
        self.restart()
        self.engine.credentials.add(CredentialInfo(ORG, "cred_openai", "openai", datetime.now(UTC)), SECRET)

    def restart(self) -> None:
        """Forget this process's engine and wire a new one on the same file, as a new process would."""
        settings = Settings(
            state_dir=self.folder / "state",
            configs=self.configs,
            operator_token=OPERATOR,
            invoker_token=INVOKER_TOKEN,
        )
        self.engine = bootstrap.build(settings, now=self.clock)
        bootstrap.use(self.engine)

    def pipeline(self, *steps: dict[str, Any], route: str = ROUTE, **fields: Any) -> Path:
        """Write a pipeline's file."""
        data = {
            "pipeline_id": re.sub(r"\W", "_", route),
            "name": "Test",
            "description": "A test",
            "provider": "openai",
            "domain": "demo",
            "version": "1.0",
            "steps": list(steps),
            **fields,
        }
        path = self.configs / f"{route}.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return path

    def script(self, name: str, does: Callable[..., None]) -> None:
        """Say what steps with this script do."""
        Scripted.scripts[name] = does

    @property
    def bus(self) -> SqliteBus:
        assert isinstance(self.engine.bus, SqliteBus)
        return self.engine.bus

    def http(self, method: str, path: str, *, key: str | None = OPERATOR, **more: Any) -> TestResponse:
        """Call the API function with a key; the operator's opens everything."""
        headers = dict(more.pop("headers", {}))
        more.setdefault("buffered", True)  # read and closed at once, as a server does
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return Client(self.app).open(path, method=method, headers=headers, **more)

    def key(self, org: str = ORG, scope: str = "admin") -> str:
        """Return a new key of an organisation."""
        return self.engine.keys.create(org, f"k{uuid.uuid4().hex}", Scope(scope), who="test").token

    def start(self, body: Any = None, org: str = ORG, route: str = ROUTE) -> str:
        """Start a run over HTTP; return its id."""
        answer = self.http("POST", f"/pipelines/run/{org}/{route}", json=body or {})
        assert answer.status_code == 202, answer.text
        assert answer.json is not None
        run_id: str = answer.json["run_id"]
        return run_id

    def deliver(self, delivery: Delivery) -> int:
        """Post one message to its function; return the status."""
        headers, body = cloud_event(delivery, "pipeline-ops-local", INVOKER_TOKEN)
        name = SUBSCRIPTIONS[delivery.message.topic]
        return Client(self.app).post(f"/functions/{name}/", data=body, headers=headers).status_code

    def drain(self, limit: int = 1000) -> int:
        """Deliver everything that is due now; return how many messages that were."""
        for count in range(limit):
            found = self.bus.pull(1)
            if not found:
                return count
            if self.deliver(found[0]) == 200:
                self.bus.ack(found[0])
            else:
                self.bus.nack(found[0], "failed")
        raise AssertionError(f"still messages after {limit} deliveries")

    def run(self, run_id: str) -> Run:
        """Return the run as it is stored."""
        return self.engine.store.load(run_id)

    def finish(self, run_id: str, days: float = 2) -> Run:
        """Let time pass, sweeping every minute, until the run has ended."""
        for _ in range(int(days * 24 * 60)):
            self.drain()
            run = self.run(run_id)
            if run.status.is_terminal:
                return run
            self.clock.tick(60)
            self.engine.sweep()
        raise AssertionError(f"not ended: {self.run(run_id)}")


class Shipped(Harness):
    """The pipelines that are shipped, writing to a BigQuery emulator.

    With the machine's clock, because BigQuery compares the end of a lease with its own.
    """

    def __init__(self, folder: Path, project: str, bigquery_url: str, provider_urls: Mapping[str, str]) -> None:
        settings = Settings(
            state_dir=folder / "state",
            project_id=project,
            bigquery_url=bigquery_url,
            provider_urls=provider_urls,
            archive=False,
            operator_token=OPERATOR,
            invoker_token=INVOKER_TOKEN,
        )
        self.warehouse = BigQueryWarehouse(project, location="US", emulator_url=bigquery_url)
        self.app = wsgi_app()
        self.engine = bootstrap.build(settings)
        bootstrap.use(self.engine)

    def credential(self, credential_id: str, provider: str, secret: str) -> None:
        """Store a credential."""
        self.engine.credentials.add(CredentialInfo(ORG, credential_id, provider, datetime.now(UTC)), secret)

    def land(self, path: Path) -> str:
        """Bring a file to the landing folder; return its name there."""
        return place(self.engine.settings.landing / ORG, path)

    def completed(self, route: str, body: Any) -> Run:
        """Run a pipeline; it must succeed at its first attempt."""
        run_id = self.start(body, route=route)
        self.drain()
        run = self.run(run_id)
        assert run.status is RunStatus.COMPLETED, run.error or run.steps
        return run

    def rows(self, table: str, pipeline_id: str) -> list[dict[str, Any]]:
        """Return the rows that a pipeline has in a table."""
        settings = self.engine.settings
        name = f"{settings.project_id}.{settings.dataset(ORG)}.{table}"
        sql = f"SELECT * FROM `{name}` WHERE x_pipeline_id = @pipeline"
        return list(self.warehouse.query(sql, {"pipeline": pipeline_id}))


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    """The engine of one test."""
    yield Harness(tmp_path, monkeypatch)
    bootstrap.use(None)
    registry.processor.cache_clear()
