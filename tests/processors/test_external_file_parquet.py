"""Bills from Parquet files: told by their bytes, exact, and refused with row and column."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.platform.errors import PermanentError
from common.processors.bills import files
from tests.processors.bill_files import GOOD, HEADER, read, refused, small_bills
from tests.processors.context import make_context

__all__ = ["small_bills"]
pytestmark = pytest.mark.usefixtures("small_bills")


def parquet(folder: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), folder / "bill.csv")


def test_parquet_is_told_by_its_bytes_and_keeps_decimals_exact(tmp_path: Path) -> None:
    amount = Decimal("1.00000000000001")
    parquet(
        tmp_path,
        {
            "ChargePeriodStart": [datetime(2026, 10, 5, tzinfo=UTC)],
            "BilledCost": [amount],
            "Tags": pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string())),
            "Id": [7],
        },
    )
    (row,) = read(tmp_path)
    assert row["BilledCost"] == amount and json.loads(row["Tags"]) == {"a": "b"}
    assert json.loads(row["extra"]) == {"Id": "7"}


def test_floating_point_money_is_taken_as_its_shortest_form_and_told_once(tmp_path: Path) -> None:
    parquet(tmp_path, {"ChargePeriodStart": [date(2026, 10, 5)] * 2, "BilledCost": [0.1, 2e-7]})
    context = make_context(landing=tmp_path, start_date=date(2026, 10, 5), end_date=date(2026, 10, 5), source=None)
    assert [row["BilledCost"] for row in read(tmp_path, context=context)] == [Decimal("0.1"), Decimal("0.0000002")]
    assert len(context.warnings) == 1 and "BilledCost" in context.warnings[0]


def test_what_parquet_has_and_the_table_lacks_is_kept_as_text(tmp_path: Path) -> None:
    parquet(
        tmp_path,
        {
            "ChargePeriodStart": pa.array([1_791_158_400], pa.timestamp("s")),  # 2026-10-05, without a zone
            "BillingAccountId": [b"0042"],
            "Tags": [{"a": 1}],
            "x_Discount": pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string())),
            "x_Days": [[1, 2]],
            "x_Flag": [True],
            "x_At": [datetime(2026, 10, 5, 1, tzinfo=UTC)],
        },
    )
    (row,) = read(tmp_path)
    assert row["ChargePeriodStart"] == datetime(2026, 10, 5, tzinfo=UTC)
    assert (row["BillingAccountId"], json.loads(row["Tags"])) == ("0042", {"a": 1})
    assert json.loads(row["extra"]) == {
        "x_Discount": '{"k": "v"}',
        "x_Days": "[1, 2]",
        "x_Flag": "true",
        "x_At": "2026-10-05T01:00:00+00:00",
    }


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"BilledCost": [float("nan")]}, "row 1, column BilledCost: 'nan' is not a number"),
        ({"BilledCost": [True]}, "row 1, column BilledCost: 'True' is not a number"),
        ({"Tags": ["{bad"]}, "row 1, column Tags: '{bad' is not JSON"),
        ({"Tags": [[float("inf")]]}, "row 1, column Tags"),
        ({"BillingAccountId": [b"\xff"]}, "row 1, column BillingAccountId"),
        ({"ChargePeriodEnd": [5]}, "row 1, column ChargePeriodEnd: '5' is not a time"),
    ],
)
def test_a_wrong_value_in_parquet_is_told_with_its_row_and_column(
    tmp_path: Path, columns: dict[str, Any], says: str
) -> None:
    parquet(tmp_path, {"ChargePeriodStart": [date(2026, 10, 5)], **columns})
    with pytest.raises(PermanentError) as error:
        read(tmp_path)
    assert str(error.value).startswith("bill.csv: ") and says in str(error.value)


def test_a_column_that_parquet_has_twice_is_refused(tmp_path: Path) -> None:
    table = pa.table([[date(2026, 10, 5)], [1], [2]], names=["ChargePeriodStart", "BilledCost", "BilledCost"])
    pq.write_table(table, tmp_path / "bill.csv")
    with pytest.raises(PermanentError, match="schema: column BilledCost is there twice"):
        read(tmp_path)


def test_a_file_that_is_no_parquet_is_refused_where_parquet_is_asked_for(tmp_path: Path) -> None:
    assert "not a Parquet file" in refused(tmp_path, HEADER, GOOD, format="parquet")


def test_a_cut_off_parquet_file_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path, {"ChargePeriodStart": [date(2026, 10, 5)], "BilledCost": [1]})
    data = (tmp_path / "bill.csv").read_bytes()
    (tmp_path / "bill.csv").write_bytes(data[:-20])
    with pytest.raises(PermanentError, match="not readable as Parquet"):
        read(tmp_path)


def test_a_list_of_columns_that_is_too_long_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet(tmp_path, {"ChargePeriodStart": [date(2026, 10, 5)], "BilledCost": [1]})
    monkeypatch.setattr(files, "FOOTER_BYTES", 100)
    with pytest.raises(PermanentError, match="its list of columns has [0-9]+ bytes, the limit is 100"):
        read(tmp_path)


def test_more_columns_than_a_table_can_have_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet(tmp_path, {"ChargePeriodStart": [date(2026, 10, 5)], "BilledCost": [1], "Extra": [1]})
    monkeypatch.setattr(files, "MAX_COLUMNS", 2)
    with pytest.raises(PermanentError, match="schema: 3 columns, the limit is 2"):
        read(tmp_path)
