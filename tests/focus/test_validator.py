"""The table of every pipeline, put to the focus-validator and to our own checks."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.config.loader import ConfigTree
from common.conformance import Checks, Report, Scope, sources
from common.paths import configs_dir
from tests.focus.pipelines import CASES, ORG, Case, World, running
from tests.focus.tables import FOCUS, export
from tests.focus.validator import DOCS, Verdict, absent, known_false, read, validate

ALL = [pytest.param(case, id=case.name, marks=[pytest.mark.shared] if case.shared else []) for case in CASES]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("focus")) as world:
        yield world


Checked = tuple[Report, Path]
Written = Callable[[Case], Checked]


@pytest.fixture(scope="module")
def written(world: World) -> Written:
    """Runs a case's pipeline, once; returns what our checks say of its rows, and a file of them."""
    done: dict[str, Checked] = {}
    origins = sources(ConfigTree(configs_dir()), FOCUS.table)

    def write(case: Case) -> Checked:
        if case.name not in done:
            run = world.run(case.route, case.prepare(world))
            warehouse = world.stack.engine.attempts.warehouse()
            # The next case may replace these rows, so both are done at once.
            path = world.folder / f"{len(done)}.parquet"
            count = export(warehouse, world.table_id, path, where=f"x_run_id = '{run.run_id}'")
            scope = Scope(ORG, run.request.start_date, run.request.end_date)
            report = Checks(configs_dir()).run(warehouse, world.table_id, scope, origins)
            assert 0 < count <= report.rows
            done[case.name] = report, path
        return done[case.name]

    return write


@pytest.fixture(scope="module")
def judged(world: World, written: Written) -> Callable[[Case], Verdict]:
    """Puts a case's rows to the focus-validator, once."""
    if reason := absent():
        pytest.skip(reason)
    done: dict[str, Verdict] = {}

    def judge(case: Case) -> Verdict:
        if case.name not in done:
            done[case.name] = validate(written(case)[1], world.folder / f"validator{len(done)}")
        return done[case.name]

    return judge


@pytest.mark.parametrize("case", ALL)
def test_rows_of_a_pipeline_pass_our_own_checks_warnings_included(written: Written, case: Case) -> None:
    report, _ = written(case)
    assert {finding.name: finding.examples for finding in report.findings if finding.failed} == {}
    assert report.conforms


@pytest.mark.parametrize("case", ALL)
def test_rows_of_a_pipeline_fail_no_rule_of_the_validator_but_those_that_docs_list(
    judged: Callable[[Case], Verdict], case: Case
) -> None:
    verdict = judged(case)
    known = known_false(DOCS.read_text("utf-8"))
    assert {rule: text for rule, text in verdict.failed.items() if rule not in known} == {}
    assert len(verdict.passed) > 300, "far fewer rules were run than there are: the file or the model is not read right"


@pytest.mark.shared
def test_every_rule_that_docs_list_as_false_still_fails_somewhere(judged: Callable[[Case], Verdict]) -> None:
    """Else it is to be taken off the list, which only ever gets shorter."""
    failed = {rule for case in CASES for rule in judged(case).failed}
    assert known_false(DOCS.read_text("utf-8")) - failed == set()


def test_a_rule_that_others_make_up_is_no_leaf_and_a_failed_one_is_told_by_what_it_demands(tmp_path: Path) -> None:
    answer = tmp_path / "out.xml"
    answer.write_text(
        """<testsuites><testsuite>
        <testcase name="CAU-A-C-000-M :: A adheres"><failure message="Composite check for A"/></testcase>
        <testcase name="CAU-A-C-001-M :: A MUST be"><failure message="no"/></testcase>
        <testcase name="CAU-A-C-002-M :: A MAY be"><skipped/></testcase>
        <testcase name="CAU-A-C-003-M :: A MUST not"/>
        <testcase name="CAU-A-C-004-M :: made up"><failure message="no"/></testcase>
        <testcase name="CAU-Z-C-001-M :: not in the model"><failure message="no"/></testcase>
        </testsuite></testsuites>"""
    )

    def leaf(text: str) -> dict[str, object]:
        return {"Function": "Validation", "ValidationCriteria": {"MustSatisfy": text, "Requirement": {}}}

    composed = leaf("made up")
    composed["ValidationCriteria"] = {"Requirement": {"Items": [{"CheckFunction": "CheckModelRule"}]}}
    rules = {
        "CAU-A-C-000-M": {**leaf("A adheres"), "Function": "Composite"},
        "CAU-A-C-001-M": leaf("A MUST be."),
        "CAU-A-C-002-M": leaf("A MAY be."),
        "CAU-A-C-003-M": leaf("A MUST not."),
        "CAU-A-C-004-M": composed,
    }
    verdict = read(answer, rules)
    assert verdict.failed == {"CAU-A-C-001-M": "A MUST be."}
    assert (verdict.passed, verdict.skipped) == ({"CAU-A-C-003-M"}, {"CAU-A-C-002-M"})


def test_a_rule_without_a_reason_is_not_on_the_list() -> None:
    text = "| rule | why |\n| --- | --- |\n| `CAU-A-C-001-M` | it forgets a condition |\n| `CAU-B-C-001-M` |  |\n"
    assert known_false(text) == {"CAU-A-C-001-M"}
