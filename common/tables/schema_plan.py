"""Plans the changes that bring a table to its contract. Pure: from a contract and an existing table to changes.

Columns are only added and relaxed, never dropped, retyped or narrowed, so that existing rows stay readable.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from common.tables.contract import Column, Table

Action = Literal["create", "replace", "add", "relax", "describe", "note", "refused"]

LATE = "Required of new rows; rows from before the column was added hold NULL."
"""Suffix of the description of a REQUIRED column that was added to an existing table, where BigQuery keeps it NULLABLE.
The suffix is the only trace of that, and lets the next plan accept the difference."""


@dataclass(frozen=True, slots=True)
class ExistingColumn:
    """A column as BigQuery has it; ``type`` is the name in SQL."""

    name: str
    type: str
    mode: str = "NULLABLE"
    description: str = ""


@dataclass(frozen=True, slots=True)
class ExistingTable:
    """A table as BigQuery has it. ``state`` (its etag) changes with every change of the table."""

    columns: tuple[ExistingColumn, ...]
    description: str = ""
    partitioned_by: str = ""
    clustered_by: tuple[str, ...] = ()
    state: str = ""


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """One difference between contract and table, and the action for it; ``column`` is "" for the table itself."""

    action: Action
    column: str
    text: str

    @property
    def is_done(self) -> bool:
        """Whether it changes the table: notes and refusals do not."""
        return self.action not in ("note", "refused")


def schema_changes(table: Table, found: ExistingTable | None) -> list[SchemaChange]:
    """Return the differences in the contract's order; columns that the contract does not have come last."""
    if found is None:
        columns = f"{len(table.all_columns)} columns, partitioned by {table.partitioned_by}"
        return [SchemaChange("create", "", columns)]
    there = _by_name(found.columns)
    known = {column.name.lower() for column in table.all_columns}
    listed = [change for column in table.all_columns for change in _of_column(column, there.get(column.name.lower()))]
    strangers = [_stranger(column) for column in found.columns if column.name.lower() not in known]
    changes = [*_of_layout(table, found), *listed, *strangers]
    return [_held(change) for change in changes] if any(c.action == "refused" for c in changes) else changes


def _held(change: SchemaChange) -> SchemaChange:
    """Turn a change into a note: if anything is refused, the table stays unchanged instead of half changed."""
    if not change.is_done:
        return change
    return SchemaChange("note", change.column, f"is left undone ({change.action}: {change.text})")


def _stranger(column: ExistingColumn) -> SchemaChange:
    if column.mode == "REQUIRED":  # it may belong to a newer contract, and relaxing can't be undone
        text = (
            "is REQUIRED in the table and not in the contract, so no row can be written. Say it in the contract, as "
            "NULLABLE: then it is relaxed and can be taken out."
        )
        return SchemaChange("refused", column.name, text)
    return SchemaChange("note", column.name, "is not in the contract; it stays, and new rows have NULL in it.")


def columns_after(table: Table, found: ExistingTable) -> tuple[ExistingColumn, ...]:
    """Return the table's columns after the changes; existing columns keep their position."""
    contract = {column.name.lower(): column for column in table.all_columns}
    there = _by_name(found.columns)
    kept = [
        _after(contract[column.name.lower()], column) if column.name.lower() in contract else column
        for column in found.columns
    ]
    added = [
        ExistingColumn(column.name, column.type, "NULLABLE", _description(column, None))
        for column in table.all_columns
        if column.name.lower() not in there
    ]
    return (*kept, *added)


def _by_name(columns: Sequence[ExistingColumn]) -> Mapping[str, ExistingColumn]:
    return {column.name.lower(): column for column in columns}  # BigQuery's column names ignore case


def _after(column: Column, there: ExistingColumn) -> ExistingColumn:
    mode = "NULLABLE" if (column.mode, there.mode) == ("NULLABLE", "REQUIRED") else there.mode
    return replace(there, mode=mode, description=_description(column, there))


def _description(column: Column, there: ExistingColumn | None) -> str:
    """Return the column's new description; without one in the contract, the existing description stays."""
    late = column.mode == "REQUIRED" and (there is None or there.description.endswith(LATE))
    if not column.description and there is not None and not late:
        return there.description
    return f"{column.description} {LATE}".strip() if late else column.description


def _of_column(column: Column, there: ExistingColumn | None) -> Iterator[SchemaChange]:
    if there is None:
        yield SchemaChange("add", column.name, f"{column.type} NULLABLE")
        if column.mode == "REQUIRED":
            text = "is REQUIRED in the contract. BigQuery adds only NULLABLE columns: rows that are there have NULL."
            yield SchemaChange("note", column.name, text)
        return
    if there.mode == "REPEATED" or there.type != column.type:
        has = f"REPEATED {there.type}" if there.mode == "REPEATED" else there.type
        yield SchemaChange(
            "refused",
            column.name,
            f"is {has} in the table, {column.type} in the contract. A column keeps its type: change the contract back, "
            "or give the new column another name.",
        )
        return
    if (column.mode, there.mode) == ("REQUIRED", "NULLABLE") and not there.description.endswith(LATE):
        yield SchemaChange(
            "refused",
            column.name,
            "is NULLABLE in the table, REQUIRED in the contract. BigQuery never narrows a column: say NULLABLE in the "
            "contract, or copy the rows into a new table.",
        )
        return
    if (column.mode, there.mode) == ("NULLABLE", "REQUIRED"):
        yield SchemaChange("relax", column.name, "REQUIRED becomes NULLABLE")
    if _description(column, there) != there.description:
        yield SchemaChange("describe", column.name, column.description)


def _of_layout(table: Table, found: ExistingTable) -> Iterator[SchemaChange]:
    if found.partitioned_by != table.partitioned_by:
        yield SchemaChange(
            "refused",
            "",
            f"is partitioned by {found.partitioned_by or 'nothing'}, the contract says {table.partitioned_by}. That "
            "can't be changed: copy the rows into a new table.",
        )
    if found.clustered_by != table.clustered_by:
        has, wanted = ", ".join(found.clustered_by) or "nothing", ", ".join(table.clustered_by)
        yield SchemaChange("note", "", f"is clustered by {has}, the contract says {wanted}. It works, but reads more.")
    if table.description.strip() != found.description.strip():
        yield SchemaChange("describe", "", " ".join(table.description.split()))
