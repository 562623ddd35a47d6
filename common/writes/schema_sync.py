"""Brings tables to their contracts: reads what is there, plans (``schema_plan.py``), makes the changes."""

import random
import time

from common.platform.errors import PermanentError, TransientError
from common.ports.warehouse import Tables
from common.tables.contract import Table
from common.tables.schema_plan import SchemaChange, columns_after, schema_changes

TRIES = 10
"""Each loses only against somebody else's change of the same table, which leaves less to do."""


def fit(tables: Tables, target: str, table: Table, *, apply: bool = True) -> list[SchemaChange]:
    """Return what differs; with ``apply``, make the changes first.

    Safe to run at the same time as others that do the same. Raises TransientError if the table never stands still.
    """
    made: list[SchemaChange] = []
    for tried in range(TRIES):
        found = tables.find(target)
        changes = schema_changes(table, found)
        if not apply or not any(change.is_done for change in changes):
            return [*made, *changes]
        if found is None:
            tables.create(target, table)
            made = changes  # and look again: somebody else may have made it, from another version of the contract
        elif tables.change(target, found, columns_after(table, found), table.description):
            return [*made, *changes]
        if tried:
            time.sleep(random.uniform(0.0, 0.02 * 2 ** min(tried, 6)))
    raise TransientError(f"Table {target} was changed by others {TRIES} times in a row. Try again.")


def ensure(tables: Tables, target: str, table: Table) -> None:
    """Make the table fit its contract, or raise PermanentError with what is refused."""
    refused = [change for change in fit(tables, target, table) if change.action == "refused"]
    if refused:
        shown = " ".join(f"{change.column or 'It'} {change.text}" for change in refused[:5])
        raise PermanentError(f"Table {target} does not fit its contract (see: main.py bootstrap-sync). {shown}")
