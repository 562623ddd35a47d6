"""The SQL of a configuration tree, analysed: procedures as pipelines call them, views, and checks."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.adapters.googlesql import module_cache
from common.adapters.googlesql.catalog import Catalog, Columns
from common.adapters.googlesql.exempt import EXEMPT
from common.adapters.googlesql.scripts import Problem, Report, analyze
from common.config.loader import ConfigTree
from common.config.problems import Problem as FileProblem
from common.focus.conformance import Checks, sources
from common.focus.views import load_views
from common.platform.errors import ConfigError
from common.tables.contract import DATA_DATE, Table, load_table

PROJECT, DATASET = "your-project", "your_dataset"
PROCEDURE = "generic.procedure_executor"
STAGED: Columns = ((DATA_DATE, "DATE"), ("x_org_slug", "STRING"))
"""What a staging table has beside the columns of its contract."""

ARGUMENTS: Columns = (
    *((f"p_{name}", "STRING") for name in ("source", "staging", "org_slug", "pipeline_id", "credential_id")),
    ("p_start_date", "DATE"),
    ("p_end_date", "DATE"),
)
CHECK_PARAMETERS = {
    "org": "STRING",
    "pipeline": "STRING",
    "first": "DATE",
    "last": "DATE",
    "last_place": "BIGNUMERIC",
    "decimals": "INT64",
}


@dataclass(frozen=True, slots=True)
class Analysed:
    """One text and what the analyzer says: of a file as a whole, or as one step calls it."""

    path: Path
    report: Report
    step: str = ""


def table_columns(table: Table) -> Columns:
    """Return the columns of a contract's table in BigQuery."""
    return tuple((column.name, column.type) for column in table.all_columns)


def staged_columns(table: Table) -> Columns:
    """Return the columns of a staging table that a procedure fills."""
    return (*((column.name, column.type) for column in table.columns), *STAGED)


def dataset_catalog(root: Path, *, only: Sequence[str] | None = None) -> Catalog:
    """Return an organisation's dataset with the tables of all contracts, or with those named alone.

    A file that is no contract is left out: its own check reports it. Each table has a staging table,
    ``<name>__staging``.
    """
    contracts = dict[str, Table]()
    for path in sorted((root / "schemas").glob("*.yml")):
        with suppress(ConfigError):
            contracts[path.stem] = load_table(root, path.stem)
    names = tuple(name for name in contracts if only is None or name in only)
    tables = {f"{PROJECT}.{DATASET}.{name}": table_columns(contracts[name]) for name in names}
    tables |= {f"{PROJECT}.{DATASET}.{name}__staging": staged_columns(contract) for name, contract in contracts.items()}
    return Catalog(tables.get, project=PROJECT, listed=names)


class Passed:
    """What has been found right before, by a hash of text and tables: a commit of one file need not analyse all."""

    def __init__(self, path: Path) -> None:
        self._path, self._tables = path, ""
        self._keys = set(path.read_text().split()) if path.exists() else set()

    def on(self, catalog: Catalog) -> None:
        """Say which tables there are."""
        tables = sorted((name, catalog.find(f"{PROJECT}.{DATASET}.{name}")) for name in catalog.listed or ())
        self._tables = repr((version("zetasql"), tables))

    def knows(self, sql: str) -> bool:
        """Return whether the analyzer has taken this text before."""
        return self._key(sql) in self._keys

    def add(self, sql: str) -> None:
        """Note that the analyzer takes this text."""
        key = self._key(sql)
        self._keys.add(key)
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._path.open("a") as out:
            out.write(f"{key}\n")

    def _key(self, sql: str) -> str:
        return sha256(f"{self._tables}\n{sql}".encode()).hexdigest()


def analysed(tree: ConfigTree, passed: Passed | None = None) -> Iterator[Analysed]:
    """Analyse every file of ``sql/``: a procedure with the arguments of each step that names it, or alone if none does.

    A pipeline or contract that can't be read is left out. With ``passed``, a text that has been right before has an
    empty report.
    """
    catalog = dataset_catalog(tree.root)
    if passed is not None:
        passed.on(catalog)
    calls: dict[tuple[Path, str], list[str]] = {}
    for route, step_id, config in _steps(tree):
        path = tree.root / "sql" / f"{config['procedure']}.sql"
        if path.is_file():
            calls.setdefault((path, procedure_call(path, config)), []).append(f"{route}: {step_id}")
    for (path, sql), steps in calls.items():
        yield Analysed(path, _verdict(sql, catalog, passed), ", ".join(steps))
    called = {path for path, _ in calls}
    for path in sorted((tree.root / "sql").glob("*.sql")):
        if path not in called:
            yield Analysed(path, _verdict(_filled(path), catalog, passed))
    yield from _views(tree, catalog)
    yield from _checks(tree, catalog, passed)


