"""Brings tables to their contracts: reads what is there, plans (``schema_plan.py``), makes the changes."""

from common.platform.errors import PermanentError, TransientError
from common.platform.retry import Backoff, retried
from common.ports.warehouse import Tables
from common.tables.contract import Table
from common.tables.schema_plan import SchemaChange, columns_after, schema_changes

TRIES = 10
"""Each loses only against somebody else's change of the same table, which leaves less to do."""

BACKOFF = Backoff(0.02, 1.28)


class _ChangedMeanwhileError(Exception):
    """The table is not as it was found any more."""


def fit(tables: Tables, target: str, table: Table, *, apply: bool = True) -> list[SchemaChange]:
    """Return what differs; with ``apply``, make the changes first.

    Safe to run at the same time as others that do the same. Raises TransientError if the table never stands still.
    """
    made: list[SchemaChange] = []

    def once() -> list[SchemaChange]:
        stored = tables.find(target)
        if stored is None and apply:
            made[:] = schema_changes(table, None)
            tables.create(target, table)
            stored = tables.find(target)  # somebody else may have made it, from another version of the contract
        changes = schema_changes(table, stored)
        if not apply or not any(change.is_done for change in changes):
            return [*made, *changes]
        if stored is None or not tables.change(target, stored, columns_after(table, stored), table.description):
            raise _ChangedMeanwhileError
        return [*made, *changes]

    try:
        return retried(once, on=_ChangedMeanwhileError, backoff=BACKOFF, tries=TRIES)
    except _ChangedMeanwhileError:
        raise TransientError(f"Table {target} was changed by others {TRIES} times in a row. Try again.") from None


def ensure(tables: Tables, target: str, table: Table) -> None:
    """Make the table fit its contract, or raise PermanentError with what is refused."""
    refused = [change for change in fit(tables, target, table) if change.action == "refused"]
    if refused:
        shown = " ".join(f"{change.column or 'It'} {change.text}" for change in refused[:5])
        raise PermanentError(f"Table {target} does not fit its contract (see: main.py bootstrap-sync). {shown}")
