"""Each value that SQL matches by position stands beside its column's name: in configs/sql and in SQL that Python makes.

That a name stands beside the right value is what the golden rows are for (tests/contract/test_golden_rows.py).
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from common.adapters.bigquery import commit_sql, meta
from common.config.loader import ConfigTree
from common.domain.model import DEFAULT_WRITE
from common.meta.rows import META_TABLES
from common.platform.paths import CONFIGS, PROJECT_ROOT
from common.ports.meta import MetaRows, MetaWrite
from common.ports.warehouse import Commit, Lineage
from common.processors.registry import REGISTRY
from common.tables.contract import DATA_DATE, Column, load_meta_table, load_table
from common.writes.preview_diff import ComparedRows, table_diff
from tests.named_columns import (
    Insert,
    Statement,
    inserts,
    misplaced,
    of_file,
    statements,
    unfilled,
    unions,
    unlike_arms,
)

SQL = CONFIGS / "sql"
FILES = sorted(SQL.rglob("*.sql"))
PROCEDURES = sorted(SQL.glob("sp_*.sql"))
OF_PROCEDURE = ("x_org_slug", DATA_DATE)
"""Of the lineage fields those that come with a row: the engine stamps the others."""


def of_path(path: Path) -> str:
    return str(path.relative_to(SQL))


def procedure(path: Path) -> list[Insert]:
    """Its INSERTs; one in dynamic SQL with branches is read once for each, and is one all the same."""
    return list(dict.fromkeys(insert for statement in of_file(path, PROJECT_ROOT) for insert in inserts(statement)))


def tables() -> dict[str, set[str]]:
    """The tables that each procedure fills, as the steps of pipelines say."""
    filled: dict[str, set[str]] = {}
    tree = ConfigTree(CONFIGS, REGISTRY)
    for step in (step for route in tree.routes() for step in tree.load(route).config.steps):
        if "procedure" in step.config:
            filled.setdefault(step.config["procedure"], set()).add(step.config["destination_table"])
    return filled


@pytest.mark.parametrize("path", FILES, ids=of_path)
def test_every_value_is_named_as_its_column_is(path: Path) -> None:
    read = of_file(path, PROJECT_ROOT)
    assert read, "no statement was found: nothing was looked at"
    assert [text for statement in read for text in problems(statement)] == []


def problems(statement: Statement) -> Iterator[str]:
    for insert in inserts(statement):
        yield from misplaced(insert)
    for arms in unions(statement):
        yield from unlike_arms(arms)


@pytest.mark.parametrize("path", PROCEDURES, ids=of_path)
def test_a_procedure_fills_every_column_of_its_table_or_says_why_not(path: Path) -> None:
    filled, (table,) = procedure(path), tables()[path.stem]
    assert len(filled) == path.read_text("utf-8").count("INSERT"), "an INSERT was not read"
    names = load_table(CONFIGS, table).names
    assert [text for insert in filled for text in unfilled(insert, names, OF_PROCEDURE)] == []


def test_every_procedure_is_one_of_a_pipeline_and_fills_one_table() -> None:
    assert {name: len(found) for name, found in tables().items()} == {path.stem: 1 for path in PROCEDURES}


# SQL that Python makes


def commits() -> Iterator[Commit]:
    """A commit in each mode, of tables with and without columns for what is told of it."""
    contract = load_table(CONFIGS, "genai_reported_cost")
    for mode in commit_sql.MODES:
        write = replace(DEFAULT_WRITE, mode=mode, keys=("line_item",) if mode == "merge" else ())
        yield Commit(
            target="pipe-ops.data.t",
            table=contract,
            staging="pipe-ops.data.s",
            lineage=Lineage("acme", "pipe", "cred", "run", datetime(2026, 10, 6, tzinfo=UTC)),
            first_day=date(2026, 10, 5),
            last_day=date(2026, 10, 5),
            write=write,
            step_id="fill",
            attempt=1,
            fence=1,
            not_after=datetime(2100, 1, 1, tzinfo=UTC),
            job_id="job",
        )


def meta_script() -> str:
    contracts = [load_meta_table(CONFIGS, name) for name in META_TABLES]
    parts = [MetaRows(f"pipe-ops.data.{contract.table}", contract, ()) for contract in contracts]
    return meta.script(MetaWrite("run", "2026", "pipe-ops.data.m", parts, "job", {}))


def preview_queries() -> str:
    asked: list[str] = []

    def query(sql: str, params: Any) -> Iterator[dict[str, Any]]:
        asked.append(sql)
        return iter(())

    table = load_table(CONFIGS, "genai_reported_cost")
    table_diff(
        query,
        "pipe-ops.data.t",
        "pipe-ops.data.s",
        table,
        DEFAULT_WRITE,
        ComparedRows("acme", "pipe", "cred", (date(2026, 10, 5),)),
    )
    return ";\n".join(asked)


MADE = {
    "commit": (lambda: commit_sql.script(list(commits())), 2 * len(commit_sql.MODES), 1),
    "ledger": (lambda: commit_sql.make_ledger("pipe-ops.data.t"), 1, 1),
    "meta": (meta_script, len(META_TABLES), 0),
    "preview": (preview_queries, 0, 2),
}
"""Scripts, and how many INSERTs and UNIONs each has: a statement that was not read is not passed over."""


@pytest.mark.parametrize("name", MADE)
def test_values_of_sql_that_python_makes_are_named_as_their_columns_are(name: str) -> None:
    make, writes, joined = MADE[name]
    read = list(statements(make(), name))
    assert [text for statement in read for text in problems(statement)] == []
    assert (sum(1 for s in read for _ in inserts(s)), sum(1 for s in read for _ in unions(s))) == (writes, joined)


# What the reading of SQL finds


def found(sql: str) -> list[str]:
    return [text for statement in statements(sql, "x.sql") for text in problems(statement)]


DYNAMIC = '''BEGIN
  DECLARE v_more STRING DEFAULT " UNION ALL SELECT 3 AS a, 4 AS b ";
  IF x THEN
    EXECUTE IMMEDIATE CONCAT("""
      INSERT INTO `""", p_staging, """` (a, b)
      SELECT
        1 AS a,
        2 AS b
      """, v_more, IF(y, """
      UNION ALL SELECT 5 AS a, 6 AS b
      """, 'UNION ALL SELECT 7 AS a, 8 AS b'))
    USING z;
  END IF;
END'''


def test_values_beside_their_names_are_fine() -> None:
    assert found("INSERT INTO t (a, b, c) SELECT x AS a, '1' AS b, c FROM t") == []
    assert found(DYNAMIC) == []


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("INSERT INTO t (a, b)\nSELECT x AS b,\ny AS a", "x.sql:2: value 1, x, is named 'b'; column 'a' (x.sql:1)"),
        ("INSERT INTO t (a, b) SELECT a, 'x'", "value 2, 'x', is named ''; column 'b'"),
        ("INSERT INTO t (a, b) SELECT b, a FROM t", "value 1, b, is named 'b'; column 'a'"),
        ("INSERT INTO t (a, b) SELECT a, t.* FROM t", "value 2, t.*, is named ''; column 'b'"),
        ("INSERT INTO t (a, b) SELECT x AS a", "1 values for 2 columns"),
        ("INSERT INTO t SELECT x AS a", "an INSERT names its columns"),
        ("INSERT INTO t (a) VALUES (1)", "its query is a SELECT"),
        ("SELECT a, b FROM t UNION ALL SELECT b, a FROM t", "value 1, b, is named 'b'; the first arm has 'a'"),
        ("SELECT 1 AS a UNION ALL\nSELECT 2", "value 1, 2, is named ''; the first arm has 'a'"),
        ("CREATE TABLE t (a INT64, b INT64) AS SELECT 1 AS b, 2 AS a", "value 1, 1, is named 'b'; column 'a'"),
        (DYNAMIC.replace("1 AS a", "1 AS c"), "x.sql:7: value 1, 1, is named 'c'; column 'a' (x.sql:5)"),
        (DYNAMIC.replace("3 AS a", "3 AS c"), "x.sql:2: value 1, 3, is named 'c'; column 'a' (x.sql:5)"),
        (DYNAMIC.replace("5 AS a", "5 AS c"), "x.sql:10: value 1, 5, is named 'c'; column 'a' (x.sql:5)"),
        (DYNAMIC.replace("7 AS a", "7 AS c"), "x.sql:11: value 1, 7, is named 'c'; column 'a' (x.sql:5)"),
    ],
)
def test_a_value_beside_another_name_or_none_is_told_with_its_place_and_both_names(sql: str, says: str) -> None:
    assert any(says in text for text in found(sql)), found(sql)


NOTE = "-- Without a value:\n--   no such thing: c,\n--     d\n"


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        (f"{NOTE}INSERT INTO t (a, b, x) SELECT a, b, x", []),
        (f"{NOTE}INSERT INTO t (a, x) SELECT a, x", ["x.sql:4: 'b' is neither filled nor declared as left out"]),
        (f"{NOTE}INSERT INTO t (a, b) SELECT a, b", ["x.sql:4: 'x' is neither filled nor declared as left out"]),
        (f"{NOTE}INSERT INTO t (a, b, x, e) SELECT a, b, x, e", ["x.sql:4: 'e' is no column of the table"]),
        (
            f"{NOTE}INSERT INTO t (a, b, c, x) SELECT a, b, c, x",
            ["x.sql:4: 'c' is declared as left out, and is filled, declared twice, or no column"],
        ),
        (
            f"{NOTE.replace('d', 'd, e')}INSERT INTO t (a, b, x) SELECT a, b, x",
            ["x.sql:4: 'e' is declared as left out, and is filled, declared twice, or no column"],
        ),
    ],
)
def test_a_column_that_is_not_filled_has_to_be_declared_as_left_out(sql: str, says: list[str]) -> None:
    (statement,) = statements(sql, "x.sql")
    assert [text for insert in inserts(statement) for text in unfilled(insert, ("a", "b", "c", "d"), ("x",))] == says


def test_the_contract_of_a_table_is_read() -> None:
    """A table with one column more fails every procedure that fills it."""
    contract = load_table(CONFIGS, "cost_data_standard_1_3")
    longer = contract.model_copy(update={"columns": (*contract.columns, Column(name="x_New", type="STRING"))})
    for path in (path for path in PROCEDURES if contract.table in tables()[path.stem]):
        for insert in procedure(path):
            (text,) = unfilled(insert, longer.names, OF_PROCEDURE)
            assert "'x_New' is neither filled" in text
