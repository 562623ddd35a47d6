"""The ``condition`` of a step: a boolean expression about the run and earlier steps, in a small language.

    or    := and ("or" and)*
    and   := not ("and" not)*
    not   := "not" not | value (("==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not in") value)?
    value := name | number | 'text' | "text" | true | false | null | "[" (value ("," value)*)? "]" | "(" or ")"

There are no functions, no arithmetic and no escapes in texts: nothing can run for long or reach anything. A
comparison that can never hold, such as a number with a text, is refused when it is parsed; what depends on the run,
when it is evaluated. Numbers are Decimals; dates are ISO texts, which sort in calendar order. Nothing is converted: a
number never equals a text, nor ``true`` 1.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, NoReturn

from common.domain.model import StepStatus
from common.domain.spelling import nearest

MAX_CHARS = 500
"""Longest condition; with MAX_NESTING it bounds the work that a hostile config can cause."""
RUN_NAMES = tuple(
    f"run.{name}" for name in ("start_date", "end_date", "org_slug", "credential_id", "trigger", "pipeline_id")
)
_CONSTANTS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None}
_WORDS = ("and", "or", "not", "in", *_CONSTANTS)
_MEANT = {"=": "==", "&": "and", "|": "or", "!": "not"}
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?[0-9]+(?:\.[0-9]+)?)(?![\w.])|(?P<text>'[^']*'|"[^"]*")|(?P<word>[^\W\d]\w*(?:\.\w+)*)"""
    r"|(?P<sign>[=!<>]=|[<>()\[\],])|(?P<end>\Z)|(?P<bad>.))",
    re.DOTALL,
)

MAX_NESTING = 20
"""Deepest parentheses, and deepest list of an output: parser and evaluation recurse."""
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


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition. ``str()`` formats it evenly, without redundant parentheses."""

    root: Node

    def __str__(self) -> str:
        return str(self.root)

    @property
    def names(self) -> tuple[str, ...]:
        """Every dotted name in it, once each."""
        return tuple(dict.fromkeys(names(self.root)))

    @property
    def step_ids(self) -> tuple[str, ...]:
        """The steps it refers to, once each."""
        return tuple(dict.fromkeys(match[1] for name in self.names if (match := STEP_NAME.fullmatch(name))))

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Return whether it holds, given the value of each name: JSON data, Decimals or dates.

        ``and`` and ``or`` short-circuit. Raises ConditionError if a name that is needed has no value, or values can't
        be compared.
        """
        return truth(self.root, values)


def parse(text: str) -> Condition:
    """Parse a condition. Raises ConditionError with the position and what was expected there."""
    if len(text) > MAX_CHARS:
        raise ConditionError(f"has {len(text)} characters, at most {MAX_CHARS} are read. Move part of it into a step.")
    parser = _Parser(text)
    start = parser.start
    root = parser.disjunction(0)
    if parser.kind != "end":
        parser.refuse("'and', 'or' or the end")
    _refuse(truth_problem(root), start)
    return Condition(root)


