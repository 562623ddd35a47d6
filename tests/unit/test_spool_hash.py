"""The content hash: the same for the same rows however they come, another one for any other rows."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.tables.contract import DATA_DATE, Table
from common.writes.batch import Batch
from common.writes.spool import Spool, fast_hash, hashing_v1
from common.writes.spool.hashing import HASH_MODULUS, canonical_row, content_hash
from common.writes.spool.json_text import json_text

COLUMNS = {
    "text": "STRING",
    "money": "BIGNUMERIC",
    "n": "INT64",
    "flag": "BOOL",
    "at": "TIMESTAMP",
    "day": "DATE",
    "tags": "JSON",
}
TABLE = Table.model_validate(
    {"table": "t", "description": "d", "columns": [{"name": n, "type": t} for n, t in COLUMNS.items()]}
)
KINDS = {**COLUMNS, DATA_DATE: "DATE"}
DAY = date(2026, 11, 20)
ARROW = {
    "text": pa.large_string(),
    "money": pa.decimal128(38, 6),
    "n": pa.int32(),
    "flag": pa.bool_(),
    "at": pa.timestamp("ms", "Europe/Berlin"),
    "day": pa.date64(),
    "tags": pa.dictionary(pa.int32(), pa.string()),
    DATA_DATE: pa.date32(),
}


def arrow(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in ARROW.items()})


def queried(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows as a query gives them: JSON parsed, times in UTC, decimals with all places, NULLs there."""
    empty = dict.fromkeys(ARROW)
    return [empty | row | {"tags": None if row.get("tags") is None else json.loads(row["tags"])} for row in rows]


def text_of(row: Mapping[str, Any]) -> bytes:
    return canonical_row(row, KINDS)


def hashed(folder: Path, *batches: Any, digits: tuple[int, int] = (38, 18)) -> str:
    spool = Spool(folder / "rows.parquet", TABLE, DAY, DAY, digits)
    for batch in batches:
        spool.write(Batch(batch))
    return spool.close().content_hash


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9, allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
moments = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001 - given a zone below
    lambda at: at.replace(microsecond=at.microsecond // 1_000 * 1_000, tzinfo=timezone(timedelta(hours=at.hour % 5)))
)
row_values = st.fixed_dictionaries(
    {DATA_DATE: st.just(DAY)},
    optional={
        "text": st.none() | texts,
        "money": st.none() | st.decimals(-(10**6), 10**6, places=6) | st.just(Decimal("-0")),
        "n": st.none() | st.integers(-(2**31), 2**31 - 1),
        "flag": st.none() | st.booleans(),
        "at": st.none() | moments,
        "day": st.none() | st.dates(date(1, 1, 1)),
        "tags": st.none() | json_values.map(json.dumps),
    },
)
lists = st.lists(row_values, max_size=8)


@settings(max_examples=150, deadline=None)
@given(lists, st.randoms(use_true_random=False), st.integers(0, 8))
def test_dicts_arrow_and_query_results_have_one_hash_in_any_order_and_batching(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], chance: Any, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("hash")
    wanted = content_hash(queried(rows), KINDS)
    mixed = chance.sample(rows, len(rows))
    assert hashed(folder, rows) == wanted
    assert hashed(folder, mixed[:cut], arrow(mixed[cut:]), digits=(76, 38)) == wanted
    assert hashed(folder, *arrow(mixed).to_batches(max_chunksize=3)) == wanted


@settings(max_examples=40, deadline=None)
@given(st.lists(row_values, min_size=1, max_size=20), st.randoms(use_true_random=False), st.sampled_from([0, 2, 400]))
def test_rows_of_values_that_repeat_have_the_hash_of_their_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], chance: Any, wholes: int
) -> None:
    """Columns vary apart from each other, so that there are few combinations of values, or many."""
    many = [
        {name: chance.choice(rows).get(name) for name in KINDS} | ({"n": number} if number < wholes else {})
        for number in range(fast_hash.FEW_ROWS + 44)
    ]
    wanted = content_hash(queried(many), KINDS)
    assert hashed(tmp_path_factory.mktemp("hash"), arrow(many)) == wanted


