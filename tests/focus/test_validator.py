"""The table of every pipeline, put to the focus-validator and to our own checks."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from common.config.loader import ConfigTree
from common.focus.conformance import CheckedRows, Checks, Report, sources
from common.platform.paths import CONFIGS
from common.processors.registry import REGISTRY
from infra.local.demo_data import DEMO_PIPELINES
from infra.local.emulator import BigQueryEmulator
from tests.focus.pipelines import BESIDE, ORG, OURS, PUBLISHED, Case, World, running
from tests.focus.tables import FOCUS, export
from tests.focus.validator import DOCS, Validator, Verdict, absent, known_false, read

ALL = [
    *(pytest.param(case, id=case.name) for case in OURS),
    *(pytest.param(case, id=case.name, marks=pytest.mark.shared) for case in PUBLISHED),
]
WARNED = {ORG: {"ChargePeriod.day": "cloud_oci_cost_billing"}, BESIDE: {}}
"""A report of Oracle's belongs to the day that it was written on, and is of the one before."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, bigquery_emulator: BigQueryEmulator) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("focus"), bigquery_emulator.url) as world:
        yield world


Written = Callable[[Case], Path]


@pytest.fixture(scope="module")
def written(world: World) -> Written:
    """Returns a file of the rows that a case's pipelines brought."""
    done: dict[str, Path] = {}

    def write(case: Case) -> Path:
        if case.name not in done:
            world.start(case)
            runs = [world.ended(run_id) for run_id in world.started[case.name]]
            path = world.folder / f"{len(done)}.parquet"
            where = f"x_run_id IN ({', '.join(repr(run.run_id) for run in runs)})"
            assert export(world.warehouse, world.table_id(org=case.org), path, where=where) > 0
            done[case.name] = path
        return done[case.name]

    return write


@pytest.fixture(scope="module")
def judged(world: World, written: Written) -> Iterator[Callable[[Case], Verdict]]:
    """Puts a case's rows to the focus-validator, once."""
    if reason := absent():
        pytest.skip(reason)
    done: dict[str, Verdict] = {}

    def judge(case: Case) -> Verdict:
        if case.name not in done:
            done[case.name] = validator.validate(written(case), world.folder / f"validator{len(done)}")
        return done[case.name]

    with Validator() as validator:
        yield judge


def checked(world: World, org: str, **days: date) -> Report:
    origins = sources(ConfigTree(CONFIGS, REGISTRY), FOCUS.table)
    return Checks(CONFIGS).run(world.warehouse, world.table_id(org=org), CheckedRows(org, **days), origins)


@pytest.mark.parametrize("org", WARNED)
def test_rows_of_all_pipelines_together_pass_our_own_checks(world: World, written: Written, org: str) -> None:
    for case in OURS:
        written(case)
    report = checked(world, org)
    rows = Counter(
        row["x_pipeline_id"] for row in world.warehouse.query(f"SELECT x_pipeline_id FROM `{world.table_id(org=org)}`")
    )
    found = {finding.name: finding.failed for finding in report.findings if finding.failed}
    assert found == {check: rows[pipeline] for check, pipeline in WARNED[org].items()}
    assert report.conforms and report.rows == rows.total()


def test_all_of_it_is_proved_to_be_what_the_sources_say(world: World, written: Written) -> None:
    for case in OURS:
        written(case)
    setup = world.setups[ORG]
    asked = {world.ended(run_id).request for case in OURS if case.org == ORG for run_id in world.started[case.name]}
    for first, last in {(request.start_date, request.end_date) for request in asked}:
        days = {"start_date": first.isoformat(), "end_date": last.isoformat()}
        world.ended(world.request(ORG, "genai/unified/consolidate", days))
    rows = list(world.warehouse.query(f"SELECT * FROM `{world.table_id('cost_consolidation')}`"))
    assert {row["proof"] for row in rows} == {"equal"}
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        sums[row["source_pipeline_id"]] += row["sum_out"]
    tree = ConfigTree(CONFIGS, REGISTRY)
    billed = {tree.load(pipeline.route).config.pipeline_id: pipeline.make(setup).billed for pipeline in DEMO_PIPELINES}
    assert sums.keys() == billed.keys()
    assert {name: sums[name] for name, bill in billed.items() if bill is not None} == {
        name: bill for name, bill in billed.items() if bill is not None
    }


@pytest.mark.shared
@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case.name)
def test_rows_of_a_published_bill_pass_our_own_checks(world: World, written: Written, case: Case) -> None:
    written(case)
    (run_id,) = world.started[case.name]
    request = world.ended(run_id).request
    report = checked(world, ORG, first=request.start_date, last=request.end_date)
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
    failed = {rule for case in (*OURS, *PUBLISHED) for rule in judged(case).failed}
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
