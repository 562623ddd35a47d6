"""Bills from files: what is read, and what is refused with file, line and column."""

import gzip
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from common.platform.errors import PermanentError
from common.platform.paths import CONFIGS
from common.processors.bills import file_extractor as external_file
from common.processors.bills import files, reading
from common.processors.bills.file_extractor import ExternalFileExtractor, date_span
from common.tables.contract import load_table
from common.writes.batch import Batch
from infra.local.focus_export import write_focus_export
from tests.processors.bill_files import GOOD, HEADER, OCTOBER, land, params, read, refused, small_bills
from tests.processors.context import make_context

__all__ = ["small_bills"]
pytestmark = pytest.mark.usefixtures("small_bills")


def test_values_get_the_contracts_types_and_their_position(tmp_path: Path) -> None:
    land(tmp_path, HEADER, '2026-10-05 23:00:00,1.5E-3,"a, ""b""\nc","{""k"": 1}"', GOOD)
    first, second = read(tmp_path)
    assert first == {
        "x_pipeline_run_date": date(2026, 10, 5),
        "ChargePeriodStart": datetime(2026, 10, 5, 23, tzinfo=UTC),
        "BilledCost": Decimal("0.0015"),
        "ChargeDescription": 'a, "b"\nc',
        "Tags": '{"k": 1}',
        "source_file": "bill.csv",
        "source_row": 1,
    }
    assert second["source_row"] == 2


def test_the_day_is_the_utc_day_whatever_the_offset(tmp_path: Path) -> None:
    land(tmp_path, HEADER, "2026-10-05T23:30:00-02:00,1,x,{}", "2026-10-05T00:00:00Z,1,x,{}")
    assert [row["x_pipeline_run_date"].day for row in read(tmp_path)] == [6, 5]


def test_null_words_are_no_values(tmp_path: Path) -> None:
    land(tmp_path, HEADER, "2026-10-05,1,NULL,")
    assert set(read(tmp_path)[0]) == {
        "x_pipeline_run_date",
        "ChargePeriodStart",
        "BilledCost",
        "source_file",
        "source_row",
    }


def test_columns_that_the_table_lacks_are_kept_as_json(tmp_path: Path) -> None:
    land(tmp_path, f"{HEADER},x_Operation,Id", f"{GOOD},RunInstances,11472")
    assert json.loads(read(tmp_path)[0]["extra"]) == {"x_Operation": "RunInstances", "Id": "11472"}


def test_a_column_of_the_file_never_stands_for_one_that_we_fill(tmp_path: Path) -> None:
    forged = {"source_file": "forged.csv", "provider": "p", "x_org_slug": "globex", "extra": "e"}
    land(tmp_path, f"{HEADER},{','.join(forged)}", f"{GOOD},{','.join(forged.values())}")
    (row,) = read(tmp_path, provider="aws")
    assert (row["source_file"], row["provider"]) == ("bill.csv", "aws") and "x_org_slug" not in row
    assert json.loads(row["extra"]) == forged


def test_without_an_extra_column_an_unknown_one_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    text = refused(tmp_path, HEADER.replace("BilledCost", "BiledCost"), GOOD, extra_column=None)
    assert "'BiledCost'" in text and "Did you mean 'BilledCost'?" in text


