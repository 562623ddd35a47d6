"""A mutation, and the project in which it finds its place."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.mutants.change import Change, Edit

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("common", "functions", "infra")


class NoPlaceError(Exception):
    """A mutation does not match exactly one place."""


@dataclass(frozen=True)
class Mutation:
    """What no longer holds once ``change`` was made in ``target``, and the tests that must notice.

    ``target`` is the name of a function, a class or a constant, with as much of its class and module before it as
    tells it apart: ``apply``, ``SqlRunStore.commit``, ``reservations.hold``. Where it stands is looked for.
    ``tests`` are names of test files, wherever they stand, and ``-k`` if it is not all of them; ``quick``: the
    simulation, then whatever else runs in seconds.
    """

    what: str
    target: str
    change: Change
    tests: str


def noticed_by(tests: str, *mutations: tuple[str, str, Change]) -> Iterator[Mutation]:
    """Yield mutations that the same tests must notice."""
    return (Mutation(*mutation, tests) for mutation in mutations)


class Mutant(NamedTuple):
    """A mutation that was made: what ``file`` holds with it."""

    what: str
    file: Path
    changed: bytes
    tests: str


class Named(NamedTuple):
    """Something that has a name: ``name`` begins with its module's."""

    file: Path
    name: str
    node: ast.stmt


class Project:
    """The source below ``root``."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._texts = {path: path.read_bytes() for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))}

    def mutant(self, mutation: Mutation) -> Mutant:
        """Make a mutation. Raises NoPlaceError if it is not clear where."""
        found: dict[tuple[Path, Edit], str] = {}
        named = list(self.named(mutation.target))
        for one in named:
            for edit in mutation.change.edits(one.node, self._texts[one.file]):
                found[one.file, edit] = one.name
        if len(found) != 1:
            raise NoPlaceError(f"{mutation.what!r}: {self._problem(mutation, named, list(found.values()))}")
        ((file, edit),) = found
        return Mutant(mutation.what, file, self.edited(file, edit), mutation.tests)

    def edited(self, file: Path, edit: Edit) -> bytes:
        """Return what a file holds after an edit. Raises SyntaxError if that is no Python."""
        source = self._texts[file]
        changed = source[: edit.start] + edit.text.encode() + source[edit.end :]
        compile(changed, str(file), "exec", dont_inherit=True)
        return changed

    def named(self, target: str) -> Iterator[Named]:
        """Yield whatever has this name, or one that ends with it."""
        for file, text in self._texts.items():
            if target.rpartition(".")[2].encode() in text:
                yield from (one for one in self.names(file) if f".{one.name}".endswith(f".{target}"))

    def files(self) -> Iterator[tuple[Path, bytes]]:
        """Yield every file and what it holds."""
        return iter(self._texts.items())

    @cache  # noqa: B019 - a project lives as long as the program
    def names(self, file: Path) -> tuple[Named, ...]:
        """Return all that has a name in a file."""
        parts = file.relative_to(self._root).with_suffix("").parts
        return tuple(_named(file, ".".join(parts).removesuffix(".__init__"), ast.parse(self._texts[file]).body))

    def _problem(self, mutation: Mutation, named: list[Named], places: list[str]) -> str:
        change = mutation.change
        if not named:
            return f"nothing is named {mutation.target}"
        if places:
            return f"{change.old!r} stands {len(places)} times: in {', '.join(sorted(set(places)))}"
        near = change.nearest([one.node for one in named])
        hint = f"; the nearest is {near!r}" if near else ""
        return f"{change.old!r} is not in {', '.join(one.name for one in named)}{hint}"


def _named(file: Path, prefix: str, body: list[ast.stmt]) -> Iterator[Named]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield Named(file, f"{prefix}.{name}", node)
                functions = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
                yield from _named(file, f"{prefix}.{name}", [*functions])
            case ast.ClassDef(name=name):
                yield Named(file, f"{prefix}.{name}", node)
                yield from _named(file, f"{prefix}.{name}", node.body)
            case ast.Assign(targets=targets):
                for part in (part for target in targets for part in ast.walk(target)):
                    if isinstance(part, ast.Name):
                        yield Named(file, f"{prefix}.{part.id}", node)
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield Named(file, f"{prefix}.{name}", node)
