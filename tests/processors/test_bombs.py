"""Files that unpack to far more than they are: refused in words, or read, in a process that stays under 600 MiB.

Each is read by a process of its own, which tells its peak.
"""

import gzip
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.platform.paths import PROJECT_ROOT
from common.processors.bills.files import RECORD_BYTES

MOST_MIB = 600
"""Of the whole process, with Python and Arrow: 300 above what it has when idle."""

MOST_ABOVE_IDLE_MIB = 300

HEADER = b"ChargePeriodStart,BilledCost,ChargeDescription\n"
LINE = b"2026-11-01T00:00:00Z,1,"

READ = """
import json, sys
from datetime import date
from pathlib import Path

import pyarrow.parquet  # part of what is idle

from common.platform.errors import PipelineOpsError
from common.platform.paths import CONFIGS
from common.processors.bills.file_extractor import ExternalFileExtractor, ExternalFileParams
from common.processors.genai.providers import deepseek
from common.tables.contract import load_table
from common.writes.spool import Spool
from tests.bench.load_measure import memory_mib
from tests.processors.context import make_context

path, day = Path(sys.argv[1]), date(2026, 11, 1)
table = load_table(CONFIGS, "cloud_focus_export")
params = ExternalFileParams(
    destination_table=table.table, date_column="ChargePeriodStart", extra_column="extra", source=path.name
)
# Not ru_maxrss: it begins with what the parent had when it forked.
idle, rows, said = memory_mib("VmHWM"), 0, ""
context = make_context(landing=path.parent, start_date=day, end_date=day)
try:
    if path.suffix == ".zip":
        deepseek.read_export(path)
    else:
        spool = Spool(path.with_suffix(".spool"), table, day, day, (76, 38), org_slug="acme_corp")
        for batch in ExternalFileExtractor().run(context, params):
            spool.write(batch)
        rows = spool.close().rows
except PipelineOpsError as error:
    said = str(error)
print(json.dumps({"rows": rows, "said": said, "idle_mib": idle, "peak_mib": memory_mib("VmHWM")}))
"""


def read(path: Path) -> dict[str, Any]:
    command = (sys.executable, "-c", READ, str(path))
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout)
    sys.stdout.write(f"{path.name}: {path.stat().st_size} bytes, {told}\n")
    return told


def parquet(path: Path, value_bytes: int, columns: int, rows: int = 5_000) -> None:
    """Write columns of one long value, which Parquet stores once."""
    value = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["a" * value_bytes]))
    days = pa.array(["2026-11-01T00:00:00Z"] * rows)
    table = pa.table({"ChargePeriodStart": days, **{f"c{number}": value for number in range(columns)}})
    pq.write_table(table, path, compression="zstd", store_schema=False, dictionary_pagesize_limit=2**31 - 1)


def tags(path: Path) -> None:
    """Write a map whose values are one long text, which is a dictionary within a map."""
    rows = 5_000
    value = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["a" * 200_000]))
    keys = pa.array(["team"] * rows)
    made = pa.MapArray.from_arrays(pa.array(range(rows + 1), pa.int32()), keys, value)
    days = pa.array(["2026-11-01T00:00:00Z"] * rows)
    pq.write_table(pa.table({"ChargePeriodStart": days, "Tags": made}), path, compression="zstd", store_schema=False)


def repeated(path: Path, line: bytes, times: int) -> None:
    with gzip.open(path, "wb", 6) as file:
        file.write(HEADER)
        for _ in range(times):
            file.write(line)


def zipped(path: Path, amount: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("amount-1.csv", amount)
        archive.writestr("cost-1.csv", b"utc_date,model,wallet_type,cost,currency\n")


RATIO = "unpacks to more than 500 times its size and more than 256 MiB"
LONG = f"a record of more than {RECORD_BYTES} bytes"
AMOUNT = b"utc_date,model,type,price,amount\n"
BOMBS: dict[str, tuple[Callable[[Path], object], str]] = {
    "dictionary.parquet": (lambda path: parquet(path, 100_000, 2), RATIO),
    "wide.parquet": (lambda path: parquet(path, 400_000, 4), RATIO),
    "long.parquet": (lambda path: parquet(path, RECORD_BYTES + 1, 1, 10), f"row 1: {LONG}"),
    "map.parquet": (tags, RATIO),
    "long.csv.gz": (lambda path: repeated(path, LINE + b"a" * (RECORD_BYTES - 100) + b"\n", 20), RATIO),
    "longer.csv.gz": (lambda path: repeated(path, LINE + b"a" * RECORD_BYTES + b"\n", 2), f"line 2: {LONG}"),
    "blank.csv.gz": (lambda path: repeated(path, b"\n" * 2**20, 300), RATIO),
    "quote.csv.gz": (lambda path: repeated(path, LINE + b'"' + b"a\n" * 2**23, 1), f"line 2: {LONG}"),
    "columns.csv": (lambda path: path.write_bytes(b",".join(b"c%d" % n for n in range(10**6))), "1000000 columns"),
    "big.zip": (lambda path: zipped(path, b"a" * 2**26), "unpacks to more than 32 MiB"),
    "zips.zip": (lambda path: zipped(path, gzip.compress(b"0" * 2**20)), "amount-1.csv: line 1: not UTF-8"),
    "records.zip": (
        lambda path: zipped(path, AMOUNT + b"2026-11-01,m,output_tokens,1,1\n" * 300_000),
        "more than 200000 records",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_words_and_in_bounded_memory(tmp_path: Path, name: str) -> None:
    write, said = BOMBS[name]
    write(tmp_path / name)
    told = read(tmp_path / name)
    assert said in told["said"] and told["rows"] == 0
    assert told["peak_mib"] < MOST_MIB and told["peak_mib"] - told["idle_mib"] < MOST_ABOVE_IDLE_MIB


def test_long_values_that_are_no_bomb_are_read_in_bounded_memory(tmp_path: Path) -> None:
    """A hundred records of nearly two megabytes each, all different."""
    with (tmp_path / "bill.csv").open("wb") as file:
        file.write(HEADER)
        for number in range(100):
            file.write(LINE + f"{number:08}".encode() * 220_000 + b"\n")
    told = read(tmp_path / "bill.csv")
    assert (told["said"], told["rows"]) == ("", 100)
    assert told["peak_mib"] < MOST_MIB and told["peak_mib"] - told["idle_mib"] < MOST_ABOVE_IDLE_MIB


@pytest.mark.parametrize(
    ("packing", "said"), [(zipfile.ZIP_DEFLATED, "damaged or locked"), (zipfile.ZIP_LZMA, "packed as DeepSeek")]
)
def test_a_damaged_member_of_a_zip_is_named(tmp_path: Path, packing: int, said: str) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr(
            "amount-1.csv", b"utc_date,model,type,price,amount\n" + b"2026-11-01,m,output_tokens,1,1\n" * 500
        )
        archive.writestr("cost-1.csv", b"utc_date,model,wallet_type,cost,currency\n")
    data = bytearray(path.read_bytes())
    data[60:100] = b"\xff" * 40
    path.write_bytes(data)
    told = read(path)
    assert told["said"].startswith("export.zip: amount-1.csv: ") and said in told["said"]