@pytest.mark.parametrize("packed", [True, False])
def test_gzip_is_told_by_its_bytes_and_not_by_its_name(tmp_path: Path, packed: bool) -> None:
    data = f"{HEADER}\n{GOOD}\n".encode()
    (tmp_path / "bill.csv").write_bytes(gzip.compress(data) if packed else data)
    assert len(read(tmp_path)) == 1


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "bill.csv").write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\n{GOOD}\r\n".encode())
    assert read(tmp_path)[0]["ChargeDescription"] == "compute"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("2026-10-05,1", "line 3: 2 fields, the header has 4; nothing for column ChargeDescription"),
        ("2026-10-05,1,a,b,c", "line 3: 5 fields, the header has 4"),
        ('2026-10-05,1,"cut off', "line 3, column ChargeDescription: unexpected end of data"),
        ('2026-10-05,1,"a"b,{}', "line 3, column ChargeDescription: ',' expected after"),
        ('2026-10-05,1,"a\nb","c"d', "line 3, column Tags: ',' expected after"),
        ("2026-10-05,1e38,x,{}", "line 3, column BilledCost: '1e38' is not a number"),
        ("2026-10-05,1e9999999999999999999,x,{}", "line 3, column BilledCost"),
        ("0001-01-01T00:00:00+14:00,1,x,{}", "line 3, column ChargePeriodStart: '0001-01-01T00:00:00+14:00' is not a"),
        ('2026-10-05,1,x,"{""a"": NaN}"', "line 3, column Tags"),
        (f"2026-10-05,1,x,{'[' * 100_000}", "line 3, column Tags"),
        ("2026-10-05,1.2.3,x,{}", "line 3, column BilledCost: '1.2.3' is not a number"),
        ("2026-10-05,NaN,x,{}", "line 3, column BilledCost: 'NaN' is not a number"),
        ("2026-10-05,1_000,x,{}", "line 3, column BilledCost"),
        ('2026-10-05,"1,234.50",x,{}', "line 3, column BilledCost: '1,234.50' is not a number"),
        ("05/10/2026,1,x,{}", "line 3, column ChargePeriodStart: '05/10/2026' is not a time"),
        (",1,x,{}", "line 3, column ChargePeriodStart: it is empty, and needs a value"),
        ("2026-10-05,1,x,{bad", "line 3, column Tags: '{bad' is not JSON"),
        ("2026-10-05,1,x\0y,{}", "line 3, column ChargeDescription: holds a NUL byte"),
    ],
)
def test_a_broken_line_is_told_with_its_line_and_column(tmp_path: Path, line: str, says: str) -> None:
    text = refused(tmp_path, HEADER, GOOD, line)
    assert text.startswith("bill.csv: ") and says in text


def batches(folder: Path, **more: Any) -> list[Batch]:
    context = make_context(landing=folder, start_date=OCTOBER[0], end_date=OCTOBER[1], source=None)
    return list(ExternalFileExtractor().run(context, params(**more)))


def test_rows_that_cannot_be_read_come_beside_the_others_with_their_position_and_content(tmp_path: Path) -> None:
    land(tmp_path, HEADER, "2026-10-05,abc,x,{}", GOOD, "soon,1,y,{}")
    (batch,) = batches(tmp_path)
    assert [row["source_row"] for row in batch.rows] == [2]
    assert [(bad.source, bad.column, bad.reason) for bad in batch.bad] == [
        ("bill.csv: line 2", "BilledCost", "'abc' is not a number"),
        ("bill.csv: line 4", "ChargePeriodStart", "'soon' is not a time such as 2026-10-01T00:00:00Z"),
    ]
    assert json.loads(batch.bad[1].row)["ChargeDescription"] == "y"


def test_a_value_whose_column_has_a_policy_goes_on_unread_for_the_spool_to_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = load_table(CONFIGS, "cloud_focus_export")
    columns = [
        c.model_copy(update={"policy": "discard_value"}) if c.name == "BilledCost" else c for c in contract.columns
    ]
    loose = contract.model_copy(update={"columns": tuple(columns)})
    monkeypatch.setattr(external_file, "load_table", lambda *_: loose)
    land(tmp_path, HEADER, "2026-10-05,abc,x,{}")
    (batch,) = batches(tmp_path)
    assert batch.bad == [] and [row["BilledCost"] for row in batch.rows] == ["abc"]


def test_the_line_is_where_the_record_begins_even_after_records_of_several_lines(tmp_path: Path) -> None:
    assert "line 5, column BilledCost" in refused(tmp_path, HEADER, '2026-10-05,1,"a\nb\nc",{}', "2026-10-05,x,y,{}")


def test_a_long_value_is_shortened(tmp_path: Path) -> None:
    assert len(refused(tmp_path, HEADER, f"2026-10-05,{'9' * 5000}x,y,{{}}")) < 300


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("ChargePeriodStart,BilledCost,BilledCost", "column BilledCost is there twice"),
        ("ChargePeriodStart,,BilledCost", "column 2 has no name"),
        ("", "line 1: the line is empty"),
        ("ChargePeriodStar,BilledCost,Tags", "no date column 'ChargePeriodStart'. Did you mean 'ChargePeriodStar'?"),
        ("ChargePeriodStart;BilledCost", "set the step's delimiter"),
    ],
)
def test_a_wrong_header_is_told(tmp_path: Path, header: str, says: str) -> None:
    assert says in refused(tmp_path, header, "2026-10-05,1,1")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bill.csv").write_bytes(b"")
    with pytest.raises(PermanentError, match="is empty"):
        read(tmp_path)


