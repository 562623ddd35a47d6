"""Changes of the syntax tree: found by what the code says, not by where it stands or how it is laid out.

A pattern is Python source. It matches code with the same syntax tree, so line breaks, comments, quotes and parentheses
do not count. In it, ``...`` matches any expression, all arguments of a call, or the whole body of a statement.
Of the file only the segment of the node that was found is replaced.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, NamedTuple

type Code = ast.expr | ast.stmt


class Edit(NamedTuple):
    """Bytes of a file, from ``start`` to before ``end``, and what replaces them."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Change:
    """``old`` becomes ``new``: code, the test of a statement, a named argument or entry, or part of a string."""

    kind: Literal["code", "test", "argument", "text"]
    old: str
    new: str = ""

    def edits(self, node: ast.AST, source: bytes) -> Iterator[Edit]:
        """Yield every place of ``node`` that this matches; there should be one."""
        match self.kind:
            case "code":
                found = _code_edits(node, _statements(self.old), _statements(self.new))
            case "test":
                found = _test_edits(node, _statements(f"{self.old}: ...")[0], self.new)
            case "argument":
                found = _argument_edits(node, self.old, self.new)
            case "text":
                found = _text_edits(node, self.old, self.new)
        return (edit(source, first, text, last) for first, last, text in found)

    def nearest(self, nodes: list[ast.AST]) -> str:
        """Return the code of ``nodes`` that looks most like what was not found."""
        parts = [part for node in nodes for part in ast.walk(node) if isinstance(part, ast.expr | ast.stmt)]
        texts = {ast.unparse(part).partition("\n")[0] for part in parts}
        if self.kind == "text":
            texts = {line for part in parts if (text := _text_of(part)) for line in text.splitlines()}
        close = get_close_matches(self.old, texts, n=1, cutoff=0.3)
        return close[0] if close else ""


def edit(source: bytes, first: Code, text: str, last: Code | None = None) -> Edit:
    """Return the edit that replaces a node, or those in a row up to ``last``. ``ast`` counts columns in bytes."""
    lines = source.splitlines(keepends=True)
    end = last or first
    assert end.end_lineno is not None and end.end_col_offset is not None
    return Edit(
        sum(map(len, lines[: first.lineno - 1])) + first.col_offset,
        sum(map(len, lines[: end.end_lineno - 1])) + end.end_col_offset,
        text,
    )


def swap(old: str, new: str) -> Change:
    """An expression, or statements in a row, in the place of others."""
    return Change("code", old, new)


def cut(old: str) -> Change:
    """A statement that is not there; of statements with a body, ``if ready: ...`` says enough."""
    return Change("code", old, "pass")


def never(condition: str) -> Change:
    """A condition, or a part of one, that never holds; ``if ready`` is that of a statement alone."""
    return _constant(condition, "False")


def always(condition: str) -> Change:
    """A condition that always holds, as in ``never``."""
    return _constant(condition, "True")


def argument(old: str, new: str = "") -> Change:
    """Another argument of a call (``name=value``) or entry of a dict (``"key": value``); without ``new``, one less."""
    return Change("argument", old, new)


def text(old: str, new: str = "") -> Change:
    """Another text in a string, such as a condition that its SQL no longer has; any white space equals any other."""
    return Change("text", old, new)


def _constant(condition: str, value: str) -> Change:
    return Change("test" if condition.startswith(("if ", "while ")) else "code", condition, value)


def _statements(source: str) -> list[ast.stmt]:
    return ast.parse(source).body


def _code_edits(node: ast.AST, old: list[ast.stmt], new: list[ast.stmt]) -> Iterator[tuple[Code, Code, str]]:
    if isinstance(old[0], ast.Expr) and len(old) == 1 and isinstance(new[0], ast.Expr) and len(new) == 1:
        for part in ast.walk(node):
            if isinstance(part, ast.expr) and not _is_target(part) and _same(old[0].value, part):
                yield part, part, f"({ast.unparse(new[0].value)})"
        return
    for body in _bodies(node):
        for first in range(len(body) - len(old) + 1):
            if all(map(_same, old, body[first : first + len(old)])):
                indent = "\n" + " " * body[first].col_offset
                lines = ast.unparse(ast.Module(new, [])).splitlines()
                yield body[first], body[first + len(old) - 1], indent.join(lines)


