"""Reads which column of an INSERT each value goes to, out of BigQuery scripts, dynamic SQL and SQL that Python makes.

SQL matches the values of ``INSERT … SELECT``, and the arms of UNION ALL, by position: two neighbours of one type can be
swapped, and nothing complains. So each value is named as its column is (a column that passes through is its own name),
and what is here compares the names.

sqlglot takes a script apart into tokens. It does not parse BEGIN, IF and EXECUTE IMMEDIATE, so single statements are
cut out by their tokens, and the text of a dynamic one is put together from CONCAT, FORMAT and variables, as BigQuery
would do it; each piece of it knows the line of the file that it is from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from sqlglot import exp, parse_one
from sqlglot.dialects.bigquery import BigQuery
from sqlglot.tokens import Token, TokenType


class Script(BigQuery):
    """BigQuery's SQL, whose procedural statements are tokens as well, and not one text."""

    class Tokenizer(BigQuery.Tokenizer):
        COMMANDS = frozenset[TokenType]()


STARTS = (TokenType.INSERT, TokenType.SELECT, TokenType.WITH, TokenType.CREATE)
BEFORE = ("", ";", "THEN", "ELSE", "BEGIN")
"""What a statement can follow, beside the begin of the text."""
LEFT_OUT = "Without a value:\n"
OPENING, CLOSING = ("(", "["), (")", "]")


@dataclass(frozen=True)
class Piece:
    """A part of a statement's text, and the line of the file on which it begins."""

    text: str
    line: int


