"""The spool: what fits the contract is kept exactly, what does not is refused with row, column and value."""

import tracemalloc
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.platform.errors import PermanentError, TransientError
from common.tables.contract import DATA_DATE, Table
from common.writes.batch import Batch
from common.writes.spool import Spool, SpoolResult
from common.writes.spool.rows import MAX_BYTES

TABLE = Table.model_validate(
    {
        "table": "t",
        "description": "A test",
        "columns": [
            {"name": "name", "type": "STRING", "mode": "REQUIRED"},
            {"name": "cost", "type": "BIGNUMERIC"},
            {"name": "n", "type": "INT64"},
            {"name": "flag", "type": "BOOL"},
            {"name": "at", "type": "TIMESTAMP"},
            {"name": "day", "type": "DATE"},
            {"name": "tags", "type": "JSON"},
        ],
    }
)
DAY = date(2026, 11, 20)
EMULATOR, CLOUD = (38, 18), (76, 38)


def row(**more: Any) -> dict[str, Any]:
    return {"name": "a", DATA_DATE: DAY, **more}


def spool(path: Path, *batches: Sequence[Mapping[str, Any]], digits: tuple[int, int] = EMULATOR) -> SpoolResult:
    writing = Spool(path / "rows.parquet", TABLE, DAY, DAY, digits)
    for batch in batches:
        writing.write(Batch(batch))
    return writing.close()


def kept(path: Path, column: str = "cost") -> list[Any]:
    values: list[Any] = pq.read_table(path / "rows.parquet")[column].to_pylist()
    return values


@pytest.mark.parametrize(
    ("digits", "given_", "expected", "rounded"),
    [
        # Half-even, by hand: …15 goes down to the even 2, …25 down to 2, …35 up to 4.
        (EMULATOR, "0.0000000000000000015", "0.000000000000000002", 1),
        (EMULATOR, "0.0000000000000000025", "0.000000000000000002", 1),
        (EMULATOR, "0.0000000000000000035", "0.000000000000000004", 1),
        (EMULATOR, "-0.0000000000000000025", "-0.000000000000000002", 1),
        (EMULATOR, "1.12345678901234567890123456", "1.123456789012345679", 1),
        (CLOUD, "1.12345678901234567890123456", "1.12345678901234567890123456", 0),
        (EMULATOR, "99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999", 0),
        (EMULATOR, "1.5E-3", "0.0015", 0),
        (EMULATOR, "1E+19", "10000000000000000000", 0),
        (EMULATOR, "0E+1000000", "0", 0),
        (CLOUD, "9.9E+37", "99" + "0" * 36, 0),
        (EMULATOR, "1E-400", "0", 1),
        (EMULATOR, "1.10000000000000000000000", "1.1", 0),
    ],
)
def test_money_is_kept_exactly_or_rounded_once_half_even_and_counted(
    tmp_path: Path, digits: tuple[int, int], given_: str, expected: str, rounded: int
) -> None:
    result = spool(tmp_path, [row(cost=Decimal(given_))], digits=digits)
    assert kept(tmp_path) == [Decimal(expected)]
    assert result.rounded == ({"cost": rounded} if rounded else {})


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"cost": 1.5}, "column cost: money and quantities must be Decimal, not float"),
        ({"cost": "1.5"}, "not str"),
        ({"cost": True}, "not bool"),
        ({"cost": Decimal("NaN")}, "not a number"),
        ({"cost": Decimal("-Infinity")}, "not a number"),
        ({"cost": Decimal("1E+20")}, "more than 20 digits before the point"),
        ({"cost": Decimal("99999999999999999999.9999999999999999999")}, "more than 20 digits before the point"),
        ({"name": None}, "column name: the column must not be NULL"),
        ({"name": 7}, "column name: not text"),
        ({"name": "\ud800"}, "not valid Unicode"),
        ({"n": 2**63}, "column n: not a whole number of 64 bits"),
        ({"n": True}, "not a whole number"),
        ({"n": 10**5000}, "column n: not a whole number of 64 bits (got 'int, too long to show')"),
        ({"flag": 1}, "column flag: not true or false"),
        ({"at": datetime(2026, 1, 1)}, "column at: not a time with a time zone"),  # noqa: DTZ001
        ({"at": "2026-01-01"}, "not a time"),
        ({"at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))}, "column at: before the year 1 or after"),
        ({"day": datetime(2026, 1, 1, tzinfo=UTC)}, "column day: not a date"),
        ({"tags": "{bad"}, "column tags: not JSON"),
        ({"tags": '{"a": NaN}'}, "not JSON"),
        ({"tags": "[" * 100_000}, "not JSON"),
        ({"tags": "[" * 1_500 + "]" * 1_500}, "not JSON"),
        ({"nam": "x"}, "no column 'nam'. Did you mean 'name'?"),
        ({"x_run_id": "forged"}, "no column 'x_run_id'"),
        ({DATA_DATE: None}, "column x_pipeline_run_date: the column must not be NULL"),
        ({DATA_DATE: DAY - timedelta(days=1)}, "--start-date 2026-11-19 --end-date 2026-11-20"),
        ({DATA_DATE: DAY + timedelta(days=2)}, "--start-date 2026-11-20 --end-date 2026-11-22"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_with_its_number_and_column(
    tmp_path: Path, bad: dict[str, Any], says: str
) -> None:
    with pytest.raises(PermanentError) as refused:
        spool(tmp_path, [row()], [row(**bad)])
    assert str(refused.value).startswith("Row 2") and says in str(refused.value)


def test_a_long_value_is_shortened_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(PermanentError) as refused:
        spool(tmp_path, [row(tags="{" + "x" * 10_000)])
    assert len(str(refused.value)) < 400
    with pytest.raises(PermanentError) as refused:
        spool(tmp_path, [row(**{"x" * 10_000: 1})])
    assert len(str(refused.value)) < 400


def test_times_are_kept_as_the_same_moment_in_utc(tmp_path: Path) -> None:
    spool(tmp_path, [row(at=datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))))])
    assert kept(tmp_path, "at") == [datetime(2025, 12, 31, 23, tzinfo=UTC)]


