"""``make bench-bill``: rows per second and memory of a FOCUS bill from a file to a table, beside dlt and DuckDB.

python -m tests.bench.bill                             a million rows, everything
python -m tests.bench.bill --rows 10000000 --only ours-csv,dlt-csv

The bill has 46 columns. Ours is one attempt of the extract step: reads the file, checks every value against the
contract (decimals of 38 digits in the emulator, 76 in BigQuery; times; JSON; days of the run), hashes and spools the
rows, loads and commits them with lineage. dlt is given its fast way: DuckDB reads the file with types (decimals of 38
digits, times; JSON is text) into Arrow batches, which dlt loads and merges with delete-insert by day; no value has a
message of its own, nothing is quarantined or hashed. DuckDB alone writes the typed rows to Parquet: the limit.

Each measurement is a process of its own, on an emulator of its own, and writes twice: ``first`` into no table at all,
``again`` over the same days. Memory is the writing process's peak over what it held before the first row.
"""

import argparse
import csv
import io
import json
import os
import random
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from infra.local.emulator import BigQueryEmulator
from infra.local.focus_export import focus_rows
from tests.bench.load import PROJECT, REQUIREMENTS, VENV, run, table
from tests.bench.peer import environment

PARTS = ("ours-csv", "dlt-csv", "duckdb-csv", "ours-parquet", "dlt-parquet", "duckdb-parquet")
DLT = Path(__file__).with_name("bill_dlt.py")
DAY = date(2026, 10, 5)
BLOCK = 10_000
TIMES = ("ChargePeriodStart", "ChargePeriodEnd", "BillingPeriodStart", "BillingPeriodEnd")


def main() -> int:
    """Measure and print a table, then JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bill", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help=f"a multiple of {BLOCK}")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, of {', '.join(PARTS)}")
    asked = parser.parse_args()
    wanted = asked.only.split(",")
    if set(wanted) - set(PARTS):
        parser.error(f"--only: choose from {', '.join(PARTS)}")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-bill-") as name:
        folder = Path(name)
        write_csv(folder / "bill.csv", asked.rows)
        if any(part.endswith("parquet") for part in wanted):
            write_parquet(folder / "bill.csv", folder / "bill.parquet")
        sizes = ", ".join(f"{path.name} {path.stat().st_size / 2**20:,.0f} MiB" for path in sorted(folder.iterdir()))
        for part in wanted:
            print(f"{time.strftime('%H:%M:%S')} {part} ...", file=sys.stderr, flush=True)  # noqa: T201
            results += measured(part, asked.rows, folder)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(table(results))  # noqa: T201
    print(f"{sizes}; load averages at the end: {load}; cores: {os.cpu_count()}")  # noqa: T201
    print(json.dumps(results, indent=2))  # noqa: T201
    return 0


def measured(part: str, rows: int, folder: Path) -> list[dict[str, Any]]:
    """Return the two writes of one part, as its program printed them."""
    who, _, form = part.partition("-")
    bill = str(folder / f"bill.{form}")
    with (
        tempfile.TemporaryDirectory(prefix="bench-bill-", ignore_cleanup_errors=True) as name,
        BigQueryEmulator(Path(name) / "emulator", PROJECT) as emulator,
    ):
        if who == "ours":
            command = [sys.executable, "-m", "tests.bench.bill_ours"]
        else:
            command = [str(environment(VENV, REQUIREMENTS, "dlt")), str(DLT), who]
        found = run(
            [*command, bill, str(rows), emulator.url, f"{name}/work", str(emulator.process.pid)], part, Path(name)
        )
    return [{"part": part, **one} for one in found]


def write_csv(path: Path, rows: int) -> None:
    """Write a block of rows as often as needed."""
    block = list(focus_rows(random.Random(7), DAY, BLOCK - 4))
    text = io.StringIO(newline="")
    csv.DictWriter(text, list(block[0]), lineterminator="\n").writerows(block)
    data = text.getvalue().encode()
    with path.open("wb") as file:
        file.write((",".join(block[0]) + "\n").encode())
        for _ in range(rows // BLOCK):
            file.write(data)


def write_parquet(source: Path, target: Path) -> None:
    """Write the same bill as a provider's Parquet: typed, in row groups of 100,000 rows."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    with source.open("rb") as file:
        names = file.readline().decode().strip().split(",")
    money, moment = pa.decimal128(38, 18), pa.timestamp("us", "UTC")
    kinds = {
        name: moment if name in TIMES else money if name.endswith(("Cost", "Price", "Quantity")) else pa.string()
        for name in names
    }
    options = pyarrow.csv.ConvertOptions(column_types=kinds, null_values=[""], strings_can_be_null=True)
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with (
        pyarrow.csv.open_csv(source, parse_options=parse, convert_options=options) as reader,
        pq.ParquetWriter(target, reader.schema, compression="snappy") as writer,
    ):
        pending: list[pa.RecordBatch] = []
        for batch in reader:
            pending.append(batch)
            if sum(map(len, pending)) >= 100_000:
                writer.write_table(pa.Table.from_batches(pending))
                pending = []
        if pending:
            writer.write_table(pa.Table.from_batches(pending))


if __name__ == "__main__":
    sys.exit(main())
