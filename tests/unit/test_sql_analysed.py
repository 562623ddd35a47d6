"""Google's own analyzer takes all SQL of the product: the files of configs/sql, and what the code puts together.

What tests and the demo send to the emulator is analysed there (infra/local/strict_bigquery.py).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import combinations
from typing import Any

import pytest

from common.adapters.bigquery import commits, meta
from common.adapters.bigquery.commit_sql import MODES, make_ledger, script
from common.adapters.bigquery.names import parameters
from common.adapters.bigquery.tables import QUARANTINE
from common.adapters.googlesql import EXEMPT, Catalog, Report, analyze
from common.adapters.googlesql.configs import (
    DATASET,
    PROJECT,
    analysed,
    dataset_catalog,
    procedure_call,
    staged_columns,
    table_columns,
)
from common.config.loader import ConfigTree
from common.domain.model import WriteSpec
from common.focus.conformance import ROWS
from common.focus.missing_prices import missing_prices
from common.focus.reconcile import reconcile
from common.focus.views import alone, load_views
from common.meta.rows import META_TABLES
from common.platform.paths import CONFIGS, PROJECT_ROOT
from common.ports.google import SourceField, SourceTable
from common.ports.meta import MetaRows, MetaWrite
from common.ports.warehouse import Commit, Lineage
from common.processors.registry import REGISTRY
from common.processors.sql.external_sql import ExternalTable
from common.tables.contract import Column, Table, load_meta_table, load_table
from common.writes import preview_diff, verify
from common.writes.preview_diff import ComparedRows, table_diff
from common.writes.spool.hashing import row_hash_sql

HOME = f"{PROJECT}.{DATASET}"
AT = datetime(2026, 11, 21, tzinfo=UTC)
DAYS = date(2026, 11, 1), date(2026, 11, 3)
CONTRACTS = {path.stem: load_table(CONFIGS, path.stem) for path in sorted((CONFIGS / "schemas").glob("*.yml"))}
META = {name: load_meta_table(CONFIGS, name) for name in META_TABLES}


def types(values: Mapping[str, Any]) -> dict[str, str]:
    """The types that the product gives its parameters."""
    return {parameter.name: str(parameter.type_) for parameter in parameters(values)}


def accept(sql: str, catalog: Catalog, values: Mapping[str, Any] | None = None) -> Report:
    report = analyze(sql, catalog, parameters=types(values or {}))
    assert [str(problem) for problem in report.problems] == []
    return report


class Analysing:
    """A warehouse that has the SQL of its queries analysed, and no rows."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self.asked = catalog, 0

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        accept(sql, self.catalog, params)
        self.asked += 1
        yield from ()


def in_dataset(name: str) -> str:
    return f"{HOME}.{name}"


@pytest.fixture(scope="module")
def files() -> Sequence[Any]:
    return list(analysed(ConfigTree(CONFIGS, REGISTRY)))


def test_google_takes_every_file_of_configs_sql_as_it_is_used(files: Sequence[Any]) -> None:
    seen = {one.path for one in files}
    assert seen == set((CONFIGS / "sql").rglob("*.sql"))
    assert [(one.path.name, one.step, str(problem)) for one in files for problem in one.report.problems] == []


def test_every_piece_of_dynamic_sql_is_put_together_and_analysed_in_some_call(files: Sequence[Any]) -> None:
    """Creating a procedure says nothing about it: BigQuery sees it when it runs."""
    for path in (CONFIGS / "sql").glob("sp_*.sql"):
        calls = [one.report for one in files if one.path == path]
        assert calls, f"no pipeline calls {path.name}"
        assert [report.open for report in calls] == [[] for _ in calls], path.name
        there = len(re.findall(r"^\s*EXECUTE IMMEDIATE", path.read_text(), re.MULTILINE))
        assert max(len(report.dynamic) for report in calls) == there, path.name


SOURCES = ("genai_payg_cost", "genai_reported_cost", "cloud_focus_export", "gcp_billing_export", "subscription_cost")


@pytest.mark.parametrize("there", [(), *combinations(SOURCES, 1), SOURCES[:2]], ids=",".join)
def test_the_proof_is_valid_sql_whichever_sources_an_organisation_has(there: tuple[str, ...]) -> None:
    steps = {"source_table": "cost_data_standard_1_3", "destination_table": "cost_consolidation"}
    catalog = dataset_catalog(CONFIGS, only=(*there, "cost_data_standard_1_3"))
    report = analyze(procedure_call(CONFIGS / "sql" / "sp_consolidate.sql", steps), catalog)
    assert ([str(p) for p in report.problems], report.open, len(report.dynamic)) == ([], [], 2)
    assert {name for name in SOURCES if f".{name}`" in "".join(dynamic.sql for dynamic in report.dynamic)} == set(there)


def key_of(table: Table) -> str:
    return next(column.name for column in table.columns if column.type == "STRING")