def test_an_empty_spool_is_a_readable_file_of_no_rows(tmp_path: Path) -> None:
    assert spool(tmp_path).rows == 0 and kept(tmp_path) == []


rows = st.lists(
    st.builds(
        row,
        name=st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        cost=st.none() | st.decimals(-1000, 1000, places=4),
        n=st.none() | st.integers(-9, 9),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(rows, st.randoms(use_true_random=False), st.integers(0, 12))
def test_the_content_hash_does_not_depend_on_order_or_batches(
    tmp_path_factory: pytest.TempPathFactory, some: list[dict[str, Any]], chance: Any, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    shuffled = chance.sample(some, len(some))
    assert spool(folder, some).content_hash == spool(folder, shuffled[:cut], shuffled[cut:]).content_hash


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([row(cost=Decimal("1.50"))], [row(cost=Decimal("1.5"))], True),
        ([row(cost=Decimal("1E+2"))], [row(cost=Decimal("100"))], True),
        ([row(cost=Decimal("1.5"))], [row(cost=Decimal("1.51"))], False),
        ([row(cost=Decimal(1))], [row(n=1)], False),
        ([row()], [row(), row()], False),
        ([row(), row(), row()], [row()], False),
        ([row(name="a"), row(name="b")], [row(name="ab")], False),
        ([row(tags='{"a": 1e2, "b": [2.50]}')], [row(tags='{"b":[2.5],"a":100.0}')], True),
        ([row(tags='{"a": 1}')], [row(tags='{"a": "1"}')], False),
        ([row(tags="null")], [row()], True),
    ],
)
def test_the_content_hash_tells_content_and_not_notation(
    tmp_path: Path, one: list[dict[str, Any]], other: list[dict[str, Any]], same: bool
) -> None:
    assert (spool(tmp_path, one).content_hash == spool(tmp_path, other).content_hash) is same


def test_memory_stays_flat_however_many_rows(tmp_path: Path) -> None:
    """Python's own allocations while 60,000 rows pass through: some row groups' worth, not all of them."""

    def passed(count: int) -> int:
        tracemalloc.start()
        writing = Spool(tmp_path / "rows.parquet", TABLE, DAY, DAY, EMULATOR)
        for begin in range(0, count, 5_000):
            writing.write(Batch([row(name=f"name {n}", cost=Decimal(n)) for n in range(begin, begin + 5_000)]))
        writing.close()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert passed(60_000) < 1.5 * passed(20_000)


def test_memory_stays_flat_however_wide_the_rows(tmp_path: Path) -> None:
    """300 MiB of text in few rows: never more at a time than a row group may hold, twice."""
    tracemalloc.start()
    writing = Spool(tmp_path / "rows.parquet", TABLE, DAY, DAY, EMULATOR)
    for n in range(300):
        writing.write(Batch([row(name=chr(65 + n % 26) * 2**20)]))
    writing.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * MAX_BYTES


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_in_words_and_worth_another_try() -> None:
    with pytest.raises(TransientError, match=r"No space left on device.*Free some space"):
        Spool(Path("/dev/full"), TABLE, DAY, DAY, EMULATOR).close()