@settings(max_examples=150, deadline=None)
@given(lists, lists)
def test_other_rows_have_another_hash(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    texts = [sorted(text_of(row) for row in queried(rows)) for rows in (one, other)]
    assert (content_hash(queried(one), KINDS) == content_hash(queried(other), KINDS)) is (texts[0] == texts[1])


@settings(max_examples=150, deadline=None)
@given(row_values, row_values)
def test_rows_that_differ_in_a_value_have_different_texts(one: dict[str, Any], other: dict[str, Any]) -> None:
    def told(row: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in queried([row])[0].items() if value is not None}

    same_tags = json.dumps(told(one).get("tags"), sort_keys=True) == json.dumps(told(other).get("tags"), sort_keys=True)
    if same_tags:
        same = told(one) == told(other)
        assert (text_of(queried([one])[0]) == text_of(queried([other])[0])) is same


GOLDEN = [
    ({"text": "aß;n:1"}, "text:s7:aß;n:1"),
    ({"money": Decimal("-1.50")}, "money:n-1.5;"),
    ({"money": Decimal("1E+2")}, "money:n100;"),
    ({"money": Decimal("100.0")}, "money:n100;"),
    ({"money": Decimal("0.000")}, "money:n0;"),
    ({"money": Decimal("-0")}, "money:n0;"),
    ({"money": Decimal("0.0000000105")}, "money:n0.0000000105;"),
    ({"money": Decimal("-0.000000000000000001")}, "money:n-0.000000000000000001;"),
    ({"n": -7}, "n:i-7;"),
    ({"flag": True}, "flag:btrue;"),
    ({"flag": False}, "flag:bfalse;"),
    ({"day": date(1970, 1, 2)}, "day:d1;"),
    ({"day": date(1969, 12, 31)}, "day:d-1;"),
    ({"at": datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, "at:t0;"),
    ({"at": datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)}, "at:t-1;"),
    ({"tags": '{"b": [2.0, 1.5], "a": "ü"}'}, 'tags:j24:{"a":"ü","b":[2.0,1.5]}'),
    ({"tags": '"x"'}, 'tags:j3:"x"'),
    ({"tags": "2.0"}, "tags:j3:2.0"),
    ({"tags": "2"}, "tags:j1:2"),
    ({"tags": "true"}, "tags:j4:true"),
    ({"tags": "null"}, ""),
    ({"text": "", "n": None}, "text:s0:"),
]


@pytest.mark.parametrize(("values", "text"), GOLDEN, ids=[text for _, text in GOLDEN])
def test_the_canonical_text_of_a_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], text: str
) -> None:
    row = {DATA_DATE: DAY} | values
    # 20777 days from 1970 to 2026-11-20, by hand: 56 years of 365 days, 14 leap days, and day 324 of its year less one.
    expected = f"{text}x_pipeline_run_date:d20777;".encode()
    assert text_of(queried([row])[0]) == expected
    wanted = f"2:{int.from_bytes(sha256(expected).digest()) % HASH_MODULUS:064x}"
    assert hashed(tmp_path, [row]) == wanted
    assert hashed(tmp_path, [row], digits=(76, 38)) == wanted
    monkeypatch.setattr(fast_hash, "WIDE_ROW_BYTES", 0)
    assert hashed(tmp_path, [row]) == wanted


def test_a_column_that_is_added_to_the_contract_changes_no_hash_of_rows_without_it(tmp_path: Path) -> None:
    wider = TABLE.model_copy(update={"columns": (*TABLE.columns, TABLE.columns[0].model_copy(update={"name": "aaa"}))})
    spool = Spool(tmp_path / "rows.parquet", wider, DAY, DAY, (38, 18))
    spool.write(Batch([{DATA_DATE: DAY, "text": "x"}]))
    assert spool.close().content_hash == hashed(tmp_path, [{DATA_DATE: DAY, "text": "x"}])


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('{"a": 1, "b": 2, "a": 3}', '{"a":1,"b":2}'),
        ('[{"x": {"k": 1, "k": 2}}]', '[{"x":{"k":1}}]'),
        ("[1e2, 1.10, 1e15, 123456789012345.0, 1e-4, 1e-5]", "[100.0,1.1,1e+15,123456789012345.0,0.0001,1e-05]"),
        ("[-0, -0.0, 1e23, 5e-324]", "[0,-0.0,9.999999999999999e+22,5e-324]"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "1.8446744073709552e+19"),
        ("-9223372036854775809", "-9.223372036854776e+18"),
        ("0.33333333333333333333", "0.3333333333333333"),
        ('"\\u00fc\\u0001\\u007f\\/"', '"ü\\u0001\x7f/"'),
    ],
)
def test_json_is_stored_as_bigquery_keeps_it(tmp_path: Path, text: str, written: str) -> None:
    """What Google's reference implementation answers to TO_JSON_STRING(PARSE_JSON(..., 'round')): see test_zetasql."""
    assert json_text(text) == written
    for rows in ([{DATA_DATE: DAY, "tags": text}], arrow([{DATA_DATE: DAY, "tags": text}])):
        assert hashed(tmp_path, rows) == hashed(tmp_path, [{DATA_DATE: DAY, "tags": written}])
        assert pq.read_table(tmp_path / "rows.parquet")["tags"].to_pylist() == [written]


V1 = [
    ({"text": "aß;n:1"}, "text:s7:aß;n:1"),
    ({"money": Decimal("-1.50"), "n": 3, "flag": True}, "flag:b1;money:n-15e-1;n:i3;"),
    ({"money": Decimal("1E+2"), "at": datetime(1970, 1, 1, tzinfo=UTC)}, "at:t0;money:n1e2;"),
    ({"tags": {"b": [2.0, 1.5], "a": "ü"}}, 'tags:j22:{"a":"ü","b":[2,1.5]}'),
    ({"tags": 0.5, "day": date(1970, 1, 2)}, "day:d1;tags:f0.5;"),
]


@pytest.mark.parametrize(("row", "text"), V1, ids=[text for _, text in V1])
def test_the_first_definition_stays_as_it_was_for_receipts_that_have_it(row: dict[str, Any], text: str) -> None:
    wanted = f"{int.from_bytes(sha256(text.encode()).digest()):064x}"
    assert hashing_v1.content_hash([row | {"x": None}]) == wanted
