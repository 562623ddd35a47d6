"""Checks a whole configuration tree, or a part of it, for ``main.py validate [PATH]`` and for CI."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path

from common.config.bigquery_prices import PRICES_FILE, load_prices
from common.config.contracts import META_FOLDER, check_contract
from common.config.hosts import HOSTS_FILE, load_hosts
from common.config.loader import ConfigTree
from common.config.plans import PLANS_FILE, load_plans
from common.config.problems import InvalidFileError, Problem
from common.config.providers import PROVIDERS_FILE, load_providers
from common.config.registry import Registry
from common.config.service_categories import CATEGORIES_FILE, load_categories
from common.config.writes import TableMode, table_modes
from common.config.yaml_source import YamlFile, read
from common.platform.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Result:
    """What was found in one file. ``route`` is empty for what is no pipeline; ``path`` is as messages show it."""

    route: str
    path: str
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with the file."""
        return not self.problems


SqlCheck = Callable[[ConfigTree], Mapping[Path, Sequence[Problem]]]
"""Returns what is wrong with each file of ``sql/``."""


def validate_tree(
    root: Path, registry: Registry, only: Path | None = None, sql: SqlCheck | None = None
) -> list[Result]:
    """Check all pipelines, table contracts, the provider registry and the plans below ``root``, in this order.

    With ``sql`` the files of SQL come last. ``only`` (a file or a folder) limits what is reported, not what it is
    compared with. Nothing wrong in a file raises; ConfigError is raised if ``only`` is no part of the tree.
    """
    tree = ConfigTree(root, registry)
    checks = chain(_checks(tree), _sql_checks(tree, sql) if sql else ())
    chosen = [(route, path, check) for route, path, check in checks if only is None or _is_in(path, only)]
    if not chosen:
        what = (
            "pipeline, contract, provider registry, plans or SQL file"
            if sql
            else ("pipeline, contract, provider registry or plans file")
        )
        raise ConfigError(f"{only}: is no {what}, nor a folder of such. Check the path.")
    return [Result(route, tree.shown(path), _problems_of(check)) for route, path, check in chosen]


def _is_in(path: Path, only: Path) -> bool:
    return path.resolve().is_relative_to(only.resolve())


def _problems_of(check: Callable[[], object]) -> tuple[Problem, ...]:
    try:
        check()
    except InvalidFileError as error:
        return error.problems
    return ()


def _checks(tree: ConfigTree) -> Iterator[tuple[str, Path, Callable[[], object]]]:
    scan = tree.scan()
    sources = _readable(tree, scan.routes.values())
    for route, path in sorted(scan.routes.items()):
        yield route, path, partial(_check_pipeline, tree, route, sources)
    for path, problem in scan.problems.items():
        yield "", path, partial(_refuse, problem)
    schemas = tree.root / "schemas"
    for path in [*sorted(schemas.glob("*.y*ml")), *sorted((schemas / META_FOLDER).glob("*.y*ml"))]:
        yield "", path, partial(_check_contract, tree, path)
    yield "", tree.root / PROVIDERS_FILE, partial(load_providers, tree.root)
    yield "", tree.root / PLANS_FILE, partial(load_plans, tree.root)
    if (tree.root / HOSTS_FILE).exists():
        yield "", tree.root / HOSTS_FILE, partial(load_hosts, tree.root)
    if (tree.root / PRICES_FILE).exists():
        yield "", tree.root / PRICES_FILE, partial(load_prices, tree.root)
    if (tree.root / CATEGORIES_FILE).exists():
        yield "", tree.root / CATEGORIES_FILE, partial(load_categories, tree.root)
    for path, check in tree.registry.file_checks(tree.root):
        yield "", path, check


def _sql_checks(tree: ConfigTree, sql: SqlCheck) -> Iterator[tuple[str, Path, Callable[[], object]]]:
    found = cache(partial(sql, tree))  # one walk through all files, and only if one of them is chosen

    def check(path: Path) -> None:
        if problems := found().get(path):
            raise InvalidFileError(problems)

    for path in sorted((tree.root / "sql").rglob("*.sql")):
        yield "", path, partial(check, path)


def _readable(tree: ConfigTree, paths: Iterable[Path]) -> Mapping[Path, YamlFile]:
    """What stands in each file, for comparing; one that can't be read is reported where it is checked itself."""
    found: dict[Path, YamlFile] = {}
    for path in paths:
        with suppress(InvalidFileError):
            found[path] = read(path, tree.shown(path))
    return found


def _check_pipeline(tree: ConfigTree, route: str, sources: Mapping[Path, YamlFile]) -> None:
    file = tree.load(route)
    others = [source for path, source in sources.items() if path != file.path]
    problems = [*_repeated_id(file.source, others), *_other_modes(file.source, others)]
    if problems:
        raise InvalidFileError(problems)


def _repeated_id(source: YamlFile, others: Iterable[YamlFile]) -> Iterator[Problem]:
    name = source.data.get("pipeline_id")
    same = [other.name for other in others if other.data.get("pipeline_id") == name]
    if same:  # the id is part of the key of every row: two pipelines of one id would delete each other's rows
        message = f"{name!r} is the id of {', '.join(same)} too. Give each its own."
        yield source.problem(("pipeline_id",), message)


def _other_modes(source: YamlFile, others: Iterable[YamlFile]) -> Iterator[Problem]:
    # A table has one mode: what one pipeline keeps, such as rows that were appended once, another would replace.
    elsewhere: dict[str, list[tuple[TableMode, YamlFile]]] = defaultdict(list)
    for other in others:
        for write in table_modes(other.data):
            elsewhere[write.table].append((write, other))
    for mine in table_modes(source.data):
        differ = [(write, other) for write, other in elsewhere[mine.table] if write.mode != mine.mode]
        if differ:
            places = ", ".join(
                f"{other.name}:{other.problem(write.place, '').line} ({write.mode[:40]})" for write, other in differ[:5]
            )
            message = f"{mine.table} is written with mode {mine.mode} here, otherwise in {places}. Use one everywhere."
            yield source.problem(mine.place, message)


def _check_contract(tree: ConfigTree, path: Path) -> None:
    if path.suffix != ".yml":
        _refuse(Problem(tree.shown(path), 1, "(path)", "a contract is found only as <table>.yml. Rename it."))
    check_contract(path, tree.shown(path))


def _refuse(problem: Problem) -> None:
    raise InvalidFileError([problem])
