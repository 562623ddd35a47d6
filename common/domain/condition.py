"""The ``condition`` of a step: a boolean expression about the run and earlier steps, in a small language.

    or    := and ("or" and)*
    and   := not ("and" not)*
    not   := "not" not | value (("==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not in") value)?
    value := name | number | 'text' | "text" | true | false | null | "[" (value ("," value)*)? "]" | "(" or ")"

There are no functions, no arithmetic and no escapes in texts: nothing can run for long or reach anything. A
comparison that can never hold, such as a number with a text, is refused when it is parsed; what depends on the run,
when it is evaluated.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

from common.domain.expression import (
    MAX_NESTING,
    ORDER,
    STEP_NAME,
    Compare,
    ConditionError,
    Items,
    Junction,
    Literal,
    Name,
    Node,
    Not,
    names,
    problem_of,
    truth,
    truth_problem,
)
from common.domain.spelling import nearest

__all__ = ["MAX_CHARS", "RUN_NAMES", "Condition", "ConditionError", "parse"]

MAX_CHARS = 500
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
        if depth >= MAX_NESTING:  # or 500 parentheses would exhaust the stack
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
