"""Schemathesis against our own OpenAPI document, over HTTP, on the embedded stack's server and dispatcher.

It derives requests from the document, right and wrong ones, also in sequences by the document's links, and holds each
answer against the document: no 5xx, only statuses, types and bodies that are told, wrong data refused, methods refused,
no answer without a key, nothing there after it was deleted. What it found is printed with ``-rP`` or when it fails.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import bootstrap
from common.processors import registry
from functions.api import logs
from infra.local.dispatcher import Dispatcher
from infra.local.host import poster
from infra.local.web import WebServer
from tests import harness as harnesses
from tests.harness import INVOKER_TOKEN, ORG, Harness, step

BEYOND_THE_SCHEMA = (
    "schedules.replace",  # cron fields that are due at some time, zones of the IANA database
    "runs.start",  # dates: not before 2000, not in the future, in order
    "runs.history",  # cursors are given out
    "runs.rerun",  # a preview is one of all steps
    "logs.lines",  # places in a log are given out
    "audit.rows",
    "credentials.add",  # providers are those of the registry
    "notifications.replace",  # a new channel needs an address, which the operator allows
)
"""Operations whose rules can't be told in JSON Schema: there data that fits the document may be refused as 422."""

ACCEPTED = '["2xx", 401, 403, 404, 409, 429, 422]'
PATH = {"org": ORG, "provider": "test", "domain": "demo", "pipeline": "pipeline", "step_id": "first"}
"""Names that exist: with others every answer would be a 404. Those of runs come by links."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Harness, str]]:
    """A stack at work with some runs, and its address."""
    plans = harnesses.SYSTEM["plans.yml"]
    wide = {"p": {"daily": 1_000_000, "monthly": 1_000_000, "concurrent": 1_000_000}}
    monkeypatch.setitem(harnesses.SYSTEM, "plans.yml", {**plans, "plans": wide})
    monkeypatch.setattr(logs, "LOOK_EVERY_S", 0.01)
    harness = Harness(tmp_path, monkeypatch)
    harness.pipeline(step("first"), step("second", "first"), schedule="0 6 * * *")
    dispatcher = Dispatcher(harness.bus, poster(harness.app, "pipeline-ops-local", INVOKER_TOKEN))
    dispatcher.start()
    server = WebServer(harness.app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield harness, f"http://127.0.0.1:{server.effective_port}"
    server.close()
    thread.join()
    dispatcher.stop()
    bootstrap.use(None)
    registry.processor.cache_clear()


def config(harness: Harness, url: str, examples: int) -> str:
    """Return the settings."""
    lines = [
        f'base-url = "{url}"',
        "[generation]",
        f"max-examples = {examples}",
        "deterministic = true",
        "[phases.stateful.generation]",
        f"max-examples = {examples * 3}",
        "[auth.openapi.key]",
        f'bearer = "{harness.key()}"',
        "[parameters]",
        *(f'"path.{name}" = "{value}"' for name, value in PATH.items()),
        "[checks.positive_data_acceptance]",
        'expected-statuses = ["2xx", 401, 403, 404, 409, 429]',
    ]
    for operation in BEYOND_THE_SCHEMA:
        lines += [
            "[[operations]]",
            f'include-operation-id = "{operation}"',
            f"checks.positive_data_acceptance.expected-statuses = {ACCEPTED}",
        ]
    # It does not see that a key was revoked in between, because keys are rotated by their names.
    lines += [
        "[[operations]]",
        'include-operation-id = "keys.rotate"',
        "checks.ensure_resource_availability.enabled = false",
    ]
    return "\n".join(lines) + "\n"


def run(served: tuple[Harness, str], tmp_path: Path, examples: int, *more: str) -> str:
    """Let it loose; return what it has to say, and fail if that is not good."""
    harness, url = served
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(config(harness, url, examples))
    program = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings)]
    done = subprocess.run(
        [*program, "run", f"{url}/openapi.json", "--no-color", *more], cwd=tmp_path, capture_output=True, text=True
    )
    sys.stdout.write(done.stdout[-6_000:] + done.stderr[-2_000:])
    assert done.returncode == 0, "see above"
    return done.stdout


@pytest.mark.thorough
def test_no_request_from_our_own_document_finds_a_5xx_or_an_answer_that_it_does_not_tell(
    served: tuple[Harness, str], tmp_path: Path
) -> None:
    told = run(served, tmp_path, 5)
    for phase in ("Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in told


@pytest.mark.slow
def test_nor_do_many_more_requests(served: tuple[Harness, str], tmp_path: Path) -> None:
    run(served, tmp_path, 200)
