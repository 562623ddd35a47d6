"""The two evaluators of layouts agree: whole blocks at once, and record by record.

Bills of every layout: those of the fixtures, published ones, and both with damaged values. What differs is only what
may differ: a decimal's zeros at the end.
"""

import csv
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from common.platform.errors import PermanentError
from common.platform.paths import CONFIGS
from common.processors.bills import files
from common.processors.bills.file_extractor import ExternalFileParams
from common.processors.bills.layout import LAYOUTS, LayoutRows, layout
from common.processors.bills.reading import Read, Reader, days_of
from common.tables.contract import load_table
from tests.bills import FILES, Bill
from tests.processors.bill_files import rows_of

ALWAYS = (date.min, date.max)


def params_of(path: Path, config: Mapping[str, Any]) -> ExternalFileParams:
    of_table = {} if "layout" in config else {"date_column": "ChargePeriodStart", "extra_column": "extra"}
    given = {"destination_table": "cloud_focus_export", "source": path.name, **of_table, **config}
    return ExternalFileParams.model_validate(given)


ODD = [
    *(
        "",
        "NULL",
        " ",
        "abc",
        "0",
        "-0",
        "-1",
        "1E-3",
        "1e5",
        " 2 ",
        "1_000",
        "0x10",
        "1e-50",
        "1e40",
        "0e99",
        ".",
        "5.",
    ),
    *("99999999999999999999.123456789012345678901", "2026-10-01T00:00:00Z", "2026-10-05", "2026-10-01 00:00:00 UTC"),
    *("2026-10-01T00:00:00.1234567Z", "0001-01-01T00:00:00+14:00", "2026-02-29", "09/22/2023", "13/22/2023"),
    *("Usage", "RIFee", "SavingsPlanRecurringFee", "Tax", "Refund", "DiscountedUsage", "SavingsPlanCoveredUsage"),
    *("SavingsPlanUpfrontFee", "Purchase", "UnusedReservation", "Reservation", "Savings Plan", "Spot", "One-Time"),
    *('{"a":"b"}', '{"a":null,"b":1}', '"a":"b"', "{bad", "[]", 'x"y\\z', "a\nb", "a\tb\x7f", "ü€", "\u2028"),
    *("arn:aws/x/y/", "a/b//", "/", "ocid1.instance.oc1", "ocid1.", "true", "EUR", "USD", "Hrs", "1 Hour"),
    "/subscriptions/1/Providers/Microsoft.Compute/virtualMachines/x//",
]
"""Values that are wrong, or right in an unusual way."""


def read(params: ExternalFileParams, path: Path, *, by_record: bool, by_period: bool = False) -> list[Any]:
    """Return rows, bad rows, and everything else that is told of the file."""
    convert, found = params.reader(path.name, CONFIGS), Read()
    if by_period and isinstance(convert, LayoutRows):
        table = load_table(CONFIGS, params.destination_table)
        convert = LayoutRows(path.name, layout(params.layout, CONFIGS), table, params.null_values, by_period=True)
    convert.look_into(lambda: params.blocks(path))
    read_as = (replace(block, batch=None) if by_record else block for block in params.blocks(path))
    made: list[Any] = []
    try:
        for batch in Reader(convert, *ALWAYS, found).batches(read_as):
            made += [*map(comparable, rows_of(batch)), *batch.bad]
    except PermanentError as error:
        return [str(error)]
    rows = [row for row in made if isinstance(row, list)]
    bad = [row for row in made if not isinstance(row, list)]
    billed = {currency: cost.normalize() for currency, cost in found.billed.items()}
    return [rows, bad, found.days, found.rows, found.records, billed, convert.floats]


