"""The conformance checks, run for real: they let the clean rows pass, and find every defect that is planted in them."""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import iso4217
import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.config.loader import ConfigTree
from common.focus.conformance import COLUMNS, CheckedRows, Checks, Report, SourceTable, sources
from common.platform.paths import CONFIGS
from common.processors.registry import REGISTRY
from common.tables.contract import load_table
from tests.conftest import PROJECT
from tests.focus import planted
from tests.focus.planted import Defect
from tests.focus.rows import clean_rows
from tests.focus.tables import FOCUS, fill, relaxed

CHECKS = Checks(CONFIGS)
DATASET = f"{PROJECT}.conformance"
CLEAN = f"{DATASET}.cost_data_standard_1_3"
LOOSE = f"{DATASET}.loose"
"""The same columns, none of them REQUIRED, and so able to hold what is wrong. Each defect has an organisation there."""

KNOWN = [*planted.VALIDATOR_CATCHES, *planted.VALIDATOR_MISSES]
ROW_FAMILIES = sorted({defect.family for defect in planted.EVERY})


def org_of(what: str) -> str:
    return re.sub(r"\W+", "_", what.lower())


def changed(defect: Defect, org: str) -> str:
    """Return SQL for the clean rows, those of the defect's kind changed."""
    condition = f"ChargeDescription = '{defect.row}'" if defect.row else "TRUE"
    changes = [f"IF({condition}, {value}, {column}) AS {column}" for column, value in defect.changes.items()]
    return f"SELECT * REPLACE ({', '.join([f"'{org}' AS x_org_slug", *changes])}) FROM `{LOOSE}`"


@dataclass
class Planted:
    """A warehouse with clean rows, and beside them the same with defects."""

    warehouse: BigQueryWarehouse

    def run(self, sql: str) -> None:
        self.warehouse.connection.client.query(sql).result()

    def family(self, family: str, org: str, table: str = LOOSE) -> Counter[str]:
        findings = CHECKS.family(self.warehouse, family, table, CheckedRows(org))
        return Counter({finding.name: finding.failed for finding in findings if finding.failed})


