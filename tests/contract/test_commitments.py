"""FOCUS's second table: commitments from a file and from subscriptions, what charges say of them, and its checks."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.config.loader import ConfigTree
from common.focus.commitments import TABLE, check_commitments, commitment_checks
from common.focus.conformance import CHARGES, COLUMNS, CheckedRows, Report
from common.platform.paths import CONFIGS
from common.processors.base import TableParams
from common.processors.bills.file_extractor import ExternalFileExtractor, ExternalFileParams, date_span
from common.processors.registry import REGISTRY
from common.processors.subscriptions.cost import SubscriptionCost
from common.tables.contract import DATA_DATE, load_table
from tests.conftest import PROJECT
from tests.contract.focus import FOCUS, Dataset, numbers
from tests.focus.rows import charge
from tests.focus.tables import fill, relaxed
from tests.loaded import dropped
from tests.processors.bill_files import rows_of
from tests.processors.context import make_context

COMMITMENTS = load_table(CONFIGS, TABLE)
CHECKS = commitment_checks(CONFIGS)
START, END = datetime(2026, 10, 1, tzinfo=UTC), datetime(2027, 10, 1, tzinfo=UTC)

YEARLY = """
subscriptions:
  - subscription_id: forge
    vendor: Acme
    service: Acme Forge
    currency: EUR
    billing_cycle: yearly
    first_day: "2025-06-01"
    terms:
      - {first_day: "2025-06-01", plan: Cloud, seats: 10, price: "36.50"}
      - {first_day: "2026-10-01", plan: Cloud, seats: 12, price: "36.50"}
  - subscription_id: chat
    vendor: Acme
    service: Acme Chat
    currency: EUR
    billing_cycle: monthly
    first_day: "2026-06-01"
    terms: [{first_day: "2026-06-01", plan: Team, seats: 1, price: "30"}]
"""


@pytest.fixture
def dataset(warehouse: BigQueryWarehouse, tmp_path: Path) -> Iterator[Dataset]:
    with dropped(warehouse, f"{PROJECT}.commitments{next(numbers)}") as name:
        yield Dataset(warehouse, tmp_path, name)


def keep(dataset: Dataset, table: str, rows: list[dict[str, Any]], days: tuple[date, date]) -> None:
    """Write what a procedure has made into its table, as the engine does: the stamps are the engine's."""
    names = {*load_table(CONFIGS, table).names, DATA_DATE}
    dataset.fill(table, [{k: v for k, v in row.items() if k in names} for row in rows], days=days)


def found(report: Report | None) -> dict[str, int]:
    assert report is not None and not report.not_run
    return {finding.name: finding.failed for finding in report.findings if finding.failed}


def read_file(folder: Path, name: str, route: str) -> tuple[list[dict[str, Any]], tuple[date, date]]:
    """What the first step of the shipped pipeline reads of a file."""
    (config,) = (s.config for s in ConfigTree(CONFIGS, REGISTRY).load(route).config.steps if s.step_id == "extract")
    params = ExternalFileParams.model_validate({**config, "source": name})
    days = date_span(folder / name, params, CONFIGS)
    context = make_context(landing=folder, start_date=days[0], end_date=days[1])
    return [row for batch in ExternalFileExtractor().run(context, params) for row in rows_of(batch)], days


