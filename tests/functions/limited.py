"""Organisations with narrow plans, and runs that are asked for and looked at."""

from typing import Any

import yaml

from common.domain.model import Run
from common.runs.request import run_request
from functions.api.views import run_view
from tests.harness import ORG, ROUTE, Harness

OTHER = "test/demo/other"
ONE = {"daily": 100, "monthly": 100, "concurrent": 1}


def plan(harness: Harness, *, status: str = "ACTIVE", shared: int | None = None, **fields: Any) -> None:
    """Give both organisations this plan, globex three times the weight."""
    plans = {"p": {**ONE, **fields}, "heavy": {**ONE, **fields, "weight": 3}}
    organisations = {ORG: {"plan": "p", "status": status}, "globex": {"plan": "heavy", "status": "ACTIVE"}}
    data: dict[str, Any] = {"plans": plans, "organisations": organisations}
    if shared is not None:
        data["global_concurrent"] = shared
    path = harness.configs / "system" / "plans.yml"
    path.write_text(yaml.safe_dump(data))


def ask(
    harness: Harness, *, org: str = ORG, route: str = ROUTE, key: str | None = None, queue: bool = True, **body: Any
) -> Run:
    """Ask for a run a second after the last one; with ``queue``, it may wait."""
    harness.clock.tick(1)
    asked = run_request(org, route, {**body, "queue": queue}, now=harness.clock(), trigger="api", idempotency_key=key)
    return harness.engine.request_run(asked)


def shown(harness: Harness, run: Run) -> dict[str, Any]:
    stored = harness.run(run.run_id)
    return run_view(stored, harness.engine.store.place(stored)).model_dump(mode="json")


def place(harness: Harness, run: Run) -> tuple[int, int]:
    queue = shown(harness, run)["queue"]
    return queue["place"], queue["of"]


def statuses(harness: Harness, *runs: Run) -> list[str]:
    return [str(harness.run(run.run_id).status) for run in runs]


def waits_for(harness: Harness, *runs: Run) -> list[str]:
    return [harness.run(run.run_id).waits_for for run in runs]
