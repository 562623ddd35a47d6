"""Commits that meet at one table: from threads of one client, from several clients, from several processes."""

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


class Told(NamedTuple):
    """How each commit ended, how many conflicts were lost on the way, and how many waited for others."""

    ends: list[str]
    conflicts: int
    waited: int
    seconds: float


def url_of(target: Target) -> str:
    return str(target.warehouse.connection.client._connection.API_BASE_URL)


def threads(url: str, writes: Sequence[Commit], *, clients: int) -> Told:
    """Commit all at once, in threads that share so many clients."""
    every = [BigQueryWarehouse(PROJECT, location="US", emulator_url=url) for _ in range(clients)]
    together, ends, said = threading.Barrier(len(writes)), [""] * len(writes), list[str]()

    def work(number: int) -> None:
        together.wait()
        try:
            ends[number] = f"{every[number % clients].commit(writes[number], said.append).rows} rows"
        except Exception as error:
            ends[number] = f"{type(error).__name__}: {error}"

    began = time.monotonic()
    workers = [threading.Thread(target=work, args=(number,)) for number in range(len(writes))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    conflicts = sum(int(match[1]) for text in said if (match := re.search(r"(\d+) lost conflicts", text)))
    return Told(ends, conflicts, sum(text.startswith("waits") for text in said), time.monotonic() - began)


def processes(url: str, writes: Sequence[Commit], *, count: int) -> Told:
    """Commit all at once, from so many processes of equally many threads with one client each."""
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        shares = [pool.apply_async(threads, (url, list(writes[n::count])), {"clients": 1}) for n in range(count)]
        told = [share.get(WITHIN_S) for share in shares]
    ends = [end for part in told for end in part.ends]
    return Told(ends, sum(t.conflicts for t in told), sum(t.waited for t in told), time.monotonic() - began)
