"""The BigQuery emulator, which refuses what BigQuery refuses: Google's analyzer sees all SQL before DuckDB does.

The emulator takes much that BigQuery does not (a name that is ambiguous, types that BigQuery does not compare, DDL in a
transaction). Here each query job is analysed against the tables that are there, and each text of an EXECUTE IMMEDIATE
when it is run. What is refused fails as it would in BigQuery, and is appended to the file of refusals, where a test
finds it that did not look at the error.

Arguments: a file that takes the refusals as lines of JSON; then those of ``local-bigquery``.
"""

import gc
import json
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlglot import exp
from sqlglot.expressions.core import Expr

from common.adapters.googlesql import EXEMPT, PARTITION_COLUMNS, Catalog, Columns, analyze
from common.adapters.googlesql.module_cache import cache_folder, verdicts_tag
from common.adapters.googlesql.service import service
from infra.local import lean_bigquery

IDS = re.compile(r"(?<=[_`.'/])[0-9a-f]{8,}|\d+")
NAMES = re.compile(r"`([^`\s]+)`")
MISSING = re.compile(r"(Table|Procedure) not found")
"""For the emulator to answer: BigQuery says it as "Not found", which is no mistake in the SQL."""


class Gate:
    """Analyses SQL that the emulator is about to run.

    What has passed is kept by its text without numbers and ids, and by the columns of its tables: in a file beside the
    compiled module, because every start of a stack and every run of the tests sends the same SQL to a new emulator.
    """

    def __init__(self, refusals: Path) -> None:
        self._refusals, self._lock = refusals, threading.Lock()
        self._kept = cache_folder() / f"sent-{verdicts_tag()}"
        self._passed = set(self._kept.read_text().split()) if self._kept.exists() else set()

    def check(self, sql: str, project: str, dataset: str | None, parameters: Mapping[str, str] | Sequence[str]) -> None:
        """Return if BigQuery would take the SQL. Raises the emulator's error for a query that is not valid."""
        catalog = Catalog(columns_of, arguments_of, project=project, dataset=dataset or "")
        names = tuple(sorted({name for name in NAMES.findall(sql) if name.count(".") == 2}))
        known = tuple(columns_of(name) for name in names)
        types = tuple(parameters.items()) if isinstance(parameters, Mapping) else tuple(parameters)
        key = sha256(repr((IDS.sub("0", sql), known, types, dataset)).encode()).hexdigest()
        with self._lock:
            if key in self._passed:
                return
        report = analyze(sql, catalog, parameters=parameters, evaluates=False)
        problems = [p for p in report.problems if not any(e.covers(sql, p.message) for e in EXEMPT)]
        if any(MISSING.match(problem.message) for problem in problems):
            return
        if not problems:
            with self._lock, self._kept.open("a") as out:
                out.write(f"{key}\n")
                self._passed.add(key)
            return
        with self._lock, self._refusals.open("a") as out:
            out.write(json.dumps({"sql": sql, "problems": [str(problem) for problem in problems]}) + "\n")
        if self._refusals.with_suffix(".allowed").exists():  # a test wants to see what its failure does in the middle
            return
        from local_bigquery.errors import BigQueryError

        raise BigQueryError("invalidQuery", f"{problems[0].message} [at {problems[0].line}:{problems[0].column}]")


def columns_of(name: str) -> Columns | None:
    """Return the columns of a table or view that the emulator has."""
    from local_bigquery.catalog import tables
    from local_bigquery.errors import BigQueryError

    project, dataset, table = _parts(name)
    try:
        found = tables.load(project, dataset, table)
    except BigQueryError:
        return None
    columns = tuple((field.name, _sql_type(field)) for field in tables.fields(found))
    by_ingestion = found.timePartitioning is not None and found.timePartitioning.field is None
    return (*columns, *PARTITION_COLUMNS) if by_ingestion else columns


