"""One target table in a dataset of its own, and how tests write to it."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.domain.model import Receipt, WriteSpec
from common.ports.warehouse import Commit, Lineage
from common.tables.contract import Table
from common.writes.batch import Batch
from common.writes.spool import Spool
from tests.conftest import PROJECT
from tests.loaded import dropped

TABLE = Table.model_validate(
    {
        "table": "costs",
        "description": "A test",
        "columns": [
            {"name": "name", "type": "STRING", "mode": "REQUIRED"},
            {"name": "cost", "type": "BIGNUMERIC"},
            {"name": "at", "type": "TIMESTAMP"},
            {"name": "tags", "type": "JSON"},
            {"name": "n", "type": "INT64"},
            {"name": "flag", "type": "BOOL"},
        ],
    }
)
AT = datetime(2026, 11, 21, 23, 59, 59, 123456, tzinfo=UTC)
NEVER = datetime(2100, 1, 1, tzinfo=UTC)
D1, D2, D3 = (date(2026, 11, day) for day in (1, 2, 3))
DAYS = (D1, D3)
LINEAGE_1 = Lineage("acme", "pipe", "cred", "run_1", AT)
REPLACE = WriteSpec(on_empty="replace")
LINEAGE_FIELDS = {"org_slug", "pipeline_id", "credential_id", "run_id", "ingested_at"}
numbers = itertools.count(1)


@dataclass
class Target:
    """One target table in its own dataset. Each write is a new attempt with a higher fence, unless a test says more."""

    warehouse: BigQueryWarehouse
    folder: Path
    table_id: str
    table: Table = TABLE
    spooled: set[str] = field(default_factory=set)
    """Staging tables made for files."""

    def stage(self, rows: Iterable[dict[str, Any]], days: tuple[date, date] = DAYS) -> str:
        self.warehouse.ensure_table(self.table_id, self.table)
        number = next(numbers)
        staging = self.warehouse.create_staging(self.table_id, self.table, f"s{number}", spooled=True)
        self.spooled.add(staging)
        path = self.folder / f"{number}.parquet"
        spool = Spool(path, self.table, *days, self.warehouse.decimal_digits, write=REPLACE, org_slug="acme")
        spool.write(Batch(list(rows)))
        if spool.close().rows:
            self.warehouse.load(staging, self.table, path, job_id=f"load{number}")
        return staging

    def staged_by_sql(self, columns: str, values: str) -> str:
        """A staging table as a procedure fills it, past the checks of the spool."""
        self.warehouse.ensure_table(self.table_id, self.table)
        staging = self.warehouse.create_staging(self.table_id, self.table, f"s{next(numbers)}")
        self.sql(f"INSERT INTO `{staging}` ({columns}) VALUES {values}")
        return staging

    def order(self, staging: str, days: tuple[date, date] = DAYS, **more: Any) -> Commit:
        """A commit; ``more`` are fields of it or of its lineage."""
        number = next(numbers)
        lineage = replace(LINEAGE_1, **{name: more.pop(name) for name in LINEAGE_FIELDS & set(more)})
        order = Commit(
            target=self.table_id,
            table=self.table,
            staging=staging,
            lineage=lineage,
            first_day=days[0],
            last_day=days[1],
            write=REPLACE,
            step_id="load",
            attempt=number,
            fence=number,
            not_after=NEVER,
            job_id=f"commit{number}",
            spooled=staging in self.spooled,
        )
        return replace(order, **more)

    def commit(self, staging: str, days: tuple[date, date] = DAYS, **more: Any) -> Receipt:
        return self.warehouse.commit(self.order(staging, days, **more), lambda _text: None)

    def write(self, rows: Iterable[dict[str, Any]], days: tuple[date, date] = DAYS, **more: Any) -> Receipt:
        return self.commit(self.stage(rows, days), days, **more)

    def sql(self, statement: str, **params: Any) -> list[dict[str, Any]]:
        return list(self.warehouse.query(statement.replace("{table}", f"`{self.table_id}`"), params))

    def names(self) -> list[tuple[str, str, str, str, str, date]]:
        return sorted(
            tuple(row.values())  # type: ignore[misc]
            for row in self.sql(
                "SELECT name, x_org_slug o, x_pipeline_id p, x_credential_id c, x_run_id r, x_pipeline_run_date d"
                " FROM {table}"
            )
        )

    def runs(self) -> list[tuple[str, str]]:
        """Which rows are there, and of which run."""
        return [(name, run) for name, _, _, _, run, _ in self.names()]

    def ledger(self) -> list[dict[str, Any]]:
        """The commits that the ledger knows, in their order."""
        return self.sql(f"SELECT * FROM `{self.table_id}__commits` WHERE x_run_id IS NOT NULL ORDER BY fence")


@pytest.fixture
def target(warehouse: BigQueryWarehouse, tmp_path: Path) -> Iterator[Target]:
    with dropped(warehouse, f"{PROJECT}.ds{next(numbers)}") as dataset:
        yield Target(warehouse, tmp_path, f"{dataset}.costs")


def row(name: str, day: date = D1, **more: Any) -> dict[str, Any]:
    return {"name": name, "x_pipeline_run_date": day, **more}
