"""What does not fit the contract: bad rows, discarded values, unknown columns, drift. As dicts and as Arrow alike."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.domain.model import WriteSpec
from common.platform.errors import DriftError, PermanentError
from common.tables.contract import DATA_DATE, Table
from common.writes.bad_rows import ROW_CHARS, BadRow, row_text
from common.writes.batch import Batch
from common.writes.spool import Spool, SpoolResult
from common.writes.spool import unknown as unknown_columns
from common.writes.spool.hashing import content_hash

DAY = date(2026, 11, 20)
KINDS = {"name": "STRING", "n": "INT64", "cost": "BIGNUMERIC", DATA_DATE: "DATE"}
Make = Callable[[list[dict[str, Any]]], Any]


def table(unknown: str = "freeze", **policies: str) -> Table:
    columns = [("name", "STRING", "REQUIRED"), ("n", "INT64", "NULLABLE"), ("cost", "BIGNUMERIC", "NULLABLE")]
    described = [{"name": c, "type": t, "mode": m, "policy": policies.get(c, "freeze")} for c, t, m in columns]
    return Table.model_validate({"table": "t", "description": "d", "unknown_columns": unknown, "columns": described})


def row(**more: Any) -> dict[str, Any]:
    return {"name": "a", DATA_DATE: DAY, **more}


def arrow(rows: list[dict[str, Any]]) -> pa.Table:
    names = list(dict.fromkeys(name for one in rows for name in one))
    return pa.table({name: [one.get(name) for one in rows] for name in names})


@pytest.fixture(params=[list, arrow], ids=["dicts", "arrow"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param  # type: ignore[no-any-return]


def spool(
    folder: Path, contract: Table, *batches: Any, most: int = 0, bad: Sequence[BadRow] = (), org: str = "acme"
) -> SpoolResult:
    path, write = folder / "rows.parquet", WriteSpec(max_bad_rows=most)
    writing = Spool(path, contract, DAY, DAY, (38, 18), write=write, org_slug=org)
    if bad:
        writing.write(Batch((), bad))
    for batch in batches:
        writing.write(Batch(batch))
    return writing.close()


def good(folder: Path, column: str) -> list[Any]:
    return pq.read_table(folder / "rows.parquet")[column].to_pylist()  # type: ignore[no-any-return]


def bad_rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "rows.bad.parquet").to_pylist()  # type: ignore[no-any-return]


def test_a_bad_row_goes_to_the_file_of_bad_rows_and_the_others_are_written(tmp_path: Path, make: Make) -> None:
    rows = [row(name="a", n=1), row(name=None, n=2), row(name="c", n=3)]
    result = spool(tmp_path, table(), make(rows), most=1)
    assert (result.rows, result.bad_rows, good(tmp_path, "name")) == (2, 1, ["a", "c"])
    assert bad_rows(tmp_path) == [
        {
            "reason": "the column must not be NULL (got 'NULL')",
            "column": "name",
            "source": "Row 2",
            "row": '{"name": null, "x_pipeline_run_date": "2026-11-20", "n": "2"}',
        }
    ]
    assert result.content_hash == content_hash([rows[0], rows[2]], KINDS)


def test_one_bad_row_more_than_allowed_fails_with_the_first_reasons(tmp_path: Path, make: Make) -> None:
    rows = [row(), *[row(name=None)] * 4]
    with pytest.raises(PermanentError) as refused:
        spool(tmp_path, table(), make(rows), most=3)
    text = str(refused.value)
    assert text.startswith("Row 2, column name: the column must not be NULL (got 'NULL'). Row 3,")
    assert "4 rows so far can't be written, max_bad_rows allows 3: nothing is" in text
    assert spool(tmp_path, table(), make(rows), most=4).bad_rows == 4


def test_bad_rows_of_the_processor_count_as_those_of_the_spool(tmp_path: Path) -> None:
    theirs = BadRow("'x' is not a number", "bill.csv: line 7", '{"n": "x"}', "n")
    result = spool(tmp_path, table(), [row()], most=1, bad=[theirs])
    assert (result.rows, result.bad_rows) == (1, 1)
    assert bad_rows(tmp_path)[0]["source"] == "bill.csv: line 7"
    with pytest.raises(PermanentError, match=r"^bill.csv: line 7, column n: 'x' is not a number\.$"):
        spool(tmp_path, table(), [row()], bad=[theirs])
    with pytest.raises(PermanentError, match="2 rows so far"):
        spool(tmp_path, table(), [row(n="x")], most=1, bad=[theirs])


def test_no_bad_row_leaves_no_file(tmp_path: Path) -> None:
    spool(tmp_path, table(), [row()])
    assert not (tmp_path / "rows.bad.parquet").exists()


def test_discard_value_makes_the_value_null_counts_and_reports_it(tmp_path: Path, make: Make) -> None:
    rows = [row(cost=0.5), row(cost=None), row(cost=1.5)]
    result = spool(tmp_path, table(cost="discard_value"), make(rows))
    assert (result.rows, result.bad_rows, result.discarded) == (3, 0, {"cost": 2})
    assert good(tmp_path, "cost") == [None] * 3
    assert result.drift["retyped"] == [
        {"name": "cost", "expected": "BIGNUMERIC", "found": {"FLOAT64": 2}, "samples": ["'0.5'", "'1.5'"]}
    ]


def test_a_required_value_cannot_be_discarded(tmp_path: Path, make: Make) -> None:
    with pytest.raises(PermanentError, match="Row 1, column name: not text"):
        spool(tmp_path, table(name="discard_value"), make([row(name=7)]))


def test_discard_row_leaves_the_row_out_without_counting_it(tmp_path: Path, make: Make) -> None:
    result = spool(tmp_path, table(cost="discard_row"), make([row(name="x", cost=0.5)]), [row()])
    assert (result.rows, result.bad_rows, good(tmp_path, "name")) == (1, 1, ["a"])
    assert bad_rows(tmp_path)[0]["reason"].startswith("money and quantities must be Decimal, not float")


def test_a_row_that_is_bad_and_discarded_counts_as_bad(tmp_path: Path, make: Make) -> None:
    with pytest.raises(PermanentError, match="Row 1, column cost"):
        spool(tmp_path, table(n="discard_row"), make([row(n="x", cost=0.5)]))


def test_what_is_discarded_with_its_row_is_not_counted_as_discarded(tmp_path: Path, make: Make) -> None:
    result = spool(tmp_path, table(cost="discard_value"), make([row(name=None, cost=0.5)]), most=1)
    assert result.discarded == {}


def test_an_unknown_column_fails_the_step_with_the_nearest_and_the_drift(tmp_path: Path, make: Make) -> None:
    with pytest.raises(DriftError) as refused:
        spool(tmp_path, table(), [row()], make([row(), row(costs=Decimal(1))]))
    assert "the table has no column 'costs'. Did you mean 'cost'?" in str(refused.value)
    assert refused.value.drift["added"] == [
        {"name": "costs", "type": "BIGNUMERIC", "policy": "freeze", "samples": ["'1'"]}
    ]


def test_an_unknown_column_may_be_left_out_and_is_counted(tmp_path: Path, make: Make) -> None:
    result = spool(tmp_path, table("discard_value"), make([row(note="x"), row(note=None), row(note="y")]))
    assert (result.rows, result.discarded, result.added) == (3, {"note": 2}, ())
    assert result.drift["added"][0] == {
        "name": "note",
        "type": "STRING",
        "policy": "discard_value",
        "samples": ["'x'", "'y'"],
    }


def test_rows_with_a_value_in_an_unknown_column_may_be_left_out(tmp_path: Path, make: Make) -> None:
    result = spool(tmp_path, table("discard_row"), make([row(name="x", note="x"), row(name="y", note=None)]))
    assert (result.rows, result.bad_rows, good(tmp_path, "name")) == (1, 1, ["y"])
    assert bad_rows(tmp_path)[0]["column"] == "note"


EVOLVED: list[tuple[Any, str, Any]] = [
    ("x", "STRING", "x"),
    (7, "INT64", 7),
    (Decimal("1.5"), "BIGNUMERIC", Decimal("1.5")),
    (True, "BOOL", True),
    (DAY, "DATE", DAY),
    (datetime(2026, 1, 2, tzinfo=UTC), "TIMESTAMP", datetime(2026, 1, 2, tzinfo=UTC)),
]


@pytest.mark.parametrize(("value", "kind", "stored"), EVOLVED, ids=[kind for _, kind, _ in EVOLVED])
def test_a_new_column_is_kept_with_the_type_of_its_values(
    tmp_path: Path, make: Make, value: Any, kind: str, stored: Any
) -> None:
    result = spool(tmp_path, table("evolve"), [row()], make([row(new=None)]), make([row(), row(new=value)]), [row()])
    assert [(c.name, c.type, c.mode) for c in result.added] == [("new", kind, "NULLABLE")]
    assert good(tmp_path, "new") == [None, None, None, stored, None] and result.rows == 5
    assert result.content_hash == content_hash([*[row()] * 4, row(new=value)], KINDS | {"new": kind})
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("value", [{"a": 1}, [1, 2]])
def test_objects_and_lists_become_a_json_column(tmp_path: Path, value: Any) -> None:
    result = spool(tmp_path, table("evolve"), [row(new=value)])
    assert result.added[0].type == "JSON" and json.loads(good(tmp_path, "new")[0]) == value
    assert result.content_hash == content_hash([row(new=value)], KINDS | {"new": "JSON"})


def test_a_column_without_any_value_is_no_column(tmp_path: Path, make: Make) -> None:
    result = spool(tmp_path, table("evolve"), make([row(new=None)]))
    assert result.added == () and not result.drift.get("added")


def test_later_values_of_another_type_than_a_new_columns_make_bad_rows(tmp_path: Path, make: Make) -> None:
    result = spool(tmp_path, table("evolve"), make([row(new=1)]), make([row(new="x")]), most=1)
    assert (result.added[0].type, result.bad_rows) == ("INT64", 1)
    assert bad_rows(tmp_path)[0]["reason"] == "not a whole number of 64 bits (got 'x')"


def test_columns_that_come_one_after_the_other_end_up_in_one_file(tmp_path: Path) -> None:
    batches = [[row(**{f"new{n}": n})] for n in range(5)]
    result = spool(tmp_path, table("evolve"), *batches)
    assert [column.name for column in result.added] == [f"new{n}" for n in range(5)]
    assert [good(tmp_path, f"new{n}")[n] for n in range(5)] == list(range(5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.parquet"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Name", "BigQuery does not tell it from name"),
        ("a b", "BigQuery takes no column of such a name"),
        ("_PARTITIONTIME", "BigQuery takes no column of such a name"),
        ("x" * 129, "BigQuery takes no column of such a name"),
        ("x_run_id", "the table has no column 'x_run_id'"),
    ],
)
def test_a_name_that_cannot_be_a_column_is_never_added(tmp_path: Path, make: Make, name: str, says: str) -> None:
    with pytest.raises(PermanentError) as refused:
        spool(tmp_path, table("evolve"), make([row(**{name: "v"})]))
    assert says in str(refused.value)


def test_a_step_adds_so_many_columns_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unknown_columns, "MAX_ADDED", 2)
    with pytest.raises(PermanentError, match="column 'new2' can't be added: a step may add 2 columns"):
        spool(tmp_path, table("evolve"), [row(new0=1, new1=1, new2=1)])


@pytest.mark.parametrize("unknown", ["discard_value", "discard_row", "evolve"])
def test_no_policy_lets_a_row_forge_its_lineage(tmp_path: Path, make: Make, unknown: str) -> None:
    with pytest.raises(PermanentError, match="no column 'x_run_id'"):
        spool(tmp_path, table(unknown), make([row(x_run_id="forged")]))


@pytest.mark.parametrize("own", ["acme", None])
def test_a_row_may_say_whose_it_is_and_the_file_does_not_have_it(tmp_path: Path, make: Make, own: Any) -> None:
    result = spool(tmp_path, table(), make([row(x_org_slug=own)]))
    assert result.rows == 1 and not result.drift.get("added") and result.content_hash == content_hash([row()], KINDS)
    assert "x_org_slug" not in pq.read_schema(tmp_path / "rows.parquet").names


def test_a_row_of_another_organisation_fails_the_step_whatever_the_policies(tmp_path: Path, make: Make) -> None:
    rows = make([row(x_org_slug="acme"), row(x_org_slug="globex", name=None)])
    with pytest.raises(PermanentError, match="^Row 2, column x_org_slug: the row is of another org") as refused:
        spool(tmp_path, table("discard_row", name="discard_row"), rows, most=9)
    assert "globex" not in str(refused.value)


def test_a_day_outside_the_run_fails_the_step_whatever_may_be_bad(tmp_path: Path, make: Make) -> None:
    rows = make([row(), row(name=None) | {DATA_DATE: date(2026, 11, 22)}])
    with pytest.raises(PermanentError, match=r"^Row 2, column x_pipeline_run_date: outside .* --end-date 2026-11-22"):
        spool(tmp_path, table(), rows, most=9)


def test_an_arrow_column_that_is_missing_is_told(tmp_path: Path) -> None:
    assert spool(tmp_path, table(), arrow([row(n=1)])).drift["missing"] == ["cost"]


def test_dicts_may_leave_out_what_is_null(tmp_path: Path) -> None:
    assert spool(tmp_path, table(), [row()]).drift == {}
    with pytest.raises(DriftError) as refused:
        spool(tmp_path, table(), [{DATA_DATE: DAY}])
    assert refused.value.drift["missing"] == ["name"]


def test_samples_are_few_and_short_and_many_columns_do_not_fill_the_record(tmp_path: Path) -> None:
    wide = {f"c{n}": "x" * 10_000 for n in range(300)}
    result = spool(tmp_path, table("discard_value"), [row(**wide)] * 9)
    assert len(json.dumps(result.drift)) < 20_000 and len(result.drift["added"]) == 50


@pytest.mark.parametrize("values", [{"a": "x" * 10**6}, {f"c{n}": "ü" * 10_000 for n in range(5_000)}])
def test_a_bad_rows_text_is_json_and_bounded(values: dict[str, Any]) -> None:
    text = row_text(values)
    assert isinstance(json.loads(text), dict) and len(text) < 10 * ROW_CHARS


def test_a_bad_rows_text_can_be_stored_whatever_the_row_holds(tmp_path: Path) -> None:
    hostile = row(name="\ud800\x00\n", n=10**5000, cost=Decimal("NaN"), **{"\ud800": b"\xff", "f": float("nan")})
    spool(tmp_path, table("discard_value"), [hostile], most=1)
    assert json.loads(bad_rows(tmp_path)[0]["row"])["f"] == "nan"
