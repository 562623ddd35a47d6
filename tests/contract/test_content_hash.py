"""What the spool hashed is what a query of the warehouse gives, whatever the rows hold."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.tables.contract import DATA_DATE
from common.writes.batch import Batch
from common.writes.spool import Spool, content_hash
from tests.conftest import PROJECT
from tests.unit.test_spool_hash import COLUMNS, TABLE

DAY = date(2026, 11, 20)
ROWS: list[dict[str, Any]] = [
    {},
    {"text": "\x1b[31m\r\n\t\x7f\u2028\u202e'\"\\` 👩‍👧", "tags": '{"b": [2.0, {"c": null}], "a": "ü\\n"}'},
    {"text": "", "tags": '"a text"'},
    {"money": Decimal("99999999999999999999.999999999999999999"), "n": -(2**63)},
    {"money": Decimal("-0.000000000000000001"), "n": 2**63 - 1, "tags": "[1, 1.5, -0.25, true]"},
    {"money": Decimal("1.123456789012345678901234567"), "flag": False},
    {"money": Decimal("1E+3"), "flag": True, "tags": "17"},
    {"at": datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC), "day": date(2024, 2, 29)},
    {"at": datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC), "day": date(1, 1, 1)},
]


@pytest.mark.parametrize("form", ["dicts", "arrow"])
def test_rows_that_come_back_have_the_hash_that_they_were_spooled_with(
    warehouse: BigQueryWarehouse, tmp_path: Path, form: str
) -> None:
    target = f"{PROJECT}.content_hash_{form}.t"
    warehouse.ensure_table(target, TABLE)
    staging = warehouse.create_staging(target, TABLE, form, spooled=True)
    rows: Any = [{DATA_DATE: DAY, **row} for row in ROWS]
    if form == "arrow":
        rows = pa.table({name: [row.get(name) for row in rows] for name in (*COLUMNS, DATA_DATE)})
    path = tmp_path / "rows.parquet"
    spool = Spool(path, TABLE, DAY, DAY, warehouse.decimal_digits)
    spool.write(Batch(rows))
    result = spool.close()
    warehouse.load(staging, TABLE, path, job_id=f"content_hash_{form}")
    assert result.rounded == {"money": 1}
    columns = ", ".join(f"`{name}`" for name in (*COLUMNS, DATA_DATE)).replace("`tags`", "PARSE_JSON(tags) AS tags")
    assert content_hash(warehouse.query(f"SELECT {columns} FROM `{staging}`")) == result.content_hash
