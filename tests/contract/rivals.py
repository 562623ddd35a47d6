"""Commits from two clients of one warehouse, which know nothing of each other's queue."""

import threading
from collections.abc import Sequence

from common.adapters.bigquery import BigQueryWarehouse
from common.ports import Commit
from tests.conftest import PROJECT
from tests.contract.writes import Target


def rivals(target: Target, writes: Sequence[Commit]) -> list[str]:
    """Commit all at once, each from a client of its own; return how each ended."""
    url = target.warehouse.connection.client._connection.API_BASE_URL
    together, told = threading.Barrier(len(writes)), [""] * len(writes)

    def work(number: int) -> None:
        client = BigQueryWarehouse(PROJECT, location="US", emulator_url=url)
        client._tables.ensure_ledger(target.table_id, client._jobs)
        together.wait()
        try:
            told[number] = f"{client.commit(writes[number], lambda _text: None).rows} rows"
        except Exception as error:
            told[number] = type(error).__name__

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(writes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told
