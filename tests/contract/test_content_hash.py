"""What the spool hashed is what BigQuery gives: on the emulator, and by Google's reference implementation."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.adapters.bigquery import BigQueryWarehouse
from common.adapters.googlesql import evaluation
from common.tables.contract import DATA_DATE
from common.writes.batch import Batch
from common.writes.spool import Spool
from common.writes.spool.hashing import ROW_HASH, SUM_NAMES, SUMS, content_hash, hash_text, row_hash_sql, total
from common.writes.spool.json_text import json_text
from tests.conftest import PROJECT
from tests.unit.test_spool_hash import COLUMNS, KINDS, TABLE, json_values, lists

DAY = date(2026, 11, 20)
ROWS: list[dict[str, Any]] = [
    {},
    {"text": "\x1b[31m\r\n\t\x7f\u2028\u202e'\"\\` 👩‍👧", "tags": '{"b": [2.0, {"c": null}], "a": "ü\\n"}'},
    {"text": "", "tags": '"a text"'},
    {"money": Decimal("99999999999999999999.999999999999999999"), "n": -(2**63)},
    {"money": Decimal("-0.000000000000000001"), "n": 2**63 - 1, "tags": "[1, 1.5, -0.25, true]"},
    {"money": Decimal("1.123456789012345678901234567"), "flag": False},
    {"money": Decimal("1E+3"), "flag": True, "tags": "-17"},  # the emulator would make 17.0 of 17
    {"money": Decimal(0), "tags": "null"},
    {"tags": '{"twice": 1, "a": 2, "twice": 3}'},
    {"at": datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC), "day": date(2024, 2, 29)},
    {"at": datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC), "day": date(1, 1, 1)},
]
AGGREGATE = f"SELECT COUNT(*) AS n, {SUMS} FROM (SELECT {row_hash_sql(KINDS)} AS {ROW_HASH} FROM `{{table}}`)"


def spooled(folder: Path, rows: Any, digits: tuple[int, int]) -> tuple[str, Path]:
    path = folder / "rows.parquet"
    spool = Spool(path, TABLE, DAY, DAY, digits)
    spool.write(Batch(rows))
    return spool.close().content_hash, path


def hash_of(answer: dict[str, Any]) -> str:
    return hash_text(total([[answer[name] or 0 for name in SUM_NAMES]]))


@pytest.mark.parametrize("form", ["dicts", "arrow"])
def test_one_row_of_the_warehouse_has_the_hash_that_the_rows_were_spooled_with(
    warehouse: BigQueryWarehouse, tmp_path: Path, form: str
) -> None:
    target = f"{PROJECT}.content_hash_{form}.t"
    warehouse.ensure_table(target, TABLE)
    staging = warehouse.create_staging(target, TABLE, form, spooled=True)
    rows: Any = [{DATA_DATE: DAY, **row} for row in ROWS]
    if form == "arrow":
        rows = pa.table({name: [row.get(name) for row in rows] for name in (*COLUMNS, DATA_DATE)})
    wanted, path = spooled(tmp_path, rows, warehouse.decimal_digits)
    warehouse.load(staging, TABLE, path, job_id=f"content_hash_{form}")
    columns = ", ".join(f"`{name}`" for name in KINDS)
    parsed = columns.replace("`tags`", "PARSE_JSON(tags, wide_number_mode => 'round') AS tags")
    list(warehouse.query(f"INSERT INTO `{target}` ({columns}) SELECT {parsed} FROM `{staging}`"))
    (answer,) = warehouse.query(AGGREGATE.format(table=target))
    assert (answer["n"], hash_of(answer)) == (len(ROWS), wanted)
    assert content_hash(warehouse.query(f"SELECT {columns} FROM `{target}`"), KINDS) == wanted


def by_google(rows: list[dict[str, Any]]) -> str:
    """The hash of spooled rows, evaluated by ZetaSQL: JSON comes as text and is parsed as a commit does."""
    columns = tuple((name, "STRING" if kind == "JSON" else kind) for name, kind in KINDS.items())
    parsed = "(SELECT * REPLACE (PARSE_JSON(tags, wide_number_mode => 'round') AS tags) FROM `p.d.t`)"
    sql = AGGREGATE.replace("`{table}`", parsed)
    (answer,) = evaluation.query(sql, {"p.d.t": (columns, rows)}, parameters={})
    return hash_of(answer)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lists.filter(bool))
def test_google_s_reference_implementation_gives_the_hash_of_the_spool(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    wanted, path = spooled(tmp_path_factory.mktemp("google"), rows, (76, 38))
    assert by_google(pq.read_table(path).to_pylist()) == wanted


def test_google_s_reference_implementation_gives_the_hash_of_awkward_rows(tmp_path: Path) -> None:
    wide = {"money": Decimal("-0.00000000000000000000000000000000000001"), DATA_DATE: DAY}
    rows = [*({DATA_DATE: DAY, **row} for row in ROWS), wide, wide]
    wanted, path = spooled(tmp_path, rows, (76, 38))
    assert by_google(pq.read_table(path).to_pylist()) == wanted


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)


@settings(max_examples=60, deadline=None)
@given(st.lists(json_values | numbers | st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=20))
def test_json_is_written_as_google_s_reference_implementation_writes_it(values: list[Any]) -> None:
    rows = [{"number": number, "text": json.dumps(value)} for number, value in enumerate(values)]
    sql = "SELECT TO_JSON_STRING(PARSE_JSON(text, wide_number_mode => 'round')) AS written FROM `p.d.t` ORDER BY number"
    columns = (("number", "INT64"), ("text", "STRING"))
    written = [row["written"] for row in evaluation.query(sql, {"p.d.t": (columns, rows)}, parameters={})]
    assert written == [json_text(row["text"]) for row in rows]
