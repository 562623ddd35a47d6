"""The tables of infra/supabase/migrations: who may read them and what they refuse; applying them twice is harmless."""

import re
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors

from common.platform.paths import PROJECT_ROOT
from tests.postgres_fixtures import MIGRATIONS, TestDatabase, migrate
from tests.postgres_server import PostgresServer

PLAN = "INSERT INTO pipeline_ops.plans VALUES ('scale', 'Scale')"
LIMITS = "INSERT INTO pipeline_ops.limits VALUES ('scale', 10, 100, 2, 50.25, 3)"
ORG = "INSERT INTO pipeline_ops.organisations VALUES ('acme', 'Acme')"
SUBSCRIPTION = "INSERT INTO pipeline_ops.subscriptions (org_slug, plan_id, status) VALUES ('acme', 'scale', 'ACTIVE')"
ALL = (PLAN, LIMITS, ORG, SUBSCRIPTION)
TABLES = """
SELECT relname FROM pg_class WHERE relnamespace = 'pipeline_ops'::regnamespace AND relkind IN ('r', 'v') ORDER BY 1
"""


@pytest.fixture
def empty_database(postgres_server: PostgresServer) -> Iterator[TestDatabase]:
    """A database without migrations, on a server that knows Supabase's roles."""
    name = f"empty_{uuid4().hex[:12]}"
    roles = ("anon", "authenticated", "service_role")
    with psycopg.connect(postgres_server.dsn(), autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
        for role in roles:
            db.execute(f"CREATE ROLE {role}")
    database = TestDatabase(postgres_server, name)
    yield database
    with psycopg.connect(postgres_server.dsn(), autocommit=True) as db:
        db.execute(f"DROP DATABASE {name} WITH (FORCE)")
        for role in roles:
            db.execute(f"DROP ROLE {role}")


def test_migrations_are_named_as_the_supabase_cli_wants_them() -> None:
    assert len(MIGRATIONS) >= 2
    assert all(re.fullmatch(r"\d{14}_[a-z_]+\.sql", path.name) for path in MIGRATIONS)


def test_applying_the_migrations_again_changes_nothing(empty_database: TestDatabase) -> None:
    migrate(empty_database.owner)
    empty_database.sql(*ALL)
    before = empty_database.sql(TABLES), empty_database.sql("SELECT * FROM pipeline_ops.subscriptions")
    migrate(empty_database.owner)
    assert (empty_database.sql(TABLES), empty_database.sql("SELECT * FROM pipeline_ops.subscriptions")) == before


def test_supabases_public_roles_see_nothing_even_if_somebody_lets_them_in(empty_database: TestDatabase) -> None:
    migrate(empty_database.owner)
    record = "INSERT INTO pipeline_ops.records (kind, org_slug, name, body) VALUES ('k', 'o', 'n', '{}')"
    empty_database.sql(*ALL, record)
    tables = [name for (name,) in empty_database.sql(TABLES)]
    assert len(tables) == 16
    for role in ("anon", "authenticated"):
        with pytest.raises(errors.InsufficientPrivilege):
            empty_database.sql(f"SET ROLE {role}", "SELECT * FROM pipeline_ops.plans")
        empty_database.sql(
            f"GRANT USAGE ON SCHEMA pipeline_ops TO {role}", f"GRANT ALL ON ALL TABLES IN SCHEMA pipeline_ops TO {role}"
        )
        for table in tables:
            assert empty_database.sql(f"SET ROLE {role}", f"SELECT * FROM pipeline_ops.{table}") == []


def test_the_products_backend_keeps_the_plans_on_supabase(empty_database: TestDatabase) -> None:
    migrate(empty_database.owner)
    empty_database.sql("ALTER ROLE service_role BYPASSRLS")
    rows = empty_database.sql("SET ROLE service_role", *ALL, "SELECT * FROM pipeline_ops.organisation_limits")
    assert len(rows) == 1
    with pytest.raises(errors.InsufficientPrivilege):
        empty_database.sql("SET ROLE service_role", "SELECT * FROM pipeline_ops.records")


def test_every_table_and_every_column_says_what_it_is(postgres_database: TestDatabase) -> None:
    silent = """
    SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'pipeline_ops'::regnamespace AND c.relkind IN ('r', 'v') AND NOT a.attisdropped
      AND (a.attnum > 0 AND col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid, 'pg_class') IS NULL)
    """
    assert postgres_database.sql(silent) == []


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("reader", "SELECT * FROM pipeline_ops.runs"),
        ("reader", "SELECT * FROM pipeline_ops.records"),
        ("reader", "SELECT name FROM pipeline_ops.organisations"),
        ("reader", "UPDATE pipeline_ops.limits SET daily = 10000"),
        ("reader", "INSERT INTO pipeline_ops.plans VALUES ('free', 'Free')"),
        ("reader", "DELETE FROM pipeline_ops.subscriptions"),
        ("runner", "SELECT * FROM pipeline_ops.organisation_limits"),
        ("runner", "UPDATE pipeline_ops.limits SET daily = 10000"),
        ("runner", "TRUNCATE pipeline_ops.runs"),
    ],
)
def test_each_role_may_do_its_own_work_alone(postgres_database: TestDatabase, role: str, statement: str) -> None:
    with psycopg.connect(getattr(postgres_database, role)) as db, pytest.raises(errors.InsufficientPrivilege):
        db.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO pipeline_ops.plans VALUES ('Scale', 'x')",
        "INSERT INTO pipeline_ops.plans VALUES ('other', '')",
        "UPDATE pipeline_ops.limits SET daily = -1",
        "UPDATE pipeline_ops.limits SET monthly = NULL",
        "UPDATE pipeline_ops.limits SET money_usd = -0.01",
        "UPDATE pipeline_ops.limits SET money_usd = 'NaN'",
        "UPDATE pipeline_ops.limits SET weight = 0",
        "UPDATE pipeline_ops.subscriptions SET status = 'active'",
        "UPDATE pipeline_ops.subscriptions SET ended_at = started_at - interval '1 s'",
        "INSERT INTO pipeline_ops.organisations VALUES ('Acme; drop', 'x')",
        "INSERT INTO pipeline_ops.organisations VALUES ('*', 'x')",
        SUBSCRIPTION,  # a second one at the same time
        "INSERT INTO pipeline_ops.subscriptions (org_slug, plan_id, status) VALUES ('nobody', 'scale', 'ACTIVE')",
        "DELETE FROM pipeline_ops.plans",
        "INSERT INTO pipeline_ops.deployment VALUES (false, 7)",
        "INSERT INTO pipeline_ops.deployment VALUES (true, 7)",
    ],
)
def test_what_can_not_be_right_is_refused(postgres_database: TestDatabase, statement: str) -> None:
    postgres_database.sql(*ALL)
    with pytest.raises(errors.IntegrityError):
        postgres_database.sql(statement)


def test_the_statements_of_the_documentation_make_an_organisation_that_may_run(postgres_database: TestDatabase) -> None:
    (block,) = re.findall(r"```sql\n(.*?)```", (PROJECT_ROOT / "docs" / "plans.md").read_text(), re.DOTALL)
    statements = [one for one in block.split(";\n") if one.strip() and "PASSWORD" not in one]
    select = "SELECT org_slug, status, daily, money_usd FROM pipeline_ops.organisation_limits"
    assert postgres_database.sql(*statements, select) == [("acme_corp", "ACTIVE", 2000, 500)]


def test_nobody_can_subscribe_to_a_plan_without_limits(postgres_database: TestDatabase) -> None:
    with pytest.raises(errors.ForeignKeyViolation):
        postgres_database.sql(PLAN, ORG, SUBSCRIPTION)