@pytest.fixture(scope="module")
def tables(warehouse: BigQueryWarehouse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    folder = tmp_path_factory.mktemp("rows")
    fill(warehouse, folder, CLEAN, FOCUS, clean_rows())
    fill(warehouse, folder, LOOSE, relaxed(FOCUS), clean_rows())
    made = Planted(warehouse)
    of_clean = " WHERE x_org_slug = 'acme'"
    selects = [changed(defect, org_of(defect.what)) + of_clean for defect in KNOWN]
    for defect in planted.EVERY:  # a copy of one row, under the organisation of its family
        row = f"{of_clean} AND ChargeDescription = '{defect.row}'"
        selects.append(changed(defect, f"every_{defect.family}") + row)
    for org in ("every_periods", "every_consistency", "twice"):  # beside the clean ones, for what takes two
        selects.append(changed(Defect("", "", {}, ()), org) + of_clean)
    selects.append(changed(Defect("", "", {}, ()), "twice") + f"{of_clean} AND ChargeDescription = 'machine'")
    made.run(f"INSERT INTO `{LOOSE}` {' UNION ALL '.join(selects)}")
    yield made


@pytest.fixture(scope="module")
def clean_report(tables: Planted) -> Report:
    return CHECKS.run(tables.warehouse, CLEAN, CheckedRows("acme"))


def test_clean_rows_pass_every_check(clean_report: Report) -> None:
    failed = {f.name: f.examples for f in clean_report.findings if f.failed and f.name != "sums.unknown"}
    assert failed == {}
    assert (clean_report.rows, clean_report.not_run, clean_report.conforms) == (12, {}, True)
    assert [finding.name for finding in clean_report.findings] == [n for f in CHECKS.catalog.values() for n in f]


@pytest.mark.parametrize("defect", KNOWN, ids=lambda defect: defect.what)
def test_a_defect_that_was_planted_for_the_validator_is_found(tables: Planted, defect: Defect) -> None:
    assert tables.family(defect.family, org_of(defect.what)) == Counter(defect.finds)


@pytest.mark.parametrize("what", planted.COLUMN_DEFECTS)
def test_a_column_that_is_missing_strange_or_of_another_type_is_found(tables: Planted, what: str) -> None:
    selected, check = planted.COLUMN_DEFECTS[what]
    table = f"{DATASET}.{org_of(what)}"
    tables.run(f"CREATE TABLE `{table}` AS SELECT {selected} FROM `{CLEAN}`")
    report = CHECKS.run(tables.warehouse, table, CheckedRows("acme")) if check == "columns.missing" else None
    assert set(tables.family("columns", "acme", table)) == {check}
    if report is not None:
        assert not report.conforms and set(report.not_run) == set(CHECKS.catalog) - {"columns"}


def test_a_row_that_is_there_twice_is_found(tables: Planted) -> None:
    assert tables.family("consistency", "twice") == {"row.twice": 1}


@pytest.mark.parametrize("family", ROW_FAMILIES)
def test_every_check_of_a_family_finds_its_defects_and_no_others(tables: Planted, family: str) -> None:
    expected = Counter(name for defect in planted.EVERY if defect.family == family for name in defect.finds)
    assert tables.family(family, f"every_{family}") == expected


def test_every_check_has_a_planted_defect() -> None:
    found = {name for defect in (*KNOWN, *planted.EVERY) for name in defect.finds}
    found |= {check for _, check in planted.COLUMN_DEFECTS.values()} | {"sums.source", "sums.unknown"}
    assert found == {name for checks in CHECKS.catalog.values() for name in checks}


def test_an_example_is_the_key_of_a_row_and_no_amount_tag_or_name(tables: Planted) -> None:
    (finding,) = [
        finding
        for finding in CHECKS.family(tables.warehouse, "json", LOOSE, CheckedRows(org_of("nested object in Tags")))
        if finding.failed
    ]
    assert finding.examples == (
        '{"pipeline":"pipe","credential":"cred","day":"2026-10-05","account":"100","sub_account":"200",'
        '"resource":"vm-1","sku_price":"vm/price","category":"Usage"}',
    )


def test_rows_of_other_organisations_and_days_are_not_checked(tables: Planted) -> None:
    later = CheckedRows(org_of("unknown currency"), first=clean_rows()[0]["x_pipeline_run_date"].replace(day=6))
    assert [f.name for f in CHECKS.family(tables.warehouse, "values", LOOSE, later) if f.failed] == []


def source_rows(*costs: str | None) -> list[dict[str, object]]:
    (row, *_) = clean_rows()
    return [
        {
            "x_pipeline_run_date": row["x_pipeline_run_date"],
            "provider": "openai",
            "account_id": "org-1",
            "endpoint": "completions",
            "meter": "input_text",
            "quantity": Decimal(1),
            "unit": "Tokens",
            "currency": "USD",
            "price_variant": "standard",
            "cost": None if cost is None else Decimal(cost),
        }
        for cost in costs
    ]


def test_sums_are_compared_with_those_of_the_source_to_the_last_digit(tables: Planted, tmp_path: Path) -> None:
    """However the source splits it up; usage without a price is no cost."""
    contract = load_table(CONFIGS, "genai_payg_cost")
    source = [SourceTable("pipe", contract.table, contract.billed, "currency")]

    def compared(*costs: str | None) -> dict[str, tuple[int, tuple[str, ...]]]:
        fill(tables.warehouse, tmp_path, f"{DATASET}.{contract.table}", contract, source_rows(*costs))
        findings = CHECKS.family(tables.warehouse, "sums", CLEAN, CheckedRows("acme"), source)
        return {f.name: (f.failed, f.examples) for f in findings if f.failed}

    billed = sum((row["BilledCost"] for row in clean_rows()), Decimal(0))
    assert compared(str(billed - 1), "1", None) == {}
    failed, (example,) = compared(str(billed + Decimal("1e-18")))["sums.source"]
    assert failed == 1 and '"currency":"USD"' in example and '"pipeline":"pipe"' in example


def test_credits_that_are_a_list_beside_the_cost_are_a_part_of_the_sum(tables: Planted, tmp_path: Path) -> None:
    contract = load_table(CONFIGS, "gcp_billing_export")
    source = [SourceTable("pipe", contract.table, contract.billed, "currency", credits=contract.billed_credits)]
    billed = sum((row["BilledCost"] for row in clean_rows()), Decimal(0))
    day = clean_rows()[0]["x_pipeline_run_date"]
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)

    def compared(credits: object) -> int:
        row = {"billing_account_id": "0", "usage_start_time": start, "cost": billed + 3, "currency": "USD"}
        rows = [row | {"x_pipeline_run_date": day, "credits": credits}]
        fill(tables.warehouse, tmp_path, f"{DATASET}.{contract.table}", contract, rows)
        return sum(f.failed for f in CHECKS.family(tables.warehouse, "sums", CLEAN, CheckedRows("acme"), source))

    assert compared([{"type": "PROMOTION", "amount": -2.5}, {"type": "DISCOUNT", "amount": -0.5}]) == 0
    assert compared([{"type": "PROMOTION", "amount": -2.5}]) == compared([]) == compared(None) == 1


