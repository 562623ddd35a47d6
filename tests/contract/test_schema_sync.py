"""Tables brought to their contracts on a real emulator, alone and against others; and the command that does it."""

import itertools
import json
import shutil
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from common.adapters.bigquery import BigQueryWarehouse
from common.cli.main import cli
from common.platform.errors import PermanentError, TransientError
from common.platform.logs import logger
from common.platform.paths import CONFIGS
from common.tables.contract import Table, every_table, load_meta_table, load_table
from common.tables.schema_plan import LATE, ExistingColumn, ExistingTable
from common.writes.schema_sync import fit
from infra.local.emulator import BigQueryEmulator
from tests.conftest import PROJECT

numbers = itertools.count()


def contract(*columns: dict[str, Any]) -> Table:
    return Table.model_validate({"table": "t", "description": "A test", "columns": columns})


A = {"name": "a", "type": "STRING", "mode": "REQUIRED", "description": "first"}
FIRST = contract(A)


@pytest.fixture
def target() -> str:
    return f"{PROJECT}.sync_{next(numbers)}.t"


def columns(warehouse: BigQueryWarehouse, target: str) -> dict[str, ExistingColumn]:
    found = warehouse.tables.find(target)
    assert found is not None
    return {column.name: column for column in found.columns}


def brief(changes: Sequence[Any]) -> list[tuple[str, str]]:
    return [(change.action, change.column) for change in changes]


def test_what_was_made_is_found_as_the_contract_says(warehouse: BigQueryWarehouse, target: str) -> None:
    assert warehouse.tables.find(target) is None and not warehouse.tables.has_dataset(target.rpartition(".")[0])
    assert brief(fit(warehouse.tables, target, FIRST)) == [("create", "")]
    found = warehouse.tables.find(target)
    assert found is not None and warehouse.tables.has_dataset(target.rpartition(".")[0])
    assert found.columns[0] == ExistingColumn("a", "STRING", "REQUIRED", "first")
    assert (found.description, found.partitioned_by, found.clustered_by) == (
        "A test",
        FIRST.partitioned_by,
        FIRST.clustered_by,
    )
    assert fit(warehouse.tables, target, FIRST) == []


def test_a_dry_run_changes_nothing(warehouse: BigQueryWarehouse, target: str) -> None:
    for _ in range(2):
        assert brief(fit(warehouse.tables, target, FIRST, apply=False)) == [("create", "")]
    assert warehouse.tables.find(target) is None
    fit(warehouse.tables, target, FIRST)
    before = warehouse.tables.find(target)
    more = contract(A, {"name": "b", "type": "INT64"})
    for _ in range(2):
        assert brief(fit(warehouse.tables, target, more, apply=False)) == [("add", "b")]
    assert warehouse.tables.find(target) == before


def test_columns_are_added_relaxed_and_described_and_rows_stay(warehouse: BigQueryWarehouse, target: str) -> None:
    fit(warehouse.tables, target, FIRST)
    list(warehouse.query(f"INSERT INTO `{target}` (a) VALUES ('row')"))
    wanted = contract(
        {**A, "mode": "NULLABLE", "description": "First."},
        {"name": "b", "type": "BIGNUMERIC", "mode": "REQUIRED", "description": "Second."},
        {"name": "c", "type": "BOOL"},
    )
    made = fit(warehouse.tables, target, wanted)
    assert brief(made) == [("relax", "a"), ("describe", "a"), ("add", "b"), ("note", "b"), ("add", "c")]
    there = columns(warehouse, target)
    assert there["a"] == ExistingColumn("a", "STRING", "NULLABLE", "First.")
    assert there["b"] == ExistingColumn("b", "BIGNUMERIC", "NULLABLE", f"Second. {LATE}")
    assert there["c"].type == "BOOL"
    assert fit(warehouse.tables, target, wanted) == []
    assert list(warehouse.query(f"SELECT a, b, c FROM `{target}`")) == [{"a": "row", "b": None, "c": None}]


def test_a_table_of_which_something_is_refused_stays_as_it_is(warehouse: BigQueryWarehouse, target: str) -> None:
    fit(warehouse.tables, target, FIRST)
    before = warehouse.tables.find(target)
    wrong = contract({**A, "type": "INT64"}, {"name": "b", "type": "INT64"})
    assert brief(fit(warehouse.tables, target, wrong)) == [("refused", "a"), ("note", "b")]
    assert warehouse.tables.find(target) == before
    with pytest.raises(PermanentError, match="a is STRING in the table, INT64 in the contract"):
        warehouse.ensure_table(target, wrong)


