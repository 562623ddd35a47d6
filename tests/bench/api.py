"""``make bench-api``: the API on the embedded stack under wrk, before and after a million runs of history.

python -m tests.bench.api                      everything, some ten minutes
python -m tests.bench.api --runs 100000 --seconds 3

The stack is the one of ``main.py serve``: waitress, functions-framework, API keys, audit rows, SQLite, and the
dispatcher, which carries out each run that is started (three no-op steps) while others are being asked for. wrk keeps
one connection a client open. A run is safe against a power cut when it is accepted. Then comes the download of a log of
a million lines, with the server's peak memory over what it held before.
"""

import argparse
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import bootstrap
from common.access.api_keys import Scope
from common.domain.model import RunStatus
from infra.local.stack import EmbeddedStack
from tests.bench import ours
from tests.bench.ours import ORG, ROUTE

CLIENTS = (1, 8, 64)
APART_US = 10_000_000
"""The runs of history were asked for ten seconds apart: a million are 116 days."""

FAILED_EVERY = 2
"""So that pages of failed runs are as full with a thousand runs of history as with a million."""
LINES = 1_000_000
COLUMNS = ("request", "clients", "runs in history", "requests/s", "p50 ms", "p99 ms", "errors")

SCRIPT = """
local paths = {%(paths)s}
local count = 0
request = function()
  count = count + 1
  return wrk.format("%(method)s", paths[count %% #paths + 1], {["Authorization"] = "Bearer %(key)s"})
end
done = function(summary, latency, requests)
  local e = summary.errors
  print(string.format("RESULT {\\"requests\\": %%d, \\"us\\": %%d, \\"p50\\": %%f, \\"p99\\": %%f, \\"errors\\": %%d}",
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    request: str
    clients: int
    history: int
    per_s: float
    p50_ms: float
    p99_ms: float
    errors: int

    def cells(self) -> list[str]:
        times = [f"{self.per_s:.0f}", f"{self.p50_ms:.1f}", f"{self.p99_ms:.1f}"]
        return [self.request, str(self.clients), f"{self.history:,}", *times, str(self.errors)]


def main() -> int:
    """Measure, print the table, then JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.api", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000, help="runs of history in the second half")
    parser.add_argument("--lines", type=int, default=LINES, help="lines of the log that is downloaded")
    parser.add_argument("--seconds", type=int, default=10, help="how long each line of the table is measured")
    asked = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-api-", ignore_cleanup_errors=True) as name:
        folder, ends = Path(name), ours.Ends()
        with ours.configs(folder / "configs") as tree, ends.watched(), served(folder, tree) as (stack, key):
            first = ends_one(stack, key, ends)
            fill(folder / "state" / bootstrap.STORE_FILE, first, 1_000)
            rows += measured(stack, key, folder, first, asked.seconds, 1_000)
            tell(f"{asked.runs:,} runs are put into the store")
            fill(folder / "state" / bootstrap.STORE_FILE, first, asked.runs)
            rows += measured(stack, key, folder, first, asked.seconds, asked.runs)
            tell("a long log is downloaded")
            lines = download(stack, key, folder, first, asked.lines)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(table(rows))  # noqa: T201
    print(lines)  # noqa: T201
    print(f"load averages at the end: {load}; cores: {os.cpu_count()}")  # noqa: T201
    print(json.dumps([row.__dict__ for row in rows], indent=2))  # noqa: T201
    sys.stdout.flush()
    os._exit(0)  # functions-framework leaves threads behind


