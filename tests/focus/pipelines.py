"""The pipelines whose FOCUS rows are put to the focus-validator and to our own checks: a new provider is one more case.

Each is run for real, on an embedded stack, against the sandbox of the provider or a bill.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from common.cli.landing import land
from common.domain.model import Run
from common.ports import CredentialInfo
from common.request import run_request
from common.settings import Settings
from infra.local.focus_export import write_focus_export
from infra.local.sandbox.server import SANDBOX_ADMIN_KEY, SandboxServer
from infra.local.stack import EmbeddedStack
from tests.conftest import PROJECT, SHARED
from tests.focus.tables import FOCUS

ORG = "acme_corp"
DAYS = {"start_date": "2026-11-01", "end_date": "2026-11-03"}
DEADLINE_S = 180.0


@dataclass(frozen=True)
class World:
    """A running stack, and a folder for what its pipelines read."""

    stack: EmbeddedStack
    settings: Settings
    folder: Path

    @property
    def table_id(self) -> str:
        """The organisation's FOCUS table."""
        return f"{PROJECT}.{self.settings.dataset(ORG)}.{FOCUS.table}"

    def run(self, route: str, body: dict[str, Any]) -> Run:
        """Run a pipeline to its end, which is a good one."""
        engine = self.stack.engine
        request = run_request(ORG, route, body, now=datetime.now(UTC), trigger="test")
        run = engine.request_run(request)
        deadline = time.monotonic() + DEADLINE_S
        while not run.status.is_terminal:
            assert time.monotonic() < deadline, f"{route} is still {run.status}"
            time.sleep(0.1)
            run = engine.store.load(request.run_id)
        assert run.status == "completed", run.error
        return run


@dataclass(frozen=True)
class Case:
    """A pipeline and what it is run on. ``prepare`` lands files and credentials, and returns the request's body."""

    name: str
    route: str
    prepare: Callable[[World], dict[str, Any]]
    shared: bool = False


def _openai(world: World) -> dict[str, Any]:
    info = CredentialInfo(ORG, "cred_openai", "openai", datetime.now(UTC))
    world.stack.engine.credentials.add(info, SANDBOX_ADMIN_KEY)
    return {**DAYS, "credential_id": "cred_openai"}


def _generated_bill(world: World) -> dict[str, Any]:
    bill = world.folder / "bill.csv.gz"
    write_focus_export(bill, seed=7, first_day=date(2026, 11, 1), days=3, rows_per_day=40)
    return land(world.settings, ORG, "aws/cost/billing", bill, dated=False)


def _published(name: str) -> Callable[[World], dict[str, Any]]:
    return lambda world: land(world.settings, ORG, "aws/cost/billing", SHARED / "focus" / name, dated=False)


CASES = [
    Case("openai", "genai/payg/openai", _openai),
    Case("aws generated", "aws/cost/billing", _generated_bill),
    Case("aws 1.2", "aws/cost/billing", _published("fdt_aws_1_2_rows100.csv"), shared=True),
    Case("aws 1.3", "aws/cost/billing", _published("fdt_aws_1_3_rows100.csv"), shared=True),
]


@contextmanager
def running(folder: Path) -> Iterator[World]:
    """Start a stack and the sandbox of the providers; both end with the block."""
    with SandboxServer(seed=7) as sandbox:
        settings = Settings(state_dir=folder / "state", project_id=PROJECT, provider_urls={"openai": sandbox.url})
        with EmbeddedStack(settings) as stack:
            yield World(stack, settings, folder)
