"""The table contracts have the columns of FOCUS 1.3, as the specification lists them."""

import csv
from pathlib import Path

import pytest

from common.platform.paths import CONFIGS
from common.tables.contract import load_table

STANDARD = load_table(CONFIGS, "cost_data_standard_1_3")
EXPORT = load_table(CONFIGS, "cloud_focus_export")
TYPES = {"Decimal": "BIGNUMERIC", "Date/Time": "TIMESTAMP", "JSON": "JSON"}
"""Everything else is text. Decimal is BIGNUMERIC: real bills have up to 26 decimals, NUMERIC keeps 9."""


@pytest.fixture
def published(shared_data: Path) -> list[dict[str, str]]:
    """The Cost and Usage columns, from the specification's own files (VALIDATOR.md beside the list)."""
    with (shared_data.parent / "focus" / "columns_1_3.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["dataset"] == "CostAndUsage"]


@pytest.mark.shared
def test_the_unified_table_has_every_column_of_focus_with_its_type_and_nullability(
    published: list[dict[str, str]],
) -> None:
    mandatory = {
        r["column"] for r in published if (r["nullable_effective"], r["feature_level"]) == ("False", "Mandatory")
    }
    expected = [
        (r["column"], TYPES.get(r["type"], "STRING"), "REQUIRED" if r["column"] in mandatory else "NULLABLE")
        for r in published
    ]
    assert len(expected) == 65
    assert [(c.name, c.type, c.mode) for c in STANDARD.columns if not c.name.startswith("x_")] == expected


@pytest.mark.shared
def test_the_landing_table_takes_every_column_of_focus_even_when_it_is_empty(published: list[dict[str, str]]) -> None:
    columns = {c.name: c for c in EXPORT.columns}
    for row in published:
        assert columns[row["column"]].mode == "NULLABLE"
        assert columns[row["column"]].type == TYPES.get(row["type"], "STRING")


def test_our_own_columns_begin_with_x_as_focus_demands() -> None:
    own = STANDARD.names[65:]
    assert own[0] == "x_FocusVersion" and all(name.startswith("x_") for name in own)


def test_every_column_of_the_unified_table_says_what_it_is() -> None:
    assert [c.name for c in STANDARD.columns if not c.description] == []
