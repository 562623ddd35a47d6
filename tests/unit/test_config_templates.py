"""Templates: what is replaced, what stays, what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.problems import field_name
from common.config.templates import NAMES, TEMPLATE, substitute, unresolved

VALUES = {name: f"<{name}>" for name in NAMES}


def refusals(value: Any, variables: dict[str, str]) -> list[str]:
    """Return what is refused, as people are shown it."""
    return [f"{field_name(location)}: {message}" for location, message in unresolved(value, variables)]


@pytest.mark.parametrize("name", NAMES)
def test_both_spellings_of_every_name_are_replaced(name: str) -> None:
    assert substitute(f"a {{{name}}} b ${{{name}}} c", VALUES) == f"a <{name}> b <{name}> c"


def test_the_names_are_those_of_the_requirement_and_the_end_of_the_range() -> None:
    # FR-PIP-006 lists all but end_date
    assert set(NAMES) == {
        "org_slug",
        "project_id",
        "org_dataset",
        "start_date",
        "credential_id",
        "pipeline_id",
        "run_id",
        "end_date",
    }


def test_strings_inside_dicts_and_lists_are_replaced_and_all_else_is_kept() -> None:
    value = {"a": ["{org_slug}", 1, None, {"b": "{run_id}"}], "c": True}
    assert substitute(value, VALUES) == {"a": ["<org_slug>", 1, None, {"b": "<run_id>"}], "c": True}
    assert value["a"] == ["{org_slug}", 1, None, {"b": "{run_id}"}], "the argument must stay as it is"


@pytest.mark.parametrize(
    "text", ["{", "}", "{}", "${}", "{ org_slug }", "{1}", "{a-b}", "$org_slug", "{org_slug", "a}b"]
)
def test_a_brace_around_no_identifier_is_text(text: str) -> None:
    assert substitute(text, VALUES) == text


def test_nothing_is_evaluated() -> None:
    for text in ("{org_slug.__class__}", "{org_slug!r}", "{org_slug:>10}", "{0}", "%(org_slug)s", "$(id)", "{{1+1}}"):
        assert substitute(text, VALUES) == text


def test_an_unknown_name_is_refused_with_its_field_and_the_nearest_one() -> None:
    (refusal,) = refusals({"a": ["x", {"b": "{org_slag}"}]}, VALUES)
    assert refusal.startswith("a[1].b: no template variable is named 'org_slag'. Did you mean 'org_slug'?")


def test_a_known_name_without_a_value_is_refused() -> None:
    assert refusals({"a": "${run_id}"}, {"org_slug": "x"}) == ["a: template {run_id} has no value here."]


def test_a_template_in_a_key_is_refused() -> None:
    (refusal,) = refusals({"a": {"{org_slug}": 1}}, VALUES)
    assert "a key can't have a template" in refusal


def test_all_mistakes_are_listed_at_once() -> None:
    assert len(refusals(["{a}", "{b} {c}"], VALUES)) == 3


pieces = st.one_of(
    st.sampled_from(NAMES).map(lambda name: (f"{{{name}}}", name)),
    st.sampled_from(NAMES).map(lambda name: (f"${{{name}}}", name)),
    st.text(alphabet="ab_ .:/", max_size=8).map(lambda text: (text, None)),
)


@given(st.lists(pieces, max_size=8), st.dictionaries(st.sampled_from(NAMES), st.text(max_size=12)))
def test_each_template_becomes_its_value_and_the_text_between_stays(
    parts: list[tuple[str, str | None]], some: dict[str, str]
) -> None:
    variables = VALUES | some
    text = "".join(spelling for spelling, _ in parts)
    assert substitute(text, variables) == "".join(variables[name] if name else spelling for spelling, name in parts)


@given(st.sampled_from(NAMES), st.sampled_from(["{%s}", "${%s}", "${%s", "{{%s}}"]), st.sampled_from(NAMES))
def test_a_value_that_looks_like_a_template_is_not_expanded_again(name: str, spelling: str, other: str) -> None:
    value = spelling % other
    assert substitute(f"{{{name}}}", VALUES | {name: value}) == value


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet="{}$ab_ ", max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(json_like)
def test_resolving_changes_nothing_where_there_is_no_template(value: Any) -> None:
    if not TEMPLATE.search(repr(value)):
        assert substitute(value, VALUES) == value
