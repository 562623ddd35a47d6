"""Brings tables to their contracts: reads the table, plans the changes (``schema_plan.py``), makes them."""

from common.platform.errors import PermanentError, TransientError
from common.platform.retry import Backoff, retried
from common.ports.warehouse import Tables
from common.tables.contract import Table
from common.tables.schema_plan import SchemaChange, columns_after, schema_changes

TRIES = 10
"""A try fails only because another process changed the same table, which leaves less to do: ten are plenty."""

BACKOFF = Backoff(0.02, 1.28)


class _ChangedMeanwhileError(Exception):
    """The table has changed since it was read."""


def fit(tables: Tables, target: str, table: Table, *, apply: bool = True) -> list[SchemaChange]:
    """Return the differences; with ``apply``, make the changes first.

    Safe to run concurrently for one table. Raises TransientError if others keep changing it.
    """
    made: list[SchemaChange] = []

    def once() -> list[SchemaChange]:
        stored = tables.find(target)
        if stored is None and apply:
            made[:] = schema_changes(table, None)
            tables.create(target, table)
            stored = tables.find(target)  # another process may have created it, from another version of the contract
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
    """Bring the table to its contract, or raise PermanentError with the changes that are refused."""
    refused = [change for change in fit(tables, target, table) if change.action == "refused"]
    if refused:
        shown = " ".join(f"{change.column or 'It'} {change.text}" for change in refused[:5])
        raise PermanentError(f"Table {target} does not fit its contract (see: main.py bootstrap-sync). {shown}")
