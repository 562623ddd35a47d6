"""What both programs of ``make bench-load`` measure of themselves, in the same way. Imports nothing of the project."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def timed(found: dict[str, Any]) -> Iterator[None]:
    """Note wall seconds and this process's CPU seconds, its ended children's too."""
    import os

    def cpu() -> float:
        used = os.times()
        return used.user + used.system + used.children_user + used.children_system

    began, spent = time.perf_counter(), cpu()
    yield
    found["seconds"], found["cpu_s"] = time.perf_counter() - began, cpu() - spent


def measure(rows: int, jobs: Jobs, write: Callable[[], dict[str, Any]]) -> None:
    """Write twice, the second time over the first, and print a JSON list of what each write took."""
    idle = memory_mib("VmRSS")
    results: list[dict[str, Any]] = []
    for kind in ("first", "again"):
        before = jobs.count
        found: dict[str, Any] = {"write": kind, "rows": rows}
        with timed(found):
            found |= write()
        found |= {"jobs": jobs.count - before, "rows_per_s": rows / found["seconds"]}
        found["peak_mib"] = memory_mib("VmHWM") - idle
        results.append(found)
    sys.stdout.write(json.dumps(results) + "\n")
