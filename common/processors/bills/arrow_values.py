"""The vectorised evaluator: what the expressions of a layout are for a whole Arrow batch.

It computes each expression for all rows, and follows apart which rows read it: a choice that was not needed and the
branch of a case that did not apply are not read. A row that reads a value that can't be converted, or lacks one that
must be there, is odd; its values here mean nothing, and the row evaluator decides.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from common.processors.bills.arrow_cells import (
    MONEY,
    TYPES,
    ArrowCells,
    by_value,
    converted,
    quoted,
    without,
)
from common.processors.bills.expressions import (
    Absolute,
    After,
    AfterLast,
    All,
    AnyOf,
    Case,
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
from common.processors.bills.row_values import PLACES, tags_text
from common.tables.contract import DATA_DATE, Column, ColumnType, Table

type Mask = pa.BooleanArray | None
"""Some rows; None: all of them."""

# Arrow multiplies and adds decimals only if the result is sure to have 76 digits at most.
_SUMMAND = pa.decimal256(75, PLACES)
_FACTOR_SCALES = (6, 12, 18, 24, 30, 37)
_FACTOR_DIGITS = 37


class ArrowValues:
    """The values of one batch. ``names`` maps plain names to the file's own. With ``narrow``, nothing is computed with
    money, which may then have a type of fewer digits.

    ``odd`` marks the rows that the row evaluator has to look at; ``floats`` are columns with floating-point money.
    """

    def __init__(
        self, batch: pa.RecordBatch, names: Mapping[str, str], null_values: Sequence[str], *, narrow: bool = False
    ) -> None:
        self._narrow = narrow
        self._batch, self.names, self._nulls = batch, names, null_values
        self.rows: int = batch.num_rows
        self._none = pa.repeat(False, batch.num_rows)
        self.odd: pa.BooleanArray = self._none
        self.floats: set[str] = set()
        self._raw: dict[str, pa.Array] = {}
        self._cells: dict[tuple[str, ColumnType, Any], ArrowCells] = {}
        self._known: dict[Expression, pa.Array] = {}
        self._conditions: dict[Condition, pa.BooleanArray] = {}
        self._odd_values: dict[Expression, pa.BooleanArray] = {}
        self._seen: dict[Expression, Mask] = {}
        self._used: dict[str, Mask] = {}

    def read(self, of: Expression, rows: Mask = None) -> pa.Array:
        """Return the expression's values; the given rows read it."""
        self._visit(of, rows)
        return self.value(of)

    def true(self, of: Condition) -> pa.BooleanArray:
        """Return where a condition is true, which all rows read."""
        self._visit_condition(of, None)
        return self.condition(of)

    def unused(self) -> pa.Array:
        """Return what no expression has read, as JSON objects of text by the file's own names; NULL if nothing."""
        left = {name: self._used.get(name, self._none) for name in self.names}
        return self._texts({name: used for name, used in left.items() if used is not None})

    def texts(self, names: Sequence[str]) -> pa.Array:
        """Return these columns as JSON objects of text; NULL if none has a value."""
        return self._texts(dict.fromkeys(names, self._none))

    def _texts(self, without: Mapping[str, pa.BooleanArray]) -> pa.Array:
        entries = []
        for name, rows in without.items():
            own = self.names[name]
            if (raw := self._column(own)).null_count == self.rows:
                continue
            left = pc.and_not(raw.is_valid(), rows)
            if not pc.any(left).as_py():
                continue
            values, odd = self._cell(own, "STRING", None)
            self._mark(odd, left)
            entry = pc.binary_join_element_wise(json.dumps(own, ensure_ascii=False), quoted(values), ": ")
            entries.append(pc.if_else(left, entry, pa.scalar(None, pa.string())))
        return self._object(entries)

    def value(self, of: Expression) -> pa.Array:
        """Return the expression's values in all rows, whoever reads them."""
        if of not in self._known:
            self._known[of] = self._value(of)
        return self._known[of]

    def condition(self, of: Condition) -> pa.BooleanArray:
        """Return where a condition is true, whoever reads it."""
        if of not in self._conditions:
            self._conditions[of] = pc.fill_null(self._true(of), False)
        return self._conditions[of]

    def all_odd(self) -> None:
        """Leave the whole batch to the row evaluator."""
        self.odd = pa.repeat(True, self.rows)

    # Values

    def _value(self, of: Expression) -> pa.Array:
        match of:
            case Read():
                return self._coalesced([self._cell(own, of.kind, of.parse).values for own in self._own(of.names)], of)
            case Constant():
                return pa.repeat(pa.scalar(of.value, TYPES[of.kind]), self.rows)
            case Needed() | After():
                return self.value(of.of)
            case First() | Case():
                return self._chosen(of)
            case Mapped():
                cells = by_value(self.value(of.of), TYPES[of.kind], of.function)
                if cells.odd is not None:
                    self._odd_values[of] = cells.odd
                return cells.values
            case Plus() | Minus() | Times() | Absolute():
                return self._computed(of)
            case Joined() | AfterLast() | Extracted():
                return self._text(of)
            case Tags():
                return self._tags(of)
        assert_never(of)

    def _own(self, names: Sequence[str]) -> list[str]:
        return [self.names[name] for name in names if name in self.names]

    def _coalesced(self, arrays: list[pa.Array], of: Expression) -> pa.Array:
        if not arrays:
            return pa.nulls(self.rows, TYPES[of.kind])
        return arrays[0] if len(arrays) == 1 or not arrays[0].null_count else pc.coalesce(*arrays)

    def _chosen(self, of: First | Case) -> pa.Array:
        if isinstance(of, Case):
            made = None
            rest, taken = self._none, []
            for when, then in of.branches:
                here = pc.and_not(self.condition(when), rest)
                if pc.any(here).as_py():
                    taken.append((here, then))
                    rest = pc.or_(rest, here)
            made = None if pc.all(rest).as_py() else self.value(of.otherwise)
            for here, then in taken:
                made = self.value(then) if made is None else pc.if_else(here, self.value(then), made)
            return pa.nulls(self.rows, TYPES[of.kind]) if made is None else made
        values = []
        for number, choice in enumerate(of.choices, 1):
            value = self.value(choice)
            if of.filled and number < len(of.choices):
                blank = pc.equal(value, "")
                if pc.any(blank).as_py():
                    value = pc.if_else(blank, pa.scalar(None, value.type), value)
            values.append(value)
            if not value.null_count:
                break
        return self._coalesced(values, of)

    def _computed(self, of: Plus | Minus | Times | Absolute) -> pa.Array:
        try:
            match of:
                case Absolute():
                    return pc.abs(self.value(of.of))
                case Plus():
                    return pc.add(self.value(of.left).cast(_SUMMAND), self.value(of.right).cast(_SUMMAND))
                case Minus():
                    return pc.subtract(self.value(of.left).cast(_SUMMAND), self.value(of.right).cast(_SUMMAND))
                case Times():
                    return _product(self.value(of.left), self.value(of.right))
        except pa.ArrowInvalid:  # more digits than Arrow computes with: Python has no such limit
            self._odd_values[of] = pa.repeat(True, self.rows)
            return pa.nulls(self.rows, MONEY)

    def _text(self, of: Joined | AfterLast | Extracted) -> pa.Array:
        if isinstance(of, Joined):
            return pc.binary_join_element_wise(*[p if isinstance(p, str) else self.value(p) for p in of.parts], "")
        texts = self.value(of.of)
        if isinstance(of, AfterLast):
            if of.trimmed:
                texts = pc.utf8_rtrim(texts, characters="/")
            return pc.replace_substring_regex(texts, pattern="(?s)^.*/", replacement="")
        # RE2 has no search that returns groups by number: the whole text is replaced by them.
        parts = r"/".join(rf"\{n}" for n in range(1, of.pattern.count("([") + 1))
        whole = f"(?s)^.*?(?:{of.pattern}).*$"
        return pc.replace_substring_regex(texts, pattern=whole, replacement=parts)

    def _tags(self, of: Tags) -> pa.Array:
        by_key: dict[str, list[pa.Array]] = {}
        for prefix, name in self._prefixed(of):
            values = self._cell(self.names[name], "STRING", None).values
            if not of.blank:
                values = without(values, ("",))
            key = of.rename(name[len(prefix) :])
            by_key.setdefault(key, []).insert(0, values)  # of the same tag, the later column wins
        entries = [
            pc.binary_join_element_wise(json.dumps(key, ensure_ascii=False), quoted(pc.coalesce(*values)), ": ")
            for key, values in sorted(by_key.items())
        ]
        made = self._object(entries)
        if of.whole not in self.names:
            return made
        whole = self._cell(self.names[of.whole], "STRING", None).values
        cells = by_value(whole, pa.string(), lambda text: _tags_of_text(of, text))
        odd = pc.and_(whole.is_valid(), made.is_valid())  # entries of both: rare, and Python merges them
        self._odd_values[of] = odd if cells.odd is None else pc.or_(odd, cells.odd)
        return pc.coalesce(cells.values, made)

    def _prefixed(self, of: Tags) -> list[tuple[str, str]]:
        """Return prefix and name of each column that has one."""
        return [(prefix, name) for prefix in of.prefixes for name in self.names if name.startswith(prefix)]

    def _object(self, entries: list[pa.Array]) -> pa.Array:
        """Join entries to JSON objects; NULL where all entries are."""
        if not entries:
            return pa.nulls(self.rows, pa.string())
        # Not null_handling="skip": Arrow 26 then leaves out rows of which all entries are NULL.
        begun = [pc.binary_join_element_wise(", ", entry, "") for entry in entries]
        texts = pc.binary_join_element_wise(*begun, "", null_handling="replace", null_replacement="")
        objects = pc.binary_join_element_wise("{", pc.utf8_slice_codeunits(texts, 2), "}", "")
        return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), objects)

    # Conditions

    def _true(self, of: Condition) -> pa.BooleanArray:
        match of:
            case IsIn():
                return pc.is_in(self.value(of.of), pa.array(sorted(of.values), pa.string()))
            case IsNull():
                return self.value(of.of).is_null()
            case Less():
                return pc.less(self.value(of.left), self.value(of.right))
            case Same():
                left, right = self.value(of.left), self.value(of.right)
                both_null = pc.and_(left.is_null(), right.is_null())
                return pc.or_(pc.fill_null(pc.equal(left, right), False), both_null)
            case Matches():
                return pc.match_substring_regex(self.value(of.of), of.pattern)
            case Not():
                return pc.invert(self.condition(of.of))
            case All():
                return self._folded(pc.and_, of.of)
            case AnyOf():
                return self._folded(pc.or_, of.of)
        assert_never(of)

    def _folded(self, function: Any, of: Sequence[Condition]) -> pa.BooleanArray:
        made = self.condition(of[0])
        for one in of[1:]:
            made = function(made, self.condition(one))
        return made

    # Who reads what

    def _visit(self, of: Expression, rows: Mask) -> None:
        """Note that these rows read the expression."""
        if of in self._seen:
            seen = self._seen[of]
            if seen is None:
                return
            if rows is not None:
                rows = pc.and_not(rows, seen)
                if not pc.any(rows).as_py():
                    return
            self._seen[of] = None if rows is None else pc.or_(seen, rows)
        else:
            self._seen[of] = rows
        self._visit_parts(of, rows)
        if of in self._odd_values or isinstance(of, Mapped | Plus | Minus | Times | Tags):
            self.value(of)  # which finds out what is odd
            self._mark(self._odd_values.get(of), rows)

    def _visit_parts(self, of: Expression, rows: Mask) -> None:
        match of:
            case Read():
                self._visit_read(of, rows)
            case First():
                self._visit_first(of, rows)
            case Case():
                self._visit_case(of, rows)
            case Tags():
                for name in (of.whole, *(name for _, name in self._prefixed(of))):
                    self._visit_read(Read("STRING", (name,)), rows)
            case _:
                for part in _operands(of):
                    self._visit(part, rows)
        if isinstance(of, Needed) and (value := self.value(of.of)).null_count:
            self._mark(value.is_null(), rows)

    def _visit_first(self, of: First, rows: Mask) -> None:
        for choice in of.choices:
            self._visit(choice, rows)
            value = self.value(choice)
            missing = pc.fill_null(pc.equal(value, ""), True) if of.filled else value.is_null()
            rows = _both(rows, missing)
            if not pc.any(rows).as_py():
                return

    def _visit_case(self, of: Case, rows: Mask) -> None:
        for when, then in of.branches:
            self._visit_condition(when, rows)
            here = _both(rows, self.condition(when))
            if pc.any(here).as_py():
                self._visit(then, here)
                rows = pc.and_not(pc.invert(self._none) if rows is None else rows, here)
        if rows is None or pc.any(rows).as_py():
            self._visit(of.otherwise, rows)

    def _visit_condition(self, of: Condition, rows: Mask) -> None:
        match of:
            case IsIn() | IsNull() | Matches():
                self._visit(of.of, rows)
            case Less() | Same():
                self._visit(of.left, rows)
                self._visit(of.right, rows)
            case Not():
                self._visit_condition(of.of, rows)
            case All() | AnyOf():
                for one in of.of:
                    self._visit_condition(one, rows)
            case _:
                assert_never(of)

    def _visit_read(self, of: Read, rows: Mask) -> None:
        for name in of.names:
            if name not in self.names:
                continue
            own = self.names[name]
            used = self._used.get(name, self._none)
            self._used[name] = None if used is None or rows is None else pc.or_(used, rows)
            raw = self._column(own)
            cells = self._cell(own, of.kind, of.parse)
            self._mark(cells.odd, rows)
            is_float = of.kind == "BIGNUMERIC" and kinds.is_floating(raw.type)
            if is_float and pc.any(_both(rows, raw.is_valid())).as_py():
                self.floats.add(own)
            if not raw.null_count:
                return
            rows = _both(rows, raw.is_null())
            if not pc.any(rows).as_py():
                return

    def _mark(self, odd: pa.BooleanArray | None, rows: Mask) -> None:
        if odd is not None:
            self.odd = pc.or_(self.odd, _both(rows, odd))

    # The file's columns

    def _column(self, own: str) -> pa.Array:
        if own not in self._raw:
            self._raw[own] = without(self._batch.column(own), self._nulls)
        return self._raw[own]

    def _cell(self, own: str, kind: ColumnType, parse: Any) -> ArrowCells:
        key = (own, kind, parse)
        if key not in self._cells:
            self._cells[key] = converted(self._column(own), kind, parse, narrow=self._narrow)
        return self._cells[key]


