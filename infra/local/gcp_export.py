"""Generates a detailed billing export of Google Cloud, as rows for a table of the BigQuery emulator.

It is the same for the same seed, and has what real exports have: prices per block, discounts, promotions as credits,
tax, corrections, rows without a project, labels and tags, rows that arrive days late, and costs as floats.
"""

import random
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from common.domain.dates import next_month

Row = dict[str, Any]
Service = tuple[str, str, str, str, str, str, int, str]
"""Service id and name, SKU id and name, units of usage and price, number of units that the price is for, price."""

BILLING_ACCOUNT = "010101-F0FFF0-61C528"
CURRENCY = "EUR"
SERVICES = (
    ("6F81-5844-456A", "Compute Engine", "2E27-4F75-95CD", "N1 Core in Americas", "seconds", "hour", 1, "0.031611"),
    ("95FF-2EF5-5EA1", "Cloud Storage", "E5F0-6A5D-7BAD", "Standard Storage", "bytes", "gibibyte month", 1, "0.02"),
    ("152E-C115-5142", "Cloud Run", "2DA5-55D3-E679", "Requests", "requests", "count", 1_000_000, "0.4"),
    ("C7E2-9256-1C43", "Vertex AI", "0A1B-2C3D-4E5F", "Gemini 3 Input Text", "count", "count", 1, "0.00000125"),
)


def export_rows(
    *, seed: int, first_day: date, days: int, rows_per_day: int, without: Collection[str] = ()
) -> Iterator[tuple[Row, Decimal]]:
    """Yield each row and the exact amount it adds to the invoice, cost and credits. ``without`` excludes services."""
    services = [service for service in SERVICES if service[1] not in without]
    for number in range(days):
        day = first_day + timedelta(days=number)
        rng = random.Random(f"gcp/{seed}/{day}")
        for _ in range(rows_per_day):
            yield _usage(rng, day, services)
        yield _plain(rng, day, "tax", "Tax", Decimal(rng.randint(1, 900)) / 100)
        yield _plain(rng, day, "rounding_error", "Rounding error", Decimal("0.000003"))
        yield _correction(rng, day, services)


def _usage(rng: random.Random, day: date, services: Sequence[Service]) -> tuple[Row, Decimal]:
    service_id, service, sku_id, sku, unit, pricing_unit, block, price = rng.choice(services)
    amount = Decimal(rng.randint(0, 90_000)) / 1_000 * block
    contracted = Decimal(price) * Decimal("0.9")
    cost = amount / block * contracted
    credits = [
        _credit("COMMITTED_USAGE_DISCOUNT", "Committed use discount", -cost / 4) if rng.random() < 0.2 else None,
        _credit("FREE_TIER", "Free tier", -cost / 8) if rng.random() < 0.2 else None,
        _credit("PROMOTION", "Free trial", -cost / 2) if rng.random() < 0.2 else None,
    ]
    applied = [credit for credit in credits if credit is not None]
    hour = rng.randrange(24)
    start = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
    project = rng.choice(("search-prod", "chat-prod", None))
    row = _row(day, start, "regular", _float(cost)) | {
        "service": {"id": service_id, "description": service},
        "sku": {"id": sku_id, "description": sku},
        "usage": {
            "amount": float(amount),
            "unit": unit,
            "amount_in_pricing_units": float(amount),
            "pricing_unit": pricing_unit,
        },
        "price": {
            "list_price": price,
            "effective_price": str(contracted),
            "effective_price_default": str(contracted),
            "tier_start_amount": "0",
            "unit": pricing_unit,
            "pricing_unit_quantity": str(block),
        },
        "credits": applied,
        "labels": [{"key": "team", "value": rng.choice(("platform", "search"))}, {"key": "env", "value": "prod"}],
        "tags": [{"key": "env", "value": "live", "inherited": True, "namespace": BILLING_ACCOUNT}],
        "location": {"location": "us-central1", "country": "US", "region": "us-central1", "zone": "us-central1-a"},
        # Every export has late rows: these arrive four days after their day.
        "export_time": _text(start + timedelta(days=4 if rng.random() < 0.05 else 0, hours=30)),
    }
    if project is not None:
        row["project"] = {"id": project, "name": project.title(), "labels": [{"key": "cost-center", "value": "4711"}]}
        name = f"//compute.googleapis.com/projects/{project}/zones/us-central1-a/instances/{rng.randint(1, 9)}"
        row["resource"] = {"name": name.rpartition("/")[2], "global_name": name}
    return row, _exact(row)


def _plain(rng: random.Random, day: date, cost_type: str, description: str, cost: Decimal) -> tuple[Row, Decimal]:
    start = datetime(day.year, day.month, day.day, 23, tzinfo=UTC)
    row = _row(day, start, cost_type, _float(cost)) | {
        "service": {"id": "0000-0000-0000", "description": "Invoice"},
        "sku": {"id": f"{rng.randint(1, 9)}-{cost_type}", "description": description},
    }
    return row, _exact(row)


def _correction(rng: random.Random, day: date, services: Sequence[Service]) -> tuple[Row, Decimal]:
    """Return a correction of this day's usage on the next month's invoice."""
    row, _ = _usage(rng, day, services)
    month = next_month(day).strftime("%Y%m")
    row |= {
        "cost": -0.25,
        "credits": [],
        "usage": row["usage"] | {"amount": -1.0, "amount_in_pricing_units": -1.0},
        "invoice": {"month": month, "publisher_type": "GOOGLE"},
        "adjustment_info": {"id": f"adj-{day}", "type": "USAGE_CORRECTION", "mode": "PARTIAL_CORRECTION"},
    }
    return row, _exact(row)


