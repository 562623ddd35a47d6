"""docs/schemas.md names every field of a contract with its default, every policy and type; its example is valid."""

import re
from pathlib import Path
from typing import get_args

from pydantic_core import PydanticUndefined

from common.config.contracts import check_contract
from common.platform.paths import CONFIGS
from common.tables.contract import Column, ColumnType, Policy, Table

TEXT = (CONFIGS.parent / "docs" / "schemas.md").read_text("utf-8")


def test_every_field_is_in_the_table_with_its_default_and_no_other() -> None:
    fields = {name: its.default for name, its in Table.model_fields.items() if name != "columns"}
    fields |= {f"columns[].{name}": its.default for name, its in Column.model_fields.items()}
    for name, default in fields.items():
        written = "required" if default is PydanticUndefined else f"`{default}`" if default != "" else '`""`'
        assert f"\n| `{name}` | {written} |" in TEXT, name
    table = TEXT[TEXT.index("| field |") : TEXT.index("The seven lineage")]
    assert set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)) == fields.keys()


def test_every_policy_and_type_is_explained() -> None:
    for word in (*get_args(Policy), *get_args(ColumnType)):
        assert f"`{word}`" in TEXT


def test_the_example_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "acme_usage.yml"
    path.write_text(example)
    check_contract(path, "acme_usage.yml")