def commit(table: Table, mode: str, **more: Any) -> Commit:
    keys = (key_of(table),) if mode in ("merge", "replace_key") else ()
    order: dict[str, Any] = {
        "target": in_dataset(table.table),
        "table": table,
        "staging": in_dataset(f"{table.table}__stage_s1"),
        "lineage": Lineage("acme", "pipe", "cred", "run_1", AT),
        "first_day": DAYS[0],
        "last_day": DAYS[1],
        "write": WriteSpec(mode=mode, keys=keys, on_empty="replace"),
        "step_id": "load",
        "attempt": 1,
        "fence": 1,
        "not_after": AT,
        "job_id": "commit1",
        "rows": 1,
    }
    return Commit(**{**order, **more})


def committing(*writes: Commit) -> tuple[str, Catalog, dict[str, Any]]:
    """A commit's script, the tables that it finds, and its parameters."""
    catalog = Catalog(project=PROJECT)
    values: dict[str, Any] = {}
    for number, write in enumerate(writes):
        catalog.make([write.target], table_columns(write.table))
        spooled = (
            (name, "STRING" if write.spooled and kind == "JSON" else kind) for name, kind in staged_columns(write.table)
        )
        lineage = table_columns(write.table)[len(write.table.columns) :]
        catalog.make([write.staging], (*spooled, *(column for column in lineage if write.of_days)))
        ledger = analyze(make_ledger(write.target), catalog)
        assert ledger.problems == []
        suffix = f"_{number}" if number else ""
        values |= {f"{name}{suffix}": value for name, value in commits._parameters(write).items()}
        catalog.make([f"{write.target}__commits"], ledger.made[f"{write.target}__commits"])
    return script(writes), catalog, values


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spooled", [False, True], ids=["filled by SQL", "spooled"])
@pytest.mark.parametrize("name", ["cost_data_standard_1_3", "gcp_services"])
def test_a_commit_is_valid_in_every_mode_whatever_filled_its_staging_table(name: str, spooled: bool, mode: str) -> None:
    accept(*committing(commit(CONTRACTS[name], mode, spooled=spooled)))


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_a_commit_is_valid_for_every_table(name: str) -> None:
    accept(*committing(commit(CONTRACTS[name], "replace_key", spooled=True)))


@pytest.mark.parametrize("modes", list(combinations(MODES, 2)), ids="-".join)
def test_a_commit_of_two_tables_is_valid(modes: tuple[str, str]) -> None:
    names = ("genai_payg_cost", "cost_data_standard_1_3")
    accept(*committing(*(commit(CONTRACTS[name], mode) for name, mode in zip(names, modes, strict=True))))


def test_a_commit_of_a_preview_is_valid() -> None:
    """It takes the shadow table for staging, which has lineage of its own."""
    table = CONTRACTS["genai_payg_cost"]
    write = commit(table, "merge", of_days=True)
    sql, catalog, values = committing(write)
    catalog.make([write.staging], table_columns(table))
    accept(sql, catalog, values)


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_verify_asks_valid_sql(name: str) -> None:
    catalog, table = dataset_catalog(CONFIGS), CONTRACTS[name]
    more = {"org": "acme", "pipeline": "p", "credential": "c", "first": DAYS[0], "last": DAYS[1]}
    hashed = {column.name: column.type for column in table.columns} | {"x_pipeline_run_date": "DATE"}
    where = f"{verify.OF_KEY} {verify.OF_DAYS}"
    accept(verify.COUNT.format(table=in_dataset(name), more=where, row_hash=row_hash_sql(hashed)), catalog, more)
    columns = ", ".join(f"`{column}`" for column in hashed)
    content = verify.CONTENT.format(table=in_dataset(name), columns=columns)
    accept(content, catalog, {**more, "run": "r", "at": AT})


@pytest.mark.parametrize("mode", ["replace_key", "merge"])
@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_a_preview_is_compared_by_valid_sql(name: str, mode: str) -> None:
    table, catalog = CONTRACTS[name], dataset_catalog(CONFIGS)
    catalog.make([in_dataset("shadow")], table_columns(table))
    warehouse = Analysing(catalog)
    write = WriteSpec(mode=mode, keys=(key_of(table),) if mode == "merge" else ())
    table_diff(warehouse.query, in_dataset(name), in_dataset("shadow"), table, write, ComparedRows("o", "p", "c", DAYS))
    assert warehouse.asked == 2 + len(preview_diff._Sql("t", "s", table, write, DAYS).amounts)


def test_reconcile_and_prices_missing_ask_valid_sql() -> None:
    warehouse = Analysing(dataset_catalog(CONFIGS))
    assert reconcile(warehouse, in_dataset, "acme", *DAYS, Decimal(1)) == []  # type: ignore[arg-type]
    assert missing_prices(warehouse, in_dataset, "acme", *DAYS) == []  # type: ignore[arg-type]
    accept(
        ROWS.format(table=in_dataset("cost_data_standard_1_3")),
        warehouse.catalog,
        {"org": "a", "first": DAYS[0], "last": DAYS[1]},
    )
    assert warehouse.asked == 3


