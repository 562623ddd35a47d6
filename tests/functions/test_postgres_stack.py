"""The engine wired for PostgreSQL: plans, runs, logs and credentials in one database, messages beside it."""

from collections.abc import Iterator
from copy import replace
from datetime import timedelta
from typing import Any

import pytest

from common import bootstrap
from common.access.cached_plans import FRESH_FOR
from common.adapters.google.pubsub import PubSubBus
from common.adapters.sql.postgres.client import Postgres
from common.adapters.sql.postgres.run_store import PostgresRunStore
from common.adapters.sql.sqlite.bus import SqliteBus
from common.domain.model import RunStatus
from common.platform.errors import ForbiddenPlanError, QuotaExceededError, TransientError
from common.platform.settings import Settings
from common.ports.secrets import CredentialInfo
from tests.harness import INVOKER_TOKEN, OPERATOR, ORG, SECRET, Harness, step
from tests.postgres_fixtures import TestDatabase


@pytest.fixture
def database(postgres_database: TestDatabase) -> TestDatabase:
    postgres_database.sql(
        "INSERT INTO pipeline_ops.plans VALUES ('p', 'Plan')",
        "INSERT INTO pipeline_ops.limits (plan_id, daily, monthly, concurrent) VALUES ('p', 10, 100, 1)",
        f"INSERT INTO pipeline_ops.organisations VALUES ('{ORG}')",
        f"INSERT INTO pipeline_ops.subscriptions (org_slug, plan_id, status) VALUES ('{ORG}', 'p', 'ACTIVE')",
    )
    return postgres_database


@pytest.fixture
def stack(harness: Harness, database: TestDatabase, postgres: Postgres) -> Iterator[Harness]:
    """The harness on what the settings wire, but for its messages: those go through the harness's own bus."""
    settings = Settings(
        state_dir=harness.folder / "state",
        configs=harness.configs,
        store="postgres",
        postgres_dsn=database.runner,
        supabase_dsn=database.reader,
        pubsub_host="127.0.0.1:1",
        operator_token=OPERATOR,
        invoker_token=INVOKER_TOKEN,
    )
    built = bootstrap.build(settings, now=harness.clock)
    assert isinstance(built.bus, PubSubBus) and isinstance(built.store, PostgresRunStore)
    bus: SqliteBus = harness.bus
    harness.engine = replace(built, bus=bus, store=PostgresRunStore(postgres, bus))
    bootstrap.use(harness.engine)
    built.credentials.add(CredentialInfo(ORG, "cred_openai", "openai", harness.clock()), SECRET)
    yield harness


def test_a_run_goes_from_its_request_to_its_end(stack: Harness) -> None:
    opened: list[str] = []

    def look(context: Any, _params: Any) -> None:
        opened.append(context.secret())
        context.info("looked")

    stack.script("look", look)
    stack.pipeline(step("a", script="look"), step("b", "a"), step("c"))
    run_id = stack.start()
    stack.drain()
    assert stack.run(run_id).status is RunStatus.COMPLETED and opened == [SECRET]
    usage = stack.engine.store.usage(ORG, stack.clock())
    assert (usage.daily, usage.completed, usage.concurrent) == (1, 1, 0)
    lines = stack.http("GET", f"/pipelines/logs/{ORG}/{run_id}?step=a").json["lines"]
    assert "looked" in [line["message"] for line in lines]
    assert stack.engine.store.last_cost(ORG, "test/demo/pipeline") is None


def test_a_lost_message_is_derived_by_the_sweep(stack: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(_bus: SqliteBus, _messages: object) -> None:
        raise TransientError("the bus is down")

    with monkeypatch.context() as outage:
        outage.setattr(SqliteBus, "publish", down)
        run_id = stack.start()
    assert stack.drain() == 0
    assert stack.finish(run_id).status is RunStatus.COMPLETED


def test_the_databases_limits_are_those_that_count(stack: Harness, database: TestDatabase) -> None:
    stack.start()
    refused = stack.http("POST", f"/pipelines/run/{ORG}/test/demo/pipeline", json={})
    assert refused.status_code == QuotaExceededError.status and refused.json["limit"] == "concurrent"
    database.sql("UPDATE pipeline_ops.limits SET concurrent = 2")
    stack.clock.tick(FRESH_FOR / timedelta(seconds=1))
    stack.start()
    database.sql("UPDATE pipeline_ops.subscriptions SET status = 'SUSPENDED'")
    stack.clock.tick(FRESH_FOR / timedelta(seconds=1))
    refused = stack.http("POST", f"/pipelines/run/{ORG}/test/demo/pipeline", json={})
    assert refused.status_code == ForbiddenPlanError.status