def arguments_of(name: str) -> Columns | None:
    """Return the arguments of a procedure that the emulator has."""
    from local_bigquery.catalog import routines

    found = routines.load(*_parts(name))
    if found is None or found.routineType != "PROCEDURE":
        return None
    return tuple((argument.name, routines.sql_type(argument.dataType)) for argument in found.arguments or [])


def _parts(name: str) -> tuple[str, str, str]:
    parts = name.split(".")
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else ("", "", name)


def _sql_type(field: Any) -> str:
    names = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}
    kind = names.get(field.type, field.type)
    if kind in ("RECORD", "STRUCT"):
        kind = f"STRUCT<{', '.join(f'`{part.name}` {_sql_type(part)}' for part in field.fields or [])}>"
    return f"ARRAY<{kind}>" if field.mode == "REPEATED" else kind


def install(gate: Gate) -> None:
    """Put the gate before the emulator's two places where SQL comes in: a query job, and EXECUTE IMMEDIATE."""
    from local_bigquery.engine import types
    from local_bigquery.jobs import query
    from local_bigquery.sql import script
    from local_bigquery.sql.translate import translate

    runs, executes = query.execute, script.Interpreter.execute

    def run(cur: Any, project_id: str, job_id: Any, config: Any, *rest: Any, **more: Any) -> Any:
        given = config.queryParameters or []
        kinds: Mapping[str, str] | list[str]
        if given and not given[0].name:
            kinds = [_parameter_type(parameter.parameterType) for parameter in given]
        else:
            kinds = {parameter.name: _parameter_type(parameter.parameterType) for parameter in given}
        dataset = config.defaultDataset.datasetId if config.defaultDataset else None
        gate.check(config.query or "", project_id, dataset, kinds)
        return runs(cur, project_id, job_id, config, *rest, **more)

    def execute(self: Any, statement: Any) -> None:
        kinds: dict[str, str] = {}
        for number, (expression, alias) in enumerate(statement.items):
            sql, bound = translate(script._select(self.expression(expression)), self.context)
            relation = self.cursor.sql(sql, params=bound)
            kinds[alias or f"?{number}"] = _sql_type(types.field("value", relation.types[0]))
        positional = any(name.startswith("?") for name in kinds)
        gate.check(
            str(self.evaluate(statement.text)),
            self.context.project_id,
            self.context.dataset_id,
            list(kinds.values()) if positional else kinds,
        )
        executes(self, statement)

    query.execute = run
    script.Interpreter.execute = execute


def find_all(self: Expr, *types: type[Any], bfs: bool = True) -> Iterator[Any]:
    """Do what sqlglot's method does, by one generator in place of four: the emulator walks a statement 100 times."""
    queue = deque([self])
    while queue:
        node = queue.popleft() if bfs else queue.pop()
        if isinstance(node, types):
            yield node
        parts: list[Expr] = []
        for value in node.args.values():
            if isinstance(value, list):
                parts += [part for part in value if isinstance(part, Expr)]
            elif isinstance(value, Expr):
                parts.append(value)
        queue.extend(parts if bfs else reversed(parts))


def _parameter_type(kind: Any) -> str:
    if kind.type == "ARRAY":
        return f"ARRAY<{_parameter_type(kind.arrayType)}>"
    if kind.type == "STRUCT":
        return f"STRUCT<{', '.join(f'`{part.name}` {_parameter_type(part.type)}' for part in kind.structTypes)}>"
    return str(kind.type)


def main() -> None:
    """Serve, as ``local-bigquery`` does."""
    from local_bigquery import cli

    # DuckDB looks for pandas with each query that it is given, 700 times a test of writes, and never finds it.
    sys.modules["pandas"] = None  # type: ignore[assignment]
    # Trees of SQL are garbage in circles: collected at Python's pace, they are walked over and over.
    gc.set_threshold(100_000, 50, 100)
    exp.Expr.find_all = find_all
    service()  # before the first request comes in, which would wait for it
    lean_bigquery.install()
    install(Gate(Path(sys.argv[1])))
    cli.main(sys.argv[2:])


if __name__ == "__main__":
    main()
