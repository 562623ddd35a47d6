"""Google's analyzer as this package drives it: scripts, dynamic SQL, places of errors, and the compiled module."""

import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.adapters.googlesql import Catalog, analyze, module_cache
from common.adapters.googlesql.evaluation import query

COLUMNS = (("a", "INT64"), ("b", "STRING"), ("j", "JSON"), ("m", "BIGNUMERIC"))
TABLES = {"p-x.d.t": COLUMNS}


def said(sql: str, **more: Any) -> list[str]:
    return [str(problem) for problem in analyze(sql, Catalog(TABLES.get, project="p-x"), **more).problems]


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELECT 0 AS number ORDER BY number", "1:20: Query without FROM clause cannot have an ORDER BY clause"),
        (
            "SELECT SUM(a) AS a\nFROM d.t\nGROUP BY b\nHAVING SUM(a) != 0",
            "4:12: Aggregations of aggregations are not allowed",
        ),
        ("SELECT b\nFROM `p-x.d.t`\nWHERE\n  nope = 1", "4:3: Unrecognized name: nope"),
        ("SELECT 'é', nope", "1:13: Unrecognized name: nope"),
        ("SELECT a FROM d.missing", "1:15: Table not found: d.missing"),
        ("SELECT DISTINCT j FROM d.t", "1:17: Column j of type JSON cannot be used in SELECT DISTINCT"),
        ("INSERT INTO d.t (b)\nVALUES (5)", "2:9: Value has type INT64 which cannot be inserted into column b"),
        ("SELECT a FROM\n", "1:14: Syntax error"),
        ("SET x = 1", "1:1: Undeclared variable: x"),
        ("DECLARE x INT64;\nSET x =\n 'text'", "3:2: Query column 1 has type STRING"),
        ("DECLARE x, x INT64", "1:1: variable x is declared twice"),
        ("DECLARE x DATE DEFAULT 5", "1:24: Query column 1 has type INT64"),
        ("IF 5 THEN SELECT 1; END IF", "1:4: Query column 1 has type INT64"),
        ("IF FALSE THEN\n  SELECT nope;\nEND IF", "2:10: Unrecognized name: nope"),
        ("WHILE TRUE DO SELECT nope; END WHILE", "1:22: Unrecognized name: nope"),
        ("FOR r IN (SELECT a FROM d.t) DO SELECT r.c; END FOR", "1:42: Field name c does not exist"),
        ("BEGIN SELECT 1; EXCEPTION WHEN ERROR THEN SELECT nope; END", "1:50: Unrecognized name: nope"),
        ("RAISE USING MESSAGE = 5", "1:23: Query column 1 has type INT64"),
        ("CALL d.nothing()", "1:1: Procedure not found: p-x.d.nothing"),
        ("BEGIN TRANSACTION;\nCREATE TABLE d.n (x INT64);\nCOMMIT TRANSACTION", "2:1: DDL inside a transaction"),
        ("BEGIN TRANSACTION;\nBEGIN TRANSACTION;\nCOMMIT TRANSACTION", "2:1: BEGIN TRANSACTION inside a transaction"),
        ("BEGIN TRANSACTION;\nSELECT 1;", "2:10: the script ends within a transaction"),
        ("COMMIT TRANSACTION", "1:1: COMMIT TRANSACTION without a transaction"),
        ("DROP TABLE d.t;\nSELECT a FROM d.t", "2:15: Table not found: d.t"),
    ],
)
def test_what_bigquery_refuses_is_refused_with_its_place(sql: str, problem: str) -> None:
    (only,) = said(sql)
    assert only.startswith(problem)


