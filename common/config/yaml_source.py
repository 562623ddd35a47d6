"""YAML as plain data plus the line of every key, for files from anybody.

Only the part of YAML that all parsers read alike is accepted: mappings with text keys, lists, text, ``true``,
``false``, ``null``, whole numbers and decimals (kept as Decimal). Refused are anchors and aliases (a few lines of them
can expand to gigabytes), tags, and plain scalars that YAML 1.1 (PyYAML) and YAML 1.2 (most editors) read differently,
such as ``no``, ``012``, ``1e3``, ``12:30`` or a date: in quotes, they are text for all.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.reader import ReaderError

from common.config.problems import MAX_PROBLEMS, InvalidFileError, Location, Problem, field_name

MAX_BYTES = 256 * 1024
"""Largest file. Parsing with lines takes many times a file's size in memory."""

MAX_DEPTH = 32
"""Deepest nesting: the builder recurses, and a file of brackets must not end in a RecursionError."""

_STR_TAG = "tag:yaml.org,2002:str"
_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})", re.ASCII)
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,38}", re.ASCII)
_NUMBER_IN_YAML_1_2 = re.compile(r"[-+]?(0o[0-7]+|\.?[0-9][0-9.]*[eE][-+]?[0-9]+|[0-9]+)", re.ASCII)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A file's data. ``name`` is the path as messages show it. Shared between callers, which must not modify it."""

    name: str
    data: dict[str, Any]
    lines: Mapping[Location, int]
    sha256: str

    def problem(self, location: Location, message: str) -> Problem:
        """Return a problem with the line of its location; for a missing key, that of the nearest enclosing one."""
        known = location
        while known and known not in self.lines:
            known = known[:-1]
        return Problem(self.name, self.lines.get(known, 1), field_name(location), message)


def read(path: Path, name: str) -> YamlFile:
    """Read a file whose top level is a mapping; messages call it ``name``.

    Raises InvalidFileError (a ConfigError). Unchanged files are cached.
    """
    try:
        stat = path.stat()
        if stat.st_size > MAX_BYTES:  # before reading: a huge file must not fill the memory
            raise _invalid(name, 1, "(file)", _too_large(stat.st_size))
        return _read(path, name, stat.st_mtime_ns, stat.st_size)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = error.strerror if isinstance(error, OSError) else "its path is not valid"
        raise _invalid(name, 1, "(file)", f"can't be read: {reason}. Check the path and its permissions.") from None


@lru_cache(maxsize=256)
def _read(path: Path, name: str, _mtime_ns: int, _size: int) -> YamlFile:
    with path.open("rb") as file:
        return parse(file.read(MAX_BYTES + 1), name)  # bounded again: the file may have grown since stat


def parse(raw: bytes, name: str) -> YamlFile:
    """Parse the bytes of a file, as ``read`` does."""
    if len(raw) > MAX_BYTES:
        raise _invalid(name, 1, "(file)", _too_large(len(raw)))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _invalid(name, line, "(file)", "is not UTF-8. Save it as UTF-8.") from None
    node = _compose(text, name)
    builder = _Builder(name)
    data = builder.build(node, ()) if node is not None else None
    if builder.problems:
        raise InvalidFileError(builder.problems[:MAX_PROBLEMS])
    if not isinstance(data, dict):
        raise _invalid(name, 1, "(file)", "must be a mapping of keys to values at its top level.")
    return YamlFile(name, data, builder.lines, hashlib.sha256(raw).hexdigest())


def _compose(text: str, name: str) -> yaml.Node | None:
    loader = None
    try:
        loader = _StrictLoader(text)
        return loader.get_single_node()
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _invalid(name, line, "(file)", "has a control character. Remove it.") from None
    except yaml.MarkedYAMLError as error:
        raise _invalid(name, *_place(error), _syntax_message(error)) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML lets errors of chr() and int() escape, for escapes and directives that are out of range
        line = loader.get_mark().line + 1 if loader else 1
        raise _invalid(name, line, "(file)", "is not YAML: a number in it is out of range.") from None


def _place(error: yaml.MarkedYAMLError) -> tuple[int, str]:
    mark = error.problem_mark or error.context_mark
    return (mark.line + 1, f"column {mark.column + 1}") if mark else (1, "(file)")


def _syntax_message(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, _RefusedError):
        return str(error.problem)
    problem = str(error.problem)
    advice = "Indent with spaces." if r"'\t'" in problem else "Check indentation, colons and quotes there."
    context = f" {error.context}" if error.context else ""
    return f"is not YAML:{context} {problem}. {advice}"


def _too_large(size: int) -> str:
    return f"has {size} bytes, at most {MAX_BYTES} are read. Split it."


def _invalid(name: str, line: int, field: str, message: str) -> InvalidFileError:
    return InvalidFileError([Problem(name, line, field, message)])


class _RefusedError(ComposerError):
    """YAML, but not of the kind that is accepted."""


class _StrictLoader(yaml.SafeLoader):
    """Composes nodes and refuses during reading, so that no alias is expanded and recursion is bounded."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _RefusedError(None, None, "anchors and aliases are not allowed. Write it out.", event.start_mark)
        if event.tag is not None:
            raise _RefusedError(None, None, "tags (!...) are not allowed. Remove it.", event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise _RefusedError(None, None, f"is nested deeper than {MAX_DEPTH} levels.", event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Builder:
    """Builds data, lines and problems from nodes. The loader has bounded their depth."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Location, int] = {}
        self.problems: list[Problem] = []

    def build(self, node: yaml.Node, location: Location) -> Any:
        self.lines.setdefault(location, node.start_mark.line + 1)  # a value has the line of its key, if it has one
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*location, i)) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)  # the only other kind is an alias, which the loader refuses
        return self._scalar(node, location)

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._scalar(key_node, location) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self._problem(line, location, "has a key that is not text. Put it in quotes, or use a name.")
            elif key in data:
                first = self.lines[(*location, key)]
                self._problem(line, (*location, key), f"is given twice, first in line {first}. Remove one.")
            else:
                self.lines[(*location, key)] = line
                data[key] = self.build(value_node, (*location, key))
        return data

    def _scalar(self, node: yaml.ScalarNode, location: Location) -> Any:
        text: str = node.value
        line = node.start_mark.line + 1
        if _UNPRINTABLE.search(text):
            self._problem(line, location, "has a control character. Remove it.")
            return ""
        if node.style is not None:  # quoted or a block: text in any case
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _DECIMAL.fullmatch(text):
            return Decimal(text)
        if node.tag != _STR_TAG or _NUMBER_IN_YAML_1_2.fullmatch(text):
            self._problem(line, location, "is read differently by different YAML readers. Put it in quotes.")
        return text

    def _problem(self, line: int, location: Location, message: str) -> None:
        self.problems.append(Problem(self.name, line, field_name(location), message))
