"""Small bills in a folder, and how the extractor of files reads or refuses them."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from common.platform.errors import PermanentError
from common.processors.bills import table_rows
from common.processors.bills.file_extractor import ExternalFileExtractor, ExternalFileParams
from common.writes.batch import Batch
from tests.processors.context import RecordingContext, make_context

OCTOBER = (date(2026, 10, 1), date(2026, 10, 31))
HEADER = "ChargePeriodStart,BilledCost,ChargeDescription,Tags"
GOOD = "2026-10-05 00:00:00,1.50,compute,{}"


@pytest.fixture
def small_bills(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bills have a test's own columns only: what a FOCUS file needs has tests of its own."""
    monkeypatch.setattr(table_rows, "NEEDED", {})


def params(**more: Any) -> ExternalFileParams:
    given = {"destination_table": "cloud_focus_export", "date_column": "ChargePeriodStart", "extra_column": "extra"}
    return ExternalFileParams.model_validate({"source": "bill.csv", **given, **more})


def land(folder: Path, *lines: str, name: str = "bill.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def read(
    folder: Path, days: tuple[date, date] = OCTOBER, context: RecordingContext | None = None, **more: Any
) -> list[dict[str, Any]]:
    """Return the file's rows; the first bad one is an error, as it is for a step that allows none."""
    used = context or make_context(landing=folder, start_date=days[0], end_date=days[1], source=None)
    batches = list(ExternalFileExtractor().run(used, params(**more)))
    for bad in (bad for batch in batches for bad in batch.bad):
        raise PermanentError(str(bad))
    rows = [row for batch in batches for row in rows_of(batch)]
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def rows_of(batch: Batch) -> list[dict[str, Any]]:
    """Return the batch's rows, whichever evaluator made them."""
    rows = batch.rows if isinstance(batch.rows, Sequence) else batch.rows.to_pylist()
    return [dict(row) for row in rows]


def refused(folder: Path, *lines: str, **more: Any) -> str:
    land(folder, *lines)
    with pytest.raises(PermanentError) as error:
        read(folder, **more)
    return str(error.value)