def sql_problems(tree: ConfigTree) -> dict[Path, list[FileProblem]]:
    """Return what is wrong with each file of ``sql/``, by lines; and which call it concerns, where calls differ."""
    found: dict[Path, dict[Problem, list[str]]] = {}
    count: dict[Path, int] = {}
    for one in analysed(tree, Passed(module_cache.cache_folder() / "passed")):
        count[one.path] = count.get(one.path, 0) + 1
        of_file = found.setdefault(one.path, {})
        for problem in one.report.problems:
            of_file.setdefault(replace(problem, dynamic=""), []).append(one.step)
    told: dict[Path, list[FileProblem]] = {}
    for path, problems in found.items():
        told[path] = []
        for problem, steps in sorted(problems.items(), key=lambda item: (item[0].line, item[0].column)):
            calls = f" (as called by {'; '.join(steps)})" if len(steps) < count[path] else ""
            told[path].append(
                FileProblem(tree.shown(path), problem.line, f"column {problem.column}", f"{problem.message}{calls}")
            )
    return told


def procedure_call(
    path: Path,
    config: Mapping[str, Any],
    key: Sequence[str] = ("acme", "pipeline", "credential"),
    days: Sequence[str] = ("2026-11-01", "2026-11-30"),
) -> str:
    """Return the text of a procedure's file, and behind it the call that a step with this ``config:`` makes."""
    source, destination = config.get("source_table"), config.get("destination_table")
    fixed = [
        _literal(f"{PROJECT}.{DATASET}.{source}") if source else "NULL",
        _literal(f"{PROJECT}.{DATASET}.{destination}__staging") if destination else "NULL",
        *(_literal(text) for text in key),
        *(f"DATE '{day}'" for day in days),
    ]
    further = [_literal(f"{PROJECT}.{DATASET}.{name}") for name in config.get("further_tables", ())]
    arguments = ", ".join([*fixed, *further, *(_literal(value) for value in config.get("arguments", ()))])
    return f"{_filled(path).rstrip().removesuffix(';')};\nCALL `{PROJECT}.{DATASET}.{path.stem}`({arguments});"


def _steps(tree: ConfigTree) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for route in tree.routes():
        with suppress(ConfigError):
            for step in tree.load(route).config.steps:
                if step.ps_type == PROCEDURE and isinstance(step.config.get("procedure"), str):
                    yield route, step.step_id, step.config


def _views(tree: ConfigTree, catalog: Catalog) -> Iterator[Analysed]:
    with suppress(ConfigError):
        for view in load_views(tree.root):  # each after those that it reads
            name = f"{PROJECT}.{DATASET}.{view.name}"
            sql = view.sql(f"{PROJECT}.{DATASET}")
            report = _verdict(sql, catalog)
            if not report.problems:
                catalog.make([name], report.columns)
            yield Analysed(tree.root / "sql" / "views" / f"{view.name}.sql", report)


def _checks(tree: ConfigTree, catalog: Catalog, passed: Passed | None) -> Iterator[Analysed]:
    folder = tree.root / "sql" / "checks"
    for table, part in (("cost_data_standard_1_3", ""), ("contract_commitment_1_3", "commitments")):
        with suppress(ConfigError):
            checks = Checks(tree.root, table, part)
            origins = sources(tree, table)
            for family in checks.catalog:
                path = folder / part / f"{family}.sql"
                for sql, origin in checks.statements(family, f"{PROJECT}.{DATASET}.{table}", origins):
                    report = _verdict(sql, catalog, passed, CHECK_PARAMETERS)
                    yield Analysed(
                        path if path.exists() else folder / path.name, report, origin.table if origin else ""
                    )


def _verdict(
    sql: str, catalog: Catalog, passed: Passed | None = None, parameters: Mapping[str, str] | None = None
) -> Report:
    if passed is not None and passed.knows(sql):
        return Report()
    report = analyze(sql, catalog, parameters=parameters)
    report.problems = [p for p in report.problems if not _is_exempt(p, sql)]
    if passed is not None and not report.problems:
        passed.add(sql)
    return report


def _is_exempt(problem: Problem, sql: str) -> bool:
    return any(exemption.covers(problem.dynamic or sql, problem.message) for exemption in EXEMPT)


def _filled(path: Path) -> str:
    return path.read_text("utf-8").replace("{dataset}", f"{PROJECT}.{DATASET}")


def _literal(value: str | int | bool) -> str:
    """Return a value as SQL."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
