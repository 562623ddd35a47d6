"""Runs the FinOps Foundation's focus-validator on a file of FOCUS rows, and reads what it says, rule by rule.

It succeeds though rules fail, so its JUnit file is read. One bad rule fails all rules that are made of it: only
leaves count. It is in a venv of its own (``requirements.txt`` beside this), and its rules of 1.3 lie in ``../shared``.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from common.platform.paths import PROJECT_ROOT

VALIDATOR = Path(os.environ.get("FOCUS_VALIDATOR") or PROJECT_ROOT / ".venv-focus" / "bin" / "focus-validator")
PROGRAM = Path(__file__).with_name("validator_process.py")
RULES = PROJECT_ROOT.parent / "shared" / "focus" / "rules"
MODEL = RULES / "model-1.3.0.4.json"
DOCS = PROJECT_ROOT / "docs" / "focus.md"
TIMEOUT_S = 600.0


def absent() -> str:
    """Return what is missing for a run, in words; empty if nothing is."""
    if not MODEL.is_file():
        return "needs the rules of FOCUS 1.3 in ../shared/focus"
    if not VALIDATOR.is_file():
        return "needs the focus-validator: make .venv-focus/.installed"
    return ""


@dataclass(frozen=True)
class Verdict:
    """Leaf rules by what became of them. ``failed`` says of each what it demands."""

    passed: frozenset[str]
    failed: dict[str, str]
    skipped: frozenset[str]


class Validator:
    """The validator in a process of its own, which takes one file after the other and ends with the block."""

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [str(VALIDATOR.with_name("python")), str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def validate(self, parquet: Path, folder: Path) -> Verdict:
        """Put the file to it; ``folder`` is an empty one for what it writes."""
        beside = folder / "focus_validator" / "rules"
        beside.mkdir(parents=True)
        shutil.copy(RULES / "currency_codes.csv", beside)  # 2.2.1 opens this path relative to where it runs
        answer = folder / "out.xml"
        arguments = ["--block-download", "--validate-version", "1.3", "--rule-set-path", str(RULES)]
        arguments += ["--applicability-criteria", "ALL", "--data-file", str(parquet)]
        arguments += ["--output-type", "unittest", "--output-destination", str(answer)]
        problem = self._run(folder, arguments)
        assert not problem and answer.is_file(), f"the focus-validator broke down: {problem} {self._log_end()}"
        return read(answer, json.loads(MODEL.read_text("utf-8"))["ModelRules"])

    def _run(self, folder: Path, arguments: list[str]) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        # A validator that hangs is killed, and so has no answer.
        limit = threading.Timer(TIMEOUT_S, self._process.kill)
        limit.start()
        try:
            print(json.dumps({"folder": str(folder), "arguments": arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        finally:
            limit.cancel()
        return str(json.loads(line)["problem"]) if line else "its process ended."

    def _log_end(self) -> str:
        self._log.seek(0)
        return self._log.read()[-2000:]


def read(answer: Path, rules: dict[str, Any]) -> Verdict:
    """Return what a JUnit file of the validator says about the leaf rules."""
    passed, skipped, failed = set[str](), set[str](), dict[str, str]()
    for case in ET.parse(answer).getroot().iter("testcase"):
        rule = case.get("name", "").split(" :: ")[0]
        if not _is_leaf(rules.get(rule, {})):
            continue
        if case.find("failure") is not None:
            failed[rule] = rules[rule]["ValidationCriteria"]["MustSatisfy"]
        elif case.find("skipped") is not None:
            skipped.add(rule)
        else:
            passed.add(rule)
    return Verdict(frozenset(passed), failed, frozenset(skipped))


def _is_leaf(rule: dict[str, Any]) -> bool:
    """A rule that no other rules make up. One that the model does not have is none."""
    items = rule.get("ValidationCriteria", {}).get("Requirement", {}).get("Items") or []
    made_up = any(item.get("CheckFunction") == "CheckModelRule" for item in items)
    return bool(rule) and rule.get("Function") != "Composite" and not made_up


def known_false(text: str) -> set[str]:
    """Return the rules that docs/focus.md lists as failing though the rows are right, each with its reason."""
    listed = re.findall(r"^\| `([A-Za-z]+(?:-[A-Za-z0-9]+)+)` \| (.*?) \|$", text, re.MULTILINE)
    return {rule for rule, reason in listed if reason}