def test_a_file_without_rows_is_refused_and_replaces_nothing(tmp_path: Path) -> None:
    land(tmp_path, HEADER)
    with pytest.raises(PermanentError, match="a header and no rows"):
        read(tmp_path)


def test_a_record_of_many_lines_is_bounded_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.processors.bills.files.RECORD_BYTES", 1000)
    assert "line 2: a record of more than 1000 bytes" in refused(tmp_path, HEADER, '"a', *['","a'] * 300)


def test_a_column_that_the_table_requires_must_be_there_and_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "schemas").mkdir()
    contract = "table: strict\ndescription: d\ncolumns:\n- {name: Day, type: DATE}\n- {name: Amount, type: BIGNUMERIC, "
    (tmp_path / "schemas" / "strict.yml").write_text(contract + "mode: REQUIRED}\n", "utf-8")
    monkeypatch.setattr("tests.processors.context.CONFIGS", tmp_path)
    own = {"destination_table": "strict", "date_column": "Day", "extra_column": None}
    assert "line 1: column Amount is missing" in refused(tmp_path, "Day", "2026-10-05", **own)
    text = refused(tmp_path, "Day,Amount", "2026-10-05,1", "2026-10-05,", **own)
    assert "line 3, column Amount: it is empty, and needs a value" in text


def test_the_steps_provider_stands_on_each_row(tmp_path: Path) -> None:
    land(tmp_path, HEADER, GOOD)
    assert read(tmp_path, provider="aws")[0]["provider"] == "aws"


def test_a_record_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.processors.bills.files.RECORD_BYTES", 1000)
    assert "line 3: a record of more than 1000 bytes" in refused(tmp_path, HEADER, GOOD, "x" * 2000)


@pytest.mark.parametrize("name", ["a*b.csv", "gz::bill.csv", "bill?.csv", "[x].csv"])
def test_signs_in_a_files_name_mean_nothing(tmp_path: Path, name: str) -> None:
    land(tmp_path, HEADER, GOOD, name=name)
    assert len(read(tmp_path, source=name)) == 1


def test_a_byte_that_is_no_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "bill.csv").write_bytes(f"{HEADER}\n{GOOD}\n2026-10-05,1,caf\xe9,x\n".encode("latin-1"))
    with pytest.raises(PermanentError, match="line 3: not UTF-8"):
        read(tmp_path)