def _operands(of: Expression) -> Sequence[Expression]:
    match of:
        case Needed() | Mapped() | AfterLast() | Extracted() | Absolute():
            return (of.of,)
        case After():
            return (*of.reads, of.of)
        case Joined():
            return [part for part in of.parts if not isinstance(part, str)]
        case Plus() | Minus() | Times():
            return (of.left, of.right)
    return ()


def _both(rows: Mask, more: pa.BooleanArray) -> pa.BooleanArray:
    return more if rows is None else pc.and_(rows, more)


def _product(left: pa.Array, right: pa.Array) -> pa.Array:
    """Multiply exactly, then round. Raises ArrowInvalid for numbers with too many digits."""
    product = pc.multiply(_factor(left), _factor(right))
    if product.type.scale > PLACES:
        product = pc.round(product, ndigits=PLACES, round_mode="half_to_even")
    return product.cast(MONEY)


def _factor(numbers: pa.Array) -> pa.Array:
    """Return the numbers with as few decimals as they need, because the digits of a product are those of both."""
    for scale in _FACTOR_SCALES[:-1]:
        try:
            return numbers.cast(pa.decimal256(_FACTOR_DIGITS, scale))
        except pa.ArrowInvalid:
            continue
    return numbers.cast(pa.decimal256(_FACTOR_DIGITS, _FACTOR_SCALES[-1]))


