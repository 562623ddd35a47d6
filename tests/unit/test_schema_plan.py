"""What becomes of each difference between a contract and a table: only additions and relaxations change anything."""

from dataclasses import replace
from typing import Any

import pytest

from common.platform.paths import CONFIGS
from common.tables.contract import LINEAGE, LINEAGE_TEXTS, MetaTable, Table, every_table
from common.tables.schema_plan import LATE, ExistingColumn, ExistingTable, columns_after, schema_changes

CLUSTERS = ("x_org_slug", "x_pipeline_id", "x_credential_id", "x_pipeline_run_date")


def contract(*columns: dict[str, Any], description: str = "t") -> Table:
    return Table.model_validate({"table": "t", "description": description, "columns": columns})


def found(*columns: ExistingColumn, description: str = "t") -> ExistingTable:
    lineage = (ExistingColumn(name, kind, "NULLABLE", LINEAGE_TEXTS[name]) for name, kind in LINEAGE)
    return ExistingTable((*columns, *lineage), description, "x_ingestion_date", CLUSTERS, "state-1")


NAME = {"name": "name", "type": "STRING", "mode": "REQUIRED", "description": "Its name"}
COST = {"name": "cost", "type": "BIGNUMERIC"}
TABLE = contract(NAME, COST)
FITS = found(ExistingColumn("name", "STRING", "REQUIRED", "Its name"), ExistingColumn("cost", "BIGNUMERIC"))


def brief(table: Table, there: ExistingTable | None) -> list[tuple[str, str]]:
    return [(change.action, change.column) for change in schema_changes(table, there)]


def applied(table: Table, there: ExistingTable) -> ExistingTable:
    return replace(there, columns=columns_after(table, there), description=table.description)


def test_a_table_that_is_not_there_is_created() -> None:
    (change,) = schema_changes(TABLE, None)
    assert (change.action, change.column) == ("create", "") and change.is_done
    assert change.text == "9 columns, partitioned by x_ingestion_date"


def test_a_table_that_fits_needs_nothing() -> None:
    assert brief(TABLE, FITS) == []
    assert columns_after(TABLE, FITS) == FITS.columns


def test_a_missing_column_is_added_as_nullable_at_the_end() -> None:
    table = contract({"name": "new", "type": "JSON", "description": "d"}, NAME, COST)
    assert brief(table, FITS) == [("add", "new")]
    assert columns_after(table, FITS) == (*FITS.columns, ExistingColumn("new", "JSON", "NULLABLE", "d"))


def test_a_missing_lineage_column_is_added_too() -> None:
    there = replace(FITS, columns=FITS.columns[:-1])
    assert brief(TABLE, there) == [("add", "x_ingestion_date")]


def test_a_required_column_is_added_as_nullable_with_a_note_and_accepted_ever_after() -> None:
    table = contract(NAME, COST, {"name": "new", "type": "DATE", "mode": "REQUIRED", "description": "Its day."})
    assert brief(table, FITS) == [("add", "new"), ("note", "new")]
    after = applied(table, FITS)
    assert after.columns[-1] == ExistingColumn("new", "DATE", "NULLABLE", f"Its day. {LATE}")
    assert brief(table, after) == []


def test_what_marks_a_required_column_that_came_late_outlives_a_new_description() -> None:
    column = {"name": "new", "type": "DATE", "mode": "REQUIRED"}
    after = applied(contract(NAME, COST, column), FITS)
    assert after.columns[-1].description == LATE
    described = contract(NAME, COST, {**column, "description": "Its day."})
    assert brief(described, after) == [("describe", "new")]
    assert brief(described, applied(described, after)) == []


def test_a_required_column_that_the_contract_relaxes_becomes_nullable() -> None:
    table = contract({**NAME, "mode": "NULLABLE"}, COST)
    assert brief(table, FITS) == [("relax", "name")]
    assert columns_after(table, FITS)[0] == ExistingColumn("name", "STRING", "NULLABLE", "Its name")


