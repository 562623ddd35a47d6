"""Runs the FinOps Foundation's focus-validator on a file of FOCUS rows, and reads what it says, rule by rule.

It ends with 0 though rules fail, so its JUnit file is read. One bad rule fails all rules that are made of it: only
leaves count. It is in a venv of its own (``requirements.txt`` beside this), and its rules of 1.3 lie in ``../shared``.
"""

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.platform.paths import PROJECT_ROOT

VALIDATOR = Path(os.environ.get("FOCUS_VALIDATOR") or PROJECT_ROOT / ".venv-focus" / "bin" / "focus-validator")
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


def validate(parquet: Path, folder: Path) -> Verdict:
    """Run the validator on the file; ``folder`` is an empty one for what it writes."""
    beside = folder / "focus_validator" / "rules"
    beside.mkdir(parents=True)
    shutil.copy(RULES / "currency_codes.csv", beside)  # 2.2.1 opens this path relative to where it runs
    answer = folder / "out.xml"
    command = [str(VALIDATOR), "--block-download", "--validate-version", "1.3", "--rule-set-path", str(RULES)]
    command += ["--applicability-criteria", "ALL", "--data-file", str(parquet)]
    command += ["--output-type", "unittest", "--output-destination", str(answer)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 0 and answer.is_file(), f"the focus-validator broke down: {ended.stderr[-2000:]}"
    return read(answer, json.loads(MODEL.read_text("utf-8"))["ModelRules"])


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
