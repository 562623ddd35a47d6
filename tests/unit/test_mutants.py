"""Mutations find their place by what the code says: moving or reformatting it costs nothing (``make mutants``)."""

from pathlib import Path

import pytest

from tests.mutants import GROUPS
from tests.mutants.__main__ import TESTS, arguments
from tests.mutants.change import Change, always, argument, cut, never, swap, text
from tests.mutants.guards import CORE, EQUIVALENT, guards
from tests.mutants.mutation import ROOT, Mutant, Mutation, NoPlaceError, Project

ALL = [mutation for group in GROUPS.values() for mutation in group]


SELECTIONS = sorted({*(one.tests for one in ALL), *CORE.values(), *TESTS} - {"quick"})


@pytest.fixture(scope="module")
def project() -> Project:
    return Project()


@pytest.fixture(scope="module")
def of_core(project: Project) -> list[Mutant]:
    return list(guards(project))


def test_every_mutation_has_its_place_and_none_stands_twice(project: Project, of_core: list[Mutant]) -> None:
    made, lost = [*of_core], []
    for mutation in ALL:
        try:
            made.append(project.mutant(mutation))
        except NoPlaceError as error:
            lost.append(str(error))
    assert not lost, "\n".join(lost)
    assert len({one.what for one in made}) == len(made)
    assert len({(one.file, one.changed) for one in made}) == len(made)


def test_every_guard_said_to_be_equivalent_is_there(of_core: list[Mutant]) -> None:
    assert EQUIVALENT.keys() <= {guard.what for guard in of_core}


@pytest.mark.parametrize("tests", SELECTIONS)
def test_the_tests_that_must_notice_are_there(tests: str) -> None:
    assert arguments(ROOT, tests)


SOURCE = '''
"""A module."""

def admit(run, db):  # "é" has two bytes
    if (
        run.ended  # a comment
        or not run.asked
    ):
        return "é", None
    elif run.late:
        return send(run, retry=False, to={"a": 1})
    db.execute(f"UPDATE runs SET {run.column} = 1"
               " WHERE id = ?\\n   AND version = ?", (run.id,))
    for each in run:
        if each.skips:
            continue
        send(each)
    return run

class Store:
    LIMIT = 5

    def admit(self): return LIMIT + 1
'''


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "common" / "core").mkdir(parents=True)
    (tmp_path / "common" / "core" / "runs.py").write_text(SOURCE)
    return tmp_path


def mutated(root: Path, target: str, change: Change) -> str:
    return Project(root).mutant(Mutation("it", target, change, "quick")).changed.decode()


@pytest.mark.parametrize(
    ("change", "old", "new"),
    [
        (never("run.ended"), "run.ended  #", "(False)  #"),
        (always("run.ended or not run.asked"), "run.ended  # a comment\n        or not run.asked", "(True)"),
        (never("if run.late"), "elif run.late:", "elif (False):"),
        (cut("if each.skips: ..."), "if each.skips:\n            continue", "pass"),
        (cut("send(each)"), "send(each)", "pass"),
        (swap("return send(...)", "return"), 'return send(run, retry=False, to={"a": 1})', "return"),
        (swap("send(...)\n", "one(); two()"), "        send(each)", "        one()\n        two()"),
        (swap("run.late", "run.late and 1"), "elif run.late:", "elif (run.late and 1):"),
        (argument("retry=False"), 'send(run, retry=False, to={"a": 1})', "send(run, to={'a': 1})"),
        (argument("retry=False", "now=2"), 'send(run, retry=False, to={"a": 1})', "send(run, to={'a': 1}, now=2)"),
        (argument('"a": 1', '"a": 2'), '{"a": 1}', '{"a": (2)}'),
        (
            text("WHERE id = ? AND version = ?", "WHERE id = ?"),
            '(f"UPDATE runs SET {run.column} = 1"\n               " WHERE id = ?\\n   AND version = ?", (',
            "(f'UPDATE runs SET {run.column} = 1 WHERE id = ?', (",
        ),
        (
            text("SET {run.column} = 1", "SET x = 1"),
            '(f"UPDATE runs SET {run.column} = 1"\n               " WHERE id = ?\\n   AND version = ?", (',
            "(f'UPDATE runs SET x = 1 WHERE id = ?\\n   AND version = ?', (",
        ),
    ],
)
def test_only_the_node_that_was_found_is_replaced(small: Path, change: Change, old: str, new: str) -> None:
    assert SOURCE.count(old) == 1
    assert mutated(small, "runs.admit", change) == SOURCE.replace(old, new)


def test_a_move_costs_nothing(small: Path) -> None:
    mutation = Mutation("it", "Store.LIMIT", swap("5", "6"), "quick")
    before = Project(small).mutant(mutation)
    (small / "functions").mkdir()
    before.file.rename(small / "functions" / "store.py")
    after = Project(small).mutant(mutation)
    assert after.file == small / "functions" / "store.py"
    assert after.changed == before.changed


@pytest.mark.parametrize(
    ("target", "change", "said"),
    [
        ("nobody", never("run.ended"), "nothing is named nobody"),
        ("runs.admit", never("run.endet"), "the nearest is 'run.ended'"),
        (
            "runs.admit",
            text("AND version = 1"),
            "the nearest is '   AND version = ?'",
        ),
        ("runs.admit", swap("run", "None"), "stands 8 times: in common.core.runs.admit$"),
    ],
)
def test_a_mutation_without_its_one_place_is_refused(small: Path, target: str, change: Change, said: str) -> None:
    with pytest.raises(NoPlaceError, match=said.replace("?", r"\?")):
        mutated(small, target, change)


def test_a_name_is_enough_where_one_of_its_bearers_has_the_code(small: Path) -> None:
    assert mutated(small, "admit", swap("LIMIT + 1", "LIMIT")) == SOURCE.replace("LIMIT + 1", "(LIMIT)")
