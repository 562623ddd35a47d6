"""Commands see an organisation that exists only in PostgreSQL, and none that only ``plans.yml`` has."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from common.adapters.sql.postgres.client import Postgres
from common.adapters.sql.postgres.plans import PostgresPlans
from common.cli import admin, report, verify
from common.cli import bootstrap_sync as command
from common.cli.main import cli
from common.platform.logs import logger
from common.ports.store import all_organisations
from common.writes.receipts import Finding
from tests.contract.test_migrations import ALL
from tests.postgres_fixtures import TestDatabase

ONLY_THERE = "acme"
"""In ``tests/contract/test_migrations.py``; the shipped plans.yml has no such organisation."""


@pytest.fixture
def database(postgres_database: TestDatabase) -> TestDatabase:
    postgres_database.sql(*ALL, "INSERT INTO pipeline_ops.organisations VALUES ('acme_b'), ('acmea')")
    return postgres_database


@pytest.fixture
def asked(database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The organisations that commands work on: the work itself is left out, and needs no warehouse."""
    seen: list[str] = []

    @contextmanager
    def no_warehouse(_settings: object) -> Iterator[None]:
        yield None

    def sync(_warehouse: object, _settings: object, orgs: Sequence[str], *, apply: bool) -> Iterator[Any]:
        seen.extend(orgs)
        return iter(())

    class Verifier:
        def __init__(self, *_parts: object) -> None: ...

        def organisation(self, org: str, _progress: object) -> Any:
            seen.append(org)
            return SimpleNamespace(checked=0, findings=list[Finding]())

    class Checks:
        def __init__(self, *_parts: object) -> None: ...

        def verdicts(self, orgs: Sequence[str]) -> list[Any]:
            seen.extend(orgs)
            return []

    @contextmanager
    def views(_settings: object, org: str) -> Iterator[None]:
        seen.append(org)
        raise RuntimeError("as far as this test goes")
        yield None

    monkeypatch.setattr(command, "sync", sync)
    monkeypatch.setattr(command, "warehouse_of", no_warehouse)
    monkeypatch.setattr(verify, "warehouse_of", no_warehouse)
    monkeypatch.setattr(verify, "Verifier", Verifier)
    monkeypatch.setattr(admin, "OnlineChecks", Checks)
    monkeypatch.setattr(admin, "validate_tree", lambda *_args, **_more: [])
    monkeypatch.setattr(report, "_views", views)
    monkeypatch.setenv("PIPELINE_OPS_SUPABASE_DSN", database.reader)
    monkeypatch.setenv("PIPELINE_OPS_STATE_DIR", str(tmp_path))
    handlers = list(logger.handlers)
    yield seen
    logger.handlers[:] = handlers


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


def test_organisations_of_the_database_are_listed_in_ascii_order_by_pages(database: TestDatabase) -> None:
    source = Postgres(database.reader, "PIPELINE_OPS_SUPABASE_DSN")
    plans = PostgresPlans(source)
    assert [name for name, _ in plans.page(size=2)] == ["acme", "acme_b"]
    assert [(name, limits.status) for name, limits in plans.page("acme_b")] == [("acmea", "CANCELLED")]
    assert list(all_organisations(plans)) == ["acme", "acme_b", "acmea"]  # _ comes before letters in ASCII
    source.close()


@pytest.mark.parametrize("args", [("bootstrap-sync",), ("verify", "--all"), ("validate", "--online")])
def test_a_command_for_all_goes_through_the_organisations_of_the_database(
    asked: list[str], args: Sequence[str]
) -> None:
    result = run(*args)
    assert asked == ["acme", "acme_b", "acmea"], result.output


@pytest.mark.parametrize(
    "args",
    [
        ("bootstrap-sync", ONLY_THERE),
        ("verify", "--all", "--org", ONLY_THERE),
        ("validate", "--online", "--org", ONLY_THERE),
        ("report", ONLY_THERE),
    ],
)
def test_a_command_for_one_knows_an_organisation_of_the_database(asked: list[str], args: Sequence[str]) -> None:
    result = run(*args)
    assert asked == [ONLY_THERE], result.output


@pytest.mark.usefixtures("asked")
def test_conform_knows_an_organisation_of_the_database_and_refuses_one_of_the_file_alone() -> None:
    assert run("conform", ONLY_THERE, "--sql").exit_code == 0
    refused = run("conform", "acme_corp", "--sql")
    assert refused.exit_code == 1 and "There is no organisation 'acme_corp'" in refused.output
