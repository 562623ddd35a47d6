"""SQL whose answer on BigQuery is another than on the emulator, evaluated by Google's reference implementation."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from common.adapters.googlesql import evaluation
from common.domain.model import WriteSpec
from common.platform.paths import CONFIGS
from common.tables.contract import DATA_DATE, Table, load_table
from common.writes.preview_diff import _Sql

DAY = date(2026, 11, 20)
FOCUS = load_table(CONFIGS, "cost_data_standard_1_3")


@pytest.mark.parametrize(
    ("amount", "checks"),
    [
        ("100", []),
        ("100000000001234", []),
        ("123456000000000", []),
        ("1.5", []),
        ("0.30000000000000004", ["decimals.float"]),
        ("0.33333333333333333333333333333333333333", ["decimals.last_place"]),
    ],
)
def test_zeros_of_whole_numbers_are_no_decimals(amount: str, checks: list[str]) -> None:
    sql = (CONFIGS / "sql" / "checks" / "decimals.sql").read_text().replace("{table}", "p.d.t")
    columns = tuple((column.name, column.type) for column in FOCUS.all_columns)
    row = {"x_org_slug": "acme", DATA_DATE: DAY, "BilledCost": Decimal(amount)}
    parameters: dict[str, tuple[str, Any]] = {
        "org": ("STRING", "acme"),
        "first": ("DATE", DAY),
        "last": ("DATE", DAY),
        "decimals": ("INT64", 38),
    }
    found = evaluation.query(sql, {"p.d.t": (columns, [row])}, parameters=parameters)
    assert sorted(answer["name"] for answer in found) == checks


def test_a_preview_s_sample_shows_numbers_as_on_the_emulator() -> None:
    wide = Table.model_validate(
        {"table": "t", "description": "d", "columns": [{"name": n, "type": t} for n, t in KEYS.items()]}
    )
    sql = _Sql("p.d.t", "p.d.s", wide, WriteSpec(keys=tuple(KEYS)), (DAY,))
    row = {"cost": Decimal("0.10"), "calls": 2**60 + 1, "model": "a", DATA_DATE: DAY}
    (answer,) = evaluation.query(
        f"SELECT {sql._struct(tuple(KEYS))} AS id FROM `p.d.t`", {"p.d.t": (tuple(KEYS.items()), [row])}, parameters={}
    )
    sample = sql.sample({"kind": "added", "day": DAY, "id": answer["id"], "a_n": 1, "b_n": None})
    assert sample.identity == {"cost": Decimal("0.1"), "calls": 2**60 + 1, "model": "a"}


KEYS = {"cost": "BIGNUMERIC", "calls": "INT64", "model": "STRING"}
