"""Fixtures on a real PostgreSQL: one server a session, a database of its own for each test."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import psycopg
import pytest

from common.adapters.sql.postgres.client import Postgres
from common.platform.paths import PROJECT_ROOT
from tests.postgres_server import PostgresServer

MIGRATIONS = sorted((PROJECT_ROOT / "infra" / "supabase" / "migrations").glob("*.sql"))
ROLE_PASSWORD = "canary-role-77d0"
TEMPLATE = "migrated"


@dataclass(frozen=True)
class TestDatabase:
    """A database with all migrations."""

    __test__ = False

    server: PostgresServer
    name: str

    @property
    def owner(self) -> str:
        """The connection string of whoever may do everything."""
        return self.server.dsn(self.name)

    @property
    def reader(self) -> str:
        """The connection string of the role that reads plans."""
        return self.server.dsn(self.name, "pipeline_ops_reader", ROLE_PASSWORD)

    @property
    def runner(self) -> str:
        """The connection string of the role that keeps runs."""
        return self.server.dsn(self.name, "pipeline_ops_runner", ROLE_PASSWORD)

    def sql(self, *statements: str) -> list[tuple[object, ...]]:
        """Run statements as the owner; return the rows of the last."""
        with psycopg.connect(self.owner) as db:
            for statement in statements:
                cursor = db.execute(statement)
            return cursor.fetchall() if cursor.description else []


def migrate(dsn: str) -> None:
    """Apply every migration, each in one transaction, as the Supabase CLI and psql -1 do."""
    for path in MIGRATIONS:
        with psycopg.connect(dsn) as db:
            db.execute(path.read_text())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server, with a template database that has all migrations."""
    server = PostgresServer()
    try:
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as db:
            db.execute(f"CREATE DATABASE {TEMPLATE}")
            migrate(server.dsn(TEMPLATE))
            for role in ("pipeline_ops_reader", "pipeline_ops_runner"):
                db.execute(f"ALTER ROLE {role} LOGIN PASSWORD '{ROLE_PASSWORD}'")
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[TestDatabase]:
    """A fresh database with all migrations."""
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_server.dsn(), autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield TestDatabase(postgres_server, name)
    with psycopg.connect(postgres_server.dsn(), autocommit=True) as db:
        db.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres(postgres_database: TestDatabase) -> Iterator[Postgres]:
    """The client on a fresh database, as the role that keeps runs. More of its threads meet there than in service."""
    client = Postgres(postgres_database.runner, "PIPELINE_OPS_POSTGRES_DSN", connections=16)
    yield client
    client.close()
