"""Brings tables to their contracts: reads what is there, plans (``schema_plan.py``), makes the changes."""

import random
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from common.platform.errors import PermanentError, TransientError
from common.tables.schema_plan import FoundColumn, FoundTable, SchemaChange, columns_after, schema_changes
from common.tables.contract import Table

TRIES = 10
"""Each loses only against somebody else's change of the same table, which leaves less to do."""


class Tables(Protocol):
    """Tables and datasets as such, without their rows. Ids are ``project.dataset.table``."""

    def has_dataset(self, dataset: str) -> bool:
        """Return whether the dataset (``project.dataset``) is there."""

    def make_dataset(self, dataset: str) -> None:
        """Make the dataset unless it is there."""

    def find(self, target: str) -> FoundTable | None:
        """Return the table as it is, or None if it, or its dataset, is not there."""

    def create(self, target: str, table: Table) -> None:
        """Make the table, and its dataset, unless they are there, or somebody else is making them now."""

    def change(self, target: str, found: FoundTable, columns: Sequence[FoundColumn], description: str) -> bool:
        """Give the table these columns and this description; return False if it has changed since it was found."""

    def find_view(self, target: str) -> str | None:
        """Return the ``state`` that the view was made with ("" if it was not), None if nothing has that name.

        Raises PermanentError if it is the name of a table.
        """

    def make_view(self, target: str, sql: str, *, description: str, state: str) -> None:
        """Make the view, or put it in the place of the one that is there.

        Raises PermanentError if what it reads is not there, or if it is the name of a table.
        """

    def expire(self, target: str, at: datetime) -> None:
        """Have BigQuery delete the table, and what was made beside it, at that time."""

    def remove(self, target: str) -> None:
        """Delete the table, and what was made beside it, as far as they are there."""


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
