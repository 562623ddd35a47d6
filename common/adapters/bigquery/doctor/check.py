"""Runs the probes one after the other, notes what each held and cost, and removes what they made."""

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal

from common.adapters.bigquery.doctor.bench import Bench, NotCheckedError, WrongResultError
from common.adapters.bigquery.doctor.probes import PROBES, Probe
from common.adapters.bigquery.errors import translated
from common.adapters.bigquery.jobs import CALL_TIMEOUT_S, patience
from common.adapters.bigquery.warehouse import BigQueryWarehouse
from common.meta.costs import cost_usd
from common.platform.errors import PipelineOpsError, TransientError
from common.platform.retry import Backoff, retried

COST_DECIMALS = 6
DROP_TRIES, DROP_BACKOFF = 6, Backoff(0.5, 4.0)
MOST_BYTES = 10 * 2**30
"""What all probes together may be billed at most, for the question before they begin: some 300 statements that read or
write some 3 tables, at 10 MB each."""

Status = Literal["held", "failed", "skipped", "unchecked"]
"""``skipped``: a probe that it needs has failed. ``unchecked``: on the emulator there is nothing to check."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How one probe ended. ``bytes_billed`` and ``cost_usd`` are None where BigQuery, or we, do not know."""

    name: str
    what: str
    status: Status
    seen: str
    seconds: float = 0.0
    jobs: int = 0
    bytes_billed: int | None = None
    cost_usd: Decimal | None = None
    next: str = ""


class Doctor:
    """Tries a project. ``dataset`` must be new or empty: what the probes make is removed, and the dataset if new.

    ``warehouse`` makes a client of its own each time; ``usd_per_tib`` is the price of the location, None if unknown.
    """

    def __init__(
        self,
        warehouse: Callable[[], BigQueryWarehouse],
        project: str,
        dataset: str | None,
        usd_per_tib: Decimal | None,
        probes: Sequence[Probe] = PROBES,
    ) -> None:
        self.dataset = f"{project}.{dataset or f'pipeline_ops_doctor_{secrets.token_hex(4)}'}"
        self._warehouse, self._price, self._probes = warehouse, usd_per_tib, probes
        self.removed: Finding | None = None
        """How the clean-up ended, once it has; for a caller that was interrupted."""

    @property
    def most_usd(self) -> Decimal | None:
        """What it costs at most, at list prices."""
        return None if self._price is None else (MOST_BYTES * self._price / 2**40).quantize(Decimal("0.01"))

    def findings(self) -> Iterator[Finding]:
        """Yield what each probe found, then how the clean-up ended, which is also done when the caller stops early."""
        with tempfile.TemporaryDirectory(prefix="pipeline-ops-") as folder:
            bench = Bench(self._warehouse, self.dataset, Path(folder))
            held = set[str]()
            try:
                for probe in self._probes:
                    finding = self._tried(bench, probe, held)
                    if finding.status == "held":
                        held.add(probe.name)
                    yield finding
            finally:
                self.removed = self._removed(bench)
            yield self.removed

    def _tried(self, bench: Bench, probe: Probe, held: set[str]) -> Finding:
        missing = [name for name in probe.needs if name not in held]
        if missing:
            return Finding(probe.name, probe.what, "skipped", f"needs {', '.join(missing)}")
        began, advice = time.monotonic(), ""
        status: Status = "held"
        bench.begin(probe.name)
        try:
            seen = probe.does(bench)
        except NotCheckedError as error:
            status, seen = "unchecked", str(error)
        except WrongResultError as error:
            status, seen, advice = "failed", str(error), f"Report it with this line: {probe.what} went wrong."
        except PipelineOpsError as error:
            status, seen, advice = "failed", str(error), probe.advice
        except Exception as error:  # one that nobody has foreseen is a finding, too
            status, seen, advice = "failed", f"{type(error).__name__}: {error}", f"Report it: {probe.what} went wrong."
        seconds = time.monotonic() - began
        jobs = [job_id for job_id, name in bench.jobs.items() if name == probe.name]
        billed, cost = self._cost(bench, jobs)
        return Finding(probe.name, probe.what, status, seen, round(seconds, 3), len(jobs), billed, cost, advice)

    def _cost(self, bench: Bench, jobs: Sequence[str]) -> tuple[int | None, Decimal | None]:
        """Return bytes billed and their price; a job of which nothing is known makes both unknown."""
        billed, cost = 0, Decimal(0)
        for job_id in jobs:
            try:
                stats = bench.warehouse.meta.job_stats(job_id)
            except PipelineOpsError:
                stats = None
            usd = None if stats is None else cost_usd(stats, self._price, COST_DECIMALS)
            if stats is None or usd is None:
                return None, None
            billed, cost = billed + (stats.bytes_billed or 0), cost + usd
        return billed, cost

    def _removed(self, bench: Bench) -> Finding:
        began, name, what = time.monotonic(), "clean_up", "remove all of it"
        by_hand = f"Remove it by hand: bq rm -r -f {self.dataset.replace('.', ':', 1)}"
        try:
            match bench.owns:
                case "dataset":
                    # What an interrupted probe had just asked for may still be at work, and be in the way.
                    retried(lambda: _dropped(bench), on=TransientError, backoff=DROP_BACKOFF, tries=DROP_TRIES)
                    seen = f"{self.dataset} is gone"
                case "tables":
                    seen = f"{_emptied(bench)} tables and procedures removed, {self.dataset} stays"
                case "nothing":
                    seen = "nothing was made"
        except PipelineOpsError as error:
            return Finding(name, what, "failed", str(error), time.monotonic() - began, next=by_hand)
        return Finding(name, what, "held", seen, round(time.monotonic() - began, 3))


def _dropped(bench: Bench) -> None:
    """Remove the dataset with all that is in it. Raises TransientError if it is there nevertheless."""
    with translated(f"remove {bench.dataset}"):
        bench.client.delete_dataset(
            bench.dataset, delete_contents=True, not_found_ok=True, retry=patience(), timeout=CALL_TIMEOUT_S
        )
    if bench.warehouse.tables.has_dataset(bench.dataset):
        raise TransientError(f"Dataset {bench.dataset} was removed and is there again.")


def _emptied(bench: Bench) -> int:
    """Remove our tables and procedures of a dataset that was there before; return how many."""
    client, times = bench.client, {"retry": patience(), "timeout": CALL_TIMEOUT_S}
    with translated(f"remove what is in {bench.dataset}"):
        tables = [one for one in client.list_tables(bench.dataset, **times) if bench.is_own(one.table_id)]
        routines = [one for one in client.list_routines(bench.dataset, **times) if bench.is_own(one.routine_id)]
        for one in tables:
            client.delete_table(one.reference, not_found_ok=True, **times)
        for one in routines:
            client.delete_routine(one.reference, not_found_ok=True, **times)
    return len(tables) + len(routines)