@pytest.mark.parametrize(
    "sql",
    [
        "DECLARE a STRING DEFAULT 'x';\nSELECT a + 1 FROM d.t",  # the column wins over the variable
        "DECLARE d DATE DEFAULT '2026-01-01'; DECLARE m BIGNUMERIC DEFAULT 1",  # assignment coerces literals
        "DECLARE x DEFAULT 5; SET x = x + 1; SELECT x * 2",
        "DECLARE x, y INT64; SET (x, y) = (1, 2)",
        "BEGIN DECLARE x INT64; END; BEGIN DECLARE x STRING; END",
        "LOOP SELECT 1; LEAVE; END LOOP; REPEAT SELECT 1; UNTIL TRUE END REPEAT",
        "CASE WHEN 1 = 1 THEN SELECT 1; ELSE SELECT 2; END CASE; CASE 5 WHEN 5 THEN SELECT 1; END CASE",
        "BEGIN SELECT 1; EXCEPTION WHEN ERROR THEN SELECT @@error.message; RAISE; END",
        "BEGIN TRANSACTION; CREATE TEMP TABLE n AS SELECT 1 AS x; INSERT INTO d.t (a) SELECT x FROM n; COMMIT",
        "CREATE TABLE d.n AS SELECT a AS x FROM d.t; SELECT x FROM d.n; DROP TABLE d.n",
        "CREATE VIEW d.v AS SELECT a AS x FROM d.t; SELECT x FROM `p-x`.d.v",
        "ALTER TABLE d.t ADD COLUMN x STRING; SELECT CONCAT(x, b) FROM d.t",
        "ALTER TABLE d.t RENAME COLUMN a TO x; SELECT x + 1 FROM d.t",
        "SELECT MAX_BY(b, a) AS b, MIN_BY(a, b) + 1 AS a FROM d.t",
        "SELECT table_name FROM `p-x.d`.INFORMATION_SCHEMA.TABLES WHERE table_name = @name",
        "SELECT column_name, data_type FROM d.INFORMATION_SCHEMA.COLUMNS",
        "ASSERT (SELECT COUNT(*) FROM d.t) = 0 AS 'rows'",
        "CREATE PROCEDURE d.p(x INT64) BEGIN SELECT x + a FROM d.t; END; CALL d.p(5)",
        "TRUNCATE TABLE d.t; MERGE d.t USING d.t AS s ON FALSE WHEN NOT MATCHED THEN INSERT (a) VALUES (s.a)",
    ],
)
def test_what_bigquery_takes_is_taken(sql: str) -> None:
    assert said(sql) == []


def test_parameters_have_the_types_that_they_are_given() -> None:
    sql = "SELECT a FROM d.t WHERE b = @x"
    assert said(sql, parameters={"x": "STRING"}) == []
    assert "No matching signature for operator =" in said(sql, parameters={"x": "INT64"})[0]
    assert said(sql, parameters={}) == ["1:29: Query parameter 'x' not found"]
    assert said("SELECT a FROM d.t WHERE b = ?", parameters=["STRING"]) == []


DYNAMIC = """
CREATE PROCEDURE d.p(p_table STRING, p_day DATE)
BEGIN
  EXECUTE IMMEDIATE FORMAT(\"\"\"
    SELECT a FROM `%s`
    WHERE b = ?
  \"\"\", p_table)
  USING {using};
END;
CALL d.p('p-x.d.{table}', '2026-01-01');
"""


@pytest.mark.parametrize(
    ("table", "using", "problems"),
    [
        ("t", "p_table", []),
        ("t", "p_day", ["6:11: No matching signature for operator ="]),  # the line of the file, not that of the text
        ("gone", "p_table", ["4:3: in the SQL that is put together here, line 2, column 19: Table not found"]),
    ],
)
def test_dynamic_sql_is_put_together_and_analysed(table: str, using: str, problems: list[str]) -> None:
    found = said(DYNAMIC.format(table=table, using=using))
    assert len(found) == len(problems) and all(a.startswith(b) for a, b in zip(found, problems, strict=True)), found


def test_dynamic_sql_that_only_a_run_knows_is_reported_as_open() -> None:
    sql = "DECLARE s STRING;\nSET s = (SELECT b FROM d.t LIMIT 1);\nEXECUTE IMMEDIATE s"
    report = analyze(sql, Catalog(TABLES.get, project="p-x"))
    assert (report.problems, report.dynamic, report.open) == ([], [], [(3, 1)])


@pytest.mark.parametrize(
    ("condition", "made"),
    [("TRUE", ["SELECT 1, 2"]), ("FALSE", ["SELECT 1"]), ("(SELECT COUNT(*) FROM d.t) = 0", [])],
)
def test_dynamic_sql_is_put_together_from_the_branch_that_is_taken(condition: str, made: list[str]) -> None:
    sql = "DECLARE s STRING DEFAULT 'SELECT 1'; IF {} THEN SET s = CONCAT(s, ', 2'); END IF; EXECUTE IMMEDIATE s"
    report = analyze(sql.format(condition), Catalog(TABLES.get, project="p-x"))
    assert [dynamic.sql for dynamic in report.dynamic] == made


