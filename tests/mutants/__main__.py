# ruff: noqa: T201
"""``python -m tests.mutants`` mutates a copy of the project, one guard at a time; each time a test has to fail.

Prints a table. Exits with 1 if a mutation is not noticed, or can't be tried.
"""

import argparse
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.mutants import GROUPS
from tests.mutants.guards import EQUIVALENT, guards
from tests.mutants.mutation import ROOT, Mutant, Project

LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "e2e", "bench", "docs")
LIMIT_S = 300
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider")

SIMULATION = ("-m", "tests.sim", "--seeds", "0..150", "--stop")
TESTS = (
    "test_state test_retry test_topics test_step_order",
    "test_admission test_queueing test_plans test_preview_run",
    "test_run_store test_run_store_steps test_run_store_quota test_quota_threads test_bus"
    " -k 'not firestore and not postgres'",
    "test_quota_rule -k 'not firestore and not postgres'",
    "test_flow test_runs test_control",
    "test_limits test_money_limit",
    "test_dispatcher",
    "test_store_cost test_attempt",
)
"""What is ``quick``, the quickest first."""


class NotTriedError(Exception):
    """A mutation says nothing about the tests: they can't be run with it, or fail without it."""


def main() -> int:
    """Try every mutation; return 1 if one was not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="mutations with this text in their name")
    parser.add_argument("--group", choices=[*GROUPS, "guards"], help="those of one file")
    parser.add_argument("--some", type=int, help="so many of them, drawn at random")
    wanted = parser.parse_args()
    project = Project()
    chosen = [one for one in _mutants(project, wanted.group) if wanted.only in one.what]
    if wanted.some is not None:
        chosen = random.sample(chosen, min(wanted.some, len(chosen)))
    missed = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        print(f"{'mutation':60} {'caught by':75} seconds")
        for mutant in chosen:
            began = time.monotonic()
            caught = _try(mutant, copy)
            missed += caught.startswith("NOT")
            print(f"{mutant.what:60} {caught:75.75} {time.monotonic() - began:7.1f}", flush=True)
    print(f"{len(chosen)} mutations, {missed} not noticed")
    return 1 if missed else 0


def _mutants(project: Project, group: str | None) -> Iterator[Mutant]:
    for name, mutations in GROUPS.items():
        if group in (None, name):
            yield from (project.mutant(one) for one in mutations)
    if group in (None, "guards"):
        yield from (one for one in guards(project) if one.what not in EQUIVALENT)


def _try(mutant: Mutant, copy: Path) -> str:
    path = copy / mutant.file.relative_to(ROOT)
    source = path.read_bytes()
    # The simulation has a store and a bus of its own, and makes no attempts.
    simulated = "adapters" not in path.parts and path.stem != "attempt"
    quick = ["simulation", *TESTS] if simulated else TESTS
    try:
        for tests in quick if mutant.tests == "quick" else [mutant.tests]:
            path.write_bytes(mutant.changed)
            caught = _noticed(copy, tests)
            path.write_bytes(source)
            if caught:
                _check_without(copy, tests)
                return caught
    except NotTriedError as error:
        return f"NOT TRIED: {error}"
    finally:
        path.write_bytes(source)
    return "NOT NOTICED"


@cache
def _check_without(copy: Path, tests: str) -> None:
    """A test that fails anyway catches nothing."""
    if caught := _noticed(copy, tests):
        raise NotTriedError(f"without any mutation: {caught}")


def _noticed(copy: Path, tests: str) -> str:
    """Return what fails, as short as can be; empty if nothing does."""
    command = SIMULATION if tests == "simulation" else (*PYTEST, *arguments(copy, tests))
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, *command], cwd=copy, env=env, capture_output=True, text=True, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return f"{command[1]} does not end"
    return _reason(done.stdout + done.stderr) if done.returncode else ""


def arguments(root: Path, tests: str) -> list[str]:
    """Return pytest's arguments for a selection of tests, which names files without their folders."""
    names, dash, rest = tests.partition(" -k ")
    found = {name: sorted((root / "tests").rglob(f"{name}.py")) for name in names.split()}
    if missing := [name for name, paths in found.items() if len(paths) != 1]:
        raise NotTriedError(f"no single test file is named {', '.join(missing)}")
    return [*(str(path) for (path,) in found.values()), *(["-k", *shlex.split(rest)] if dash else [])]


def _reason(output: str) -> str:
    if found := re.search(r"^seed (\d+): (.*)$", output, re.MULTILINE):
        text = found[2]
        if text.startswith("Traceback"):
            text = next(line for line in output.splitlines() if re.match(r"\w+(Error|Exception|Broken)\b", line))
        return f"seed {found[1]}: {':'.join(text.split(':')[:2])}"
    if found := re.search(r"^(?:FAILED|ERROR) \S+?::(\S+)", output, re.MULTILINE):
        return found[1]
    # No test has failed: nothing could be imported, or no test is of the selection.
    raise NotTriedError(output.strip().splitlines()[-1] if output.strip() else "an exit without a word")


if __name__ == "__main__":
    sys.exit(main())
