# ruff: noqa: T201
"""``python -m tests.sim.mutants`` sabotages a copy of the project line by line; each time something has to notice.

Prints a table. Exits with 1 if a sabotage is not noticed, or if the line that it changes is no longer there.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.sim.sabotage import Sabotage
from tests.sim.sabotages import RUNS
from tests.sim.sabotages_api import API
from tests.sim.sabotages_locks import LOCKS
from tests.sim.sabotages_postgres import POSTGRES
from tests.sim.sabotages_quota import QUOTA

GROUPS = {"runs": RUNS, "quota": QUOTA, "locks": LOCKS, "postgres": POSTGRES, "api": API}
SABOTAGES = tuple(sabotage for group in GROUPS.values() for sabotage in group)
ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "e2e", "bench", "docs")
LIMIT_S = 120
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider")

SIMULATION = ("-m", "tests.sim", "--seeds", "0..150", "--stop")
TESTS = (
    ("tests/unit/test_state.py", "tests/unit/test_retry.py", "tests/unit/test_topics.py"),
    ("tests/unit/test_admission.py", "tests/unit/test_queueing.py", "tests/unit/test_plans.py"),
    (
        "tests/contract/test_run_store.py",
        "tests/contract/test_run_store_steps.py",
        "tests/contract/test_run_store_quota.py",
        "tests/contract/test_quota_threads.py",
        "tests/contract/test_bus.py",
        "-k",
        "not firestore and not postgres",
    ),
    ("tests/functions/test_flow.py", "tests/functions/test_runs.py", "tests/functions/test_control.py"),
    ("tests/functions/test_limits.py", "tests/functions/test_money_limit.py"),
    ("tests/functions/test_dispatcher.py",),
    ("tests/contract/test_store_cost.py", "tests/unit/test_attempt.py"),
)


def main() -> int:
    """Try every sabotage; return 1 if one was not noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="sabotages with this text in their name")
    parser.add_argument("--group", choices=GROUPS, help="one file of sabotages")
    wanted = parser.parse_args()
    chosen = [one for one in GROUPS.get(wanted.group, SABOTAGES) if wanted.only in one.what]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        if caught := _noticed(copy, fast_first=True):
            print(f"Without any sabotage: {caught}. Mend that first.")
            return 1
        print(f"{'sabotage':60} {'caught by':75} seconds")
        for sabotage in chosen:
            began = time.monotonic()
            caught = _try(sabotage, copy)
            missed += caught.startswith("NOT")
            print(f"{sabotage.what:60} {caught:75.75} {time.monotonic() - began:7.1f}", flush=True)
    print(f"{len(chosen)} sabotages, {missed} not noticed")
    return 1 if missed else 0


def _try(sabotage: Sabotage, copy: Path) -> str:
    path = copy / sabotage.file
    text = path.read_text()
    if text.count(sabotage.old) != 1:
        return f"NOT TRIED: its line stands {text.count(sabotage.old)} times in {sabotage.file}"
    path.write_text(text.replace(sabotage.old, sabotage.new))
    try:
        # The simulation has a store and a bus of its own.
        fast_first = "adapters" not in sabotage.file and not sabotage.file.endswith("attempt.py")
        return _noticed(copy, fast_first=fast_first, tests=sabotage.tests) or "NOT NOTICED"
    finally:
        path.write_text(text)


def _noticed(copy: Path, *, fast_first: bool, tests: tuple[str, ...] = ()) -> str:
    """Return what fails, as short as can be; empty if nothing does."""
    for command in _commands(fast_first) if not tests else [(*PYTEST, *tests)]:
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                [sys.executable, *command], cwd=copy, env=env, capture_output=True, text=True, timeout=LIMIT_S
            )
        except subprocess.TimeoutExpired:
            return f"{command[1]} does not end"
        if done.returncode:
            return _reason(done.stdout + done.stderr)
    return ""


def _commands(fast_first: bool) -> Iterator[tuple[str, ...]]:
    if fast_first:
        yield SIMULATION
    for tests in TESTS:
        yield (*PYTEST, *tests)


def _reason(output: str) -> str:
    if found := re.search(r"^seed (\d+): (.*)$", output, re.MULTILINE):
        text = found[2]
        if text.startswith("Traceback"):
            text = next(line for line in output.splitlines() if re.match(r"\w+(Error|Exception|Broken)\b", line))
        return f"seed {found[1]}: {':'.join(text.split(':')[:2])}"
    if found := re.search(r"^(?:FAILED|ERROR) \S+?::(\S+)", output, re.MULTILINE):
        return found[1]
    return output.strip().splitlines()[-1] if output.strip() else "an exit without a word"


if __name__ == "__main__":
    sys.exit(main())
