"""The row evaluator: what an expression of a layout is for one record.

It runs where a batch holds something odd. Its errors name the file, the line, the column and the value.
"""

import json
import re
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any, assert_never

from common.processors.bills.cells import UNREADABLE, Cells
from common.processors.bills.expressions import (
    Absolute,
    After,
    AfterLast,
    All,
    AnyOf,
    Case,
    Columns,
    Condition,
    Constant,
    Expression,
    Extracted,
    First,
    IsIn,
    IsNull,
    Joined,
    Less,
    Mapped,
    Matches,
    Minus,
    Needed,
    Not,
    Plus,
    Read,
    Same,
    Tags,
    Times,
)

PLACES = 38
"""Decimal places of a BIGNUMERIC."""


class RowValues:
    """The values of one record. Raises UnreadableError."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._known: dict[Expression, Any] = {}

    def value(self, of: Expression) -> Any:
        """Return the value of an expression. An expression that several columns share is evaluated once."""
        if of not in self._known:
            self._known[of] = self._value(of)
        return self._known[of]

    def _value(self, of: Expression) -> Any:
        match of:
            case Constant():
                return of.value
            case Read():
                return self._cells.read(of.kind, of.names, of.parse)
            case Needed():
                return self._cells.needed(self.value(of.of), *of.names)
            case First() | Case() | After():
                return self._chosen(of)
            case Mapped():
                return self._mapped(of)
            case Plus() | Minus() | Times() | Absolute():
                return self._computed(of)
            case Joined() | AfterLast() | Extracted():
                return self._text(of)
            case Tags():
                return self._tags(of)
        assert_never(of)

    def _chosen(self, of: First | Case | After) -> Any:
        match of:
            case First():
                value = None
                for choice in of.choices:
                    value = self.value(choice)
                    if value is not None and not (of.filled and value == ""):
                        break
                return value
            case Case():
                return self.value(next((then for when, then in of.branches if self.true(when)), of.otherwise))
            case After():
                for read in of.reads:
                    self.value(read)
                return self.value(of.of)

    def _text(self, of: Joined | AfterLast | Extracted) -> str | None:
        if isinstance(of, Joined):
            parts = [part if isinstance(part, str) else self.value(part) for part in of.parts]
            return None if None in parts else "".join(parts)
        text: str | None = self.value(of.of)
        if text is None:
            return None
        if isinstance(of, AfterLast):
            return (text.rstrip("/") if of.trimmed else text).rpartition("/")[2]
        match = _pattern(of.pattern).search(text)
        return "/".join(match.groups()) if match else text

    def true(self, condition: Condition) -> bool:
        """Return whether a condition is true."""
        match condition:
            case IsIn():
                return self.value(condition.of) in condition.values
            case IsNull():
                return self.value(condition.of) is None
            case Less():
                left, right = self.value(condition.left), self.value(condition.right)
                return left is not None and right is not None and left < right
            case Same():
                return bool(self.value(condition.left) == self.value(condition.right))
            case Matches():
                text = self.value(condition.of)
                return text is not None and _pattern(condition.pattern).search(text) is not None
            case Not():
                return not self.true(condition.of)
            case All():
                return all([self.true(one) for one in condition.of])
            case AnyOf():
                return any([self.true(one) for one in condition.of])
        assert_never(condition)

    def _mapped(self, of: Mapped) -> Any:
        value = self.value(of.of)
        if value is None:
            return None
        try:
            return of.function(value)
        except UNREADABLE:
            raise self._cells.wrong(of.name, of.wanted) from None

    def _computed(self, of: Plus | Minus | Times | Absolute) -> Decimal | None:
        if isinstance(of, Absolute):
            number: Decimal | None = self.value(of.of)
            return None if number is None else abs(number)
        left, right = self.value(of.left), self.value(of.right)
        if left is None or right is None:
            return None
        with localcontext(prec=76):  # all digits of a BIGNUMERIC: the default of 28 would round sums of money
            match of:
                case Plus():
                    return left + right  # type: ignore[no-any-return]
                case Minus():
                    return left - right  # type: ignore[no-any-return]
                case Times():
                    return round(left * right, PLACES)  # type: ignore[no-any-return]

    def _tags(self, of: Tags) -> str | None:
        given: dict[str, Any] = {}
        if of.whole and (whole := self._cells.text(of.whole)) is not None:
            try:
                values = json.loads(whole)
            except (ValueError, RecursionError):
                raise self._cells.wrong(of.whole, "JSON") from None
            given |= values if isinstance(values, dict) else {}
        for prefix in of.prefixes:
            given |= dict(self._cells.prefixed(prefix))
        return tags_text(of, given)


def tags_text(of: Tags, given: dict[str, Any]) -> str | None:
    """Return the JSON object of these tags."""
    kept = {k: v for k, v in given.items() if v is not None and (of.blank or v != "")}
    tags = {of.rename(key): str(value) for key, value in kept.items()}
    return json.dumps(tags, ensure_ascii=False, sort_keys=True) if tags else None


def values_of(columns: Columns) -> dict[str, Any]:
    """Return the values of expressions that read no file."""
    values = RowValues(_NO_CELLS)
    return {name: values.value(of) for name, of in columns.items()}


@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


_NO_CELLS = Cells.empty()
