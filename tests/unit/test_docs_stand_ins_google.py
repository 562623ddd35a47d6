"""docs/stand-ins-google.md names a test for every function that calls Google, and the test exists."""

import ast
import re

from common.platform.paths import PROJECT_ROOT

TEXT = (PROJECT_ROOT / "docs" / "stand-ins-google.md").read_text("utf-8")
ROWS = re.findall(r"^\| (`[^|]+`) \| `(tests/[^|`]+)` \|$", TEXT, re.MULTILINE)


def public_functions() -> set[str]:
    """Return the names of functions, and of methods with their class, in ``common/adapters/google``."""
    found = set()
    for path in (PROJECT_ROOT / "common" / "adapters" / "google").glob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            inner = node.body if isinstance(node, ast.ClassDef) else [node]
            prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
            names = [one.name for one in inner if isinstance(one, ast.FunctionDef)]
            found |= {prefix + name for name in names if not name.startswith("_")}
    return found


def test_every_function_that_calls_google_has_a_test_over_the_wire() -> None:
    named = [name for functions, _ in ROWS for name in re.findall(r"`([^`]+)`", functions)]
    assert sorted(named) == sorted(public_functions())


def test_every_test_that_is_named_exists() -> None:
    for _, node in ROWS:
        path, _, name = node.partition("::")
        tree = ast.parse((PROJECT_ROOT / path).read_text("utf-8"))
        assert name in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}, node