def test_a_column_that_somebody_else_added_stays(warehouse: BigQueryWarehouse, target: str) -> None:
    fit(warehouse.tables, target, FIRST)
    list(warehouse.query(f"ALTER TABLE `{target}` ADD COLUMN theirs INT64"))
    assert brief(fit(warehouse.tables, target, contract(A, {"name": "b", "type": "DATE"}))) == [
        ("add", "b"),
        ("note", "theirs"),
    ]
    assert columns(warehouse, target)["theirs"].type == "INT64"


def test_many_at_once_end_with_the_columns_of_all(warehouse: BigQueryWarehouse, target: str) -> None:
    wanted = [contract(A, {"name": f"c{n % 3}", "type": "INT64"}) for n in range(6)]
    errors: list[Exception] = []
    start = threading.Barrier(len(wanted))

    def one(table: Table) -> None:
        start.wait()
        try:
            fit(warehouse.tables, target, table)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(table,)) for table in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {"c0", "c1", "c2"} <= columns(warehouse, target).keys()


class Restless:
    """A table that somebody else changes each time that it was looked at."""

    def find(self, _target: str) -> ExistingTable:
        return ExistingTable((), partitioned_by=FIRST.partitioned_by)

    def change(self, *_: Any) -> bool:
        return False


def test_a_change_of_what_was_not_seen_is_not_made(warehouse: BigQueryWarehouse, target: str) -> None:
    fit(warehouse.tables, target, FIRST)
    seen = warehouse.tables.find(target)
    assert seen is not None
    fit(warehouse.tables, target, contract(A, {"name": "b", "type": "DATE"}))
    assert not warehouse.tables.change(target, seen, seen.columns, "older")
    assert "b" in columns(warehouse, target)


def test_a_table_that_never_stands_still_is_given_up() -> None:
    restless: Any = Restless()
    with pytest.raises(TransientError, match="changed by others 10 times in a row"):
        fit(restless, "p.d.t", FIRST)


FEW = {"genai_payg_cost.yml", "genai_payg_usage.yml", "org_meta_pipeline_runs.yml"}
"""Contracts of the tests that change one or two: each table more costs the emulator half a second."""


@pytest.fixture
def contracts() -> Collection[str]:
    """The files of contracts that the tree keeps; a test that wants others is parametrized with them."""
    return FEW


@pytest.fixture
def tree(
    contracts: Collection[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bigquery_emulator: BigQueryEmulator,
    warehouse: BigQueryWarehouse,
) -> Iterator[Path]:
    """The repository's configs, with two organisations of its own, before the emulator."""
    root = tmp_path / "configs"
    for folder in ("schemas", "system"):
        shutil.copytree(CONFIGS / folder, root / folder)
    for path in (root / "schemas").rglob("*.yml"):
        if path.name not in contracts:
            path.unlink()
    plans = {"plans": {"p": {"daily": 1, "monthly": 1, "concurrent": 1}}}
    orgs = {f"sync_org{next(numbers)}": {"plan": "p", "status": "ACTIVE"} for _ in range(2)}
    (root / "system" / "plans.yml").write_text(yaml.safe_dump({**plans, "organisations": orgs}))
    monkeypatch.setenv("PIPELINE_OPS_CONFIGS", str(root))
    monkeypatch.setenv("PIPELINE_OPS_PROJECT", PROJECT)
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_emulator.url)
    monkeypatch.setenv("PIPELINE_OPS_STATE_DIR", str(tmp_path / "state"))
    handlers = list(logger.handlers)
    yield root
    logger.handlers[:] = handlers
    for org in orgs:  # the emulator gets slower with every table that it holds
        warehouse.connection.client.delete_dataset(f"{PROJECT}.{org}_local", delete_contents=True, not_found_ok=True)


def command(*args: str) -> Result:
    load_table.cache_clear()
    return CliRunner().invoke(cli, ["bootstrap-sync", *args])


def differences(*args: str) -> list[tuple[str, str, str]]:
    told = json.loads(command(*args, "--json").stdout)
    return [(one["table"], one["action"], one["column"]) for one in told["differences"]]


def orgs_of(tree: Path) -> list[str]:
    return sorted(yaml.safe_load((tree / "system" / "plans.yml").read_text())["organisations"])


