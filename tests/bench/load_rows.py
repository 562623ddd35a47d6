"""Rows for ``make bench-load``: the same for us and for dlt, as dicts or as Arrow, in bounded batches.

Imports nothing of the project: dlt runs it in a venv of its own. Fifteen columns of a cost table: texts of few and of
many values, whole numbers, three decimals, a day, a time, a flag, JSON, and three columns that are sometimes NULL.
"""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

FIRST_DAY = date(2026, 11, 1)
DAYS = 5
BATCH_ROWS = 10_000
DAY = "x_pipeline_run_date"

ACCOUNTS = [f"account-{n:04}" for n in range(40)]
SERVICES = [f"Service {n}" for n in range(25)]
REGIONS = [None, "eu-west-1", "eu-central-1", "us-east-1", "us-west-2", "ap-south-1", "sa-east-1"]
TEXTS = [f"${n / 1000} per GB-month of storage used, tier {n}" for n in range(500)]
TAGS = [None, *(json.dumps({"team": f"team-{n}", "env": "prod", "n": n}) for n in range(199))]
PRICES = [Decimal(n * 7919 + 1).scaleb(-9) for n in range(300)]
QUANTITIES = [Decimal(n * 104729 + 3).scaleb(-4) for n in range(1_009)]
COSTS = [Decimal(n * 15485863 + 11).scaleb(-12) for n in range(10_007)]
TIMES = [datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=37 * n) for n in range(11_000)]

SCHEMA: dict[str, str] = {
    "line_id": "STRING",
    "account_id": "STRING",
    "service": "STRING",
    "resource_id": "STRING",
    "region": "STRING",
    "description": "STRING",
    "quantity": "BIGNUMERIC",
    "unit_price": "BIGNUMERIC",
    "cost": "BIGNUMERIC",
    "requests": "INT64",
    "retries": "INT64",
    "estimated": "BOOL",
    "usage_time": "TIMESTAMP",
    "tags": "JSON",
    DAY: "DATE",
}


def dicts(rows: int, batch_rows: int = BATCH_ROWS) -> Iterator[list[dict[str, Any]]]:
    """Yield ``rows`` rows in batches. Made on the fly: never more than a batch in memory."""
    days = [FIRST_DAY + timedelta(days=n) for n in range(DAYS)]
    for begin in range(0, rows, batch_rows):
        yield [_row(n, days) for n in range(begin, min(begin + batch_rows, rows))]


def _row(n: int, days: list[date]) -> dict[str, Any]:
    return {
        "line_id": f"line-{n}",
        "account_id": ACCOUNTS[n % 40],
        "service": SERVICES[n % 25],
        "resource_id": f"arn:aws:ec2:eu-west-1:instance/i-{n * 2654435761 % 2**32}",
        "region": REGIONS[n % 7],
        "description": TEXTS[n % 500],
        "quantity": QUANTITIES[n % 1_009],
        "unit_price": PRICES[n % 300],
        "cost": COSTS[n % 10_007],
        "requests": n * 31 % 1_000_003,
        "retries": n % 9 or None,
        "estimated": n % 3 == 0,
        "usage_time": TIMES[n % 11_000],
        "tags": TAGS[n % 200],
        DAY: days[n % DAYS],
    }


def tables(rows: int, batch_rows: int = BATCH_ROWS * 5) -> Iterator[Any]:
    """Yield the rows of ``dicts`` as ``pyarrow.Table``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    money, moment = pa.decimal128(38, 18), pa.timestamp("us", tz="UTC")
    pools = {
        "account_id": pa.array(ACCOUNTS),
        "service": pa.array(SERVICES),
        "region": pa.array(REGIONS),
        "description": pa.array(TEXTS),
        "quantity": pa.array(QUANTITIES, money),
        "unit_price": pa.array(PRICES, money),
        "cost": pa.array(COSTS, money),
        "retries": pa.array([None, *range(1, 9)], pa.int64()),
        "estimated": pa.array([True, False, False]),
        "usage_time": pa.array(TIMES, moment),
        "tags": pa.array(TAGS),
        DAY: pa.array([FIRST_DAY + timedelta(days=n) for n in range(DAYS)], pa.date32()),
    }
    for begin in range(0, rows, batch_rows):
        n = pa.array(range(begin, min(begin + batch_rows, rows)), pa.int64())
        resource = _modulo(pc.multiply(n, 2654435761), 2**32).cast(pa.string())
        made = {
            "line_id": pc.binary_join_element_wise("line-", n.cast(pa.string()), ""),
            "resource_id": pc.binary_join_element_wise("arn:aws:ec2:eu-west-1:instance/i-", resource, ""),
            "requests": _modulo(pc.multiply(n, 31), 1_000_003),
        }
        for name, pool in pools.items():
            made[name] = pool.take(_modulo(n, len(pool)))
        yield pa.table({name: made[name] for name in SCHEMA})


def _modulo(numbers: Any, size: int) -> Any:
    import pyarrow.compute as pc

    return pc.subtract(numbers, pc.multiply(pc.divide(numbers, size), size))
