"""The vocabulary of a layout: for each FOCUS column an expression over the columns of a provider's file.

An expression is a declaration and computes nothing. Two evaluators give it its meaning: ``arrow_values.py`` for a whole
Arrow batch, and ``row_values.py`` for one record, which runs only where a batch holds something odd and names the file,
line, column and value at fault. Both must agree, which tests/processors/test_two_evaluators.py checks.

A column of the file that no expression reads for a record is kept in ``extra``. So what is read matters, and follows
Python: choices are read until one has a value, and only the branch that applies.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from common.tables.contract import ColumnType


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """The first of these columns of the file that has a value; NULL if none has. Names are plain names.

    ``parse`` replaces the conversion of the type, for values that a provider writes in its own way.
    """

    kind: ColumnType
    names: tuple[str, ...]
    parse: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """The same value in every row."""

    kind: ColumnType
    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Needed:
    """A value that must be there: without one the record is bad, and the error names the first of ``names``."""

    of: "Expression"
    names: tuple[str, ...]

    @property
    def kind(self) -> ColumnType:
        return self.of.kind


@dataclass(frozen=True, slots=True, eq=False)
class First:
    """The first of these that is not NULL; with ``filled``, the first that is not empty either (Python's ``or``)."""

    choices: tuple["Expression", ...]
    filled: bool = False

    @property
    def kind(self) -> ColumnType:
        return self.choices[0].kind


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """The expression of the first condition that is true."""

    branches: tuple[tuple["Condition", "Expression"], ...]
    otherwise: "Expression"

    @property
    def kind(self) -> ColumnType:
        return self.otherwise.kind


@dataclass(frozen=True, slots=True, eq=False)
class After:
    """``of``, once ``reads`` were read, which therefore do not go to ``extra``."""

    reads: tuple["Expression", ...]
    of: "Expression"

    @property
    def kind(self) -> ColumnType:
        return self.of.kind


@dataclass(frozen=True, slots=True, eq=False)
class Mapped:
    """A pure function of a value, called once for each distinct one; NULL stays NULL.

    A ValueError means that the value of the column ``name`` is not ``wanted``.
    """

    kind: ColumnType
    of: "Expression"
    function: Callable[[Any], Any]
    name: str = ""
    wanted: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """Texts one after the other; NULL if one of them is."""

    parts: tuple["Expression | str", ...]
    kind: ColumnType = "STRING"


@dataclass(frozen=True, slots=True, eq=False)
class AfterLast:
    """What follows the last slash; with ``trimmed``, slashes at the end do not count."""

    of: "Expression"
    trimmed: bool = False
    kind: ColumnType = "STRING"


@dataclass(frozen=True, slots=True, eq=False)
class Extracted:
    """The parts of a text that a pattern captures, joined by ``/``; the text itself if it does not match.

    The pattern has to be one that Python and RE2 read alike.
    """

    of: "Expression"
    pattern: str
    kind: ColumnType = "STRING"


@dataclass(frozen=True, slots=True, eq=False)
class Plus:
    """The exact sum."""

    left: "Expression"
    right: "Expression"
    kind: ColumnType = "BIGNUMERIC"


@dataclass(frozen=True, slots=True, eq=False)
class Minus:
    """The exact difference."""

    left: "Expression"
    right: "Expression"
    kind: ColumnType = "BIGNUMERIC"


@dataclass(frozen=True, slots=True, eq=False)
class Times:
    """The product, rounded half-even to the decimals of a BIGNUMERIC, because the column holds no more."""

    left: "Expression"
    right: "Expression"
    kind: ColumnType = "BIGNUMERIC"


@dataclass(frozen=True, slots=True, eq=False)
class Absolute:
    """The number without its sign."""

    of: "Expression"
    kind: ColumnType = "BIGNUMERIC"


@dataclass(frozen=True, slots=True, eq=False)
class Tags:
    """A JSON object of text, with sorted keys; NULL if it is empty.

    Its entries are those of ``whole``, a column with the text of a JSON object, and of the columns with one of
    ``prefixes``. ``rename`` makes their keys; where two are the same, the later one wins.
    """

    prefixes: tuple[str, ...]
    rename: Callable[[str], str] = str
    whole: str = ""
    blank: bool = False
    kind: ColumnType = "JSON"


@dataclass(frozen=True, slots=True, eq=False)
class IsIn:
    """Whether the value is one of these; NULL is not."""

    of: "Expression"
    values: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class IsNull:
    """Whether there is no value."""

    of: "Expression"


@dataclass(frozen=True, slots=True, eq=False)
class Less:
    """Whether left < right; not if one is NULL."""

    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True, eq=False)
class Same:
    """Whether both are equal, or both NULL."""

    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Whether the pattern (read alike by Python and RE2) is found in the text."""

    of: "Expression"
    pattern: str


@dataclass(frozen=True, slots=True, eq=False)
class Not:
    """The opposite."""

    of: "Condition"


@dataclass(frozen=True, slots=True, eq=False)
class All:
    """Whether all are true. All of them are read, whatever the first one says."""

    of: tuple["Condition", ...]


@dataclass(frozen=True, slots=True, eq=False)
class AnyOf:
    """Whether one is true. All of them are read, whatever the first one says."""

    of: tuple["Condition", ...]


Expression = (
    Read
    | Constant
    | Needed
    | First
    | Case
    | After
    | Mapped
    | Joined
    | AfterLast
    | Extracted
    | Plus
    | Minus
    | Times
    | Absolute
    | Tags
)
Condition = IsIn | IsNull | Less | Same | Matches | Not | All | AnyOf
Columns = Mapping[str, Expression]


@dataclass(frozen=True, slots=True)
class Shape:
    """One of the rows that a record becomes, if ``when`` is true; a column that is not named is NULL.

    ``reads`` come before the columns: values that count as read even where no column takes them.
    """

    columns: Columns
    when: Condition | None = None
    reads: Sequence[Expression] = ()


def text(*names: str) -> Read:
    """Text of the first of these columns that has a value."""
    return Read("STRING", names)


def number(*names: str) -> Read:
    """Like ``text``, for numbers."""
    return Read("BIGNUMERIC", names)


def time(*names: str) -> Read:
    """Like ``text``, for times."""
    return Read("TIMESTAMP", names)


def constant(value: str | Decimal) -> Constant:
    """A text or a number."""
    return Constant("STRING" if isinstance(value, str) else "BIGNUMERIC", value)


def needed(read: Read) -> Needed:
    """A value of the file that must be there."""
    return Needed(read, read.names)


def either(*choices: "Expression | str") -> First:
    """The first that is neither NULL nor empty."""
    return First(tuple(constant(one) if isinstance(one, str) else one for one in choices), filled=True)


def is_(of: Expression, *values: str) -> IsIn:
    """Whether the value is one of these."""
    return IsIn(of, frozenset(values))


def only(when: Condition, columns: Columns) -> dict[str, Expression]:
    """Return the columns, NULL where the condition is not true."""
    return {name: Case(((when, of),), Constant(of.kind, None)) for name, of in columns.items()}


def day_of(moment: Expression) -> Mapped:
    """The UTC day of a time."""
    return Mapped("DATE", moment, _day)


def _day(moment: datetime) -> date:
    return moment.date()


NO_TEXT = Constant("STRING", None)
NO_NUMBER = Constant("BIGNUMERIC", None)
ZERO = constant(Decimal(0))
