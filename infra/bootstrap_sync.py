"""Creates and extends the datasets and tables of organisations: ``main.py bootstrap-sync``.

``<table>__commits`` and ``<table>__quarantine`` are left to the writer, which makes them when it needs them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.ports import Warehouse
from common.schema_plan import SchemaChange
from common.schema_sync import fit
from common.settings import Settings
from common.table import every_table


@dataclass(frozen=True, slots=True)
class Difference:
    """One change of one organisation's dataset (``table`` is empty) or table."""

    org: str
    dataset: str
    table: str
    change: SchemaChange


def sync(warehouse: Warehouse, settings: Settings, orgs: Sequence[str], *, apply: bool) -> Iterator[Difference]:
    """Yield what each organisation's tables lack of their contracts; with ``apply``, after it was done.

    A table of which anything is refused stays as it is; the others are done all the same.
    Raises TransientError if BigQuery does not answer: what was done stays, and a repeat goes on.
    """
    tables, contracts = warehouse.tables, every_table(settings.configs)
    for org in orgs:
        name = settings.dataset(org)
        dataset = f"{settings.project_id}.{name}"
        if not tables.has_dataset(dataset):
            if apply:
                tables.make_dataset(dataset)
            yield Difference(org, name, "", SchemaChange("create", "", f"dataset in {settings.location}"))
        for table in contracts:
            for change in fit(tables, f"{dataset}.{table.table}", table, apply=apply):
                yield Difference(org, name, table.table, change)
