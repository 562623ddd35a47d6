"""Concurrent commits to one table: from threads of one client, from several clients, from several processes."""

import multiprocessing
import re
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from common.adapters.bigquery import BigQueryWarehouse
from common.ports.warehouse import Commit
from tests.conftest import PROJECT
from tests.contract.writes import Target

WITHIN_S = 300


class Outcomes(NamedTuple):
    """How each commit ended, how many conflicts they lost, and how many waited for others."""

    ends: list[str]
    conflicts: int
    waited: int
    seconds: float


def url_of(target: Target) -> str:
    return str(target.warehouse.connection.client._connection.API_BASE_URL)


def threads(url: str, writes: Sequence[Commit], *, clients: int) -> Outcomes:
    """Commit all at the same time, in threads that share ``clients`` clients."""
    every = [BigQueryWarehouse(PROJECT, location="US", emulator_url=url) for _ in range(clients)]
    together, ends, log = threading.Barrier(len(writes)), [""] * len(writes), list[str]()

    def work(number: int) -> None:
        together.wait()
        try:
            ends[number] = f"{every[number % clients].commit(writes[number], log.append).rows} rows"
        except Exception as error:
            ends[number] = f"{type(error).__name__}: {error}"

    began = time.monotonic()
    workers = [threading.Thread(target=work, args=(number,)) for number in range(len(writes))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    conflicts = sum(int(match[1]) for text in log if (match := re.search(r"(\d+) lost conflicts", text)))
    return Outcomes(ends, conflicts, sum(text.startswith("waits") for text in log), time.monotonic() - began)


def processes(url: str, writes: Sequence[Commit], *, count: int) -> Outcomes:
    """Commit all at the same time, from ``count`` processes with one client and equally many threads each."""
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        shares = [pool.apply_async(threads, (url, list(writes[n::count])), {"clients": 1}) for n in range(count)]
        outcomes = [share.get(WITHIN_S) for share in shares]
    ends = [end for part in outcomes for end in part.ends]
    return Outcomes(ends, sum(t.conflicts for t in outcomes), sum(t.waited for t in outcomes), time.monotonic() - began)
