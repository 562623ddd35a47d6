"""Hostile data: each kind is either kept exactly, or refused in words. As dicts and as Arrow alike."""

import json
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.platform.errors import PermanentError
from common.platform.paths import PROJECT_ROOT
from common.tables.contract import DATA_DATE, Table
from common.writes.batch import Batch
from common.writes.spool import Spool, SpoolResult, files
from common.writes.spool.hashing import content_hash
from common.writes.spool.json_text import MAX_JSON_DEPTH
from tests.unit.test_spool_hash import KINDS, TABLE

DAY = date(2026, 11, 20)
EMULATOR, CLOUD = (38, 18), (76, 38)


def spool(folder: Path, rows: Any, digits: tuple[int, int] = EMULATOR, table: Table = TABLE) -> SpoolResult:
    writing = Spool(folder / "rows.parquet", table, DAY, DAY, digits)
    writing.write(Batch(rows))
    return writing.close()


def kept(folder: Path, column: str) -> list[Any]:
    return pq.read_table(folder / "rows.parquet")[column].to_pylist()  # type: ignore[no-any-return]


def both(name: str, values: list[Any], kind: pa.DataType) -> dict[str, Any]:
    days = pa.array([DAY] * len(values))
    return {
        "dicts": [{DATA_DATE: DAY, name: value} for value in values],
        "arrow": pa.table({DATA_DATE: days, name: pa.array(values, kind)}),
    }


@pytest.mark.parametrize("form", ["dicts", "arrow"])
def test_control_characters_and_odd_scripts_are_kept_as_they_are(tmp_path: Path, form: str) -> None:
    odd = [
        "\x00",
        "\x1b[31m",
        "a\r\nb\tc",
        "\x7f\x85\u2028\u2029",
        "\u202eabc",
        "\ufeff",
        "e\u0301",
        "👩‍👩‍👧",
        "\uffff",
    ]
    result = spool(tmp_path, both("text", odd, pa.string())[form])
    assert kept(tmp_path, "text") == odd
    assert result.content_hash == content_hash([{DATA_DATE: DAY, "text": text} for text in odd], KINDS)


def test_bytes_that_are_not_utf8_are_refused_though_arrow_calls_them_text(tmp_path: Path) -> None:
    offsets, data = pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xc3\x28")
    broken = pa.Array.from_buffers(pa.string(), 1, [None, offsets, data])
    with pytest.raises(PermanentError, match="Row 1, column text: not text"):
        spool(tmp_path, pa.table({DATA_DATE: pa.array([DAY]), "text": broken}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.0, 0.1])
@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()])
@pytest.mark.parametrize("column", ["money", "n"])
def test_floating_point_is_never_money_nor_a_whole_number(
    tmp_path: Path, value: float, kind: pa.DataType, column: str
) -> None:
    for rows in both(column, [value], kind).values():
        with pytest.raises(PermanentError, match=f"Row 1, column {column}: "):
            spool(tmp_path, rows)


@pytest.mark.parametrize("form", ["dicts", "arrow"])
@pytest.mark.parametrize(("digits", "whole"), [(EMULATOR, 20), (CLOUD, 38)])
def test_numbers_as_long_as_the_warehouse_keeps_are_exact_and_one_digit_more_is_refused(
    tmp_path: Path, form: str, digits: tuple[int, int], whole: int
) -> None:
    longest = Decimal("9" * whole)
    rows = both("money", [longest, longest.copy_negate()], pa.decimal256(76, 0))[form]
    assert spool(tmp_path, rows, digits).rounded == {} and kept(tmp_path, "money") == [longest, longest.copy_negate()]
    with pytest.raises(PermanentError, match=f"more than {whole} digits before the point"):
        spool(tmp_path, both("money", [Decimal(10**whole)], pa.decimal256(76, 0))[form], digits)


@pytest.mark.parametrize("form", ["dicts", "arrow"])
def test_26_decimals_are_exact_in_bigquery_and_rounded_half_even_once_in_the_emulator(
    tmp_path: Path, form: str
) -> None:
    # By hand, to 18 places: the tie …7|5 goes up to the even 8, the tie …8|5 stays, …85…1 is past the tie.
    given = ["1.00000000000000000750000000", "1.00000000000000000850000000", "1.00000000000000000850000001"]
    rounded = ["1.000000000000000008", "1.000000000000000008", "1.000000000000000009"]
    rows = both("money", [*map(Decimal, given), Decimal("1.5"), None], pa.decimal128(38, 26))[form]
    assert spool(tmp_path, rows, CLOUD).rounded == {}
    assert kept(tmp_path, "money")[:3] == [*map(Decimal, given)]
    assert spool(tmp_path, rows, EMULATOR).rounded == {"money": 3}
    assert kept(tmp_path, "money") == [*map(Decimal, rounded), Decimal("1.5"), None]


