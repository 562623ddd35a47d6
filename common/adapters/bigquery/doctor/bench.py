"""What the probes work with: a warehouse, a second one beside it, and tables in one dataset of their own."""

import itertools
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from common.adapters.bigquery.warehouse import BigQueryWarehouse
from common.domain.model import Receipt, WriteSpec
from common.platform.errors import PipelineOpsError
from common.ports.warehouse import Commit, Lineage
from common.tables.contract import DATA_DATE, Table
from common.writes.batch import Batch
from common.writes.spool import Spool

ORG, PIPELINE, CREDENTIAL = "doctor", "doctor", "none"
DAY = date(2026, 1, 1)
WAIT_S = 120.0
LEASE = timedelta(minutes=10)

EVERY_TYPE = Table.model_validate(
    {
        "table": "every_type",
        "description": "A column of every type, made by `main.py doctor`.",
        "columns": [
            {"name": "name", "type": "STRING", "mode": "REQUIRED", "description": "Name of the row"},
            {"name": "quantity", "type": "INT64"},
            {"name": "cost", "type": "BIGNUMERIC"},
            {"name": "is_on", "type": "BOOL"},
            {"name": "day", "type": "DATE"},
            {"name": "at", "type": "TIMESTAMP"},
            {"name": "tags", "type": "JSON"},
        ],
    }
)
COST = Decimal("12345678901234567890.123456789012345678")
"""As many digits as BigQuery and its emulator both keep."""


class WrongResultError(PipelineOpsError):
    """BigQuery took what it was given and then returned something else than the product relies on."""


class NotCheckedError(Exception):
    """The emulator has nothing of the kind."""


class Bench:
    """One run of the doctor. ``dataset`` is ``project.dataset``.

    ``rival`` is a second client: writers of one process queue in it, and would never meet in BigQuery.
    """

    def __init__(self, made: Callable[[], BigQueryWarehouse], dataset: str, folder: Path) -> None:
        self._plain = made(), made()
        self.warehouse, self.rival = self._plain
        self.dataset, self.folder = dataset, folder
        self.name = f"doctor_{secrets.token_hex(6)}"
        self.labels: Mapping[str, str] = {}
        self.jobs: dict[str, str] = {}
        """The job ids that were reported so far, with the probe that started each."""
        self.receipts: dict[str, Receipt] = {}
        self.owns: Literal["nothing", "tables", "dataset"] = "nothing"
        """What may be removed at the end. Only the probe that finds the dataset missing, or empty, says more."""
        self.made: list[str] = []
        """Names of tables and procedures."""
        self._numbers = itertools.count(1)

    def begin(self, probe: str) -> None:
        """Label and note the jobs that are started from now on."""
        self.labels = {"org": ORG, "pipeline": PIPELINE, "run": self.name, "step": probe}

        def seen(job_id: str) -> None:
            self.jobs.setdefault(job_id, probe)

        self.warehouse, self.rival = (one.labelled(self.labels, seen) for one in self._plain)

    @property
    def client(self) -> Any:
        """The warehouse's client."""
        return self.warehouse.connection.client

    @property
    def is_emulator(self) -> bool:
        """Whether this is no real project."""
        return not self.warehouse.connection.has_locations

    def table(self, name: str) -> str:
        """Return the id of a table (or procedure) of the bench, and note that it is its own."""
        if name not in self.made:
            self.made.append(name)
        return f"{self.dataset}.{name}"

    def is_own(self, name: str) -> bool:
        """Return whether the bench has made the table, or one that belongs to it."""
        return any(name == one or name.startswith(f"{one}__") for one in self.made)

    def rows(self, sql: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run a query; ``{dataset}`` stands for the bench's."""
        return list(self.warehouse.query(sql.replace("{dataset}", self.dataset), params))

    def staged(self, target: str, rows: Sequence[Mapping[str, Any]], write: WriteSpec) -> Commit:
        """Spool, stage and load rows as a step does; return the commit that is to follow."""
        number = next(self._numbers)
        name = f"{self.name}_{number}"
        self.warehouse.ensure_table(target, EVERY_TYPE)
        path = self.folder / f"{name}.parquet"
        spool = Spool(path, EVERY_TYPE, DAY, DAY, self.warehouse.decimal_digits, write=write, org_slug=ORG)
        spool.write(Batch([dict(row) for row in rows]))
        spooled = spool.close()
        staging = self.warehouse.create_staging(target, EVERY_TYPE, name, spooled=True)
        self.warehouse.load(staging, EVERY_TYPE, path, job_id=f"{name}_load")
        return self.order(target, staging, number, write, spooled.rows, spooled.content_hash)

    def order(
        self, target: str, staging: str, number: int, write: WriteSpec, rows: int | None, content_hash: str = ""
    ) -> Commit:
        """Return a commit of a staging table; attempts are numbered, and their fences grow."""
        now = datetime.now(UTC)
        return Commit(
            target=target,
            table=EVERY_TYPE,
            staging=staging,
            lineage=Lineage(ORG, PIPELINE, CREDENTIAL, f"{self.name}_{number}", now),
            first_day=DAY,
            last_day=DAY,
            write=write,
            step_id="doctor",
            attempt=number,
            fence=number,
            not_after=now + LEASE,
            job_id=f"{self.name}_{number}_commit",
            rows=rows,
            content_hash=content_hash,
            wait_s=WAIT_S,
            spooled=rows is not None,
        )

    def next_number(self) -> int:
        """Return a number that no attempt has had."""
        return next(self._numbers)

    def commit(self, write: Commit) -> Receipt:
        """Commit, as a step does."""
        return self.warehouse.commit(write, lambda _text: None)

    def names(self, target: str) -> list[str]:
        """Return the names of the rows that a table has."""
        return [str(row["name"]) for row in self.rows(f"SELECT name FROM `{target}` ORDER BY name")]  # noqa: S608


def row(name: str, **more: Any) -> dict[str, Any]:
    """Return a row with a value of every type."""
    return {
        "name": name,
        "quantity": 9_007_199_254_740_993,
        "cost": COST,
        "is_on": True,
        "day": DAY,
        "at": datetime(2026, 1, 1, 23, 59, 59, 123456, tzinfo=UTC),
        "tags": {"team": "Käse", "ratio": 0.1, "list": [1, None]},
        DATA_DATE: DAY,
        **more,
    }


def expect(found: object, wanted: object, what: str) -> None:
    """Raise WrongResultError if they differ."""
    if found != wanted:
        raise WrongResultError(f"{what}: {found!r} came back, {wanted!r} was expected.")
