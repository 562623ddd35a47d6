"""The language of conditions: what it means, what it refuses, and that nothing in it can break out."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.domain.condition import MAX_CHARS, Compare, ConditionError, Items, Junction, Literal, Name, Node, Not, parse
from common.domain.model import StepStatus

VALUES = {
    "run.start_date": "2026-01-15",
    "run.end_date": date(2026, 1, 31),
    "run.org_slug": "acme",
    "run.credential_id": "none",
    "run.trigger": "api",
    "run.pipeline_id": "p",
    "steps.extract.rows": 7,
    "steps.extract.status": StepStatus.SUCCEEDED,
    "steps.extract.outputs.days": ["2026-01-15", "2026-01-16"],
    "steps.extract.outputs.cost": 0.1,
    "steps.extract.outputs.big": Decimal("1e3"),
    "steps.extract.outputs.changed": True,
    "steps.extract.outputs.nothing": None,
    "steps.extract.outputs.mixed": [1, True, None, "1", [1]],
    "steps.extract.outputs.object": {"a": 1},
    "steps.extract.outputs.status": "anything",
    "steps.outputs.rows": 0,
    "steps.outputs.outputs.rows": "many",
    "steps.extract.outputs.nan": float("nan"),
    "steps.extract.outputs.at": datetime(2026, 1, 15, 6, tzinfo=UTC),
}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("true", True),
        ("not true", False),
        ("not not true", True),
        ("steps.extract.rows == 7", True),
        ("steps.extract.rows == 7.0", True),
        ("steps.extract.rows != 7", False),
        ("steps.extract.rows < 8 and steps.extract.rows >= 7", True),
        ("steps.extract.rows > -1", True),
        ("-1<0", True),
        ("10 > 9", True),
        ("'10' > '9'", False),
        ("steps.extract.outputs.cost == 0.1", True),
        ("steps.extract.outputs.big == 1000", True),
        ("9007199254740993 == 9007199254740992", False),
        ("steps.extract.status == 'succeeded'", True),
        ('steps.extract.status in ["failed", "omitted"]', False),
        ("steps.extract.status > 'run'", True),  # no status is named so, but texts have an order
        ("steps.extract.status not in ['failed', 'omitted',]", True),
        ("run.trigger in []", False),
        ("run.start_date >= '2026-01-01' and run.end_date < '2026-02-01'", True),
        ("steps.extract.outputs.at > run.start_date", True),
        ("run.start_date in steps.extract.outputs.days", True),
        ("steps.extract.outputs.days == ['2026-01-15', '2026-01-16']", True),
        ("steps.extract.outputs.days == ['2026-01-15']", False),
        ("steps.extract.outputs.changed", True),
        ("not steps.extract.outputs.changed", False),
        ("steps.extract.outputs.changed == 1", False),
        ("steps.extract.outputs.nothing == null", True),
        ("run.credential_id != null", True),
        ("true in steps.extract.outputs.mixed", True),
        ("steps.extract.outputs.status == 'anything'", True),
        ("steps.outputs.rows == 0 and steps.outputs.outputs.rows == 'many'", True),
        ("[1] in steps.extract.outputs.mixed and '1' in steps.extract.outputs.mixed", True),
        ("[true] in steps.extract.outputs.mixed", False),
        ("true or false and false", True),
        ("(true or false) and false", False),
        ("not false and false", False),
        ("not (false and false)", True),
        ("not 1 == 2", True),
        ("(1 == 1) == true", True),
        ("\n  run.trigger\t== 'api'  \n", True),
        ('"it\'s" == "it\'s"', True),
        ("' and ' == \" and \"", True),
    ],
)
def test_a_condition_holds_or_not(text: str, answer: bool) -> None:
    assert parse(text).holds(VALUES) is answer


@pytest.mark.parametrize(
    "text",
    [
        "true or steps.extract.outputs.none_such == 1",
        "not (false and steps.extract.outputs.none_such)",
        "steps.extract.status == 'succeeded' or steps.extract.outputs.none_such > 'x'",
    ],
)
def test_what_is_settled_is_not_looked_at_further(text: str) -> None:
    assert parse(text).holds(VALUES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: expected a value, found the end."),
        ("  ", "column 3: expected a value, found the end."),
        ("steps.extract.rows >", "column 21: expected a value, found the end."),
        ("steps.extract.rows = 1", "column 20: '= 1' can't be read. Did you mean '=='?"),
        ("true && false", "column 6: '&& false' can't be read. Did you mean 'and'?"),
        ("!true", "column 1: '!true' can't be read. Did you mean 'not'?"),
        ("true AND false", "column 6: expected 'and', 'or' or the end, found 'AND'. Did you mean 'and'?"),
        ("run.trigger is 'api'", "column 13: expected 'and', 'or' or the end, found 'is'. Did you mean 'in'?"),
        ("1 < 2 < 3", "column 7: expected 'and', 'or' or the end, found '<'."),
        ("1 not 2", "column 7: expected 'in' after 'not', found '2'."),
        ("(true", "column 6: expected 'and', 'or' or ')', found the end."),
        ("run.trigger in ['api' 'cron']", "column 23: expected ',' or ']', found \"'cron'\"."),
        ("run.trigger == 'api", "column 16: the text that begins here has no end. Close it with '"),
        ("run.trigger == api", "column 16: no value is named 'api'."),
        ("1.5.2 == 1", "column 1: '1.5.2 == 1' can't be read."),
        ("1e3 == 1", "column 1: '1e3 == 1' can't be read."),
        ("1 + 1 == 2", "column 3: '+ 1 == 2' can't be read."),
        ("and", "column 1: expected a value, found 'and'."),
        ("True", "column 1: no value is named 'True'. Did you mean 'true'?"),
        ("step.extract.rows == 1", "Did you mean 'steps.extract.rows'?"),
        ("steps.extract == 1", "Did you mean 'steps.extract.rows'?"),
        ("steps.extract.row == 1", "Did you mean 'steps.extract.rows'?"),
        ("steps.extract.output.days == 1", "Did you mean 'steps.extract.outputs.days'?"),
        ("extract.outputs.days == 1", "Did you mean 'steps.extract.outputs.days'?"),
        ("run.startdate == 'a'", "Did you mean 'run.start_date'?"),
        ("start_date == 'a'", "Did you mean 'run.start_date'?"),
        ("steps.Extract.rows == 1", "no value is named 'steps.Extract.rows'."),
        ("steps.extract.status == 'success'", "no step ends with the status 'success'. Did you mean 'succeeded'?"),
        ("'done' != steps.extract.status", "no step ends with the status 'done'."),
        ("steps.extract.status in ['failed', 'running']", "no step ends with the status 'running'."),
        ("steps.extract.rows", "column 1: steps.extract.rows is a number, where true or false is needed."),
        ("true and run.trigger", "column 10: run.trigger is a text, where true or false is needed."),
        ("not 1", "column 5: 1 is a number, where true or false is needed."),
        ("null", "column 1: null is null, where true or false is needed."),
        (
            "steps.extract.rows == '7'",
            "steps.extract.rows is a number, '7' is a text: these can't be compared with ==.",
        ),
        ("run.start_date < 1", "run.start_date is a text, 1 is a number: these can't be compared with <."),
        ("true < false", "true is true or false, false is true or false: these can't be compared with <."),
        ("null < 1", "null is null, 1 is a number: these can't be compared with <."),
        ("[1] < [2]", "these can't be compared with <."),
        ("'a' in 'abc'", "'abc' is a text: 'in' needs a list on its right"),
        ("steps.extract.outputs.days in 'abc'", "'abc' is a text: 'in' needs a list on its right"),
        ("__import__('os')", "column 1: no value is named '__import__'."),
        ("run.org_slug.__class__ == 'a'", "no value is named 'run.org_slug.__class__'. Did you mean 'run.org_slug'?"),
        ("(" * 21 + "true" + ")" * 21, "is nested deeper than 20 levels."),
        ("[" * 21, "is nested deeper than 20 levels."),
        ("not " * 21 + "true", "is nested deeper than 20 levels."),
        (" " * (MAX_CHARS + 1), "has 501 characters, at most 500 are read."),
    ],
)
def test_what_can_never_hold_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConditionError) as caught:
        parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["(" * 20 + "true" + ")" * 20, "not " * 20 + "true", "true" + " or true" * 62])
def test_what_is_within_the_bounds_is_read(text: str) -> None:
    assert parse(text).holds({})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps.extract.outputs.day == 1", "steps.extract.outputs.day has no value: the step did not put it out."),
        ("steps.extract.outputs.day == 1", "Did you mean 'steps.extract.outputs.days'?"),
        ("steps.load.rows == 1", "steps.load.rows has no value"),
        ("steps.extract.outputs.cost", "steps.extract.outputs.cost is a number, where true or false is needed."),
        ("not steps.extract.outputs.nothing", "steps.extract.outputs.nothing is null, where true or false is needed."),
        ("steps.extract.outputs.cost < 'a'", "steps.extract.outputs.cost is a number, 'a' is a text"),
        ("steps.extract.outputs.nothing > 1", "steps.extract.outputs.nothing is null, 1 is a number"),
        ("1 in steps.extract.outputs.cost", "steps.extract.outputs.cost is a number: 'in' needs a list on its right"),
        ("steps.extract.outputs.object == 1", "steps.extract.outputs.object holds something that can't be compared."),
        ("steps.extract.outputs.nan == 1", "steps.extract.outputs.nan holds something that can't be compared."),
    ],
)
def test_what_only_a_run_can_tell_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(ConditionError) as caught:
        parse(text).holds(VALUES)
    assert message in str(caught.value) and caught.value.position is None


def test_a_number_is_written_out_without_an_exponent() -> None:
    assert str(parse("steps.extract.rows > 0.0000001")) == "steps.extract.rows > 0.0000001"


def test_the_position_counts_from_zero() -> None:
    with pytest.raises(ConditionError) as caught:
        parse("true or")
    assert caught.value.position == 7


def test_its_names_and_steps_are_known() -> None:
    condition = parse("steps.b.rows > 0 and not steps.a.outputs.n in [run.trigger, steps.b.rows]")
    assert condition.names == ("steps.b.rows", "steps.a.outputs.n", "run.trigger")
    assert condition.step_ids == ("b", "a")


ids = st.from_regex(r"[a-z][a-z0-9_]{0,3}", fullmatch=True)
outputs = st.builds(lambda step, name: Name(f"steps.{step}.outputs.{name}"), ids, ids)
numbers = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9)
texts = st.text(max_size=5).filter(lambda text: not ("'" in text and '"' in text))
constants = st.builds(Literal, st.one_of(numbers, texts, st.booleans(), st.none()))
atoms = outputs | constants
signs = st.sampled_from(["==", "!="])
comparisons = st.one_of(
    st.builds(Compare, outputs, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), st.builds(Literal, numbers)),
    st.builds(Compare, outputs, signs, atoms),
    st.builds(
        Compare, atoms, st.sampled_from(["in", "not in"]), st.builds(Items, st.lists(atoms, max_size=3).map(tuple))
    ),
)


def _larger(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    two = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Not, inner),
        st.builds(Junction, st.sampled_from(["and", "or"]), two),
        st.builds(Compare, inner, signs, outputs),
    )


questions = st.recursive(comparisons | outputs, _larger, max_leaves=8)


@given(questions)
def test_what_is_written_out_is_read_back_as_the_same(root: Node) -> None:
    text = str(root)
    assume(len(text) <= MAX_CHARS)
    condition = parse(text)
    assert condition.root == root and str(condition) == text and parse(str(condition)) == condition


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=5,
)


@given(questions, st.data())
def test_whatever_the_values_are_the_answer_is_true_false_or_an_error_in_words(root: Node, data: st.DataObject) -> None:
    text = str(root)
    assume(len(text) <= MAX_CHARS)
    condition = parse(text)
    values: dict[str, Any] = {name: data.draw(json_values) for name in condition.names if data.draw(st.booleans())}
    try:
        assert condition.holds(values) in (True, False)
    except ConditionError as error:
        assert error.position is None and str(error)


PIECES = """and or not in true null == != < ( ) [ ] , ' \" 1 -2.5 . .. 1e9 {item} \\ \0 \ud800 é steps run
steps.a.rows steps.a.status steps.a.outputs.b run.trigger 'failed' 'x' __class__"""
pieces = st.sampled_from(PIECES.split())


@given(st.text(max_size=60) | st.lists(pieces, max_size=30).map(" ".join) | st.lists(pieces, max_size=30).map("".join))
def test_hostile_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    try:
        condition = parse(text)
    except ConditionError as error:
        assert error.position is None or 0 <= error.position <= len(text)
        return
    if len(str(condition)) <= MAX_CHARS:
        assert parse(str(condition)) == condition
    try:
        assert condition.holds(VALUES) in (True, False)
    except ConditionError as error:
        assert error.position is None


@pytest.mark.parametrize("deep", [10, 100_000])
def test_values_of_any_depth_do_no_harm(deep: int) -> None:
    value: Any = 1
    for _ in range(deep):
        value = [value]
    try:
        assert parse("steps.a.outputs.b == 1").holds({"steps.a.outputs.b": value}) is False
    except ConditionError as error:
        assert "can't be compared" in str(error)
