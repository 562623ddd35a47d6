"""Guards of the core, deleted one by one without a list: each ``if`` that leaves early, each part of an ``or``.

A guard that is added to the core is a mutant from then on.
"""

import ast
from collections import Counter
from collections.abc import Iterator

from tests.mutants.change import edit
from tests.mutants.mutation import Mutant, Project

CORE = {
    "condition": "test_condition",
    "domain": "quick",
    "api_key_check": "test_keys",
    "receipts": "test_receipts",
}
"""Modules and packages, by their last name, and the tests of each (see ``Mutation.tests``)."""

EQUIVALENT: dict[str, str] = {
    "_Parser.take: self.kind not in ('word', 'sign')": "a text has quotes, a number digits, the end nothing: no such "
    "token is ever among those that take() is asked for.",
    "rerun: spec is None": "None is never among the specs, so the other half of the condition refuses it too.",
}
"""Guards that no test can notice, and why."""


def guards(project: Project) -> Iterator[Mutant]:
    """Yield all guards of the core, the equivalent ones too."""
    seen: Counter[str] = Counter()
    for file, source in project.files():
        core = next((name for name in CORE if name in (file.stem, file.parent.name)), "")
        for function in project.names(file) if core else ():
            for condition in _conditions(function.node) if isinstance(function.node, ast.FunctionDef) else ():
                what = f"{function.name.rpartition(f'{file.stem}.')[2]}: {ast.unparse(condition)}"
                seen[what] += 1
                again = f" ({seen[what]})" if seen[what] > 1 else ""
                yield Mutant(what + again, file, project.edited(file, edit(source, condition, "(False)")), CORE[core])


def _conditions(function: ast.stmt) -> Iterator[ast.expr]:
    for part in ast.walk(function):
        if isinstance(part, ast.If) and isinstance(part.body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break):
            if isinstance(part.test, ast.BoolOp) and isinstance(part.test.op, ast.Or):
                yield from part.test.values
            else:
                yield part.test
