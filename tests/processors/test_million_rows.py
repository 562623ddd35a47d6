"""A bill with a million rows of one day: read, checked and spooled, in as much memory as one of ten thousand."""

import csv
import gzip
import io
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from common.platform.paths import PROJECT_ROOT
from infra.local.focus_export import focus_rows

DAY = date(2026, 10, 5)
BLOCK = 10_000
MOST_MIB = 290
"""Above what the process has when idle. Measured: see docs/providers-cloud.md."""

READ = """
import json, sys, time
from datetime import date
from decimal import Context
from pathlib import Path

import pyarrow.compute
import pyarrow.parquet  # part of what is idle
import fsspec.implementations.local

from common.domain.model import DEFAULT_WRITE
from common.platform.paths import CONFIGS
from common.processors.bills.file_extractor import ExternalFileExtractor, ExternalFileParams
from common.writes.spool import Spool
from common.tables.contract import load_table
from tests.bench.load_measure import memory_mib
from tests.processors.context import make_context

bill, day = Path(sys.argv[1]), date.fromisoformat(sys.argv[2])
contract, total, exact = load_table(CONFIGS, "cloud_focus_export"), 0, Context(prec=60)
params = ExternalFileParams(
    destination_table=contract.table, date_column="ChargePeriodStart", extra_column="extra", source=bill.name
)
context = make_context(landing=bill.parent, start_date=day, end_date=day)
spool = Spool(bill.with_suffix(".parquet"), contract, day, day, (76, 38), write=DEFAULT_WRITE, org_slug="acme_corp")
idle, began = memory_mib("VmRSS"), time.monotonic()
for batch in ExternalFileExtractor().run(context, params):
    costs = batch.rows["BilledCost"].cast(pyarrow.decimal256(76, 38))
    total = exact.add(total, pyarrow.compute.sum(costs).as_py())
    spool.write(batch)
spool.close()
print(json.dumps({
    "billed": str(total), "rows": pyarrow.parquet.ParquetFile(bill.with_suffix(".parquet")).metadata.num_rows,
    "peak_mib": memory_mib("VmHWM") - idle, "idle_mib": idle, "seconds": time.monotonic() - began,
}))
"""


def write_bill(path: Path, blocks: int) -> tuple[int, Decimal]:
    """Write a block of rows as often as asked for; return rows and SUM(BilledCost)."""
    rows = list(focus_rows(random.Random(7), DAY, BLOCK - 4))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writerows(rows)
    block = text.getvalue().encode()
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write((",".join(rows[0]) + "\n").encode())
        for _ in range(blocks):
            file.write(block)
    return len(rows) * blocks, sum((Decimal(row["BilledCost"]) for row in rows), Decimal(0)) * blocks


def read_bill(folder: Path, blocks: int) -> tuple[int, Decimal, dict[str, float]]:
    rows, billed = write_bill(folder / "bill.csv.gz", blocks)
    command: Sequence[str] = (sys.executable, "-c", READ, str(folder / "bill.csv.gz"), DAY.isoformat())
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=1_800, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert (found["rows"], Decimal(found.pop("billed"))) == (rows, billed)
    return rows, billed, found


@pytest.mark.parametrize(
    "blocks",
    [pytest.param(100, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.thorough)],
    ids=["1000000", "10000"],
)
def test_a_bill_of_one_day_adds_up_and_takes_as_much_memory_however_many_rows_it_has(
    tmp_path: Path, blocks: int
) -> None:
    rows, _, found = read_bill(tmp_path, blocks)
    assert rows == blocks * BLOCK
    assert found["peak_mib"] < MOST_MIB, found
