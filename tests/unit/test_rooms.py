"""The house rules that the import linter can't see. Who may import whom stands in pyproject.toml (`lint-imports`)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.platform.paths import PROJECT_ROOT

SETTINGS = PROJECT_ROOT / "common" / "platform" / "settings.py"
PRODUCT = [
    path.relative_to(PROJECT_ROOT)
    for folder in ("common", "functions", "infra")
    for path in sorted((PROJECT_ROOT / folder).rglob("*.py"))
]


def environment_reads(source: str) -> Iterator[int]:
    """Yield the lines that name ``os.environ`` or ``os.getenv``, however they were imported."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) and node.module == "os" else []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            names = [node.attr]
        if {"environ", "environb", "getenv", "getenvb"}.intersection(names):
            yield node.lineno  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", [path for path in PRODUCT if PROJECT_ROOT / path != SETTINGS], ids=str)
def test_nothing_but_settings_reads_the_environment(path: Path) -> None:
    assert list(environment_reads((PROJECT_ROOT / path).read_text("utf-8"))) == []


def test_the_search_for_reads_of_the_environment_finds_them() -> None:
    assert list(environment_reads(SETTINGS.read_text("utf-8")))
    assert list(environment_reads("from os import getenv as g\nimport os\nos.environ['X']")) == [1, 3]


def test_a_step_reads_no_configs_but_those_of_its_context() -> None:
    """A stack on another tree of configs must not validate that one and then run with the checkout's."""
    named = [
        str(path)
        for path in PRODUCT
        if "CONFIGS" in (PROJECT_ROOT / path).read_text("utf-8")
        and path not in (Path("common/platform/paths.py"), Path("common/platform/settings.py"))
    ]
    assert named == []
