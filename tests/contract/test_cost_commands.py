"""``main.py conform`` and ``main.py report`` on the emulator."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from common.adapters.bigquery import BigQueryWarehouse
from common.cli.main import cli
from common.platform.logs import logger
from infra.local.emulator import BigQueryEmulator
from tests.conftest import PROJECT
from tests.contract.test_commitments import COMMITMENTS, commitment
from tests.focus.rows import clean_rows
from tests.focus.tables import FOCUS, fill, relaxed

ORG = "acme_corp"
TABLE_ID = f"{PROJECT}.{ORG}_local.{FOCUS.table}"


@pytest.fixture(scope="module")
def filled(warehouse: BigQueryWarehouse, tmp_path_factory: pytest.TempPathFactory) -> BigQueryWarehouse:
    fill(warehouse, tmp_path_factory.mktemp("rows"), TABLE_ID, FOCUS, clean_rows(), org=ORG)
    return warehouse


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, bigquery_emulator: BigQueryEmulator, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("PIPELINE_OPS_PROJECT", PROJECT)
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_emulator.url)
    monkeypatch.setenv("PIPELINE_OPS_STATE_DIR", str(tmp_path / "state"))
    handlers = list(logger.handlers)
    yield
    logger.handlers[:] = handlers


def command(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


def test_conform_ends_with_0_where_only_warnings_were_found(filled: BigQueryWarehouse) -> None:
    shown = command("conform", ORG)
    assert shown.exit_code == 0, shown.output
    assert f"{TABLE_ID}: 12 rows, " in shown.output and "none wrong, 1 warnings." in shown.output
    told = json.loads(command("conform", ORG, "--json").stdout)
    assert (told["ok"], told["rows"], told["not_run"]) == (True, 12, {})
    assert [one["name"] for one in told["findings"] if one["failed"]] == ["sums.unknown"]


def test_conform_names_each_check_that_failed_with_its_rules_and_ends_with_1(filled: BigQueryWarehouse) -> None:
    table = f"{PROJECT}.{ORG}_local.broken"
    select = (
        f"SELECT * REPLACE (IF(ChargeCategory = 'Usage', 'usage', ChargeCategory) AS ChargeCategory) FROM `{TABLE_ID}`"
    )
    filled.connection.client.query(f"CREATE TABLE `{table}` AS {select}").result()
    shown = command("conform", ORG, "--table", "broken")
    assert shown.exit_code == 1
    assert "ChargeCategory.allowed" in shown.output and "CAU-ChargeCategory-C-003-M" in shown.output
    assert 'ChargeCategory.allowed: {"pipeline":"pipe","credential":"cred","day":"2026-10-05"' in shown.output


def test_conform_checks_what_the_organisation_has_committed_to_as_well(
    filled: BigQueryWarehouse, tmp_path: Path
) -> None:
    table = f"{PROJECT}.{ORG}_local.{COMMITMENTS.table}"
    fill(filled, tmp_path, table, relaxed(COMMITMENTS), [commitment("plan-1", ContractId="contract-1")], org=ORG)
    told = json.loads(command("conform", ORG, "--json").stdout)
    # The clean rows count for another commitment, too, which the table does not have: that is a warning.
    assert (told["ok"], told["commitments"]["ok"], told["commitments"]["table"]) == (True, True, table)
    fill(filled, tmp_path, table, relaxed(COMMITMENTS), [commitment("plan-1", BillingCurrency=None)], org=ORG)
    shown = command("conform", ORG)
    assert shown.exit_code == 1 and "BillingCurrency.missing" in shown.output and f"{table}: 1 rows" in shown.output
    filled.connection.client.query(f"DROP TABLE `{table}`").result()


def test_conform_of_days_without_rows_does_not_say_that_all_is_well(filled: BigQueryWarehouse) -> None:
    shown = command("conform", ORG, "--from", "2030-01-01")
    assert shown.exit_code == 1 and "0 rows" in shown.output and "choose other days" in shown.output


def test_conform_says_in_a_sentence_what_there_is_not(filled: BigQueryWarehouse) -> None:
    assert "There is no table" in command("conform", ORG, "--table", "nothing_here").output
    assert "is not the name of a table" in command("conform", ORG, "--table", "a`; DROP TABLE x").output
    assert command("conform", "nobody").exit_code == 1


def test_conform_prints_statements_that_bigquery_takes_as_they_are() -> None:
    printed = command("conform", ORG, "--sql").output
    assert not re.search(r"\{(table|dataset|name|source|cost|currency)\}", printed) and f"FROM `{TABLE_ID}`" in printed
    assert f"`{PROJECT}.{ORG}_local.genai_payg_cost`" in printed and "INFORMATION_SCHEMA" in printed


def test_report_shows_a_month_and_writes_a_page(filled: BigQueryWarehouse, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    shown = command("report", ORG, "--month", "2026-10", "--html", str(page))
    assert shown.exit_code == 0, shown.output
    billed = sum(row["BilledCost"] for row in clean_rows())
    assert f"USD: {billed:.2f} effective, {billed:.2f} billed" in shown.output and "gpt-4o" in shown.output
    assert "Costs of acme_corp, October 2026" in page.read_text("utf-8")
    told = json.loads(command("report", ORG, "--json").stdout)
    (part,) = told["parts"]
    assert (told["month"], part["currency"], Decimal(part["billed"])) == ("2026-10-01", "USD", billed)
    assert {line["names"][0] for line in part["teams"]} == {"shop", "support", "no team"}


def test_report_of_a_month_without_costs_names_those_that_have_some(filled: BigQueryWarehouse) -> None:
    shown = command("report", ORG, "--month", "2020-02")
    assert shown.exit_code == 0 and "Months with costs: 2026-10." in shown.output


def test_report_says_that_nothing_has_been_brought_in(filled: BigQueryWarehouse) -> None:
    shown = command("report", "globex")
    assert shown.exit_code == 1 and "no costs have been loaded" in shown.output