def _row(day: date, start: datetime, cost_type: str, cost: float) -> Row:
    return {
        "billing_account_id": BILLING_ACCOUNT,
        "invoice": {"month": day.strftime("%Y%m"), "publisher_type": "GOOGLE"},
        "cost_type": cost_type,
        "usage_start_time": _text(start),
        "usage_end_time": _text(start + timedelta(hours=1)),
        "cost": cost,
        "currency": CURRENCY,
        "currency_conversion_rate": 0.93,
        "credits": [],
        "labels": [],
        "tags": [],
        "system_labels": [],
        "export_time": _text(start + timedelta(hours=30)),
    }


def _credit(kind: str, name: str, amount: Decimal) -> Row:
    return {"id": f"c-{kind.lower()}", "full_name": name, "type": kind, "name": name, "amount": _float(amount)}


def _float(value: Decimal) -> float:
    return float(round(value, 12))


def _exact(row: Row) -> Decimal:
    """Return a row's amount: the sum of the shortest decimal forms of its floats, as readers cast them."""
    return sum((Decimal(repr(credit["amount"])) for credit in row["credits"]), Decimal(repr(row["cost"])))


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S+00:00")


_KEY_VALUE = {"key": "STRING", "value": "STRING"}
_TAG = {**_KEY_VALUE, "inherited": "BOOL", "namespace": "STRING"}

SCHEMA: dict[str, Any] = {
    "billing_account_id": "STRING",
    "service": {"id": "STRING", "description": "STRING"},
    "sku": {"id": "STRING", "description": "STRING"},
    "usage_start_time": "TIMESTAMP",
    "usage_end_time": "TIMESTAMP",
    "project": {"id": "STRING", "number": "STRING", "name": "STRING", "labels": [_KEY_VALUE]},
    "labels": [_KEY_VALUE],
    "system_labels": [_KEY_VALUE],
    "tags": [_TAG],
    "location": {"location": "STRING", "country": "STRING", "region": "STRING", "zone": "STRING"},
    "resource": {"name": "STRING", "global_name": "STRING"},
    "price": {
        "effective_price": "NUMERIC",
        "tier_start_amount": "NUMERIC",
        "unit": "STRING",
        "pricing_unit_quantity": "NUMERIC",
        "list_price": "NUMERIC",
        "effective_price_default": "NUMERIC",
    },
    "cost": "FLOAT64",
    "currency": "STRING",
    "currency_conversion_rate": "FLOAT64",
    "usage": {"amount": "FLOAT64", "unit": "STRING", "amount_in_pricing_units": "FLOAT64", "pricing_unit": "STRING"},
    "credits": [{"id": "STRING", "full_name": "STRING", "type": "STRING", "name": "STRING", "amount": "FLOAT64"}],
    "invoice": {"month": "STRING", "publisher_type": "STRING"},
    "cost_type": "STRING",
    "adjustment_info": {"id": "STRING", "description": "STRING", "mode": "STRING", "type": "STRING"},
    "transaction_type": "STRING",
    "seller_name": "STRING",
    "subscription": {"instance_id": "STRING"},
    "consumption_model": {"id": "STRING", "description": "STRING"},
    "export_time": "TIMESTAMP",
}
"""Fields of the detailed export: a dict is a record, a list with one dict a repeated record."""


def emulator_client(project: str, url: str) -> Any:
    """Return a BigQuery client for the emulator at this address."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    nobody = AnonymousCredentials()  # type: ignore[no-untyped-call]
    return bigquery.Client(project, nobody, client_options={"api_endpoint": url})


def write_export(client: Any, table_id: str, rows: list[Row]) -> None:
    """Replace the table, partitioned by the day of export, and load the rows (``client`` is a BigQuery client)."""
    client.delete_table(table_id, not_found_ok=True)
    _load(client, _make(client, table_id), rows)


def add_days(client: Any, table_id: str, rows: list[Row]) -> None:
    """Load the rows of days that the table does not have; create the table if it does not exist."""
    table = _make(client, table_id)
    stored = client.query(f"SELECT DISTINCT DATE(usage_start_time) AS day FROM `{table_id}`")  # noqa: S608
    days = {str(row["day"]) for row in stored}
    new = [row for row in rows if row["usage_start_time"][:10] not in days]
    if new:
        _load(client, table, new)


def _make(client: Any, table_id: str) -> Any:
    from google.cloud import bigquery

    def fields(schema: dict[str, Any]) -> list[Any]:
        return [field(name, kind) for name, kind in schema.items()]

    def field(name: str, kind: Any) -> Any:
        if isinstance(kind, str):
            return bigquery.SchemaField(name, kind)
        mode, inner = ("REPEATED", kind[0]) if isinstance(kind, list) else ("NULLABLE", kind)
        return bigquery.SchemaField(name, "RECORD", mode, fields=fields(inner))

    table = bigquery.Table(table_id, fields(SCHEMA))
    table.time_partitioning = bigquery.TimePartitioning(field="export_time")
    client.create_dataset(table_id.rpartition(".")[0], exists_ok=True)
    client.create_table(table, exists_ok=True)
    return table


def _load(client: Any, table: Any, rows: list[Row]) -> None:
    from google.cloud import bigquery

    config = bigquery.LoadJobConfig(schema=table.schema)
    client.load_table_from_json(rows, table.reference, job_config=config).result()