def test_a_cut_off_gzip_is_refused(tmp_path: Path) -> None:
    data = gzip.compress((HEADER + "\n" + "\n".join(f"2026-10-05,{n},x{n},{{}}" for n in range(9999))).encode())
    (tmp_path / "bill.csv").write_bytes(data[: len(data) // 2])
    with pytest.raises(PermanentError, match="ends too early or is damaged"):
        read(tmp_path)


def test_a_row_outside_the_runs_dates_is_refused_with_the_dates_to_use(tmp_path: Path) -> None:
    land(tmp_path, HEADER, GOOD, "2026-09-30,1,x,{}", "2026-11-02,1,x,{}")
    with pytest.raises(PermanentError) as error:
        read(tmp_path)
    assert "line 3" in str(error.value) and "--start-date 2026-09-30 --end-date 2026-11-02" in str(error.value)


def test_a_day_of_the_run_without_rows_is_told_and_fails_where_it_must_not_be(tmp_path: Path) -> None:
    land(tmp_path, HEADER, "2026-10-05,1,x,{}", "2026-10-07,1,x,{}")
    days = date(2026, 10, 5), date(2026, 10, 8)
    context = make_context(landing=tmp_path, start_date=days[0], end_date=days[1], source=None)
    assert len(read(tmp_path, context=context)) == 2
    (warning,) = context.warnings
    assert "no rows for 2026-10-06, 2026-10-08" in warning and "Their stored rows are deleted." in warning
    with pytest.raises(PermanentError, match="no rows for 2026-10-06, 2026-10-08.*Nothing is replaced"):
        read(tmp_path, days=days, missing_days="fail")
    untold = make_context(landing=tmp_path, start_date=days[0], end_date=days[1], source=None)
    read(tmp_path, context=untold, missing_days="expected")
    assert untold.warnings == []


def test_each_row_keeps_its_own_currency_and_amounts_of_any_sign(tmp_path: Path) -> None:
    header = "ChargePeriodStart,BilledCost,BillingCurrency,ConsumedQuantity"
    land(tmp_path, header, "2026-10-05,1.5,EUR,0", "2026-10-05,-2,USD,-3", "2026-10-05,0,JPY,0.0")
    found = [(row["BillingCurrency"], row["BilledCost"], row["ConsumedQuantity"]) for row in read(tmp_path)]
    assert found == [("EUR", Decimal("1.5"), 0), ("USD", -2, -3), ("JPY", 0, 0)]


def test_a_file_that_changes_its_columns_half_way_is_refused_with_the_line(tmp_path: Path) -> None:
    again = "ChargePeriodStart,BilledCost,ChargeDescription,Tags"
    assert "line 3, column ChargePeriodStart: 'ChargePeriodStart' is not a time" in refused(
        tmp_path, HEADER, GOOD, again, GOOD
    )
    assert "line 4: 5 fields, the header has 4" in refused(tmp_path, HEADER, GOOD, GOOD, f"{GOOD},new")


def test_the_span_of_a_file_is_its_first_and_last_day(tmp_path: Path) -> None:
    path = land(tmp_path, HEADER, GOOD, "2026-09-30,1,x,{}", "2026-11-02,1,x,{}")
    assert date_span(path, params(), CONFIGS) == (date(2026, 9, 30), date(2026, 11, 2))


def test_the_span_of_a_file_leaves_out_days_that_cannot_be_read_unless_all_are_so(tmp_path: Path) -> None:
    assert date_span(land(tmp_path, HEADER, GOOD, "soon,1,x,{}"), params(), CONFIGS) == (
        date(2026, 10, 5),
        date(2026, 10, 5),
    )
    with pytest.raises(PermanentError, match="line 2, column ChargePeriodStart: 'soon' is not a time"):
        date_span(land(tmp_path, HEADER, "soon,1,x,{}"), params(), CONFIGS)


@pytest.mark.parametrize(
    "source",
    [
        *("../secret.csv", "/etc/passwd", "link.csv", "folder/secret.csv", "file:///etc/passwd", "s3://b/k", "a\0b"),
        *("folder/../bill.csv", "{landing}/bill.csv"),  # they end inside, but no honest run says it that way
    ],
)
def test_no_source_leads_out_of_the_landing_folder(tmp_path: Path, source: str) -> None:
    landing = tmp_path / "landing"
    landing.mkdir()
    land(tmp_path, HEADER, GOOD, name="secret.csv")
    land(landing, HEADER, GOOD)
    os.symlink(tmp_path / "secret.csv", landing / "link.csv")
    os.symlink(tmp_path, landing / "folder")
    with pytest.raises(PermanentError, match="not a file in the landing folder"):
        read(landing, source=source.format(landing=landing))


def test_a_missing_file_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    land(tmp_path, HEADER, name="bill-2026-10.csv")
    with pytest.raises(PermanentError, match="Did you mean 'bill-2026-10.csv'"):
        read(tmp_path, source="bill-2026-11.csv")


def test_the_runs_source_goes_before_the_configs(tmp_path: Path) -> None:
    land(tmp_path, HEADER, GOOD, name="other.csv")
    context = make_context(landing=tmp_path, start_date=OCTOBER[0], end_date=OCTOBER[1], source="other.csv")
    assert read(tmp_path, context=context)[0]["source_file"] == "other.csv"


def test_batches_are_bounded_in_rows_and_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    land(tmp_path, HEADER, *[GOOD] * (files.BLOCK_ROWS + 1))
    assert [batch.count for batch in batches(tmp_path)] == [files.BLOCK_ROWS, 1]
    monkeypatch.setattr(files, "BLOCK_BYTES", 10 * len(f"{GOOD}\n"))
    assert max(batch.count for batch in batches(tmp_path)) == 10


def test_nothing_is_read_ahead_of_records_that_are_still_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class AtOnce(ThreadPoolExecutor):
        """Reads before it returns, as a fast thread would."""

        def submit(self, *args: Any, **kwargs: Any) -> Any:
            future = super().submit(*args, **kwargs)
            wait([future])
            return future

    monkeypatch.setattr(reading, "ThreadPoolExecutor", AtOnce)
    read: list[str] = []

    def blocks() -> Iterator[files.Block]:
        for name in ("batch", "records"):
            read.append(name)
            batch = pa.RecordBatch.from_pydict({"a": [1]}) if name == "batch" else None
            yield files.Block("line 1", ["a"], 1, batch, lambda: iter(()))
        read.append("the end, which closes the file")

    found = reading.ahead(blocks())
    next(found)
    assert read == ["batch", "records"]  # while the first is in use
    next(found)
    assert read == ["batch", "records"]
    assert list(found) == [] and read[2:] == ["the end, which closes the file"]


def test_one_bad_cell_in_many_records_is_found_named_and_set_aside(tmp_path: Path) -> None:
    _one_bad_cell(tmp_path, 100_000)


@pytest.mark.slow
def test_one_bad_cell_in_ten_million_records_is_found_named_and_set_aside(tmp_path: Path) -> None:
    _one_bad_cell(tmp_path, 10_000_000)


def _one_bad_cell(folder: Path, records: int) -> None:
    good = f"{GOOD}\n".encode()
    with (folder / "bill.csv").open("wb") as file:
        file.write(f"{HEADER}\n".encode())
        for count in (records * 2 // 3, records - records * 2 // 3 - 1):
            for left in range(count, 0, -10_000):
                file.write(good * min(left, 10_000))
            if count == records * 2 // 3:
                file.write(good.replace(b",1.50,", b",1.50 USD,"))
    rows, bad = 0, []
    context = make_context(landing=folder, start_date=OCTOBER[0], end_date=OCTOBER[1], source=None)
    for batch in ExternalFileExtractor().run(context, params()):
        rows += len(batch.rows)
        bad += batch.bad
    assert rows == records - 1
    assert [(one.source, one.column) for one in bad] == [(f"bill.csv: line {records * 2 // 3 + 2}", "BilledCost")]
    assert "1.50 USD" in bad[0].row


def test_the_generated_bill_adds_up_and_is_the_same_every_time(tmp_path: Path) -> None:
    first, days = date(2026, 10, 5), 3
    total = write_focus_export(tmp_path / "bill.csv", seed=1, first_day=first, days=days, rows_per_day=50)
    rows = read(tmp_path, days=(first, date(2026, 10, 7)))
    assert len(rows) == days * (50 + 4)
    assert sum((row["BilledCost"] for row in rows), Decimal(0)) == total
    assert max(-int(row["BilledCost"].normalize().as_tuple().exponent) for row in rows) == 11
    assert any(row["BilledCost"] < 0 for row in rows) and any("\n" in row["ChargeDescription"] for row in rows)
    for name in ("a.gz", "b.gz"):
        assert write_focus_export(tmp_path / name, seed=1, first_day=first, days=days, rows_per_day=50) == total
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "rows", "billed"),
    # Row counts and sums as published with the files (SOURCES.md beside them).
    [
        ("focus_1_0_sample.part_a.csv", 661, "11.65663587019"),
        ("fdt_aws_1_2_rows100.csv", 100, "1157.48882377213324"),
        ("fdt_aws_1_3_rows100.csv", 100, "1242.11561911486050"),
        ("fdt_azure_1_3_rows100.csv", 100, "4697.14467587227460"),
        ("fdt_gcp_1_3_rows100.parquet", 100, "1587.81993053025980"),
        ("llm_handmade_1_3.parquet", 4, "87.51830000000000"),
    ],
)
def test_real_bills_add_up_to_their_published_sums(shared_data: Path, name: str, rows: int, billed: str) -> None:
    folder = shared_data / "focus"
    span = date_span(folder / name, params(), CONFIGS)
    found = read(folder, days=span, source=name)
    assert len(found) == rows
    assert sum((row["BilledCost"] for row in found), Decimal(0)) == Decimal(billed)