@pytest.mark.shared
def test_the_published_commitments_of_a_bill_are_those_that_its_charges_name(
    dataset: Dataset, shared_data: Path
) -> None:
    """Ten commitments of 530096.565760 (sums.json), and a hundred charges of which 95 count for one or more."""
    folder = shared_data / "focus"
    rows, days = read_file(folder, "fdt_aws_1_3_contract_commitment.csv", "aws/cost/commitments")
    dataset.fill("cloud_commitment_export", rows, days=days)
    where = {"start_date": days[0], "end_date": days[1]}
    made = dataset.call("sp_lift_commitments", "cloud_commitment_export", into=COMMITMENTS, **where)
    keep(dataset, TABLE, made, days)
    assert (len(made), sum(row["ContractCommitmentCost"] for row in made)) == (10, Decimal("530096.565760"))

    rows, days = read_file(folder, "fdt_aws_1_3_rows100.csv", "aws/cost/billing")
    dataset.fill("cloud_focus_export", rows, days=days)
    where = {"start_date": days[0], "end_date": days[1]}
    keep(dataset, CHARGES, dataset.call("sp_lift_focus_export", "cloud_focus_export", **where), days)
    report = check_commitments(CHECKS, dataset.warehouse, dataset.name, CheckedRows("acme"))
    assert report is not None and (report.rows, report.conforms, found(report)) == (10, True, {})


def test_a_commitment_without_a_contract_is_its_own(dataset: Dataset) -> None:
    day = date(2026, 10, 5)
    row = {"source_file": "x.csv", "source_row": 1, "ContractCommitmentId": "plan-1", "ContractCommitmentType": "Plan"}
    row |= {"ContractCommitmentCategory": "Spend", "extra": {"x_a": "1"}}
    row |= {f"Contract{which}Period{bound}": START for which in ("", "Commitment") for bound in ("Start", "End")}
    dataset.fill("cloud_commitment_export", [row], days=(day, day))
    (made,) = dataset.call("sp_lift_commitments", "cloud_commitment_export", into=COMMITMENTS)
    assert (made["ContractId"], made["x_SourceColumns"], made["x_FocusVersion"]) == ("plan-1", {"x_a": "1"}, "1.3")


