"""An organisation's dataset on the emulator, for tests of FOCUS procedures: source rows in, FOCUS rows out."""

import itertools
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from common.adapters.bigquery import BigQueryWarehouse
from common.adapters.bigquery.tables import staged_fields
from common.domain.model import DEFAULT_WRITE
from common.platform.paths import CONFIGS
from common.ports.warehouse import Lineage
from common.processors.sql.procedure_executor import ProcedureExecutor, ProcedureParams
from common.tables.contract import DATA_DATE, Column, Table, load_table
from common.writes.batch import Batch
from common.writes.spool import Spool
from tests.loaded import load_file, load_rows
from tests.processors.context import make_context

DAY = date(2026, 10, 5)
AT = datetime(2026, 10, 6, tzinfo=UTC)
FOCUS = load_table(CONFIGS, "cost_data_standard_1_3")
numbers = itertools.count()


@dataclass
class Dataset:
    """One organisation's dataset: source rows in, FOCUS rows out."""

    warehouse: BigQueryWarehouse
    folder: Path
    name: str

    def fill(
        self,
        table: str,
        rows: list[dict[str, Any]],
        org: str = "acme",
        days: tuple[date, date] = (DAY, DAY),
        pipeline: str = "pipe",
    ) -> None:
        contract = load_table(CONFIGS, table)
        dated = [{"x_pipeline_run_date": DAY, **row} for row in rows]
        lineage = Lineage(org, pipeline, "cred", "run", AT)
        load_rows(self.warehouse, self.folder, f"{self.name}.{table}", contract, dated, days, lineage)

    def put(self, table: str, rows: list[dict[str, Any]], days: tuple[date, date]) -> None:
        """Make a table of rows alone, as a procedure reads it: cheaper than a commit with ledger and lineage."""
        from google.cloud import bigquery

        contract, key = load_table(CONFIGS, table), {"x_org_slug": "acme", "x_pipeline_id": "pipe"}
        key["x_credential_id"] = "cred"
        columns = (*contract.columns, *(Column(name=name, type="STRING") for name in key))
        keyed = contract.model_copy(update={"columns": columns})
        path = self.folder / f"{next(numbers)}.parquet"
        spool = Spool(path, keyed, *days, self.warehouse.decimal_digits, write=DEFAULT_WRITE, org_slug="acme")
        spool.write(Batch([row | key for row in rows]))
        spool.close()
        self.warehouse.tables.make_dataset(self.name)
        made = bigquery.Table(f"{self.name}.{table}", schema=staged_fields(keyed))
        self.warehouse.connection.client.create_table(made)
        day = Column(name=DATA_DATE, type="DATE")
        load_file(self.warehouse, f"{self.name}.{table}", (*keyed.columns, day), path)

    def call(
        self, procedure: str, source: str, reported: str = "", into: Table = FOCUS, **where: Any
    ) -> list[dict[str, Any]]:
        """Call a procedure on one source; GenAI's with the table of reported costs, or without one."""
        more: dict[str, Any] = {"further_tables": (reported,)} if reported else {}
        if procedure == "sp_convert_to_focus" and not reported:
            more = {"arguments": ("",)}
        return self.run(ProcedureParams(procedure=procedure, source_table=source, **more), into, **where)

    def run(self, params: ProcedureParams, into: Table, **where: Any) -> list[dict[str, Any]]:
        """Run a step that calls a procedure; return the rows that it stages."""
        target = f"{self.name}.{into.table}"
        self.warehouse.ensure_table(target, into)
        staging = self.warehouse.create_staging(target, into, f"n{next(numbers)}")
        context = make_context(
            warehouse=self.warehouse,
            dataset=self.name,
            table=lambda name: f"{self.name}.{name}",
            staging=lambda: staging,
            org_slug="acme",
            credential_id="cred",
            run_id=f"run{next(numbers)}",
            **{"pipeline_id": "pipe", "start_date": DAY, "end_date": DAY, **where},
        )
        staged = params.model_copy(update={"destination_table": into.table})
        assert list(ProcedureExecutor().run(context, staged)) == []
        order = "ORDER BY ChargeDescription, BilledCost" if into is FOCUS else ""
        return list(self.warehouse.query(f"SELECT * FROM `{staging}` {order}"))


def cost(meter: str, quantity: str, price: str | None, **more: Any) -> dict[str, Any]:
    amount = None if price is None else Decimal(quantity) * Decimal(price)
    return {
        "provider": "openai",
        "account_id": "org-1",
        "endpoint": "completions",
        "project_id": "proj_a",
        "model": "gpt-4o",
        "meter": meter,
        "quantity": Decimal(quantity),
        "unit": "Tokens",
        "unit_price": None if price is None else Decimal(price),
        "list_unit_price": None if price is None else Decimal(price),
        "cost": amount,
        "list_cost": amount,
        "currency": "USD",
        "price_variant": "standard",
        "price_source": "genai-prices 0.2.3",
        **OPENAI,
        **more,
    }


OPENAI = {
    "provider_name": "OpenAI",
    "service_name": "OpenAI API",
    "account_type": "Organization",
    "project_type": "Project",
}


def reported(amount: str, model: str | None = "gpt-4o", **more: Any) -> dict[str, Any]:
    """A line of OpenAI's costs."""
    return {
        "provider": "openai",
        "account_id": "org-1",
        "bucket_start": datetime(2026, 10, 5, tzinfo=UTC),
        "bucket_end": datetime(2026, 10, 6, tzinfo=UTC),
        "project_id": "proj_a",
        "line_item": f"{model}, input",
        "model": model,
        "amount": Decimal(amount),
        "currency": "USD",
        **OPENAI,
        **more,
    }


def export(billed: str, **more: Any) -> dict[str, Any]:
    """One row of a FOCUS 1.0 export: none of the later columns."""
    month = (datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
    return {
        "source_file": "x.csv",
        "source_row": 1,
        "ProviderName": "AWS",
        "PublisherName": "Seller",
        "InvoiceIssuerName": "AWS",
        "BillingAccountId": "1",
        "BillingCurrency": "EUR",
        "BillingPeriodStart": month[0],
        "BillingPeriodEnd": month[1],
        "ChargePeriodStart": month[0],
        "ChargePeriodEnd": month[1],
        "ChargeCategory": "Usage",
        "ServiceName": "EC2",
        "ServiceCategory": "Compute",
        "BilledCost": Decimal(billed),
        "EffectiveCost": Decimal(billed),
        "ListCost": Decimal(billed),
        "ContractedCost": Decimal(billed),
        "ListUnitPrice": Decimal("0.1"),
        **more,
    }