def _test_edits(node: ast.AST, old: ast.stmt, new: str) -> Iterator[tuple[Code, Code, str]]:
    assert isinstance(old, ast.If | ast.While)
    for part in ast.walk(node):
        if isinstance(part, ast.If | ast.While) and type(part) is type(old) and _same(old.test, part.test):
            yield part.test, part.test, f"({new})"


def _argument_edits(node: ast.AST, old: str, new: str) -> Iterator[tuple[Code, Code, str]]:
    call, entry = _parsed(f"call({old})"), _parsed(f"{{{old}}}")
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and isinstance(call, ast.Call):
            for keyword in part.keywords:
                if _same(call.keywords, [keyword]):
                    rest = ast.Call(part.func, part.args, [one for one in part.keywords if one is not keyword])
                    given = ast.unparse(rest).removesuffix(")")
                    yield part, part, f"{given}{', ' if new and (rest.args or rest.keywords) else ''}{new})"
        elif isinstance(part, ast.Dict) and isinstance(entry, ast.Dict):
            for key, value in zip(part.keys, part.values, strict=True):
                if _same([*entry.keys, *entry.values], [key, value]):
                    yield value, value, f"({new.partition(': ')[2]})"


def _parsed(source: str) -> ast.expr | None:
    try:
        return ast.parse(source, mode="eval").body
    except SyntaxError:
        return None


def _text_edits(node: ast.AST, old: str, new: str) -> Iterator[tuple[Code, Code, str]]:
    fragment = re.compile(r"\s+".join(map(re.escape, old.split())))
    for part in _strings(node):
        whole = _text_of(part)
        assert whole is not None
        for found in fragment.finditer(whole):
            changed = whole[: found.start()] + new + whole[found.end() :]
            if isinstance(part, ast.Constant):
                yield part, part, repr(changed)
            else:
                yield part, part, ast.unparse(_template(part, changed))


def _bodies(node: ast.AST) -> Iterator[list[ast.stmt]]:
    if isinstance(node, ast.stmt):
        yield [node]
    inside = [part for part in ast.walk(node) if not isinstance(part, ast.Module)]
    for part in inside:
        for field in ("body", "orelse", "finalbody"):
            body = getattr(part, field, None)
            if isinstance(body, list) and body:
                yield body


def _strings(node: ast.AST) -> Iterator[ast.Constant | ast.JoinedStr]:
    """Yield the strings in a node; of an f-string the whole, and those in its placeholders."""
    if isinstance(node, ast.JoinedStr):
        yield node
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                yield from _strings(value.value)
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node
    for part in ast.iter_child_nodes(node):
        yield from _strings(part)


def _text_of(node: ast.AST) -> str | None:
    """Return the text of a string; the placeholders of an f-string stand in it as in its source."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text_of(value) or _placeholder(value) for value in node.values)
    return None


def _placeholder(value: ast.expr) -> str:
    return ast.unparse(ast.JoinedStr([value]))[2:-1]


def _template(node: ast.JoinedStr, changed: str) -> ast.JoinedStr:
    """Return the f-string with another text, in which each placeholder is one that it has had."""
    known = {_placeholder(value): value for value in node.values if isinstance(value, ast.FormattedValue)}
    parts = re.split(f"({'|'.join(map(re.escape, known))})", changed) if known else [changed]
    return ast.JoinedStr([known.get(part) or ast.Constant(part) for part in parts if part])


def _is_target(node: ast.expr) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)


def _same(pattern: object, node: object) -> bool:
    match pattern:
        case ast.Constant(value=value) if value is ...:
            return isinstance(node, ast.expr)
        case ast.Expr(value=ast.Constant(value=value)) if value is ...:
            return isinstance(node, ast.stmt)
        case ast.Call(func=func, args=[ast.Constant(value=value)]) if value is ...:
            return isinstance(node, ast.Call) and _same(func, node.func)
        case [ast.Expr(value=ast.Constant(value=value))] if value is ...:
            return isinstance(node, list)
        case list():
            return isinstance(node, list) and len(pattern) == len(node) and all(map(_same, pattern, node))
        case ast.AST():
            fields = [name for name in pattern._fields if name not in ("ctx", "kind", "type_comment")]
            return type(pattern) is type(node) and all(_same(getattr(pattern, f), getattr(node, f)) for f in fields)
    return type(pattern) is type(node) and pattern == node
