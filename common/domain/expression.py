"""The syntax tree of a condition, and its evaluation. ``condition.py`` parses it from text.

Numbers are Decimals; dates are ISO texts, which sort in calendar order. Nothing is converted: a number never equals a
text, nor ``true`` 1.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from common.domain.model import StepStatus
from common.domain.spelling import nearest

MAX_NESTING = 20
ENDED = tuple(str(status) for status in StepStatus if status.is_terminal)
"""What ``steps.<step_id>.status`` can be: a condition is evaluated once the steps it refers to have ended."""

_ID = r"[a-z][a-z0-9_]{0,62}"
STEP_NAME = re.compile(rf"steps\.({_ID})\.(rows|status|outputs\.{_ID})", re.ASCII)
ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONTAINS = ("in", "not in")
_NUMBER, _TEXT, _TRUTH, _NULL, _LIST = "a number", "a text", "true or false", "null", "a list"

type Value = Decimal | str | bool | tuple[Value, ...] | None
type Node = Literal | Name | Items | Compare | Not | Junction


class ConditionError(ValueError):
    """A condition can't be parsed or evaluated. ``position`` counts from 0; None if the error has no position."""

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message if position is None else f"column {position + 1}: {message}")
        self.position = position


@dataclass(frozen=True, slots=True)
class Literal:
    value: Decimal | str | bool | None

    def __str__(self) -> str:
        if isinstance(self.value, str):
            return f'"{self.value}"' if "'" in self.value else f"'{self.value}'"
        if isinstance(self.value, Decimal):
            return f"{self.value:f}"
        return "null" if self.value is None else str(self.value).lower()


@dataclass(frozen=True, slots=True)
class Name:
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Items:
    items: "tuple[Node, ...]"

    def __str__(self) -> str:
        return f"[{', '.join(_operand(item) for item in self.items)}]"


@dataclass(frozen=True, slots=True)
class Compare:
    left: "Node"
    sign: str
    right: "Node"

    def __str__(self) -> str:
        return f"{_operand(self.left)} {self.sign} {_operand(self.right)}"


@dataclass(frozen=True, slots=True)
class Not:
    term: "Node"

    def __str__(self) -> str:
        return f"not ({self.term})" if isinstance(self.term, Junction) else f"not {self.term}"


@dataclass(frozen=True, slots=True)
class Junction:
    """Two or more terms joined by one word, ``and`` or ``or``."""

    word: str
    terms: "tuple[Node, ...]"

    def __str__(self) -> str:
        return f" {self.word} ".join(
            f"({term})" if isinstance(term, Junction) and (term.word == "or" or self.word == "and") else str(term)
            for term in self.terms
        )


def _operand(node: Node) -> str:
    return f"({node})" if isinstance(node, Compare | Not | Junction) else str(node)


def names(node: Node) -> Iterator[str]:
    """Yield the dotted names in a node."""
    match node:
        case Name(name):
            yield name
        case Items(parts) | Junction(_, parts):
            for part in parts:
                yield from names(part)
        case Compare(left, _, right):
            yield from names(left)
            yield from names(right)
        case Not(term):
            yield from names(term)


def problem_of(node: Compare) -> str:
    """Return why a comparison can hold in no run, or an empty string."""
    left, right = _static_kind(node.left), _static_kind(node.right)
    if right and (left or node.sign in _CONTAINS) and (problem := _mismatch(node, left, right)):
        return problem
    name, options = (node.left, node.right) if isinstance(node.left, Name) else (node.right, node.left)
    if not isinstance(name, Name) or _of_step(name.name) != "status" or node.sign in ORDER:
        return ""
    for option in options.items if isinstance(options, Items) else (options,):
        if isinstance(option, Literal) and isinstance(option.value, str) and option.value not in ENDED:
            hint = nearest(option.value, ENDED)
            return f"no step ends with the status {option.value[:80]!r}.{hint} Known: {', '.join(ENDED)}."
    return ""