def _tags_of_text(of: Tags, text: str) -> str | None:
    values = json.loads(text)
    return tags_text(of, values if isinstance(values, dict) else {})


def days_within(days: pa.Array, begins: pa.Array, ends: pa.Array) -> pa.Array:
    """Return each day within its billing period, as ``cells.within`` does for one."""
    first, end = begins.cast(pa.date32(), safe=False), ends.cast(pa.date32(), safe=False)
    last = pc.subtract(end.cast(pa.int32()), pa.scalar(1, pa.int32())).cast(pa.date32())
    early, late = pc.fill_null(pc.less(days, first), False), pc.fill_null(pc.greater_equal(days, end), False)
    return pc.if_else(early, first, pc.if_else(late, last, days))


NUMBER = "number of the record"
"""A column of row tables that no contract can have, because its name has blanks."""


class RowTable:
    """The rows of a batch, as a table with all columns of the contract, and the number of each row's record."""

    def __init__(self, values: ArrowValues, table: Table, days: pa.Array, numbers: pa.Array) -> None:
        self._values, self._contract, self._days, self._numbers = values, table, days, numbers
        self._constants: dict[str, pa.Array] = {}
        self._parts: list[tuple[dict[str, pa.Array], Mask]] = []

    def constants(self, values: Mapping[str, str | None]) -> None:
        """Set columns to the same text in each row."""
        self._constants |= {
            name: pa.repeat(pa.scalar(value, pa.string()), self._values.rows) for name, value in values.items()
        }

    def add(self, columns: Mapping[str, pa.Array], kept: Mask) -> None:
        """Add a row for each of these records."""
        self._parts.append((dict(columns), kept))

    def table(self, extra: str = "", left: pa.Array | None = None) -> pa.Table:
        """Return the rows in the order of their records; ``left`` is the column ``extra`` of their first rows."""
        parts: list[pa.Table] = []
        for columns, kept in self._parts:
            if kept is not None and not pc.any(kept).as_py():
                continue
            # On the first row alone: these values belong to the record, and must not count once for each row.
            parts.append(self._part(columns if parts or left is None else columns | {extra: left}, kept))
        if not parts:
            columns, _ = self._parts[0]
            return self._part(columns, pa.repeat(False, self._values.rows))
        if len(parts) == 1:
            return parts[0]
        rows = pa.concat_tables(parts)
        return rows.take(pc.sort_indices(rows, [(NUMBER, "ascending")]))

    def _part(self, columns: Mapping[str, pa.Array], kept: Mask) -> pa.Table:
        given = {**columns, **self._constants, "source_row": self._numbers, DATA_DATE: self._days}
        made = {
            column.name: given[column.name] if column.name in given else self._none(column.type)
            for column in (*self._contract.columns, Column(name=DATA_DATE, type="DATE"))
        }
        table = pa.table(made | {NUMBER: self._numbers})
        return table if kept is None else table.filter(kept)

    def _none(self, kind: ColumnType) -> pa.Array:
        return pa.nulls(self._values.rows, TYPES[kind])