class _Parser:
    """One pass from left to right. ``kind``, ``token`` and ``start`` describe the next token."""

    def __init__(self, text: str) -> None:
        self._text, self._end = text, 0
        self.advance()

    def advance(self) -> None:
        match = _TOKEN.match(self._text, self._end)
        assert match is not None and match.lastgroup is not None  # the last group matches whatever is left
        self.kind, self.token = match.lastgroup, match[match.lastgroup]
        self.start, self._end = match.start(match.lastgroup), match.end()
        if self.kind == "bad":
            self._refuse_character()

    def _refuse_character(self) -> NoReturn:
        if self.token in "'\"":
            raise ConditionError(f"the text that begins here has no end. Close it with {self.token}", self.start)
        hint = f" Did you mean {_MEANT[self.token]!r}?" if self.token in _MEANT else ""
        raise ConditionError(f"{self._text[self.start : self.start + 20]!r} can't be read.{hint}", self.start)

    def refuse(self, expected: str) -> NoReturn:
        actual = repr(self.token[:80]) if self.token else "the end"
        known = (*_WORDS, *ORDER) if self.kind == "word" else ()
        raise ConditionError(f"expected {expected}, found {actual}.{nearest(self.token.lower(), known)}", self.start)

    def take(self, *tokens: str) -> bool:
        if self.kind not in ("word", "sign") or self.token not in tokens:
            return False
        self.advance()
        return True

    def disjunction(self, depth: int) -> Node:
        return self._joined("or", lambda: self._joined("and", lambda: self.negation(depth)))

    def _joined(self, word: str, term: Callable[[], Node]) -> Node:
        places, terms = [self.start], [term()]
        while self.take(word):
            places.append(self.start)
            terms.append(term())
        if len(terms) == 1:
            return terms[0]
        for node, place in zip(terms, places, strict=True):
            _refuse(truth_problem(node), place)
        return Junction(word, tuple(terms))

    def negation(self, depth: int) -> Node:
        if not self.take("not"):
            return self.comparison(depth)
        start = self.start
        term = self.negation(self.deeper(depth))
        _refuse(truth_problem(term), start)
        return Not(term)

    def comparison(self, depth: int) -> Node:
        left = self.value(depth)
        start, sign = self.start, self.token
        if self.take("not"):
            if not self.take("in"):
                self.refuse("'in' after 'not'")
            sign = "not in"
        elif not self.take("==", "!=", *ORDER, "in"):
            return left
        node = Compare(left, sign, self.value(depth))
        _refuse(problem_of(node), start)
        return node

    def value(self, depth: int) -> Node:
        kind, token, start = self.kind, self.token, self.start
        if kind == "number":
            self.advance()
            return Literal(Decimal(token))
        if kind == "text":
            self.advance()
            return Literal(token[1:-1])
        if self.take(*_CONSTANTS):
            return Literal(_CONSTANTS[token])
        if self.take("("):
            node = self.disjunction(self.deeper(depth))
            self._close(")", "'and', 'or' or ')'")
            return node
        if self.take("["):
            return self._items(self.deeper(depth))
        if kind != "word" or token in _WORDS:
            self.refuse("a value")
        _refuse(_name_problem(token), start)
        self.advance()
        return Name(token)

    def _items(self, depth: int) -> Items:
        items: list[Node] = []
        while not self.take("]"):
            items.append(self.value(depth))
            if not self.take(","):
                self._close("]", "',' or ']'")
                break
        return Items(tuple(items))

    def _close(self, token: str, expected: str) -> None:
        if not self.take(token):
            self.refuse(expected)

    def deeper(self, depth: int) -> int:
        if depth >= MAX_NESTING:
            raise ConditionError(f"is nested deeper than {MAX_NESTING} levels.", self.start)
        return depth + 1


def _refuse(problem: str, position: int) -> None:
    if problem:
        raise ConditionError(problem, position)


def _name_problem(name: str) -> str:
    """Return why a name is unknown, with the nearest known one; an empty string if it is known."""
    if name in RUN_NAMES or STEP_NAME.fullmatch(name):
        return ""
    parts = [*name[:200].split("."), "", "", ""][:4]
    step_id, output = parts[1] or "<step_id>", parts[3] or "<name>"
    of_step = tuple(f"steps.{step_id}.{value}" for value in ("rows", "status", f"outputs.{output}"))
    longer = (f"steps.{name}", f"run.{name}")
    prefixed = tuple(full for full in longer if full in RUN_NAMES or STEP_NAME.fullmatch(full))
    hint = nearest(name[:200] if "." in name else name[:200].lower(), (*prefixed, *RUN_NAMES, *of_step, *_WORDS))
    known = "steps.<step_id>.rows, .status or .outputs.<name>"
    return f"no value is named {name[:80]!r}.{hint} Known: {known}, {', '.join(RUN_NAMES)}. A text needs quotes."