def test_a_cycle_longer_than_a_month_is_a_commitment_that_its_days_use_up_to_the_last_digit(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """365.00 for the year from June; two seats more in October are charged besides. The chat is no commitment."""
    folder = tmp_path / "configs" / "system" / "subscriptions"
    folder.mkdir(parents=True)
    (folder / "acme.yml").write_text(YEARLY)
    days = date(2026, 6, 1), date(2027, 5, 31)
    context = make_context(org_slug="acme", start_date=days[0], end_date=days[1], configs=tmp_path / "configs")
    params = TableParams(destination_table="subscription_cost")
    rows = [dict(row) for batch in SubscriptionCost().run(context, params) for row in batch.rows]
    dataset.fill("subscription_cost", rows, days=days)
    where = {"start_date": days[0], "end_date": days[1]}
    made = dataset.call("sp_subscription_commitments", "subscription_cost", into=COMMITMENTS, **where)
    (commitment,) = made
    expected = {
        "ContractCommitmentId": "forge/2026-06-01",
        "ContractId": "forge",
        "ContractCommitmentCategory": "Spend",
        "ContractCommitmentCost": Decimal("365.00"),
        "BillingCurrency": "EUR",
        "ContractCommitmentDescription": "Acme Forge, Cloud, 10 seats, yearly",
        "ContractCommitmentPeriodStart": datetime(2026, 6, 1, tzinfo=UTC),
        "ContractCommitmentPeriodEnd": datetime(2027, 6, 1, tzinfo=UTC),
        "ContractPeriodStart": datetime(2025, 6, 1, tzinfo=UTC),
        "ContractPeriodEnd": datetime(2027, 6, 1, tzinfo=UTC),
    }
    assert {name: commitment[name] for name in expected} == expected
    keep(dataset, TABLE, made, days)

    charges = dataset.call("sp_subscription_to_focus", "subscription_cost", **where)
    keep(dataset, CHARGES, charges, days)
    assert {row["ContractApplied"] is None for row in charges if row["ServiceName"] == "Acme Chat"} == {True}
    applied: dict[tuple[str, str], list[Decimal]] = {}
    for row in (row for row in charges if row["ContractApplied"]):
        (part,) = row["ContractApplied"]["Elements"]
        key = row["ChargeCategory"], part["ContractCommitmentId"]
        applied.setdefault(key, []).append(Decimal(str(part["ContractCommitmentAppliedCost"])))
    used = applied["Usage", "forge/2026-06-01"]
    assert (len(used), sum(used)) == (365, Decimal("365.00"))
    assert applied["Purchase", "forge/2026-06-01"] == [Decimal("365.00")], "what is added in October is none"
    (bought,) = (row for row in charges if row["ResourceId"] is not None)
    assert (bought["ResourceId"], bought["ResourceType"]) == ("forge/2026-06-01", "Subscription")
    assert found(check_commitments(CHECKS, dataset.warehouse, dataset.name, CheckedRows("acme"))) == {}


def commitment(number: str, **more: Any) -> dict[str, Any]:
    return {
        DATA_DATE: START.date(),
        "BillingCurrency": "USD",
        "ContractCommitmentCategory": "Spend",
        "ContractCommitmentCost": Decimal(100),
        "ContractCommitmentDescription": "A plan",
        "ContractCommitmentId": number,
        "ContractCommitmentPeriodStart": START,
        "ContractCommitmentPeriodEnd": END,
        "ContractCommitmentType": "Plan",
        "ContractId": "contract",
        "ContractPeriodStart": START,
        "ContractPeriodEnd": END,
        "x_FocusVersion": "1.3",
        **more,
    }


TOO_LATE = datetime(2027, 9, 30, 23, 59, 59, tzinfo=UTC)
USAGE = {"ContractCommitmentCategory": "Usage", "ContractCommitmentQuantity": Decimal(9), "ContractCommitmentUnit": "H"}
DEFECTS: dict[str, list[dict[str, Any]]] = {
    **{
        f"{name}.missing": [{name: None}]
        for name in (
            *("ContractCommitmentCategory", "ContractCommitmentDescription", "ContractCommitmentId", "ContractId"),
            *("ContractCommitmentPeriodEnd", "ContractCommitmentPeriodStart", "ContractCommitmentType"),
            *("ContractPeriodEnd", "ContractPeriodStart", "BillingCurrency", "ContractCommitmentCost"),
        )
    },
    "ContractCommitmentQuantity.missing": [USAGE | dict.fromkeys(list(USAGE)[1:])],
    "ContractCommitmentUnit.pair": [USAGE | {"ContractCommitmentUnit": None}],
    "ContractCommitmentCategory.allowed": [{"ContractCommitmentCategory": "spend"}],
    "BillingCurrency.format": [{"BillingCurrency": "usd"}],
    "ContractCommitment.negative": [{"ContractCommitmentCost": Decimal(-1)}],
    "text.placeholder": [{"ContractCommitmentType": "N/A"}],
    "x_FocusVersion.known": [{"x_FocusVersion": "1.4"}],
    "ContractCommitmentPeriod.order": [{"ContractCommitmentPeriodEnd": START}],
    "ContractPeriod.order": [{"ContractPeriodEnd": START, "ContractCommitmentPeriodEnd": None}],
    "ContractPeriod.around": [{"ContractPeriodEnd": datetime(2027, 9, 1, tzinfo=UTC)}],
    "ContractPeriod.inclusive_end": [{"ContractCommitmentPeriodEnd": TOO_LATE}],
    "ContractCommitmentPeriod.day": [{DATA_DATE: date(2026, 10, 2)}],
    "ContractCommitmentId.twice": [{}, {}],
    "ContractCommitmentId.contracts": [{}, {"ContractId": "other"}],
}
FURTHER = {
    "ContractPeriod.order": "ContractCommitmentPeriodEnd.missing",
    "ContractCommitmentId.contracts": "ContractCommitmentId.twice",
}
"""What else a defect is found by: it can't be planted without."""

APPLIED = {
    "ContractApplied.unknown": {"part": {"ContractCommitmentId": "plan-9"}},
    "ContractApplied.contract": {"part": {"ContractId": "other"}},
    "ContractApplied.currency": {"BillingCurrency": "EUR"},
    "ContractApplied.period": {"ChargePeriodStart": END},
    "ContractApplied.exceeded": {"part": {"ContractCommitmentAppliedCost": 100.5}},
}


def counts(plan: str, part: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A charge that counts for the commitment ``plan``."""
    element = {"ContractId": "contract", "ContractCommitmentId": plan, "ContractCommitmentAppliedCost": 60}
    return charge(
        "covered", "60", ChargeCategory="Usage", ContractApplied={"Elements": [element | (part or {})]}, **more
    )


@pytest.fixture(scope="module")
def planted(warehouse: BigQueryWarehouse, tmp_path_factory: pytest.TempPathFactory) -> tuple[BigQueryWarehouse, str]:
    """A clean commitment with its charge, and in another organisation each defect in a commitment of its own."""
    folder, dataset = tmp_path_factory.mktemp("rows"), f"{PROJECT}.commitments_planted"
    wrong = [commitment(check) | change for check, changes in DEFECTS.items() for change in changes]
    wrong += [commitment(check) for check in APPLIED]
    charges = [counts(check, **more) for check, more in APPLIED.items()]
    for org, its, costs in (("clean", [commitment("plan")], [counts("plan")]), ("wrong", wrong, charges)):
        fill(warehouse, folder, f"{dataset}.{TABLE}", relaxed(COMMITMENTS), its, org=org)
        fill(warehouse, folder, f"{dataset}.{CHARGES}", relaxed(FOCUS), costs, org=org)
    return warehouse, dataset


def test_a_clean_commitment_passes_every_check(planted: tuple[BigQueryWarehouse, str]) -> None:
    warehouse, dataset = planted
    report = check_commitments(CHECKS, warehouse, dataset, CheckedRows("clean"))
    assert report is not None and report.conforms and (report.rows, found(report)) == (1, {})
    assert [finding.name for finding in report.findings] == [n for family in CHECKS.catalog.values() for n in family]


def test_each_planted_defect_is_found_by_its_check_and_by_no_other(planted: tuple[BigQueryWarehouse, str]) -> None:
    warehouse, dataset = planted
    report = check_commitments(CHECKS, warehouse, dataset, CheckedRows("wrong"))
    assert found(report) == Counter([*DEFECTS, *APPLIED, *FURTHER.values()])
    assert report is not None and not report.conforms
    for finding in (finding for finding in report.findings if finding.failed):
        plans = {json.loads(example)["commitment"] for example in finding.examples}
        causes = {check for check in (*DEFECTS, *APPLIED) if finding.name in (check, FURTHER.get(check))}
        assert plans <= causes | {None, "plan-9"}, finding.name


@pytest.mark.parametrize("family", [family for family in CHECKS.catalog if family != COLUMNS])
def test_a_check_answers_as_google_s_reference_implementation_does(
    planted: tuple[BigQueryWarehouse, str], family: str
) -> None:
    warehouse, dataset = planted
    there = {f"{dataset}.{name}": list(warehouse.query(f"SELECT * FROM `{dataset}.{name}`")) for name in (TABLE, CHARGES)}
    contracts = {f"{dataset}.{TABLE}": COMMITMENTS, f"{dataset}.{CHARGES}": FOCUS}
    tables = {name: rows_of(contracts[name], rows, stored=True) for name, rows in there.items()}
    for org in ("clean", "wrong"):
        values = asdict(CheckedRows(org))
        given = {parameter.name: (str(parameter.type_), parameter.value) for parameter in typed(values)}
        for sql, _ in CHECKS.statements(family, f"{dataset}.{TABLE}", ()):
            emulated = {row["name"]: row["failed"] for row in warehouse.query(sql, values)}
            evaluated = evaluation.query(sql, tables, parameters=given)
            assert {row["name"]: row["failed"] for row in evaluated} == emulated
            assert bool(emulated) is (org == "wrong")


def test_every_check_has_a_planted_defect() -> None:
    named = {name for family in CHECKS.catalog.values() for name in family if not name.startswith("columns.")}
    assert named == {*DEFECTS, *APPLIED}


def test_charges_of_other_days_are_not_checked_and_commitments_of_all_days_are(
    planted: tuple[BigQueryWarehouse, str],
) -> None:
    warehouse, dataset = planted
    report = check_commitments(CHECKS, warehouse, dataset, CheckedRows("wrong", first=date(2027, 1, 1)))
    assert found(report) == Counter([*DEFECTS, *FURTHER.values()])


def test_an_organisation_without_commitments_has_no_report(planted: tuple[BigQueryWarehouse, str]) -> None:
    warehouse, dataset = planted
    assert check_commitments(CHECKS, warehouse, dataset, CheckedRows("nobody")) is None
    assert check_commitments(CHECKS, warehouse, f"{PROJECT}.nothing_here", CheckedRows("clean")) is None


@pytest.mark.parametrize(
    ("select", "check"),
    [
        ("* EXCEPT (ContractId)", "columns.missing"),
        ("* REPLACE (CAST(ContractCommitmentCost AS STRING) AS ContractCommitmentCost)", "columns.type"),
        ("*, 1 AS Margin", "columns.unknown"),
    ],
)
def test_a_column_that_is_missing_strange_or_of_another_type_is_found(
    planted: tuple[BigQueryWarehouse, str], select: str, check: str
) -> None:
    warehouse, dataset = planted
    other = f"{PROJECT}.commitments_{check.replace('.', '_')}"
    warehouse.tables.make_dataset(other)
    sql = f"CREATE TABLE `{other}.{TABLE}` AS SELECT {select} FROM `{dataset}.{TABLE}` WHERE x_org_slug = 'clean'"
    warehouse.connection.client.query(sql).result()
    report = check_commitments(CHECKS, warehouse, other, CheckedRows("clean"))
    assert report is not None
    assert {finding.name for finding in report.findings if finding.failed} == {check}
    assert report.conforms is False
    assert set(report.not_run) == ({"applied"} if check == "columns.unknown" else {"rows", "applied"})


def test_the_columns_that_are_checked_are_those_of_the_contract() -> None:
    ((text, _),) = CHECKS.statements(COLUMNS, f"p.d.{TABLE}", ())
    listed = re.findall(r"'([A-Za-z_]+) ([A-Z0-9]+)'", text)
    own = ("x_FocusVersion", "x_org_slug", "x_pipeline_id", "x_pipeline_run_date")
    assert listed == [(c.name, c.type) for c in COMMITMENTS.all_columns if not c.name.startswith("x_") or c.name in own]


@pytest.mark.shared
def test_the_table_and_its_checks_are_those_of_the_specification(shared_data: Path) -> None:
    focus = shared_data.parent / "focus"
    with (focus / "columns_1_3.csv").open(encoding="utf-8", newline="") as file:
        published = {r["column"]: r for r in csv.DictReader(file) if r["dataset"] == "ContractCommitment"}
    own = {column.name: column for column in COMMITMENTS.columns if not column.name.startswith("x_")}
    assert own.keys() == published.keys()
    types = {"String": "STRING", "Decimal": "BIGNUMERIC", "Date/Time": "TIMESTAMP"}
    for name, column in own.items():
        assert column.type == types[published[name]["type"]], name
        assert (column.mode == "NULLABLE") == (published[name]["nullable_effective"] == "True"), name
    assert published["ContractCommitmentCategory"]["allowed_values"] == "Spend|Usage"
    with (focus / "rules_1_3.csv").open(encoding="utf-8", newline="") as file:
        rules = {row["rule"] for row in csv.DictReader(file)}
    assert {rule for checks in CHECKS.catalog.values() for check in checks.values() for rule in check.focus} <= rules
