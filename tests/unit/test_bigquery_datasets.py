"""Datasets and their location, on a client that answers as BigQuery does: the emulator has no accounts or locations."""

from collections.abc import Callable
from typing import Any

import pytest
from google.api_core.exceptions import Forbidden, NotFound
from google.cloud import bigquery

from common.adapters.bigquery.jobs import Connection
from common.adapters.bigquery.schema import BigQueryTables
from common.platform.errors import PermanentError
from tests.contract.writes import TABLE

TARGET = "project-x.acme_prod.costs"


class Project:
    """A project's client: which datasets are there and where, and what was asked."""

    def __init__(self, location: str | None = None, *, may_make: bool = True) -> None:
        self.location, self.may_make = location, may_make
        self.calls: list[str] = []

    def create_table(self, table: bigquery.Table, **_: Any) -> Any:
        self.calls.append("table")
        if self.location is None:
            raise NotFound("Not found: Dataset project-x:acme_prod")
        return self._at(bigquery.Table(table.reference, schema=table.schema))

    def create_dataset(self, dataset: bigquery.Dataset, **_: Any) -> Any:
        self.calls.append("dataset")
        if not self.may_make:
            raise Forbidden("Access Denied: Project project-x: User does not have bigquery.datasets.create permission")
        self.location = self.location or dataset.location
        return self._at(dataset)

    def get_table(self, target: str, **_: Any) -> Any:
        return self._at(bigquery.Table(target))

    def _at(self, found: Any) -> Any:
        found._properties["location"] = self.location
        return found


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Callable[[Project], BigQueryTables]:
    def made(project: Project) -> BigQueryTables:
        monkeypatch.setattr(Connection, "client", project)
        return BigQueryTables(Connection("project-x", "EU", None))

    return made


Tables = Callable[[Project], BigQueryTables]


def test_an_account_that_may_not_make_datasets_makes_tables_in_one_that_is_there(tables: Tables) -> None:
    project = Project("EU", may_make=False)
    tables(project).create(TARGET, TABLE)
    assert project.calls == ["table"]


def test_a_dataset_is_made_only_after_bigquery_has_said_that_there_is_none(tables: Tables) -> None:
    project = Project()
    tables(project).create(TARGET, TABLE)
    assert project.calls == ["table", "dataset", "table"] and project.location == "EU"


def test_an_account_that_may_not_make_the_missing_dataset_reads_what_to_grant(tables: Tables) -> None:
    with pytest.raises(PermanentError, match=r"make dataset project-x\.acme_prod.* roles/bigquery\.user"):
        tables(Project(may_make=False)).create(TARGET, TABLE)


@pytest.mark.parametrize("asks", ["make_dataset", "create", "find"])
def test_data_in_another_location_than_the_settings_is_refused_in_words(tables: Tables, asks: str) -> None:
    there = tables(Project("US"))
    calls = {
        "make_dataset": lambda: there.make_dataset("project-x.acme_prod"),
        "create": lambda: there.create(TARGET, TABLE),
        "find": lambda: there.find(TARGET),
    }
    with pytest.raises(PermanentError, match="is in location US, the settings say EU.*PIPELINE_OPS_LOCATION=US"):
        calls[asks]()


def test_a_location_is_the_same_in_capitals_or_not(tables: Tables) -> None:
    assert tables(Project("eu")).find(TARGET) is not None
