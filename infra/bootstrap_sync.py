"""Creates and extends the datasets, tables and views of organisations: ``main.py bootstrap-sync``.

``<table>__commits`` and ``<table>__quarantine`` are left to the writer, which makes them when it needs them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.focus.views import View, load_views
from common.platform.errors import PermanentError
from common.platform.settings import Settings
from common.ports.warehouse import Tables, Warehouse
from common.tables.contract import every_table
from common.tables.schema_plan import SchemaChange
from common.writes.schema_sync import fit


@dataclass(frozen=True, slots=True)
class Difference:
    """One change of one organisation's dataset (``table`` is empty), table or view."""

    org: str
    dataset: str
    table: str
    change: SchemaChange


def sync(warehouse: Warehouse, settings: Settings, orgs: Sequence[str], *, apply: bool) -> Iterator[Difference]:
    """Yield what each organisation's tables lack of their contracts, then its views; with ``apply``, after it was done.

    A table of which anything is refused stays as it is; the others are done all the same.
    Raises TransientError if BigQuery does not answer: what was done stays, and a repeat goes on.
    """
    tables, contracts, views = warehouse.tables, every_table(settings.configs), load_views(settings.configs)
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
        for view in views:
            for change in _fit_view(tables, dataset, view, apply=apply):
                yield Difference(org, name, view.name, change)


def _fit_view(tables: Tables, dataset: str, view: View, *, apply: bool) -> Iterator[SchemaChange]:
    """Yield how a view differs from its file; with ``apply``, after it was made anew. Tables are never touched."""
    target = f"{dataset}.{view.name}"
    try:
        found = tables.find_view(target)
        if found == view.state:
            return
        if apply:
            tables.make_view(target, view.sql(dataset), description=view.description, state=view.state)
    except PermanentError as error:
        yield SchemaChange("refused", "", str(error))
        return
    yield SchemaChange("create", "", "view") if found is None else SchemaChange("replace", "", "view, by its new text")
