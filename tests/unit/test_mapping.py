"""What an item puts into the config of its step."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain.mapping import item_config


@pytest.mark.parametrize("template", ["{item}", "${item}"])
@pytest.mark.parametrize("item", ["2026-01-15", 7, 1.5, True, None, ["a"], {"a": 1}])
def test_a_template_alone_becomes_the_item_itself(template: str, item: Any) -> None:
    assert item_config({"day": template}, item) == {"day": item}


@pytest.mark.parametrize(
    ("item", "text"),
    [("a", "a"), (7, "7"), (True, "true"), (None, "null"), (["ä", 1], '["ä", 1]'), ({"a": 1.5}, '{"a": 1.5}')],
)
def test_inside_a_longer_text_stands_the_items_text(item: Any, text: str) -> None:
    assert item_config({"path": "x/{item}/${item}.csv"}, item) == {"path": f"x/{text}/{text}.csv"}


def test_all_nested_texts_are_filled_and_all_else_is_kept() -> None:
    config = {"a": {"b": ["{item}", 1, None, ("{item}",)]}, "{item}": "{items} {start_date} item"}
    assert item_config(config, "x") == {"a": {"b": ["x", 1, None, ["x"]]}, "{item}": "{items} {start_date} item"}
    assert config["a"] == {"b": ["{item}", 1, None, ("{item}",)]}, "the config that was given stays as it is"


@given(st.text())
def test_an_item_that_looks_like_a_template_or_a_group_is_put_in_as_it_is(item: str) -> None:
    assert item_config({"a": "<${item}>"}, item + r"{item}\1") == {"a": f"<{item}{{item}}\\1>"}
