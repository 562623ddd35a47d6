"""docs/pains.md names tests that exist."""

import re

import pytest

from common.platform.paths import PROJECT_ROOT

NAMED = re.findall(r"`(test_\w+)`", (PROJECT_ROOT / "docs" / "pains.md").read_text("utf-8"))
DEFINED = {
    name
    for path in (PROJECT_ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_a_test_that_the_page_names_is_there(name: str) -> None:
    assert name in DEFINED
