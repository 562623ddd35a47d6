"""Our side of ``make bench-bill``: one attempt of the step that extracts a FOCUS bill from a file.

python -m tests.bench.bill_ours BILL ROWS EMULATOR_URL FOLDER EMULATOR_PID      prints JSON
"""

import logging
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.bench import load_measure
from tests.bench.bill import DAY
from tests.bench.load_ours import PROJECT, NoLogs, sizes_of


def main() -> None:
    bill, rows, url, folder = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    logging.disable(logging.CRITICAL)
    tempfile.tempdir = str(folder)
    jobs = load_measure.Jobs()
    attempt = prepared(bill, url, folder, jobs)

    def write() -> dict[str, Any]:
        written, size = attempt()
        if written != rows:
            raise SystemExit(f"{written} rows were written instead of {rows}")
        return {"bytes": size}

    load_measure.measure(rows, jobs, int(sys.argv[5]), write)


def prepared(bill: Path, url: str, folder: Path, jobs: load_measure.Jobs) -> Callable[[], tuple[int, int]]:
    """Return what writes the bill once and returns how many rows, and the bytes spooled."""
    import pyarrow.compute
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401 - part of what is idle

    from common.adapters.bigquery import BigQueryWarehouse
    from common.domain.messages import AttemptSucceeded
    from common.domain.model import Run, RunRequest, RunStatus, Step, StepSpec, StepStatus
    from common.platform.paths import CONFIGS
    from common.platform.settings import Settings
    from common.runs.attempt import AttemptRunner

    jobs.watch()
    warehouse = BigQueryWarehouse(PROJECT, location="US", emulator_url=url)
    settings = Settings(state_dir=folder, configs=CONFIGS, project_id=PROJECT)
    landing = settings.landing / "bench"
    landing.mkdir(parents=True)
    (landing / bill.name).hardlink_to(bill)
    runner = AttemptRunner(
        settings=settings,
        warehouse=lambda: warehouse,
        credentials=None,  # type: ignore[arg-type]
        logs=NoLogs(),  # type: ignore[arg-type]
        now=lambda: datetime.now(UTC),
        provider_url=str,
    )
    config = {
        "destination_table": "cloud_focus_export",
        "date_column": "ChargePeriodStart",
        "extra_column": "extra",
        "provider": "aws",
        "source": bill.name,
    }
    spec = StepSpec("load", "ExternalFileExtractor", timeout_seconds=3_500, config=config)
    sizes = sizes_of(warehouse)

    def write() -> tuple[int, int]:
        now = datetime.now(UTC)
        request = RunRequest(f"run_{time.time_ns()}", "bench", "a/b/c", DAY, DAY, now)
        run = Run(request, RunStatus.RUNNING, pipeline_id="pipe", credential_id="cred", specs=(spec,))
        step = Step(
            spec, StepStatus.RUNNING, attempt=1, fence=time.time_ns() // 1_000, lease_until=now + timedelta(hours=1)
        )
        result = runner.run(run, step, lambda: True)
        if not isinstance(result, AttemptSucceeded):
            raise SystemExit(f"The attempt did not succeed: {result}")
        return result.receipt.rows, sizes.pop()

    return write


if __name__ == "__main__":
    main()
