"""What both programs of ``make bench-load`` measure of themselves, in the same way. Imports nothing of the project."""

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


class Jobs:
    """Counts the BigQuery jobs that this process starts: queries and loads, whoever starts them."""

    def __init__(self) -> None:
        self.count = 0

    def watch(self) -> None:
        from google.cloud import bigquery

        client: Any = bigquery.Client
        call, load = client._call_api, client.load_table_from_file

        def called(this: Any, *args: Any, **more: Any) -> Any:
            ends = ("/jobs", "/queries")
            self.count += more.get("method") == "POST" and str(more.get("path", "")).endswith(ends)
            return call(this, *args, **more)

        def loaded(this: Any, *args: Any, **more: Any) -> Any:
            self.count += 1
            return load(this, *args, **more)

        client._call_api, client.load_table_from_file = called, loaded


def memory_mib(field: str) -> float:
    """``VmRSS``: now; ``VmHWM``: the most there ever was."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def cpu_s(pid: int) -> float:
    """User and system seconds of a process and of all that it has started, as far as they still run or were awaited."""
    tick = os.sysconf("SC_CLK_TCK")
    found, left = 0.0, [pid]
    while left:
        folder = Path("/proc") / str(left.pop())
        with suppress(OSError):  # it has ended meanwhile
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            found += sum(map(int, fields[11:15])) / tick
            for thread in (folder / "task").iterdir():
                left += map(int, (thread / "children").read_text().split())
    return found


def measure(rows: int, jobs: Jobs, emulator: int, write: Callable[[], dict[str, Any]]) -> None:
    """Write twice, the second time over the first, and print a JSON list of what each write took.

    ``emulator`` is the process id of the BigQuery emulator: what it spends is told beside what this process spends.
    """
    idle = memory_mib("VmRSS")
    results: list[dict[str, Any]] = []
    for kind in ("first", "again"):
        started, own, theirs, began = jobs.count, cpu_s(os.getpid()), cpu_s(emulator), time.perf_counter()
        found = write()
        seconds = time.perf_counter() - began
        found |= {"write": kind, "rows": rows, "seconds": seconds, "rows_per_s": rows / seconds}
        found |= {"cpu_s": cpu_s(os.getpid()) - own, "emulator_cpu_s": cpu_s(emulator) - theirs}
        found |= {"jobs": jobs.count - started, "peak_mib": memory_mib("VmHWM") - idle}
        results.append(found)
    sys.stdout.write(json.dumps(results) + "\n")
