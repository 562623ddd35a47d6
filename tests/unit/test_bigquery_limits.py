"""What Google's analyzer can't see and the emulator does not check: names, labels, clustering, sizes, locations.

The numbers are BigQuery's documented limits: "Quotas and limits", the REST reference of ``QueryRequest.labels`` and of
``Clustering.fields``.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from common.adapters.bigquery.commit_sql import MODES, make_ledger, script
from common.adapters.bigquery.commits import _parameters
from common.adapters.bigquery.jobs import Jobs
from common.adapters.bigquery.names import label, safe_job_id
from common.adapters.bigquery.tables import QUARANTINE
from common.platform.paths import CONFIGS
from common.tables.contract import Table, load_table
from tests.unit.test_sql_analysed import META, commit

MAX_QUERY_BYTES = 1024 * 1024
"""Of an unresolved GoogleSQL query; a script is one."""

MAX_PARAMETERS = 10_000
MAX_COLUMNS = 10_000
MAX_CLUSTERING_COLUMNS = 4
CLUSTERING_TYPES = {"BIGNUMERIC", "BOOL", "DATE", "DATETIME", "GEOGRAPHY", "INT64", "NUMERIC", "STRING", "TIMESTAMP"}
"""Types that BigQuery clusters by; FLOAT64, JSON, BYTES, arrays and structs are none."""

LABEL = re.compile(r"[a-z0-9_-]{0,63}")
LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,1024}")

CONTRACTS = [load_table(CONFIGS, path.stem) for path in sorted((CONFIGS / "schemas").glob("*.yml"))]
TABLES: list[Table] = [*CONTRACTS, *META.values(), QUARANTINE]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.table)
def test_a_table_is_clustered_by_at_most_four_columns_of_types_that_bigquery_orders(table: Table) -> None:
    types = {column.name: column.type for column in table.all_columns}
    assert 0 < len(table.clustered_by) <= MAX_CLUSTERING_COLUMNS
    assert {types[name] for name in table.clustered_by} <= CLUSTERING_TYPES
    assert types[table.partitioned_by] in ("DATE", "TIMESTAMP")
    assert len(types) <= MAX_COLUMNS


def test_a_ledger_is_clustered_by_at_most_four_texts() -> None:
    ddl = make_ledger("project-x.d.t")
    (columns,) = re.findall(r"CLUSTER BY ([\w, ]+)", ddl)
    names = columns.strip().split(", ")
    assert len(names) <= MAX_CLUSTERING_COLUMNS
    assert all(re.search(rf"\b{name} STRING\b", ddl) for name in names)


@pytest.mark.parametrize(
    "text", ["", "acme_corp", "Genai/PAYG OpenAI", "x" * 500, "ÄÖÜ é", "run_1[2026-11-01]", "a.b:c"]
)
def test_a_label_has_the_form_that_bigquery_takes_whatever_it_is_made_of(text: str) -> None:
    assert LABEL.fullmatch(label(text))


@pytest.mark.parametrize("text", ["run_1_load_1", "run.1[2026-11-01]_load", "x" * 5000, "é/ü", "a b"])
def test_a_job_id_has_the_form_that_bigquery_takes_and_stays_its_own(text: str) -> None:
    assert JOB_ID.fullmatch(safe_job_id(text))
    assert safe_job_id(text) != safe_job_id(f"{text}.")


@pytest.mark.parametrize("mode", MODES)
def test_the_longest_commit_is_far_below_the_longest_query(mode: str) -> None:
    """Ten tables of the most columns in one transaction; no pipeline writes that many."""
    widest = max(CONTRACTS, key=lambda table: len(table.columns))
    writes = [commit(widest, mode) for _ in range(10)]
    assert len(script(writes).encode()) < MAX_QUERY_BYTES / 4
    assert sum(len(_parameters(write)) for write in writes) < MAX_PARAMETERS / 10


def test_every_file_of_sql_is_far_below_the_longest_query() -> None:
    sizes = {path.name: path.stat().st_size for path in (CONFIGS / "sql").rglob("*.sql")}
    assert max(sizes.values()) < MAX_QUERY_BYTES / 4


class RecordingClient:
    """Keeps what the product gives BigQuery's client."""

    def __init__(self) -> None:
        self.configs: list[Any] = []

    def query(self, _sql: str, config: Any, **_: Any) -> Any:
        self.configs.append(config)
        return type("Job", (), {"job_id": "job"})()


class RecordingConnection:
    """A connection to that."""

    def __init__(self) -> None:
        self.client = RecordingClient()


def labels() -> Iterator[tuple[str, str]]:
    connection = RecordingConnection()
    jobs = Jobs(connection, {}).labelled({"org": "Acme Corp", "run": "r" * 100}, lambda _: None)  # type: ignore[arg-type]
    jobs.query("SELECT 1", {})
    (config,) = connection.client.configs
    yield from config.labels.items()


def test_the_labels_of_a_job_have_the_form_that_bigquery_takes() -> None:
    assert len(list(labels())) == 2
    assert all(LABEL_KEY.fullmatch(name) and LABEL.fullmatch(value) for name, value in labels())


def test_every_client_of_the_product_has_a_location(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of every job: without one BigQuery looks in the US, and finds no job of another place."""
    from common.adapters.bigquery.jobs import Connection

    for url in ("http://127.0.0.1:1", None):
        made: dict[str, Any] = {}
        monkeypatch.setattr("google.cloud.bigquery.Client", lambda made=made, **given: made.update(given))
        _ = Connection("project-x", "EU", url).client
        assert made["location"] == "EU"
