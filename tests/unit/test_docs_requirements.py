"""docs/requirements.md has a row for every requirement; the files and tests that it names exist."""

import ast
import re
from functools import cache
from typing import NamedTuple

import yaml

from common.platform.paths import PROJECT_ROOT

TEXT = (PROJECT_ROOT / "docs" / "requirements.md").read_text("utf-8")
REQUIREMENTS: dict[str, str] = yaml.safe_load((PROJECT_ROOT / "docs" / "requirements.yml").read_text("utf-8"))


class Row(NamedTuple):
    """One requirement's row."""

    requirement: str
    files: tuple[str, ...]
    tests: tuple[str, ...]
    deviation: str


def _rows() -> list[Row]:
    found = re.findall(r"^\| ([A-Z][\w.-]+) \| [^|]+ \| ([^|]+) \| ([^|]+) \| ([^|]*)\|$", TEXT, re.MULTILINE)
    return [
        Row(name, *(tuple(re.findall(r"`([^`]+)`", cell)) for cell in (files, tests)), deviation.strip())
        for name, files, tests, deviation in found
    ]


ROWS = _rows()


@cache
def defined(path: str) -> set[str]:
    """Names of the test functions in a file."""
    tree = ast.parse((PROJECT_ROOT / path).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_requirement_has_one_row_and_every_row_is_a_requirement() -> None:
    assert sorted(row.requirement for row in ROWS) == sorted(REQUIREMENTS)


def test_every_file_that_a_row_names_exists() -> None:
    assert [path for row in ROWS for path in row.files if not (PROJECT_ROOT / path).exists()] == []


def test_every_test_that_a_row_names_exists() -> None:
    nodes = [node.partition("::") for row in ROWS for node in row.tests]
    assert [node for node in nodes if node[2] not in defined(node[0])] == []


def test_a_requirement_without_a_file_or_a_test_says_why() -> None:
    assert [row.requirement for row in ROWS if not (row.files and row.tests) and not row.deviation] == []


def test_every_deviation_is_explained_at_the_end_of_the_page() -> None:
    headings = re.findall(r"^### (\d+ .+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-"): heading.split()[0] for heading in headings}
    links = [re.findall(r"\[(\d+)\]\(#([\w-]+)\)", row.deviation) for row in ROWS if row.deviation]
    assert all(len(link) == 1 and anchors.get(link[0][1]) == link[0][0] for link in links)
    assert {link[0][1] for link in links} == anchors.keys()


def test_the_commands_of_the_requirements_run_in_ci() -> None:
    """``make test`` collects the two files by their names, and runs what needs ``--run-integration``."""
    makefile = (PROJECT_ROOT / "Makefile").read_text("utf-8")
    recipe = re.search(r"^test:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe and "$(PYTEST) --run-integration" in recipe[1] and "tests/" not in recipe[1]
    assert re.search(r"^PYTEST := .*-m pytest (?!.*tests/)", makefile, re.MULTILINE)
    assert "make test" in (PROJECT_ROOT / ".ci" / "run").read_text("utf-8")
    settings = (PROJECT_ROOT / "pyproject.toml").read_text("utf-8")
    assert 'testpaths = ["tests"]' in settings and '"0?_test_*.py"' in settings


def packages(name: str) -> dict[str, str]:
    """Packages and versions of a requirements file."""
    text = (PROJECT_ROOT / name).read_text("utf-8")
    return dict(re.findall(r"^([A-Za-z0-9-]+)(?:\[\w+\])?==(\S+)$", text, re.MULTILINE))


def test_the_packages_of_the_card_are_pinned() -> None:
    pinned = {name.lower() for name in packages("requirements.txt") | packages("requirements-dev.txt")}
    named = {row for row in ROWS if row.requirement.startswith("CARD-PACKAGE.") and row.tests}
    assert {row.requirement.removeprefix("CARD-PACKAGE.") for row in named} - pinned == set()


def test_the_top_level_of_the_card_is_there() -> None:
    for row in ROWS:
        if row.requirement.startswith("CARD-TOP.") and row.files:
            assert (PROJECT_ROOT / row.requirement.removeprefix("CARD-TOP.")).exists()
