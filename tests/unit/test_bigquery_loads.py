"""What BigQuery refuses in a load job, checked for every table: the emulator takes all of it."""

import pytest

from common.adapters.bigquery.tables import QUARANTINE, fields_of, spooled_fields, staged_fields
from common.platform.paths import CONFIGS
from common.tables.contract import load_table

TABLES = sorted(path.stem for path in (CONFIGS / "schemas").glob("*.yml"))


@pytest.mark.parametrize("name", TABLES)
def test_no_load_of_a_parquet_file_names_a_json_column(name: str) -> None:
    """BigQuery: 400 Unsupported field type: JSON."""
    table = load_table(CONFIGS, name)
    spooled, staged = spooled_fields(table), staged_fields(table)
    assert "JSON" not in {field.field_type for field in spooled}
    assert [field.name for field in spooled] == [field.name for field in staged]
    changed = {s.name for s, t in zip(spooled, staged, strict=True) if s.field_type != t.field_type}
    assert changed == {column.name for column in table.columns if column.type == "JSON"}


def test_the_quarantine_is_loaded_without_json() -> None:
    assert "JSON" not in {field.field_type for field in fields_of(QUARANTINE.columns)}
