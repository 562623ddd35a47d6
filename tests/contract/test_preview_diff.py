"""A shadow table held against its target, on the emulator. Figures are made by hand."""

import itertools
from collections.abc import Sequence
from datetime import date
from decimal import Decimal

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.domain.model import WriteSpec
from common.tables.contract import Table
from common.writes.preview_diff import ComparedRows, DayDiff, MoneyDiff, TableDiff, table_diff
from tests.conftest import PROJECT

TABLE = Table.model_validate(
    {
        "table": "costs",
        "description": "A test",
        "columns": [
            {"name": "model", "type": "STRING"},
            {"name": "tags", "type": "JSON"},
            {"name": "calls", "type": "INT64"},
            {"name": "cost", "type": "BIGNUMERIC", "currency": "currency"},
            {"name": "currency", "type": "STRING"},
        ],
    }
)
D1, D2 = date(2026, 11, 1), date(2026, 11, 2)
SCOPE = ComparedRows("acme", "pipe", "cred", (D1, D2))
numbers = itertools.count()

Row = tuple[str, date, str | None, int | None, str | None]
"""model, day, tags, calls, cost"""


def filled(warehouse: BigQueryWarehouse, name: str, rows: Sequence[Row], *, org: str = "acme") -> None:
    if not rows:
        return
    values = ", ".join(
        f"('{model}', {'NULL' if tags is None else f'JSON {tags!r}'}, {'NULL' if calls is None else calls},"
        f" {'NULL' if cost is None else f'BIGNUMERIC {cost!r}'}, 'USD', '{org}', 'pipe', 'cred', DATE '{day}')"
        for model, day, tags, calls, cost in rows
    )
    list(
        warehouse.query(
            f"INSERT INTO `{name}` (model, tags, calls, cost, currency, x_org_slug, x_pipeline_id, x_credential_id,"
            f" x_pipeline_run_date) VALUES {values}"
        )
    )


def compared(
    warehouse: BigQueryWarehouse, before: Sequence[Row], after: Sequence[Row], *keys: str, mode: str = "replace_key"
) -> TableDiff:
    target, shadow = (f"{PROJECT}.diff{next(numbers)}.{name}" for name in ("costs", "costs__preview"))
    for name, rows in ((target, before), (shadow, after)):
        warehouse.ensure_table(name, TABLE)
        filled(warehouse, name, rows)
    filled(warehouse, target, [("other organisation", D1, None, 1, "1000")], org="rival")
    filled(warehouse, target, [("other days", date(2026, 10, 31), None, 1, "1000")])
    return table_diff(warehouse.query, target, shadow, TABLE, WriteSpec(mode, keys), SCOPE)


BEFORE: list[Row] = [
    ("same", D1, '{"a": 1}', 3, "1.10"),
    ("dearer", D1, None, 5, "2.00"),
    ("gone", D2, None, 1, "0.5"),
    ("twin", D2, None, 1, "1"),
    ("twin", D2, None, 1, "1"),
]
AFTER: list[Row] = [
    ("same", D1, '{"a": 1}', 3, "1.1"),
    ("dearer", D1, None, 5, "2.25"),
    ("new", D1, None, None, None),
    ("twin", D2, None, 2, "2"),
]


def test_rows_are_told_by_day_as_added_changed_removed_and_the_same(warehouse: BigQueryWarehouse) -> None:
    diff = compared(warehouse, BEFORE, AFTER)
    assert diff.days == (DayDiff(D1, 1, 1, 0, 1), DayDiff(D2, 0, 2, 1, 0))


def test_the_difference_in_money_is_told_by_currency(warehouse: BigQueryWarehouse) -> None:
    diff = compared(warehouse, BEFORE, AFTER)
    assert diff.money == (MoneyDiff("cost", "USD", Decimal("5.60"), Decimal("5.35")),)
    assert diff.money[0].change == Decimal("-0.25")


def test_the_largest_differences_come_first_with_both_sides(warehouse: BigQueryWarehouse) -> None:
    first, second, *_ = compared(warehouse, BEFORE, AFTER).samples
    assert (first.kind, first.identity["model"], first.after) == ("removed", "gone", None)
    assert (second.kind, second.identity["model"]) == ("changed", "dearer")
    assert second.before == {"rows": 1, "calls": 5, "cost": Decimal(2)}
    assert second.after == {"rows": 1, "calls": 5, "cost": Decimal("2.25")}


def test_with_keys_a_row_that_differs_elsewhere_is_changed_and_not_another_row(warehouse: BigQueryWarehouse) -> None:
    before: list[Row] = [("m", D1, '{"a": 1}', 1, "1")]
    after: list[Row] = [("m", D1, '{"a": 2}', 1, "1")]
    assert compared(warehouse, before, after, "model").days == (DayDiff(D1, 0, 1, 0, 0),)
    assert compared(warehouse, before, after).days == (DayDiff(D1, 1, 0, 1, 0),)


@pytest.mark.parametrize("rows", [[], BEFORE], ids=["no rows", "rows"])
def test_the_same_rows_differ_in_nothing(warehouse: BigQueryWarehouse, rows: Sequence[Row]) -> None:
    diff = compared(warehouse, rows, list(reversed(rows)))
    assert not any(day.added or day.changed or day.removed for day in diff.days)
    assert not diff.samples and all(money.change == 0 for money in diff.money)


def test_a_merge_leaves_rows_that_it_does_not_bring_out_of_the_difference(warehouse: BigQueryWarehouse) -> None:
    diff = compared(warehouse, BEFORE[:3], [("dearer", D1, None, 5, "2.25")], "model", mode="merge")
    assert diff.days == (DayDiff(D1, 0, 1, 0, 0),)
    assert diff.money == (MoneyDiff("cost", "USD", Decimal(2), Decimal("2.25")),)


@pytest.mark.parametrize("key", ["cost", "calls"])
def test_a_number_that_is_a_key_is_shown_as_a_number_to_its_last_digit(warehouse: BigQueryWarehouse, key: str) -> None:
    rows: list[Row] = [("a", D1, None, 2**60 + 1, "0.123456789012345678"), ("b", D1, None, 2, "100")]
    diff = compared(warehouse, [], rows, key)
    shown = {sample.identity[key] for sample in diff.samples}
    assert shown == ({Decimal("0.123456789012345678"), Decimal(100)} if key == "cost" else {2**60 + 1, 2})