def test_rows_without_a_known_source_are_told_and_do_not_fail(clean_report: Report) -> None:
    (told,) = [finding for finding in clean_report.findings if finding.name == "sums.unknown"]
    assert (told.failed, told.examples, told.is_wrong) == (12, ('{"pipeline":"pipe"}',), False)


def test_every_pipeline_that_writes_focus_rows_says_what_its_source_bills() -> None:
    tree = ConfigTree(CONFIGS, REGISTRY)
    writers = {
        config.pipeline_id
        for config in (tree.load(route).config for route in tree.routes())
        if any(step.config.get("destination_table") == FOCUS.table for step in config.steps)
    }
    assert {source.pipeline_id for source in sources(tree, FOCUS.table)} == writers


def sql_of(family: str) -> str:
    return (CONFIGS / "sql" / "checks" / f"{family}.sql").read_text("utf-8")


def test_the_columns_that_are_checked_are_those_of_the_contract() -> None:
    """Those of FOCUS, and of ours those that the checks read: without them a table is not checked at all."""
    ((text, _),) = CHECKS.statements(COLUMNS, "p.d.t", ())
    listed = re.findall(r"'([A-Za-z_]+) ([A-Z0-9]+)'", text)
    unread = {"x_PriceSource", "x_PriceDate", "x_SourceRows", "x_SourceColumns"}
    assert listed == [(column.name, column.type) for column in FOCUS.all_columns if column.name not in unread]


@pytest.mark.shared
def test_the_allowed_values_are_those_of_the_specification(shared_data: Path) -> None:
    with (shared_data.parent / "focus" / "columns_1_3.csv").open(encoding="utf-8", newline="") as file:
        published = {r["column"]: r["allowed_values"].split("|") for r in csv.DictReader(file) if r["allowed_values"]}
    sql = sql_of("values")
    columns = set(re.findall(r"IF\((?:\s*)(\w+) NOT IN \(", sql)) - {"BillingCurrency"}
    assert columns >= published.keys() & set(FOCUS.names) - {"ChargeClass", "ServiceSubcategory"}
    for column in columns:
        (listed,) = re.findall(rf"IF\(\s*{column} NOT IN \(([^)]*)\)", sql)
        assert set(re.findall(r"'([^']+)'", listed)) == set(published[column]), column
    whens = re.findall(r"WHEN '([^']+)' THEN ServiceSubcategory NOT IN \(((?:\s*'[^']+',?)+)\s*\)", sql)
    pairs = {f"{category} > {name}" for category, names in whens for name in re.findall(r"'([^']+)'", names)}
    assert pairs == set(published["ServiceSubcategory"])


@pytest.mark.shared
def test_every_check_names_rules_that_focus_has(shared_data: Path) -> None:
    with (shared_data.parent / "focus" / "rules_1_3.csv").open(encoding="utf-8", newline="") as file:
        rules = {row["rule"] for row in csv.DictReader(file)}
    assert {rule for checks in CHECKS.catalog.values() for check in checks.values() for rule in check.focus} <= rules


def test_the_currencies_are_those_of_iso_4217_that_countries_use() -> None:
    """Funds, metals, units of account and codes for tests are none: an invoice is in a country's currency."""
    of_no_country = {"XDR", "XUA", "XSU", "XAD", "UYW"}
    expected = {
        entry.findtext("Ccy")
        for entry in iso4217.raw_xml.iterfind("CcyTbl/CcyNtry")
        if entry.findtext("Ccy") is not None
        and entry.find("CcyNm").get("IsFund", "").lower() != "true"
        and not entry.findtext("CtryNm").startswith("ZZ")
    }
    (listed,) = re.findall(r"BillingCurrency NOT IN \(([^)]*)\)", sql_of("values"))
    assert set(re.findall(r"'([A-Z]{3})'", listed)) == expected - of_no_country
