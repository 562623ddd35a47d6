"""One organisation's dataset on the emulator: rows of a source table in, rows of FOCUS 1.3 out."""

import itertools
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from common.adapters.bigquery import BigQueryWarehouse
from common.domain.model import DEFAULT_WRITE
from common.paths import configs_dir
from common.ports import Commit, Lineage
from common.processors.base import Batch
from common.processors.procedure_executor import ProcedureExecutor, ProcedureParams
from common.spool import Spool
from common.table import load_table
from tests.processors.context import make_context

DAY = date(2026, 10, 5)
AT = datetime(2026, 10, 6, tzinfo=UTC)
FOCUS = load_table(configs_dir(), "cost_data_standard_1_3")
numbers = itertools.count()


@dataclass
class Dataset:
    """One organisation's dataset: source rows in, FOCUS rows out."""

    warehouse: BigQueryWarehouse
    folder: Path
    name: str

    def fill(
        self, table: str, rows: list[dict[str, Any]], org: str = "acme", days: tuple[date, date] = (DAY, DAY)
    ) -> None:
        contract, target = load_table(configs_dir(), table), f"{self.name}.{table}"
        self.warehouse.ensure_table(target, contract)
        staging = self.warehouse.create_staging(target, contract, f"n{next(numbers)}")
        number = next(numbers)
        path = self.folder / f"{number}.parquet"
        spool = Spool(path, contract, *days, self.warehouse.decimal_digits, write=DEFAULT_WRITE, org_slug=org)
        spool.write(Batch([{"x_pipeline_run_date": DAY, **row} for row in rows]))
        spool.close()
        self.warehouse.load(staging, contract, path, job_id=f"fill{number}")
        key = Lineage(org, "pipe", "cred", "run", AT)
        write = Commit(
            target=target,
            table=contract,
            staging=staging,
            lineage=key,
            first_day=days[0],
            last_day=days[1],
            write=DEFAULT_WRITE,
            step_id="fill",
            attempt=number,
            fence=number,
            not_after=datetime(2100, 1, 1, tzinfo=UTC),
            job_id=f"fillc{number}",
        )
        self.warehouse.commit(write, lambda _text: None)

    def call(self, procedure: str, source: str, **where: Any) -> list[dict[str, Any]]:
        target = f"{self.name}.{FOCUS.table}"
        self.warehouse.ensure_table(target, FOCUS)
        staging = self.warehouse.create_staging(target, FOCUS, f"n{next(numbers)}")
        context = make_context(
            warehouse=self.warehouse,
            dataset=self.name,
            table=lambda name: f"{self.name}.{name}",
            staging_table=staging,
            org_slug="acme",
            pipeline_id="pipe",
            credential_id="cred",
            run_id=f"run{next(numbers)}",
            **{"start_date": DAY, "end_date": DAY, **where},
        )
        params = ProcedureParams(procedure=procedure, source_table=source, destination_table=FOCUS.table)
        assert list(ProcedureExecutor().run(context, params)) == []
        return list(self.warehouse.query(f"SELECT * FROM `{staging}` ORDER BY ChargeDescription, BilledCost"))
