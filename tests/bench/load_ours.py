"""Our side of ``make bench-load``: one attempt of one step, from its processor to the commit.

python -m tests.bench.load_ours ROWS dicts|arrow EMULATOR_URL FOLDER EMULATOR_PID      prints JSON
"""

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import yaml

from common.processors.base import Params, TableParams
from common.writes.batch import Batch
from tests.bench import load_measure, load_rows

PROJECT = "local-project"
LAST_DAY = load_rows.FIRST_DAY + timedelta(days=load_rows.DAYS - 1)


class Given:
    """Yields the benchmark's rows."""

    params_type: ClassVar[type[Params]] = TableParams
    needs_credential: ClassVar[bool] = False
    batches: ClassVar[Callable[[], Iterator[Any]]]

    def run(self, context: Any, params: Any) -> Iterator[Batch]:
        return map(Batch, type(self).batches())


def main() -> None:
    rows, form, url, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
    logging.disable(logging.CRITICAL)
    tempfile.tempdir = str(folder)
    make = load_rows.dicts if form == "dicts" else load_rows.tables
    Given.batches = staticmethod(lambda: make(rows))  # type: ignore[assignment]
    jobs = load_measure.Jobs()
    attempt = prepared(url, folder, jobs)

    def write() -> dict[str, Any]:
        written, size = attempt()
        if written != rows:
            raise SystemExit(f"{written} rows were written instead of {rows}")
        return {"bytes": size}

    load_measure.measure(rows, jobs, int(sys.argv[5]), write)


def prepared(url: str, folder: Path, jobs: load_measure.Jobs) -> Callable[[], tuple[int, int]]:
    """Return what writes all rows once and returns how many, and the bytes spooled.

    All that this benchmark knows of the engine is here.
    """
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401 - part of what is idle

    from common.adapters.bigquery import BigQueryWarehouse
    from common.domain.messages import AttemptSucceeded
    from common.domain.model import Run, RunRequest, RunStatus, Step, StepSpec, StepStatus
    from common.platform.settings import Settings
    from common.runs import attempt as attempts

    _contract(folder)
    jobs.watch()
    warehouse = BigQueryWarehouse(PROJECT, location="US", emulator_url=url)
    runner = attempts.AttemptRunner(
        settings=Settings(state_dir=folder, configs=folder, project_id=PROJECT),
        warehouse=lambda: warehouse,
        credentials=None,  # type: ignore[arg-type]
        logs=NoLogs(),  # type: ignore[arg-type]
        now=lambda: datetime.now(UTC),
        provider_url=str,
    )
    attempts.processor = lambda _ps_type: Given()  # type: ignore[assignment, attr-defined]
    spec = StepSpec("load", "bench.given", timeout_seconds=3_500, config={"destination_table": "costs"})
    sizes = sizes_of(warehouse)

    def write() -> tuple[int, int]:
        now = datetime.now(UTC)
        run_id = f"run_{time.time_ns()}"
        request = RunRequest(run_id, "bench", "a/b/c", load_rows.FIRST_DAY, LAST_DAY, now)
        run = Run(request, RunStatus.RUNNING, pipeline_id="pipe", credential_id="cred", specs=(spec,))
        step = Step(
            spec, StepStatus.RUNNING, attempt=1, fence=time.time_ns() // 1_000, lease_until=now + timedelta(hours=1)
        )
        result = runner.run(run, step, lambda: True)
        if not isinstance(result, AttemptSucceeded):
            raise SystemExit(f"The attempt did not succeed: {result}")
        return result.receipt.rows, sizes.pop()

    return write


def _contract(folder: Path) -> None:
    columns = [{"name": name, "type": kind} for name, kind in load_rows.SCHEMA.items() if name != load_rows.DAY]
    columns[0]["mode"] = "REQUIRED"
    (folder / "schemas").mkdir(parents=True)
    contract = {"table": "costs", "description": "Rows of the benchmark", "columns": columns}
    (folder / "schemas" / "costs.yml").write_text(yaml.safe_dump(contract))


def sizes_of(warehouse: Any) -> list[int]:
    """Note the size of each file that is loaded."""
    sizes: list[int] = []
    load = type(warehouse).load

    def loaded(this: Any, staging: str, table: Any, spool: Path, **more: Any) -> Any:
        sizes.append(spool.stat().st_size)
        return load(this, staging, table, spool, **more)

    type(warehouse).load = loaded
    return sizes


class NoLogs:
    def append(self, run_id: str, line: Any) -> None:
        """Keep nothing."""


if __name__ == "__main__":
    main()