def tell(what: str) -> None:
    """Say what is going on."""
    print(f"{time.strftime('%H:%M:%S')} {what} ...", file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def served(folder: Path, tree: Path) -> Iterator[tuple[EmbeddedStack, str]]:
    """Serve the embedded stack; give it with a key of scope run."""
    with EmbeddedStack(ours._settings(folder / "state", tree)) as stack:
        yield stack, stack.engine.keys.create(ORG, "bench", Scope.RUN, who="bench").token


def ends_one(stack: EmbeddedStack, key: str, ends: ours.Ends) -> str:
    """Have one run done; return its id."""
    import httpx2

    url = f"{stack.url}/pipelines/run/{ORG}/{ROUTE}"
    run_id: str = httpx2.post(url, headers={"Authorization": f"Bearer {key}"}).json()["run_id"]
    ends.event(run_id).wait(60)
    return run_id


def fill(file: Path, run_id: str, count: int) -> None:
    """Put ``count`` copies of an ended run into the store, every second one as failed. What is there stays."""
    db = sqlite3.connect(file, timeout=60)
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {int(count)})"
    name, at = "printf('run_%032x', i)", f"requested_at - i * {APART_US}"
    status = f"CASE i % {FAILED_EVERY} WHEN 0 THEN '{RunStatus.FAILED}' ELSE status END"
    copy = f"INSERT OR IGNORE INTO {{}} {numbers} SELECT {name}, {{}} FROM n, (SELECT * FROM {{}} WHERE run_id = ?)"
    for target, columns in (
        ("runs", f"org_slug, route, {status}, {at}, NULL, version, body"),
        ("steps", "step_id, ended, deadline, version, body"),
        ("changes", "number, body"),
    ):
        db.execute(copy.format(target, columns, target), (run_id,))
        db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def measured(stack: EmbeddedStack, key: str, folder: Path, run_id: str, seconds: int, history: int) -> Iterator[Row]:
    """Yield a row for each request and number of clients."""
    base, newest = f"/pipelines/history/{ORG}?limit=50", stack.engine.now().timestamp()
    spread = [newest - part * history * APART_US / 1e6 / 20 for part in range(20)]
    pages = [f"{base}&to={time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(at))}" for at in spread]
    filtered = [f"{page}&status=failed&pipeline={ROUTE}" for page in pages]
    for request, method, paths in (
        ("GET status", "GET", [f"/pipelines/status/{ORG}/{run_id}"]),
        ("GET history, a page anywhere", "GET", pages),
        ("GET history, failed runs of a pipeline", "GET", filtered),
        ("POST run", "POST", [f"/pipelines/run/{ORG}/{ROUTE}"]),
    ):
        for clients in CLIENTS:
            tell(f"{request}, {clients} clients, {history:,} runs")
            quiet(stack)
            yield Row(request, clients, history, *wrk(stack.url, method, paths, key, folder, clients, seconds))


def quiet(stack: EmbeddedStack) -> None:
    """Wait until every run that was started has ended."""
    while stack.engine.store.active():
        time.sleep(0.5)


def wrk(
    url: str, method: str, paths: list[str], key: str, folder: Path, clients: int, seconds: int
) -> tuple[float, float, float, int]:
    """Return requests per second, the 50th and 99th percentile in milliseconds, and errors."""
    script = folder / "bench.lua"
    quoted = ", ".join(json.dumps(path) for path in paths)
    script.write_text(SCRIPT % {"paths": quoted, "method": method, "key": key})
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    found = json.loads(line.removeprefix("RESULT "))
    return found["requests"] / found["us"] * 1e6, found["p50"] / 1e3, found["p99"] / 1e3, found["errors"]


def download(stack: EmbeddedStack, key: str, folder: Path, run_id: str, count: int) -> str:
    """Give the run a log of ``count`` lines and download it; return how that went."""
    db = sqlite3.connect(folder / "state" / bootstrap.STORE_FILE, timeout=60)
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {int(count)})"
    columns = "(run_id, at, severity, step_id, attempt, message)"
    line = "i, 'INFO', 'a', 1, 'line ' || i || ': ' || hex(zeroblob(60))"
    db.execute(f"INSERT INTO logs {columns} {numbers} SELECT ?, {line} FROM n", (run_id,))
    db.commit()
    db.close()
    before, peak, stop = resident_mib(), [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            peak[0] = max(peak[0], resident_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, size = time.perf_counter(), received(stack.url, f"/pipelines/logs/{ORG}/{run_id}/download", key)
    seconds = time.perf_counter() - began
    stop.set()
    watcher.join()
    return (
        f"download of {count:,} log lines: {size / 2**20:.0f} MiB in {seconds:.1f} s, "
        f"peak memory {peak[0] - before:.0f} MiB over the {before:.0f} MiB before"
    )


def received(url: str, path: str, key: str) -> int:
    """Return the bytes of an answer, which are not kept."""
    host, _, port = url.removeprefix("http://").partition(":")
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    size = 0
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode())
        while piece := connection.recv(1 << 16):
            size += len(piece)
    return size


def resident_mib() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines: list[Any] = [list(COLUMNS), ["---"] * len(COLUMNS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