def test_a_column_is_never_narrowed() -> None:
    (change,) = schema_changes(contract(NAME, {**COST, "mode": "REQUIRED"}), FITS)
    assert (change.action, change.column, change.is_done) == ("refused", "cost", False)
    assert "is NULLABLE in the table, REQUIRED in the contract" in change.text
    assert "say NULLABLE in the contract, or copy the rows into a new table" in change.text


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (ExistingColumn("cost", "NUMERIC"), "is NUMERIC in the table, BIGNUMERIC in the contract"),
        (ExistingColumn("cost", "BIGNUMERIC", "REPEATED"), "is REPEATED BIGNUMERIC in the table, BIGNUMERIC in the"),
    ],
)
def test_a_column_is_never_retyped(there: ExistingColumn, said: str) -> None:
    (change,) = schema_changes(TABLE, found(FITS.columns[0], there))
    assert (change.action, change.column) == ("refused", "cost")
    assert said in change.text and "change the contract back, or give the new column another name" in change.text


def test_a_column_that_the_contract_does_not_know_is_named_and_kept() -> None:
    there = found(ExistingColumn("theirs", "STRUCT"), *FITS.columns[:2])
    assert brief(TABLE, there) == [("note", "theirs")]
    assert columns_after(TABLE, there) == there.columns


def test_a_required_column_that_the_contract_does_not_know_is_refused_because_no_row_could_be_written() -> None:
    there = found(ExistingColumn("old", "STRING", "REQUIRED"), *FITS.columns[:2])
    (change,) = schema_changes(TABLE, there)
    assert (change.action, change.column) == ("refused", "old") and "as NULLABLE: then it is relaxed" in change.text
    relaxed = contract({"name": "old", "type": "STRING"}, NAME, COST)
    assert brief(relaxed, there) == [("relax", "old")]
    assert brief(TABLE, applied(relaxed, there)) == [("note", "old")]


def test_what_is_refused_holds_everything_else_of_its_table() -> None:
    table = contract(NAME, {**COST, "type": "STRING"}, {"name": "new", "type": "JSON"}, description="other")
    assert brief(table, FITS) == [("note", ""), ("refused", "cost"), ("note", "new")]
    assert "is left undone (add: JSON NULLABLE)" in schema_changes(table, FITS)[-1].text


def test_names_that_differ_by_case_alone_are_one_column() -> None:
    there = found(ExistingColumn("NAME", "STRING", "REQUIRED", "Its name"), FITS.columns[1])
    assert brief(TABLE, there) == []


def test_descriptions_follow_the_contract_unless_it_has_none() -> None:
    table = contract({**NAME, "description": "Better"}, COST, description="About costs")
    there = found(FITS.columns[0], ExistingColumn("cost", "BIGNUMERIC", "NULLABLE", "by hand"))
    assert brief(table, there) == [("describe", ""), ("describe", "name")]
    assert [column.description for column in columns_after(table, there)[:2]] == ["Better", "by hand"]


def test_another_partitioning_is_refused_and_another_clustering_named() -> None:
    there = replace(FITS, partitioned_by="", clustered_by=("name",))
    first, second = schema_changes(TABLE, there)
    assert first.action == "refused" and "is partitioned by nothing, the contract says x_ingestion_date" in first.text
    assert second.action == "note" and "is clustered by name, the contract says x_org_slug" in second.text


def test_every_contract_of_the_repository_fits_the_table_that_is_made_of_it() -> None:
    tables = every_table(CONFIGS)
    assert {table.table for table in tables if isinstance(table, MetaTable)} == {
        "org_meta_pipeline_runs",
        "org_meta_step_runs",
        "org_meta_transitions",
        "org_meta_costs",
    }
    for table in tables:
        columns = tuple(ExistingColumn(c.name, c.type, c.mode, c.description) for c in table.all_columns)
        made = ExistingTable(columns, table.description, table.partitioned_by, table.clustered_by)
        assert schema_changes(table, made) == []
        assert {table.partitioned_by, *table.clustered_by} <= {column.name for column in columns}