@pytest.mark.parametrize("contracts", [{path.name for path in (CONFIGS / "schemas").rglob("*.yml")}], ids=["every one"])
def test_the_command_shows_then_makes_then_has_nothing_to_do(
    tree: Path, contracts: Collection[str], warehouse: BigQueryWarehouse
) -> None:
    org, other = orgs_of(tree)
    changes = 1 + len(every_table(tree))  # the dataset and its tables
    assert changes == 1 + len(contracts)
    shown = command(org)
    assert shown.exit_code == 0, shown.output
    assert f"{changes} changes to make, nothing refused" in shown.output and "--apply" in shown.output
    assert not warehouse.tables.has_dataset(f"{PROJECT}.{org}_local")

    made = command(org, "--apply")
    assert made.exit_code == 0 and f"1 organisation: {changes} changes made, nothing refused." in made.output, (
        made.output
    )
    again = command(org, "--apply")
    assert again.exit_code == 0 and "no changes made, nothing refused" in again.output
    runs = warehouse.tables.find(f"{PROJECT}.{org}_local.org_meta_pipeline_runs")
    assert runs is not None and runs.partitioned_by == "run_ended_at" and runs.clustered_by == ("pipeline_id", "run_id")
    assert len(runs.columns) == len(load_meta_table(tree, "org_meta_pipeline_runs").columns)

    assert command("--apply").exit_code == 0, "all organisations that have a plan"
    assert warehouse.tables.has_dataset(f"{PROJECT}.{other}_local")
    assert warehouse.tables.find(f"{PROJECT}.{org}_local.genai_payg_cost__commits") is None


def test_the_command_adds_a_column_to_a_tracking_table(tree: Path, warehouse: BigQueryWarehouse) -> None:
    org = orgs_of(tree)[0]
    command(org, "--apply")
    path = tree / "schemas" / "meta" / "org_meta_pipeline_runs.yml"
    path.write_text(path.read_text() + '  - {name: cost_centre, type: STRING, description: "Who pays"}\n')
    assert differences(org) == [("org_meta_pipeline_runs", "add", "cost_centre")]
    assert command(org, "--apply").exit_code == 0
    assert differences(org) == []
    there = columns(warehouse, f"{PROJECT}.{org}_local.org_meta_pipeline_runs")
    assert there["cost_centre"] == ExistingColumn("cost_centre", "STRING", "NULLABLE", "Who pays")


@pytest.mark.parametrize("flag", [(), ("--apply",)])
def test_the_command_ends_with_1_where_something_is_refused_and_does_the_rest(
    tree: Path, warehouse: BigQueryWarehouse, flag: tuple[str, ...]
) -> None:
    org = orgs_of(tree)[0]
    command(org, "--apply")
    for name, old, new in (
        ("genai_payg_cost", "{name: batch, type: BOOL", "{name: batch, type: STRING"),
        ("genai_payg_usage", "{name: user_id", "{name: team_id, type: STRING}\n  - {name: user_id"),
    ):
        path = tree / "schemas" / f"{name}.yml"
        assert path.read_text().count(old) == 1
        path.write_text(path.read_text().replace(old, new))
    answer = command(org, *flag)
    assert answer.exit_code == 1
    assert "REFUSED" in answer.output and "is BOOL in the table, STRING in the contract" in answer.output
    assert "1 refused" in answer.output
    assert ("team_id" in columns(warehouse, f"{PROJECT}.{org}_local.genai_payg_usage")) is bool(flag)
    assert columns(warehouse, f"{PROJECT}.{org}_local.genai_payg_cost")["batch"].type == "BOOL"


def test_new_descriptions_are_one_line_a_table_and_listed_in_full_as_json(tree: Path) -> None:
    org = orgs_of(tree)[0]
    command(org, "--apply")
    path = tree / "schemas" / "genai_payg_cost.yml"
    path.write_text(path.read_text().replace("Provider key, e.g. openai", "P.").replace("Usage endpoint", "Endpoint"))
    assert differences(org) == [
        ("genai_payg_cost", "describe", "provider"),
        ("genai_payg_cost", "describe", "endpoint"),
    ]
    shown = command(org).output
    assert shown.count("describe") == 1 and "2 new descriptions" in shown and "2 changes to make" in shown


def test_an_organisation_that_there_is_not_gets_no_dataset(tree: Path, warehouse: BigQueryWarehouse) -> None:
    org = orgs_of(tree)[0]
    answer = command(f"{org}x", "--apply")
    assert answer.exit_code == 1
    assert f"There is no organisation '{org}x'. Did you mean '{org}'?" in answer.output
    assert not warehouse.tables.has_dataset(f"{PROJECT}.{org}x_local")
