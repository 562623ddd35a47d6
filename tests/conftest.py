"""Fixtures that several folders of tests share, and the one line about what did not run."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from common.adapters import googlesql
from common.adapters.bigquery import BigQueryWarehouse
from common.platform.paths import PROJECT_ROOT
from common.processors import registry
from infra.local.emulator import REFUSALS, BigQueryEmulator
from infra.local.watched import Watched
from tests import seed
from tests.google_fixtures import google_emulators, google_project  # noqa: F401 - fixtures
from tests.harness import harness  # noqa: F401 - a fixture
from tests.postgres_fixtures import postgres, postgres_database, postgres_server  # noqa: F401 - fixtures
from tests.postgres_server import PostgresServer

PROJECT = "pipeline-ops-test"
SHARED = PROJECT_ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def bigquery_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQueryEmulator]:
    """The emulator of this process of tests."""
    with BigQueryEmulator(tmp_path_factory.mktemp("bigquery"), PROJECT) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def bigquery_emulator(bigquery_server: BigQueryEmulator) -> Iterator[BigQueryEmulator]:
    """The emulator, empty. A file of tests uses datasets of its own, and they go with it.

    A dropped dataset costs a twentieth of a second, a start of the emulator three; and it gets slower with every table.
    """
    yield bigquery_server
    client = BigQueryWarehouse(PROJECT, location="US", emulator_url=bigquery_server.url).connection.client
    for dataset in client.list_datasets():
        client.delete_dataset(dataset.reference, delete_contents=True)


@pytest.fixture(scope="module")
def warehouse(bigquery_emulator: BigQueryEmulator) -> BigQueryWarehouse:
    """The real adapter on the emulator."""
    return BigQueryWarehouse(PROJECT, location="US", emulator_url=bigquery_emulator.url)


@pytest.fixture(autouse=True)
def servers_start_where_they_are_expected(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold ``make test-fast`` to its word: who needs a server has it by a fixture of ``SERVERS``, or is in ``e2e``."""
    if request.node.get_closest_marker("server") is None:

        def refuse(*_: object) -> None:
            raise AssertionError(
                "This test starts a server, and nothing in tests/conftest.py marks it as one that does."
            )

        monkeypatch.setattr(Watched, "start", refuse)
        monkeypatch.setattr(PostgresServer, "start", refuse)


@pytest.fixture(autouse=True)
def google_takes_the_sql(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that sent the emulator SQL which Google's analyzer refuses, whatever it did with the error.

    That holds for the processes that it started, too. A test that does so on purpose has the marker ``wrong_sql``.
    """
    if request.node.get_closest_marker("server") is None or not (name := os.environ.get(REFUSALS)):
        yield
        return
    path, allowed = Path(name), request.node.get_closest_marker("wrong_sql") is not None
    if allowed:
        path.with_suffix(".allowed").touch()
    yield
    path.with_suffix(".allowed").unlink(missing_ok=True)
    refused = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    if allowed:
        assert refused, "the test has the marker wrong_sql, and all of its SQL is valid"
        return
    texts = [f"{'; '.join(one['problems'])}\nin: {' '.join(one['sql'].split())[:1000]}" for one in refused]
    if refused:
        pytest.fail("Google's analyzer refuses SQL of this test:\n" + "\n\n".join(texts), pytrace=False)


@pytest.fixture(autouse=True)
def own_processors() -> Iterator[None]:
    """A processor that a test has put in the place of another is forgotten with the test."""
    yield
    registry.processor.cache_clear()


@pytest.fixture
def shared_data() -> Path:
    """The folder of real bills beside the checkout."""
    return SHARED


SERVERS = {"bigquery_server", "google_emulators", "postgres_server"}
"""Fixtures that start a server. Whatever asks for one, by way of others too, is marked as ``server``."""

SERVER_PARAMETERS = {"firestore", "postgres", "pubsub"}
"""Parameters of fixtures that ask for a server only when they are called."""

SLOW_WITHIN_S = 7200


def needs_server(item: pytest.Item) -> bool:
    """Return whether the test needs an emulator or another server."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return (
        "tests/e2e/" in item.nodeid
        or not SERVERS.isdisjoint(getattr(item, "fixturenames", ()))
        or any(value in SERVER_PARAMETERS for value in parameters if isinstance(value, str))
    )


LONG_FIRST = ("e2e", "sim", "contract")
"""Folders whose files take longest: begun last, one of them would keep one process busy while the other is done."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-integration", action="store_true", help="also run whole pipelines on the embedded stack")


def pytest_configure() -> None:
    seed.choose()
    if googlesql.is_installed():  # each process of tests has a file of its own, and so have the emulators it starts
        os.environ[REFUSALS] = str(Path(tempfile.mkdtemp(prefix="googlesql-")) / "refused.jsonl")
    # A time limit per example fails on a busy machine; a test that hangs has pytest's own (pyproject.toml).
    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)  # before pytest takes out what -m does not want
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if needs_server(item):
            item.add_marker("server")
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_WITHIN_S))
    items.sort(key=lambda item: next((n for n, name in enumerate(LONG_FIRST) if f"tests/{name}/" in item.nodeid), 9))
    if not config.getoption("--run-integration"):
        for item in items:
            if item.get_closest_marker("integration"):
                item.add_marker(pytest.mark.skip(reason="integration: pytest --run-integration, as make test does"))
    if not SHARED.is_dir():
        for item in items:
            if item.get_closest_marker("shared"):
                item.add_marker(pytest.mark.skip(reason="needs the sample bills in ../shared/data"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] = reasons.get(reason.removeprefix("Skipped: "), 0) + 1
    deselected = terminalreporter.stats.get("deselected", [])
    slow = [item for item in deselected if item.get_closest_marker("slow")]
    if slow:
        reasons["slow: make test-slow"] = len(slow)
    if fast := sum(item.get_closest_marker("server") is not None for item in deselected if item not in slow):
        reasons["with a server: make test"] = fast
    thorough = sum(
        item.get_closest_marker("thorough") is not None and item.get_closest_marker("server") is None
        for item in deselected
        if item not in slow
    )
    if thorough:
        reasons["thorough: make test"] = thorough
    left_out = ", ".join(f"{count} ({reason})" for reason, count in sorted(reasons.items())) or "nothing"
    terminalreporter.write_line(f"not run: {left_out}")
    terminalreporter.write_line(seed.replay())