def comparable(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(
        (name, str(value.normalize() + 0) if isinstance(value, Decimal) else value)
        for name, value in row.items()
        if value is not None
    )


def check(path: Path, *periods: bool, **config: Any) -> int:
    """Compare the evaluators; return how many rows and bad rows there were. ``periods`` are values of by_period."""
    params = params_of(path, config)
    for by_period in periods or (False, True):
        fast = read(params, path, by_record=False, by_period=by_period)
        slow = read(params, path, by_record=True, by_period=by_period)
        for ours, theirs in zip(fast, slow, strict=True):
            if isinstance(ours, list):
                for one, other in zip(ours, theirs, strict=True):
                    assert one == other
            assert ours == theirs
    try:
        spans = [
            days_of(its, params.reader(path.name, CONFIGS))
            for its in (params.blocks(path), (replace(block, batch=None) for block in params.blocks(path)))
        ]
    except PermanentError:
        return 0
    assert spans[0] == spans[1]
    return len(fast[0]) + len(fast[1]) if len(fast) > 1 else 0


def damaged(path: Path, target: Path, seed: object, count: int, rate: int = 6, delimiter: str = ",") -> Path:
    """Write a bill of ``count`` records of another one, of which each has up to ``rate`` other values."""
    rng = random.Random(str(seed))
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *lines = csv.reader(file, delimiter=delimiter)
    lines = [line for line in lines if len(line) == len(header)]
    if not lines:
        pytest.skip("no whole record")
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for _ in range(count):
            line = list(rng.choice(lines))
            for _ in range(rng.randint(0, min(rate, len(header)))):
                other = rng.choice(ODD) if rng.random() < 0.6 else rng.choice(rng.choice(lines))
                line[rng.randrange(len(line))] = other
            writer.writerow(line)
    return target


@pytest.mark.parametrize("bill", FILES, ids=str)
def test_both_make_the_same_of_a_bill(bill: Bill) -> None:
    assert check(bill.path, **bill.config) >= bill.lines


@pytest.mark.parametrize("rate", [1, 6])
@pytest.mark.parametrize("bill", FILES, ids=str)
def test_both_make_the_same_of_a_damaged_bill(tmp_path: Path, bill: Bill, rate: int) -> None:
    """With one bad value in eight records, blocks are cut around them; with many, they are read by records."""
    its = damaged(bill.path, tmp_path / "bill.csv", bill.name, 400, rate, bill.config.get("delimiter", ","))
    check(its, **{k: v for k, v in bill.config.items() if k != "delimiter"})


@pytest.mark.parametrize("bill", FILES, ids=str)
def test_one_bad_value_in_a_block_leaves_the_rest_of_it_to_the_vectorised_evaluator(
    tmp_path: Path, bill: Bill, monkeypatch: pytest.MonkeyPatch
) -> None:
    its = damaged(bill.path, tmp_path / "bill.csv", bill.name, 300, 0, bill.config.get("delimiter", ","))
    lines = list(csv.reader(its.open(encoding="utf-8", newline="")))
    for number, column in ((100, 0), (200, len(lines[0]) // 2), (250, len(lines[0]) - 1)):
        lines[number][column] = "{bad"
    with its.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)
    calls: list[int] = []
    real = LayoutRows.__call__
    monkeypatch.setattr(LayoutRows, "__call__", lambda self, record: calls.append(record.number) or real(self, record))
    params = params_of(its, {k: v for k, v in bill.config.items() if k != "delimiter"})
    read(params, its, by_record=False)
    assert set(calls) <= {100, 200, 250}
    check(its, **{k: v for k, v in bill.config.items() if k != "delimiter"})


def published(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the published bills of all layouts."""
    kinds = {"aws": ["aws_cur"], "azure": ["azure_actual_cost", "azure_amortised_cost"], "oci": ["oci_cost"]}
    for name, layouts in kinds.items():
        for path in sorted((folder / name).glob("*.csv*")):
            yield from ((its, path) for its in layouts)
    for path in sorted((folder / "focus").glob("*.*")):
        yield "table", path


@pytest.mark.shared
def test_both_make_the_same_of_published_bills(shared_data: Path, tmp_path: Path) -> None:
    rows = 0
    for name, path in published(shared_data):
        config: dict[str, Any] = {} if name == "table" else {"layout": name}
        rows += check(path, False, **config)
        if path.suffix == ".csv":
            try:
                its = damaged(path, tmp_path / "bill.csv", path.name, 200)
            except (pytest.skip.Exception, csv.Error):
                continue
            rows += check(its, True, **config)
    assert rows > 10_000


def test_every_layout_is_compared() -> None:
    assert {bill.layout for bill in FILES} == {"table", *LAYOUTS}


CELL = st.one_of(
    st.sampled_from(
        ["a", "", '"q"', '""', '"a""b"', '"a,b"', '"a\nb"', 'a"b', '"a"b', '"', "a\r", "é", "\ufeff", "\0", " "]
    ),
    st.text(alphabet='a,"\n\r é', max_size=6),
)


@given(st.lists(st.lists(CELL, max_size=4).map(",".join), max_size=6), st.sampled_from(["\n", "\r\n"]), st.booleans())
@example(['x,""a,y'], "\n", True)
@example(['x,"a"b,y', "1,2,3"], "\n", True)
@example(["", "1,2,3", "", "4,5,6"], "\n", False)
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_both_read_the_same_records_of_a_csv_file_or_refuse_it_alike(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, is_ended: bool
) -> None:
    path = tmp_path_factory.mktemp("csv") / "bill.csv"
    path.write_bytes((end.join(["a,b,c", *lines]) + (end if is_ended else "")).encode())

    def records(*, by_record: bool) -> list[Any]:
        made: list[Any] = []
        try:
            for block in files.blocks(path, file_format="csv", delimiter=",", null_values=()):
                if block.batch is None or by_record:
                    made += [(record.number, dict(record.values)) for record in block.records()]
                else:
                    made += list(enumerate(block.batch.to_pylist(), block.first))
        except PermanentError as error:
            made.append(str(error))
        return made

    assert records(by_record=False) == records(by_record=True)