def truth_problem(node: Node) -> str:
    """Return why a node can't be used where true or false is needed, or an empty string."""
    kind = _static_kind(node)
    return "" if kind in (None, _TRUTH) else _no_truth(node, kind)


def truth(node: Node, values: Mapping[str, Any]) -> bool:
    """Evaluate a node that must be true or false. Raises ConditionError if it is neither, or can't be evaluated."""
    value = _value(node, values)
    if not isinstance(value, bool):
        raise ConditionError(_no_truth(node, _kind(value)))
    return value


def _value(node: Node, values: Mapping[str, Any]) -> Value:
    match node:
        case Literal(value):
            return value
        case Name(name):
            return _looked_up(name, values)
        case Items(items):
            return tuple(_value(item, values) for item in items)
        case Compare():
            return _compared(node, _value(node.left, values), _value(node.right, values))
        case Not(term):
            return not truth(term, values)
        case Junction(word, terms):
            settled = word == "or"
            return settled if any(truth(term, values) is settled for term in terms) else not settled


def _looked_up(name: str, values: Mapping[str, Any]) -> Value:
    if name not in values:
        raise ConditionError(f"{name} has no value: the step did not put it out.{nearest(name, tuple(values))}")
    return _plain(name, values[name], 0)


def _plain(name: str, value: Any, depth: int) -> Value:
    match value:
        case None | bool():
            return value
        case str():
            return str(value)
        case int():
            return Decimal(value)
        case float() | Decimal():
            number = Decimal(str(value))  # by way of its text: 0.1 means 0.1, not the nearest double
            if number.is_finite():
                return number
        case date():
            return value.isoformat()
        case list() | tuple() if depth < MAX_NESTING:
            return tuple(_plain(name, item, depth + 1) for item in value)
    raise ConditionError(f"{name} holds something that can't be compared. Put out a number, a text, a list of such.")


def _compared(node: Compare, left: Value, right: Value) -> bool:
    if problem := _mismatch(node, _kind(left), _kind(right), strict=False):
        raise ConditionError(problem)
    if node.sign in ORDER:
        return ORDER[node.sign](left, right)
    if isinstance(right, tuple) and node.sign in _CONTAINS:
        return any(_equal(left, item) for item in right) is (node.sign == "in")
    return _equal(left, right) is (node.sign == "==")


def _equal(left: Value, right: Value) -> bool:
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(_equal, left, right))
    return _kind(left) == _kind(right) and left == right  # to Python, True is 1


def _mismatch(node: Compare, left: str | None, right: str, *, strict: bool = True) -> str:
    """Return why values of these kinds can't be compared. ``strict`` also refuses those that are just never equal."""
    if node.sign in _CONTAINS:
        return "" if right == _LIST else f"{node.right} is {right}: {node.sign!r} needs a list on its right, [..]."
    if node.sign in ORDER:
        fits = left == right and left in (_NUMBER, _TEXT)
    else:
        fits = not strict or left == right or _NULL in (left, right)
    if fits:
        return ""
    return f"{node.left} is {left}, {node.right} is {right}: these can't be compared with {node.sign}."


def _no_truth(node: Node, kind: str) -> str:
    return f"{node} is {kind}, where true or false is needed. Compare it with something."


def _kind(value: Value) -> str:
    match value:
        case None:
            return _NULL
        case bool():
            return _TRUTH
        case str():
            return _TEXT
        case Decimal():
            return _NUMBER
        case tuple():
            return _LIST


def _static_kind(node: Node) -> str | None:
    """Return the kind that a node's value has in every run; None if it depends on the run."""
    match node:
        case Literal(value):
            return _kind(value)
        case Name(name):
            return {"rows": _NUMBER, "status": _TEXT, "": _TEXT}.get(_of_step(name))
        case Items():
            return _LIST
        case _:
            return _TRUTH


def _of_step(name: str) -> str:
    """Return ``rows``, ``status`` or ``outputs.<name>``; nothing for a name that is about no step."""
    match = STEP_NAME.fullmatch(name)
    return match[2] if match else ""
