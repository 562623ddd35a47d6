"""Plans from a real PostgreSQL: what is read, when a change is seen, and what happens while the server is away."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from common import bootstrap
from common.access.cached_plans import FRESH_FOR, REST, CachedPlans
from common.adapters.sql.postgres import client
from common.adapters.sql.postgres.client import Postgres
from common.adapters.sql.postgres.plans import PostgresPlans
from common.domain.quota import Limits
from common.platform.errors import NotFoundError, PermanentError, TransientError
from common.platform.settings import Settings
from functions.api import application
from tests.contract.test_migrations import ALL
from tests.fakes import FakeClock
from tests.postgres_fixtures import ROLE_PASSWORD, TestDatabase

SETTING = "PIPELINE_OPS_SUPABASE_DSN"
OPERATOR = "the token of an operator"
ACME = Limits("ACTIVE", 10, 100, 2, money_usd=Decimal("50.25"), weight=3)


@pytest.fixture
def database(postgres_database: TestDatabase) -> TestDatabase:
    postgres_database.sql(*ALL)
    return postgres_database


@pytest.fixture
def source(database: TestDatabase) -> Iterator[Postgres]:
    source = Postgres(database.reader, SETTING, connections=2)
    yield source
    source.close()


def test_an_organisations_limits_are_read_whole_with_money_exact(source: Postgres) -> None:
    limits = PostgresPlans(source).limits("acme")
    assert limits == ACME and str(limits.money_usd) == "50.2500"


def test_no_limit_is_none_and_the_deployments_is_everyones(source: Postgres, database: TestDatabase) -> None:
    database.sql(
        "UPDATE pipeline_ops.limits SET money_usd = NULL", "UPDATE pipeline_ops.deployment SET global_concurrent = 7"
    )
    limits = PostgresPlans(source).limits("acme")
    assert (limits.money_usd, limits.global_concurrent) == (None, 7)


def test_an_unknown_organisation_is_not_found_and_nobody_elses_name_is_told(source: Postgres) -> None:
    with pytest.raises(NotFoundError) as missing:
        PostgresPlans(source).limits("acm")
    assert str(missing.value) == "There is no organisation 'acm'."


def test_an_organisation_without_a_subscription_is_there_and_may_run_nothing(
    source: Postgres, database: TestDatabase
) -> None:
    database.sql("INSERT INTO pipeline_ops.organisations VALUES ('new')")
    assert PostgresPlans(source).limits("new") == Limits("CANCELLED", 0, 0, 0)


def test_the_subscription_that_holds_counts_and_not_those_of_before(source: Postgres, database: TestDatabase) -> None:
    database.sql(
        "UPDATE pipeline_ops.subscriptions SET ended_at = now()",
        "INSERT INTO pipeline_ops.subscriptions (org_slug, plan_id, status) VALUES ('acme', 'scale', 'TRIAL')",
    )
    assert PostgresPlans(source).limits("acme").status == "TRIAL"


def test_a_changed_status_is_seen_after_the_stated_time(source: Postgres, database: TestDatabase) -> None:
    clock = FakeClock()
    plans = CachedPlans(PostgresPlans(source), clock)
    assert plans.limits("acme").status == "ACTIVE"
    database.sql("UPDATE pipeline_ops.subscriptions SET status = 'SUSPENDED'")
    assert plans.limits("acme").status == "ACTIVE"
    clock.now += FRESH_FOR
    assert plans.limits("acme").status == "SUSPENDED"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WAIT_S", 0.3)


@pytest.mark.usefixtures("impatient")
def test_limits_outlive_their_server_and_say_so_and_are_read_again_when_it_is_back(
    source: Postgres, database: TestDatabase
) -> None:
    clock = FakeClock()
    plans = CachedPlans(PostgresPlans(source), clock)
    plans.limits("acme")
    read_at = clock()
    database.server.stop()
    try:
        clock.now += FRESH_FOR
        assert plans.limits("acme").daily == 10 and plans.limits("acme").as_of == read_at
        with pytest.raises(TransientError):
            plans.limits("globex")
    finally:
        database.server.start()
    clock.now += REST
    assert plans.limits("acme").as_of is None


@dataclass
class Served:
    """The API on plans that come from PostgreSQL."""

    database: TestDatabase
    folder: Path

    def history(self, dsn: str) -> tuple[int, str, str | None]:
        """Ask for an organisation's history; return status, body and Retry-After."""
        settings = Settings(state_dir=self.folder, supabase_dsn=dsn, operator_token=OPERATOR)
        bootstrap.use(bootstrap.build(settings))
        asked = {"Authorization": f"Bearer {OPERATOR}"}
        answer = application().test_client().get("/pipelines/history/acme", headers=asked)
        return answer.status_code, answer.text, answer.headers.get("Retry-After")


@pytest.fixture
def served(database: TestDatabase, tmp_path: Path) -> Iterator[Served]:
    yield Served(database, tmp_path)
    bootstrap.use(None)


def test_the_api_knows_the_organisations_of_the_database(served: Served) -> None:
    assert served.history(served.database.reader)[0] == 200


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("port", [1, None])
def test_an_organisation_that_was_never_read_is_answered_with_503_and_a_time_to_come_again(
    served: Served, port: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """No server there, or one that does not know the password: neither shows anything of the connection string."""
    logging.getLogger("pipeline_ops").propagate = True
    caplog.set_level("DEBUG")
    wrong = served.database.reader.replace(ROLE_PASSWORD, "canary-wrong-31c7")
    dsn = wrong if port is None else wrong.replace(str(served.database.server.port), str(port))
    status, body, retry_after = served.history(dsn)
    assert status == 503 and retry_after is not None and SETTING in body
    for shown in (body, caplog.text):
        assert "canary" not in shown and "postgresql://" not in shown
    assert "127.0.0.1" not in body and "pipeline_ops_reader" not in body
    assert "Connection refused" in caplog.text or "authentication failed" in caplog.text


def test_a_role_without_rights_is_told_what_to_do(database: TestDatabase) -> None:
    source = Postgres(database.runner, SETTING)
    with pytest.raises(PermanentError, match=r"organisation_limits.*infra/supabase/migrations"):
        PostgresPlans(source).limits("acme")
    source.close()
