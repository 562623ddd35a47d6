"""``make bench-load``: rows per second and memory of the writer, beside dlt, on one BigQuery emulator.

python -m tests.bench.load                             a million rows, everything
python -m tests.bench.load --rows 10000000 --only ours-dicts,ours-arrow

What is timed, on both sides: making the rows (the same generator), checking and spooling them, the load job, and the
merge into the target. The emulator's own time is in it; its CPU seconds stand beside those of the writing process. Each
measurement is a process of its own on an emulator of its own, and writes twice: ``first`` into no table at all,
``again`` over the same days. Ours replaces the key's rows of the run's days in one transaction and stamps seven lineage
columns; dlt merges with delete-insert by day. Memory is the writing process's peak over what it held before the first
row. Jobs are queries and loads, creation of tables included.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from infra.local.emulator import BigQueryEmulator
from tests.bench.peer import ROOT, PeerFailed, environment

PARTS = ("ours-dicts", "dlt-dicts", "ours-arrow", "dlt-arrow")
PROJECT = "local-project"
REQUIREMENTS = Path(__file__).with_name("requirements-dlt.txt")
VENV = ROOT / ".venv-bench-dlt"
DLT = Path(__file__).with_name("load_dlt.py")
TIME_LIMIT_S = 3_600
COLUMNS = ("part", "write", "rows", "rows_per_s", "seconds", "cpu_s", "emulator_cpu_s", "peak_mib", "bytes", "jobs")


def main() -> int:
    """Measure and print a table, then JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, of {', '.join(PARTS)}")
    parser.add_argument("--dlt-to", choices=("emulator", "duckdb"), default="emulator", help="dlt's destination")
    asked = parser.parse_args()
    wanted = asked.only.split(",")
    if set(wanted) - set(PARTS):
        parser.error(f"--only: choose from {', '.join(PARTS)}")
    results: list[dict[str, Any]] = []
    for part in wanted:
        print(f"{time.strftime('%H:%M:%S')} {part} ...", file=sys.stderr, flush=True)  # noqa: T201
        results += measured(part, asked.rows, asked.dlt_to)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(table(results))  # noqa: T201
    print(f"load averages at the end: {load}; cores: {os.cpu_count()}")  # noqa: T201
    print(json.dumps(results, indent=2))  # noqa: T201
    return 0


def measured(part: str, rows: int, dlt_to: str) -> list[dict[str, Any]]:
    """Return the two writes of one part, as its program printed them."""
    who, _, form = part.partition("-")
    if who == "dlt":
        command = [str(environment(VENV, REQUIREMENTS, "dlt")), str(DLT)]
        part = f"dlt ({dlt_to}), {form}"
    else:
        command = [sys.executable, "-m", "tests.bench.load_ours"]
        part = f"ours, {form}"
    with (
        tempfile.TemporaryDirectory(prefix="bench-load-", ignore_cleanup_errors=True) as name,
        BigQueryEmulator(Path(name) / "emulator", PROJECT) as emulator,
    ):
        where = "duckdb" if who == "dlt" and dlt_to == "duckdb" else emulator.url
        found = run([*command, str(rows), form, where, f"{name}/work", str(emulator.process.pid)], part, Path(name))
    return [{"part": part, **one} for one in found]


def run(command: list[str], part: str, folder: Path) -> list[dict[str, Any]]:
    """Run a part and return what it printed."""
    (folder / "work").mkdir()
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=TIME_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"{part} took longer than {TIME_LIMIT_S} s") from None
    if done.returncode:
        raise PeerFailed(f"{part} failed with exit code {done.returncode}:\n{done.stderr.strip()[-3000:]}")
    printed: list[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return printed


def table(results: list[dict[str, Any]]) -> str:
    """Plain text: names to the left, figures to the right."""
    rows = [list(COLUMNS)]
    for one in results:
        shown = one | {"bytes": f"{one['bytes'] / 2**20:.1f} MiB"}
        shown |= {name: f"{one[name]:.1f}" for name in ("seconds", "cpu_s", "emulator_cpu_s")}
        rows.append([f"{v:,.0f}" if isinstance(v := shown[name], int | float) else v for name in COLUMNS])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
