"""The pipelines whose FOCUS rows are put to the focus-validator and to our own checks: a new provider is one more case.

Each is run for real, side by side on one embedded stack, against the sandbox of the provider or a bill.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from common.domain.model import Run
from common.platform.settings import Settings
from common.ports.warehouse import Warehouse
from common.runs.landing import land
from common.runs.request import run_request
from infra.local.demo_data import DEMO_PIPELINES, DemoPipeline, DemoSetup, add_credentials, add_gcp_export, secret_of
from infra.local.sandbox.server import SandboxServer
from infra.local.stack import EmbeddedStack
from tests.conftest import PROJECT, SHARED
from tests.focus.tables import FOCUS

ORG = "acme_corp"
BESIDE = "globex"
"""Who reads bills in the light ways, which bring what the exports bring once more."""
SEED, FIRST, DAYS = 7, date(2026, 10, 30), 3
"""The end of a month and the begin of one, and a day on which a subscription is charged."""
DEADLINE_S = 300.0
LIGHT = (
    DemoPipeline("aws/cost/explorer", "aws", secret_of("aws_ce")),
    DemoPipeline("azure/cost/query", "azure", secret_of("azure_management")),
    DemoPipeline("oci/cost/usage", "oci", secret_of("oci_usage")),
)


@dataclass(frozen=True)
class Case:
    """Pipelines whose rows are judged as one table. ``file`` is a published bill, read in the place of ours."""

    name: str
    pipelines: tuple[DemoPipeline, ...]
    org: str = ORG
    file: str = ""


def _case(pipeline: DemoPipeline) -> Case:
    group, _, name = pipeline.route.split("/")
    return Case(name if group == "genai" else group, (pipeline,))


BILL = "aws/cost/billing"
OURS = (*map(_case, DEMO_PIPELINES), Case("light ways", LIGHT, BESIDE))
PUBLISHED = (
    Case("aws 1.2", (DemoPipeline(BILL),), file="fdt_aws_1_2_rows100.csv"),
    Case("aws 1.3", (DemoPipeline(BILL),), file="fdt_aws_1_3_rows100.csv"),
)


@dataclass(frozen=True)
class World:
    """A running stack, and a folder for what its pipelines read."""

    stack: EmbeddedStack
    setups: dict[str, DemoSetup]
    folder: Path
    started: dict[str, list[str]] = field(default_factory=dict)

    @property
    def warehouse(self) -> Warehouse:
        """What the pipelines write to."""
        return self.stack.engine.attempts.warehouse()

    def table_id(self, table: str = FOCUS.table, org: str = ORG) -> str:
        """A table of an organisation."""
        return f"{PROJECT}.{self.setups[org].settings.dataset(org)}.{table}"

    def start(self, case: Case) -> None:
        """Ask for the case's runs, once."""
        if case.name not in self.started:
            bodies = [(pipeline.route, self._body(case, pipeline) | {"queue": True}) for pipeline in case.pipelines]
            self.started[case.name] = [self.request(case.org, route, body) for route, body in bodies]

    def request(self, org: str, route: str, body: dict[str, Any]) -> str:
        """Ask for a run; return its id."""
        asked = run_request(org, route, body, now=datetime.now(UTC), trigger="test")
        return self.stack.engine.request_run(asked).run_id

    def _body(self, case: Case, pipeline: DemoPipeline) -> dict[str, Any]:
        setup = self.setups[case.org]
        if case.file:
            return land(setup.settings, case.org, pipeline.route, SHARED / "focus" / case.file, dated=False)
        if pipeline.provider == "gemini":  # its metrics are kept for six weeks
            setup = replace(setup, first=datetime.now(UTC).date() - timedelta(days=DAYS))
        return pipeline.body(setup, pipeline.make(setup))

    def ended(self, run_id: str) -> Run:
        """Return the run at its end, which is a good one."""
        deadline = time.monotonic() + DEADLINE_S
        while not (run := self.stack.engine.store.load(run_id)).status.is_terminal:
            assert time.monotonic() < deadline, f"{run.request.route} is still {run.status}"
            time.sleep(0.1)
        assert run.status == "completed", f"{run.request.route}: {run.error}"
        return run


@contextmanager
def running(folder: Path, bigquery_url: str) -> Iterator[World]:
    """Start a stack on that emulator, the sandboxes of the providers, and the runs on made-up bills, for the block."""
    with SandboxServer(seed=SEED) as sandbox:
        settings = Settings(
            state_dir=folder / "state",
            project_id=PROJECT,
            provider_urls=dict(sandbox.urls),
            bigquery_url=bigquery_url,
        )
        setups = {org: DemoSetup(settings, sandbox, org, SEED, FIRST, DAYS) for org in (ORG, BESIDE)}
        with EmbeddedStack(settings) as stack:
            add_credentials(stack.engine.credentials, setups[ORG])
            add_credentials(stack.engine.credentials, setups[BESIDE], LIGHT)
            add_gcp_export(setups[ORG], str(stack.engine.settings.bigquery_url))
            world = World(stack, setups, folder)
            for case in OURS:
                world.start(case)
            yield world