@pytest.mark.parametrize("form", ["dicts", "arrow"])
def test_leap_days_and_the_ends_of_the_calendar_are_kept(tmp_path: Path, form: str) -> None:
    days = [date(2024, 2, 29), date(2000, 2, 29), date(1, 1, 1), date(9999, 12, 31)]
    assert spool(tmp_path, both("day", days, pa.date32())[form]).rows == 4
    assert kept(tmp_path, "day") == days


@pytest.mark.parametrize("days", [3_000_000, -800_000])
def test_an_arrow_date_beyond_the_calendar_is_refused(tmp_path: Path, days: int) -> None:
    column = pa.array([days], pa.int32()).cast(pa.date32())
    with pytest.raises(PermanentError, match="Row 1, column day: not a date"):
        spool(tmp_path, pa.table({DATA_DATE: pa.array([DAY]), "day": column}))


def test_the_hour_that_comes_twice_stays_two_hours(tmp_path: Path) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=berlin)
    times = [first, first.replace(fold=1), datetime(2026, 3, 29, 3, 0, tzinfo=berlin)]
    expected = [datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)]
    expected.append(datetime(2026, 3, 29, 1, 0, tzinfo=UTC))
    spool(tmp_path, [{DATA_DATE: DAY, "at": at} for at in times])
    assert kept(tmp_path, "at") == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_arrow_times_of_any_unit_and_zone_are_the_same_moment(tmp_path: Path, unit: str) -> None:
    at = datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)
    zoned = pa.array([at], pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, "Asia/Kathmandu"))
    spool(tmp_path, pa.table({DATA_DATE: pa.array([DAY]), "at": zoned}))
    assert kept(tmp_path, "at") == [at]


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array([0], pa.timestamp("us")), "not a time with a time zone"),
        (pa.array([1], pa.timestamp("ns", "UTC")), "not a time with a time zone .got '1970-01-01 00:00:00.000000001"),
        (pa.array([2**62], pa.timestamp("us", "UTC")), "not a time with a time zone"),
        (pa.array([0], pa.date32()), "not a time with a time zone"),
    ],
)
def test_arrow_times_without_zone_or_beyond_microseconds_are_refused(tmp_path: Path, column: Any, says: str) -> None:
    with pytest.raises(PermanentError, match=f"Row 1, column at: {says}"):
        spool(tmp_path, pa.table({DATA_DATE: pa.array([DAY]), "at": column}))


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("n", pa.array([2**63], pa.uint64())),
        ("n", pa.array([Decimal(1)], pa.decimal128(5, 0))),
        ("n", pa.array([True])),
        ("n", pa.array(["1"])),
        ("flag", pa.array([1], pa.int8())),
        ("day", pa.array([datetime(2026, 1, 1, tzinfo=UTC)])),
        ("text", pa.array([b"x"])),
        ("text", pa.array([1])),
        ("money", pa.array(["1.5"])),
        ("tags", pa.array(["{bad"])),
    ],
)
def test_arrow_columns_of_another_type_are_refused_and_never_converted_in_silence(
    tmp_path: Path, name: str, column: Any
) -> None:
    with pytest.raises(PermanentError, match=f"Row 1, column {name}: "):
        spool(tmp_path, pa.table({DATA_DATE: pa.array([DAY]), name: column}))


def test_arrow_types_that_lose_nothing_are_taken(tmp_path: Path) -> None:
    table = pa.table(
        {
            DATA_DATE: pa.array([DAY, DAY], pa.date64()),
            "text": pa.chunked_array([pa.array([text], pa.string()).dictionary_encode() for text in ("a", None)]),
            "n": pa.array([7, None], pa.uint8()),
            "money": pa.array([3, None], pa.int16()),
            "flag": pa.nulls(2),
            "tags": pa.array(['{"a": 1}', None], pa.json_()),
        }
    )
    spool(tmp_path, table)
    assert [kept(tmp_path, name)[0] for name in ("text", "n", "money", "flag")] == ["a", 7, Decimal(3), None]


