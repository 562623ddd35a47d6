"""Keeps ended runs in the meta tables of their organisation's dataset."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from common.config.bigquery_prices import load_prices
from common.domain.messages import JobsCost
from common.domain.model import Run
from common.meta.rows import META_TABLES, RUNS, Pricing, Row, jobs_cost, jobs_of, rows_of
from common.platform.settings import Settings
from common.ports.meta import Changes, JobStats, MetaRows, MetaWrite
from common.ports.warehouse import Warehouse
from common.tables.contract import MetaTable, load_meta_table

ROWS_PER_JOB = 2_000
"""A request to BigQuery takes 10 MB, and a row with the longest texts has some kB. Counted in rows, not bytes, so that
every delivery of the message splits a run in the same way and repeats the same job ids."""

JOB_READERS = 16
"""How many jobs are read concurrently: a map of 1,000 items has thousands, and each read takes about 0.1 s."""


class WarehouseArchive:
    """The ``RunArchive`` on a warehouse, which is created with the first run."""

    parts: Collection[str] | None = None

    def __init__(self, settings: Settings, warehouse: Callable[[], Warehouse]) -> None:
        self._settings, self._warehouse = settings, warehouse

    @cached_property
    def _tables(self) -> Mapping[str, MetaTable]:
        return {name: load_meta_table(self._settings.configs, name) for name in META_TABLES}

    def keep(self, run: Run, changes: Changes) -> JobsCost | None:
        """Write the run's rows; see ``RunArchive``. A run that has not ended yet is left alone."""
        if run.ended_at is None:
            return None
        warehouse = self._warehouse()
        dataset = f"{self._settings.project_id}.{self._settings.dataset(run.request.org_slug)}"
        for name, table in self._tables.items():
            warehouse.ensure_table(f"{dataset}.{name}", table)
        prices = load_prices(self._settings.configs)
        pricing = Pricing(prices, self._settings.location, warehouse.decimal_digits[1])
        stats = self._stats(list(jobs_of(run)))
        rows = rows_of(run, changes(), stats, pricing)
        for number, parts in enumerate(_split(rows)):
            write = MetaWrite(
                run_id=run.run_id,
                run_ended_at=run.ended_at,
                marker=f"{dataset}.{RUNS}",
                parts=[MetaRows(f"{dataset}.{name}", self._tables[name], part) for name, part in parts.items()],
                job_id=f"meta_{run.run_id}_{number}",
                labels={
                    "org": run.request.org_slug,
                    "pipeline": run.pipeline_id,
                    "run": run.run_id,
                    "step": "run_finished",
                },
            )
            warehouse.meta.append(write)
        return jobs_cost(run, stats, pricing)

    def _stats(self, job_ids: Sequence[str]) -> dict[str, JobStats | None]:
        if not job_ids:
            return {}
        with ThreadPoolExecutor(min(JOB_READERS, len(job_ids)), thread_name_prefix="job-stats") as pool:
            return dict(zip(job_ids, pool.map(self._warehouse().meta.job_stats, job_ids), strict=True))


def _split(rows: Mapping[str, Sequence[Row]]) -> Iterator[dict[str, list[Row]]]:
    """Yield the rows in parts that one job can take, in their order; the run's own row is in the last."""
    part: dict[str, list[Row]] = {}
    held = 0
    for name, every in rows.items():
        for row in every:
            if held == ROWS_PER_JOB:
                yield part
                part, held = {}, 0
            part.setdefault(name, []).append(row)
            held += 1
    yield part