@dataclass(frozen=True)
class Statement:
    """One statement that reads or writes. ``note`` is the comment right before it, of a dynamic one before EXECUTE."""

    where: str
    pieces: tuple[Piece, ...]
    note: str = ""

    @property
    def sql(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def line(self, offset: int) -> int:
        """Return the line of the file that a place of the text is from."""
        for piece in self.pieces:
            if offset < len(piece.text):
                return piece.line + piece.text.count("\n", 0, offset)
            offset -= len(piece.text)
        return self.pieces[-1].line

    def at(self, offset: int) -> str:
        """Return file and line of a place of the text."""
        return f"{self.where}:{self.line(offset)}"


@dataclass(frozen=True)
class Named:
    """A value (or a column of a list): its name, "" if it has none, where it is, and its SQL without the name."""

    name: str
    at: str
    sql: str = ""


@dataclass(frozen=True)
class Insert:
    """An INSERT, or a CREATE TABLE … AS: the columns it lists, and the values of each arm of its query."""

    at: str
    columns: tuple[Named, ...]
    arms: tuple[tuple[Named, ...], ...]
    note: str = ""

    @property
    def left_out(self) -> list[str]:
        """The columns that the comment before it declares as left out.

        ``-- Without a value:``, then lines of ``--   why: Column, Column``, which may go on in the next line.
        """
        _, _, declared = self.note.partition(LEFT_OUT)
        listed = ", ".join(line.rpartition(":")[2] for line in declared.splitlines())
        return [name.strip() for name in listed.split(",") if name.strip()]


def statements(text: str, where: str) -> Iterator[Statement]:
    """Yield every statement of a script, those in EXECUTE IMMEDIATE as well.

    Of each IF in dynamic SQL both branches are read, as statements of their own.
    """
    tokens = Script().tokenize(text)
    position = 0
    while position < len(tokens):
        token, before = tokens[position], tokens[position - 1].text.upper() if position else ""
        if token.token_type in STARTS and before in BEFORE:
            end = _end(tokens, position)
            whole = text[token.start : tokens[end - 1].end + 1]
            if _writes_or_reads(whole):
                yield Statement(where, (Piece(whole, token.line),), _note(text, token.line))
                position = end
                continue
        position += 1
    yield from chain.from_iterable(_Dynamic(text, where, tokens, branch).statements() for branch in (0, 1))


def _writes_or_reads(sql: str) -> bool:
    words = sql.split(None, 2)
    return words[0].upper() != "CREATE" or words[1].upper() == "TABLE"  # a procedure is the script around statements


def _end(tokens: Sequence[Token], position: int, stops: Sequence[str] = (";",)) -> int:
    """Return the position of the first of these tokens that is in no parentheses, or the end."""
    depth = 0
    for at in range(position, len(tokens)):
        text = tokens[at].text.upper() if tokens[at].token_type is not TokenType.STRING else ""
        depth += (text in OPENING) - (text in CLOSING)
        if depth < 0 or (depth == 0 and text in stops):
            return at
    return len(tokens)


def _note(text: str, line: int) -> str:
    """Return the lines of comment right above a line."""
    lines = text.splitlines()[: line - 1]
    kept: list[str] = []
    while lines and lines[-1].strip().startswith("--"):
        kept.insert(0, lines.pop().strip().removeprefix("--").strip())
    return "\n".join(kept)


class _Dynamic:
    """A script's variables as they are when all conditions of IF … THEN hold, and the texts that it then executes."""

    def __init__(self, text: str, where: str, tokens: Sequence[Token], branch: int) -> None:
        self._text, self._where, self._tokens, self._branch = text, where, tokens, branch
        self._variables: dict[str, list[Piece]] = {}
        self._has_branches = False

    def statements(self) -> Iterator[Statement]:
        for position, token in enumerate(self._tokens):
            word, before = token.text.upper(), self._tokens[position - 1].text.upper() if position else ""
            if token.token_type is TokenType.STRING or before not in BEFORE:
                continue
            if word in ("DECLARE", "SET"):
                self._assign(position)
            elif word == "EXECUTE":
                pieces, _ = self._value(position + 2)
                if pieces and (self._branch == 0 or self._has_branches):
                    yield Statement(self._where, tuple(pieces), _note(self._text, token.line))

    def _assign(self, position: int) -> None:
        """DECLARE name TYPE DEFAULT value, or SET name = value; others (arrays, subqueries) are of no text."""
        end = _end(self._tokens, position)
        name = self._tokens[position + 1].text
        start = next((at for at in range(position, end) if self._tokens[at].text.upper() in ("DEFAULT", "=")), None)
        if start is not None:
            self._variables[name], _ = self._value(start + 1)

    def _value(self, position: int) -> tuple[list[Piece], int]:
        """Return the text that an expression makes, and the position behind it."""
        token = self._tokens[position]
        if token.token_type is TokenType.STRING:
            return [self._literal(token)], position + 1
        if position + 1 < len(self._tokens) and self._tokens[position + 1].text == "(":
            arguments, end = self._arguments(position + 2)
            match token.text.upper():
                case "CONCAT":
                    return [piece for at in arguments for piece in self._value(at)[0]], end
                case "FORMAT":
                    return self._value(arguments[0])[0], end
                case "IF":
                    self._has_branches = True
                    return self._value(arguments[1 + self._branch])[0], end
            return [], end
        known = self._variables.get(token.text)
        # A name of a table, say: what it is does not matter, but that something is there.
        return [Piece(f" {token.text} ", token.line)] if known is None else known, position + 1

    def _arguments(self, position: int) -> tuple[list[int], int]:
        """Return where each argument begins, and the position behind the parenthesis that closes them."""
        begins = [position]
        while (end := _end(self._tokens, begins[-1], (",",))) < len(self._tokens) and self._tokens[end].text == ",":
            begins.append(end + 1)
        return begins, end + 1

    def _literal(self, token: Token) -> Piece:
        """Return what is between the quotes, as it is written: so offsets are those of the file."""
        raw = self._text[token.start : token.end + 1]
        assert "\\" not in raw, f"{self._where}:{token.line}: dynamic SQL with an escape can't be read"
        quote = 3 if raw.startswith(('"""', "'''")) else 1
        return Piece(raw[quote:-quote], self._text.count("\n", 0, token.start) + 1)


def inserts(statement: Statement) -> Iterator[Insert]:
    """Yield the INSERT (or CREATE TABLE … AS) that a statement is, if it is one."""
    tree = parse_one(statement.sql, dialect="bigquery")
    if not isinstance(tree, exp.Insert | exp.Create):
        return
    listed = tree.this.expressions if isinstance(tree.this, exp.Schema) else []
    names = (column if isinstance(column, exp.Identifier) else column.this for column in listed)
    arms = arms_of(tree.expression) if isinstance(tree.expression, exp.Query) else []
    yield Insert(
        statement.at(0),
        tuple(_identifier(statement, name) for name in names),
        tuple(tuple(_values(statement, arm)) for arm in arms),
        statement.note,
    )


def unions(statement: Statement) -> Iterator[list[list[Named]]]:
    """Yield the arms of every UNION ALL (INTERSECT, EXCEPT) of a statement, as lists of values."""
    for node in parse_one(statement.sql, dialect="bigquery").find_all(exp.SetOperation):
        if not isinstance(node.parent, exp.SetOperation):
            yield [list(_values(statement, arm)) for arm in arms_of(node)]


def arms_of(query: exp.Expression) -> list[exp.Select]:
    """Return the SELECTs that a query puts one below the other: itself, if there is no UNION."""
    match query:
        case exp.SetOperation():
            return [*arms_of(query.this), *arms_of(query.expression)]
        case exp.Subquery():
            return arms_of(query.this)
        case exp.Select():
            return [query]
    raise AssertionError(f"neither a SELECT nor a UNION: {query.sql()[:80]}")


def _values(statement: Statement, arm: exp.Select) -> Iterator[Named]:
    known = statement.at(0)
    for value in arm.expressions:
        name = value.args["alias"] if isinstance(value, exp.Alias) else value.this if _is_column(value) else None
        offsets = [node.meta["start"] for node in (name or value).find_all(exp.Identifier) if "start" in node.meta]
        known = (
            statement.at(min(offsets)) if offsets else known
        )  # a literal alone has no place: it follows the last one
        bare = value.this if isinstance(value, exp.Alias) else value
        yield Named(name.name if name else "", known, bare.sql("bigquery"))


def _is_column(value: exp.Expression) -> bool:
    return isinstance(value, exp.Column) and not isinstance(value.this, exp.Star)


def _identifier(statement: Statement, column: exp.Identifier) -> Named:
    return Named(column.name, statement.at(column.meta["start"]), column.name)


def misplaced(insert: Insert) -> Iterator[str]:
    """Yield a sentence for each value of an INSERT that does not stand beside its column's name."""
    if not insert.columns or not insert.arms:
        yield f"{insert.at}: an INSERT names its columns, and its query is a SELECT"
    for arm in insert.arms:
        yield from _unlike(insert.columns, arm, "column")


def unlike_arms(arms: Sequence[Sequence[Named]]) -> Iterator[str]:
    """Yield a sentence for each value of a UNION ALL that is named otherwise than in its first arm."""
    for arm in arms[1:]:
        yield from _unlike(arms[0], arm, "the first arm has")


def _unlike(wanted: Sequence[Named], values: Sequence[Named], what: str) -> Iterator[str]:
    for number, (column, value) in enumerate(zip(wanted, values, strict=False), 1):
        if column.name != value.name or not value.name:
            named = f"is named {value.name!r}; {what} {column.name!r} ({column.at})"
            yield f"{value.at}: value {number}, {value.sql}, {named}"
    if len(wanted) != len(values):
        at = values[-1].at if values else wanted[0].at
        yield f"{at}: {len(values)} values for {len(wanted)} columns"


def unfilled(insert: Insert, columns: Sequence[str], lineage: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each of a table's columns that an INSERT neither fills nor declares as left out.

    Those of ``lineage`` must be filled as well; any other name is no column that it may fill.
    """
    filled, left_out = [column.name for column in insert.columns], insert.left_out
    for column in insert.columns:
        if column.name not in (*columns, *lineage):
            yield f"{column.at}: {column.name!r} is no column of the table"
    for name in (*columns, *lineage):
        if name not in filled and name not in left_out:
            yield f"{insert.at}: {name!r} is neither filled nor declared as left out"
    for name in left_out:
        if name in filled or name not in columns or left_out.count(name) > 1:
            yield f"{insert.at}: {name!r} is declared as left out, and is filled, declared twice, or no column"


def of_file(path: Path, root: Path) -> list[Statement]:
    """Return all statements of a file, named by its path in the checkout."""
    return list(statements(path.read_text("utf-8"), str(path.relative_to(root))))
