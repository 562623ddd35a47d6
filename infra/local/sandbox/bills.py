"""Made-up FOCUS bills of the clouds in the sandbox: the same for the same seed, cloud and day.

Every cloud has them from ``FIRST_MONTH`` until yesterday. Where a sandbox is not settled, ``LATE`` rows of each day are
still to come.
"""

import csv
import gzip
import io
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from common.domain.dates import next_month
from infra.local.focus_export import focus_rows

FIRST_MONTH = date(2026, 1, 1)
ROWS_PER_DAY = 12
LATE = 3

Values = dict[str, str]

NAMES: Mapping[str, tuple[str, str, Sequence[str]]] = {
    "aws": ("AWS", "Amazon Web Services, Inc.", ()),
    "azure": (
        "Microsoft",
        "Microsoft",
        ("Virtual Machines", "Storage", "Functions", "SQL Database", "Azure OpenAI"),
    ),
    "oci": ("Oracle", "Oracle", ("COMPUTE", "OBJECTSTORE", "FUNCTIONS", "DATABASE", "GENERATIVE_AI")),
}
"""What a cloud calls itself, who sends its invoices, and its names for the services of the made-up AWS bill."""

SERVICES = (
    "Amazon Elastic Compute Cloud",
    "Amazon Simple Storage Service",
    "AWS Lambda",
    "Amazon Relational Database Service",
    "Amazon Bedrock",
)


def rows_of(cloud: str, seed: int, day: date, *, settled: bool = True) -> list[Values]:
    """Return the rows of one day."""
    provider, issuer, services = NAMES[cloud]
    named = dict(zip(SERVICES, services, strict=False))
    rows = [
        row
        | {
            "ProviderName": provider,
            "PublisherName": provider,
            "InvoiceIssuerName": issuer,
            "ServiceName": named.get(row["ServiceName"], row["ServiceName"].replace("AWS", provider)),
        }
        for row in focus_rows(random.Random(f"{cloud}/{seed}/{day}"), day, ROWS_PER_DAY)
    ]
    return rows if settled else rows[LATE:]


def billed(cloud: str, seed: int, first: date, last: date, *, settled: bool = True) -> Decimal:
    """Return SUM(BilledCost) of the days ``first`` to ``last``, exactly."""
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    rows = (row for day in days for row in rows_of(cloud, seed, day, settled=settled))
    return sum((Decimal(row["BilledCost"]) for row in rows), Decimal(0))


def gzipped(rows: Sequence[Values]) -> bytes:
    """Return the rows as a gzip CSV file."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return gzip.compress(text.getvalue().encode(), mtime=0)


def months(today: date) -> Iterator[date]:
    """Yield the first day of each month that has bills."""
    month = FIRST_MONTH
    while month <= today:
        yield month
        month = next_month(month)


def days_of(month: date, today: date) -> list[date]:
    """Return the days of a month that are over."""
    days = (month + timedelta(days=n) for n in range(31))
    return [day for day in days if day.month == month.month and day < today]


def today() -> date:
    """Return today's date in UTC."""
    return datetime.fromtimestamp(time.time(), UTC).date()
