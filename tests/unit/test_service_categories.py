"""The kinds of services: which name stands for what, and that they are FOCUS's own."""

import csv
from pathlib import Path

import pytest

from common.config.problems import InvalidFileError
from common.config.service_categories import CATEGORIES, CATEGORIES_FILE, ServiceCategories, load_categories
from common.platform.paths import CONFIGS


def test_the_longest_name_that_a_service_begins_with_decides() -> None:
    known = ServiceCategories({"aws iot": ("A", "a"), "aws iot core": ("B", "b")})
    assert known.of("AWS IoT Core Registry") == ("B", "b")
    assert known.of("aws iot") == ("A", "a")
    assert known.of("AWS I") == ("Other", "Other (Other)")


def test_an_unknown_category_is_refused(tmp_path: Path) -> None:
    path = tmp_path / CATEGORIES_FILE
    path.parent.mkdir()
    path.write_text("services:\n  gcp:\n    Computing:\n      Virtual Machines: [Compute Engine]\n")
    with pytest.raises(InvalidFileError, match="must be one of 'AI and Machine Learning'"):
        load_categories(tmp_path)


@pytest.mark.shared
def test_every_subcategory_is_one_of_focus_and_of_its_category(shared_data: Path) -> None:
    with (shared_data.parent / "focus" / "columns_1_3.csv").open(encoding="utf-8", newline="") as file:
        published = {row["column"]: row["allowed_values"].split("|") for row in csv.DictReader(file)}
    assert set(published["ServiceCategory"]) == set(CATEGORIES)
    shipped = load_categories(CONFIGS).services.values()
    ours = {f"{category} > {name}" for kinds in shipped for category, names in kinds.items() for name in names}
    assert ours - set(published["ServiceSubcategory"]) == set()