def test_an_arrow_table_that_has_a_column_twice_is_refused(tmp_path: Path) -> None:
    table = pa.table([pa.array([DAY]), pa.array([1]), pa.array([2])], names=[DATA_DATE, "n", "n"])
    with pytest.raises(PermanentError, match="these columns twice: n"):
        spool(tmp_path, table)


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def test_json_as_deep_as_bigquery_takes_it_is_kept_and_deeper_is_refused(tmp_path: Path) -> None:
    many = json.dumps({"text": "[{" * 2_000, "list": [[]] * 2_000})
    deep = [nested(MAX_JSON_DEPTH), many]
    assert spool(tmp_path, [{DATA_DATE: DAY, "tags": text} for text in deep]).rows == 2
    assert [json.loads(text) for text in kept(tmp_path, "tags")] == [json.loads(text) for text in deep]
    for levels in (MAX_JSON_DEPTH + 1, 200_000):
        with pytest.raises(PermanentError, match="nested deeper than 500 levels"):
            spool(tmp_path, [{DATA_DATE: DAY, "tags": nested(levels)}])


@pytest.mark.parametrize("text", ['{"a": 1e400}', '{"a": Infinity}', '"\\ud800"', '{"\\ud800": 1}', "", "01", "{} {}"])
def test_json_that_bigquery_would_refuse_or_change_is_refused(tmp_path: Path, text: str) -> None:
    for rows in both("tags", [text], pa.string()).values():
        with pytest.raises(PermanentError, match="column tags: not JSON"):
            spool(tmp_path, rows)


def test_objects_and_lists_are_json(tmp_path: Path) -> None:
    result = spool(tmp_path, [{DATA_DATE: DAY, "tags": {"b": [1, "ü"], "a": None}}])
    assert json.loads(kept(tmp_path, "tags")[0]) == {"a": None, "b": [1, "ü"]}
    assert result.content_hash == content_hash([{DATA_DATE: DAY, "tags": {"a": None, "b": [1, "ü"]}}], KINDS)
    with pytest.raises(PermanentError, match="column tags: not JSON"):
        spool(tmp_path, [{DATA_DATE: DAY, "tags": {"a": float("nan")}}])


class Tier(StrEnum):
    BATCH = "batch"


def test_words_that_nobody_foresaw_are_kept_as_they_are(tmp_path: Path) -> None:
    words = ["batch", "hyperspeed-2027", "", "NULL", "ＢＡＴＣＨ"]
    rows = [{DATA_DATE: DAY, "text": word} for word in [Tier.BATCH, *words[1:]]]
    spool(tmp_path, rows)
    assert kept(tmp_path, "text") == words
    as_categories = pa.array(words).dictionary_encode()
    spool(tmp_path, pa.table({DATA_DATE: pa.array([DAY] * 5), "text": as_categories}))
    assert kept(tmp_path, "text") == words


BIG = """
import sys
from datetime import date
from pathlib import Path
import pyarrow as pa, pyarrow.compute, pyarrow.parquet
from common.processors.base import Batch
from common.writes.spool import Spool
from common.writes.spool.hashing import content_hash
from tests.bench.load_measure import memory_mib
from tests.unit.test_spool_hash import KINDS, TABLE
day = date(2026, 11, 20)
rows = [{"x_pipeline_run_date": day, "text": c * 100_000_000} for c in "ab"]
batch = rows if sys.argv[2] == "dicts" else pa.table({name: [row[name] for row in rows] for name in rows[0]})
before = memory_mib("VmRSS")
spool = Spool(Path(sys.argv[1]) / "rows.parquet", TABLE, day, day, (38, 18))
spool.write(Batch(batch))
result = spool.close()
peak = memory_mib("VmHWM") - before
assert result.content_hash == content_hash(rows, KINDS)
print(peak)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("form", ["dicts", "arrow"])
def test_texts_of_100_mb_pass_one_by_one(tmp_path: Path, form: str) -> None:
    command = [sys.executable, "-c", BIG, str(tmp_path), form]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert pq.read_metadata(tmp_path / "rows.parquet").num_row_groups == 2
    assert float(done.stdout) < 500  # MiB: a few copies of one text, whatever the number of rows


def test_a_spool_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 100)
    with pytest.raises(PermanentError, match="take more than .* MiB, packed"):
        spool(tmp_path, both("text", ["a"], pa.string())["dicts"])