def test_a_runs_archive_is_one_valid_script() -> None:
    parts = [MetaRows(in_dataset(name), META[name], ()) for name in META_TABLES]
    write = MetaWrite("run_1", AT, in_dataset(META_TABLES[-1]), parts, "meta_run_1", {})
    values = {"run": "run_1", "ended_at": AT, **{f"rows{number}": "[]" for number in range(len(parts))}}
    accept(meta.script(write), meta_catalog(), values)


def meta_catalog() -> Catalog:
    catalog = dataset_catalog(CONFIGS)
    for name, table in META.items():
        catalog.make([in_dataset(name)], table_columns(table))
    return catalog


def test_every_view_is_a_valid_statement_of_its_own_and_by_itself() -> None:
    """A report asks before the views are deployed."""
    views, catalog = load_views(CONFIGS), dataset_catalog(CONFIGS)
    for view in views:
        accept(f"{alone(views, view.name, HOME)}SELECT * FROM {view.name}", catalog)
        options = "OPTIONS (description = 'x', labels = [('a', 'b')])"
        report = accept(f"CREATE OR REPLACE VIEW `{HOME}.{view.name}` {options} AS\n{view.sql(HOME)}", catalog)
        catalog.make([in_dataset(view.name)], report.made[in_dataset(view.name)])


@pytest.mark.parametrize("page", ["meta", "questions"])
def test_the_sql_of_the_documentation_is_valid(page: str) -> None:
    catalog = meta_catalog()
    for view in load_views(CONFIGS):
        report = accept(view.sql(HOME), catalog)
        catalog.make([in_dataset(view.name)], report.columns)
    text = (PROJECT_ROOT / "docs" / f"{page}.md").read_text()
    found = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    assert found
    for sql in found:
        accept(sql.replace("{dataset}", HOME).replace("acme_corp_prod.", f"`{DATASET}`."), catalog)


EXPORT = SourceTable(
    {
        "usage_start_time": SourceField("TIMESTAMP"),
        "export_time": SourceField("TIMESTAMP"),
        "cost": SourceField("FLOAT64"),
        "currency": SourceField("STRING"),
        "labels": SourceField("RECORD", repeated=True),
        "project": SourceField("RECORD"),
        "project.id": SourceField("STRING"),
    },
    "_PARTITIONDATE",
)


@pytest.mark.parametrize("partition", ["_PARTITIONDATE", "export_time", "usage_start_time", ""])
def test_what_is_asked_of_another_projects_table_is_valid(partition: str) -> None:
    columns = (
        ("usage_start_time", "TIMESTAMP"),
        ("export_time", "TIMESTAMP"),
        ("cost", "FLOAT64"),
        ("currency", "STRING"),
        ("labels", "ARRAY<STRUCT<key STRING, value STRING>>"),
        ("project", "STRUCT<id STRING>"),
    )
    by_ingestion = (
        (("_PARTITIONTIME", "TIMESTAMP"), ("_PARTITIONDATE", "DATE")) if partition == "_PARTITIONDATE" else ()
    )
    catalog = Catalog({"p.d.t": (*columns, *by_ingestion)}.get)
    table = ExternalTable(
        "p.d.t",
        SourceTable(EXPORT.fields, partition),
        "usage_start_time",
        equal={"project.id": ["a"]},
        unequal={"currency": ["USD"]},
        label_path="labels",
        labels={"team": ["x"]},
    )
    wanted = [
        (Column(name="cost", type="BIGNUMERIC"), "cost"),
        (Column(name="labels", type="JSON"), "labels"),
        (Column(name="project_id", type="STRING"), "project.id"),
        (Column(name="nothing", type="INT64"), None),
    ]
    for select in (table.rows(wanted, *DAYS), table.changed_days("export_time", date(2026, 8, 4), *DAYS)):
        accept(select.sql, catalog, select.params)


def test_the_quarantine_is_a_table_that_sql_can_name() -> None:
    catalog = Catalog({in_dataset("t__quarantine"): table_columns(QUARANTINE)}.get)
    accept(f"SELECT reason, `row` FROM `{in_dataset('t__quarantine')}`", catalog)


def test_every_exemption_is_still_needed() -> None:
    for exemption in EXEMPT:
        report = analyze(exemption.sample, dataset_catalog(CONFIGS))
        assert [p for p in report.problems if exemption.covers(exemption.sample, p.message)], exemption.reason


def test_an_exemption_passes_over_its_message_alone() -> None:
    from common.adapters.googlesql import Exemption

    one = Exemption(r"\bODD\(", "Function not found: ODD", "a function that only BigQuery has", "SELECT ODD(1)")
    assert one.covers("SELECT ODD(1)", "Function not found: ODD")
    assert not one.covers("SELECT ODD(1)", "Unrecognized name: x") and not one.covers("SELECT 1", one.message)