@pytest.mark.parametrize(
    "dynamic", ["SELECT v", "SELECT 1; SELECT 2", "DECLARE x INT64", "IF TRUE THEN SELECT 1; END IF"]
)
def test_dynamic_sql_is_one_statement_that_sees_no_variable(dynamic: str) -> None:
    (problem,) = said(f"DECLARE v INT64 DEFAULT 1; EXECUTE IMMEDIATE '{dynamic}'")
    assert problem


def test_a_pseudo_column_is_there_where_the_table_is_partitioned_by_ingestion_alone() -> None:
    pseudo = (("_PARTITIONTIME", "TIMESTAMP"), ("_PARTITIONDATE", "DATE"))
    catalog = Catalog({"p.d.t": (*COLUMNS, *pseudo), "p.d.u": COLUMNS}.get, project="p")
    assert analyze("SELECT a FROM d.t WHERE _PARTITIONDATE = '2026-01-01'", catalog).problems == []
    assert [name for name, _ in analyze("SELECT * FROM d.t", catalog).columns] == ["a", "b", "j", "m"]
    assert analyze("SELECT a FROM d.u WHERE _PARTITIONDATE = '2026-01-01'", catalog).problems


def test_the_reference_implementation_reads_and_returns_python_values_exactly() -> None:
    columns = (*COLUMNS, ("day", "DATE"), ("at", "TIMESTAMP"), ("flag", "BOOL"), ("many", "ARRAY<STRING>"))
    row = {
        "a": -5,
        "b": "é",
        "j": '{"k":1}',
        "m": Decimal("-0.00000000000000000000000000000000000001"),
        "day": date(1969, 12, 31),
        "at": datetime(2026, 1, 1, 12, 30, 1, 123456, UTC),
        "flag": False,
        "many": ["x", None],
    }
    nothing = dict.fromkeys(row)
    rows = [
        row,
        {**nothing, "m": Decimal("578960446186580977117854925043439539266.34992332820282019728792003956564819967")},
    ]
    assert query("SELECT * FROM `p.d.t` ORDER BY a DESC", {"p.d.t": (columns, rows)}) == [
        row,
        {**rows[1], "many": None},
    ]


@pytest.mark.parametrize("value", ["0", "1", "-1", "127", "128", "-128", "-129", "0.5", "-0.5", "255"])
def test_a_decimal_keeps_its_value_at_the_edges_of_its_bytes(value: str) -> None:
    (row,) = query("SELECT @x AS x, CAST(@x AS STRING) AS text", {}, parameters={"x": ("BIGNUMERIC", Decimal(value))})
    assert (row["x"], row["text"]) == (Decimal(value), value)


def test_max_by_is_evaluated_as_its_like() -> None:
    rows = [{"a": 1, "b": "low"}, {"a": 2, "b": "high"}]
    (row,) = query("SELECT MAX_BY(UPPER(b), a) AS x, MIN_BY(b, a) AS y FROM `p.d.t`", {"p.d.t": (COLUMNS, rows)})
    assert row == {"x": "HIGH", "y": "low"}


class Compiled:
    """Stands for a compiled module."""

    def serialize(self) -> bytes:
        return b"not machine code"


def test_a_module_is_compiled_once_by_processes_that_start_together(tmp_path: Path) -> None:
    compiled: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def compile_slowly() -> Compiled:
        compiled.append(1)
        begun.set()
        assert go.wait(20)
        return Compiled()

    def load(engine: Any, path: Path) -> Any:
        return path.read_bytes() if path.exists() else None

    patch = pytest.MonkeyPatch()
    patch.setattr(module_cache, "_loaded", load)
    results: list[Any] = []

    def start() -> None:
        results.append(module_cache.load(None, Path("x"), tmp_path, compiled=compile_slowly))

    try:
        threads = [threading.Thread(target=start) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert begun.wait(20)
        go.set()
        for thread in threads:
            thread.join(20)
    finally:
        patch.undo()
    assert len(compiled) == 1 and len(results) == 2 and b"not machine code" in results
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".cwasm", ".lock"]


def test_a_kept_module_that_does_not_fit_is_compiled_again(tmp_path: Path) -> None:
    from wasmtime import Engine

    (tmp_path / module_cache._name()).write_bytes(b"of another version")
    made = module_cache.load(Engine(), Path("x"), tmp_path, compiled=Compiled)
    assert isinstance(made, Compiled)
    assert (tmp_path / module_cache._name()).read_bytes() == b"not machine code"
    assert (tmp_path / module_cache._name()).stat().st_mode & 0o077 == 0
