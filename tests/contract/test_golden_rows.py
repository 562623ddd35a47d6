"""Each pipeline's golden rows (``golden/*.yml``), every column of them; and that they tell any two columns apart.

SQL matches values and columns by position, so two of one type can be swapped without an error. Names beside the values
are compared in tests/unit/test_named_columns.py; these rows notice a value beside another one's name.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import combinations

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.config.loader import ConfigTree
from common.config.providers import load_providers
from common.platform.paths import CONFIGS, PROJECT_ROOT
from common.processors.registry import REGISTRY
from common.processors.sql.procedure_executor import ProcedureParams
from common.tables.contract import DATA_DATE, load_table
from infra.local.sandbox import bills
from infra.local.sandbox.server import SANDBOXED
from tests.conftest import PROJECT
from tests.contract.focus import Dataset, numbers
from tests.contract.golden_rows import (
    OF_ROW,
    PROCEDURE,
    WITHOUT,
    Golden,
    GoldenWorld,
    Row,
    golden_cases,
    golden_row,
    own_configs,
)
from tests.contract.reference import comparable, reference_rows, source_tables
from tests.named_columns import Insert, inserts, of_file

CASES = golden_cases()
TABLES = ("cost_data_standard_1_3", "contract_commitment_1_3")
EXPECTED = [(case, table) for case in CASES for table in case.expected]


def steps() -> Iterator[tuple[str, ProcedureParams]]:
    """Each route's steps that fill one of the tables of FOCUS."""
    tree = ConfigTree(CONFIGS, REGISTRY)
    for route in tree.routes():
        for step in tree.load(route).config.steps:
            if step.ps_type == PROCEDURE and step.config["destination_table"] in TABLES:
                yield route, ProcedureParams.model_validate(step.config)


STEPS = list(steps())


@pytest.fixture(scope="module")
def world(warehouse: BigQueryWarehouse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoldenWorld]:
    folder = tmp_path_factory.mktemp("golden")
    with pytest.MonkeyPatch.context() as patch:
        # The sandbox's own bills begin in 2026: making them up would take longer than all else here.
        patch.setattr(bills, "today", lambda: date(2025, 12, 31))
        yield GoldenWorld(Dataset(warehouse, folder, f"{PROJECT}.golden{next(numbers)}"), own_configs(folder))


@pytest.fixture(scope="module")
def made(world: GoldenWorld) -> Mapping[tuple[str, str], Sequence[Row]]:
    return world.run(CASES)


@pytest.mark.parametrize(("case", "table"), EXPECTED, ids=lambda value: getattr(value, "name", value))
def test_every_column_of_a_golden_row_is_what_was_worked_out_by_hand(
    made: Mapping[tuple[str, str], Sequence[Row]], case: Golden, table: str
) -> None:
    assert unlike(made[case.name, table], case.expected[table]) == []


def unlike(rows: Sequence[Row], golden: Sequence[Row]) -> list[str]:
    """Return a line for each column that is another than in the golden row."""
    found = [
        f"{wanted.get('ChargeDescription') or number}: {name} is {row[name]!r}, by hand {wanted[name]!r}"
        for number, (row, wanted) in enumerate(zip(in_order(rows), in_order(golden), strict=False))
        for name in wanted
        if row[name] != wanted[name]
    ]
    return found if len(rows) == len(golden) else [f"{len(rows)} rows, by hand {len(golden)}", *found]


def test_google_s_reference_implementation_makes_the_rows_that_the_emulator_makes(
    made: Mapping[tuple[str, str], Sequence[Row]], world: GoldenWorld
) -> None:
    """Procedure by procedure: its INSERTs are put together and their SELECTs evaluated on the same source rows."""
    assert made
    tables = source_tables(world)
    for call in world.calls:
        emulated = [comparable(row, call.params) for row in call.rows]
        evaluated = [comparable(row, call.params) for row in reference_rows(call, tables)]
        assert in_order(evaluated) == in_order(emulated), call.params.procedure


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Rows of one case differ in their cost, commitments in their id; those of several cases in their day."""
    return sorted(
        rows,
        key=lambda row: (row[DATA_DATE], row.get("BilledCost") or 0, str(row.get("ContractCommitmentId")), repr(row)),
    )


def test_every_shipped_pipeline_that_fills_a_table_of_focus_has_golden_rows_of_it() -> None:
    """A provider that somebody adds needs no golden rows before it has a sandbox (docs/providers.md)."""
    tree, providers = ConfigTree(CONFIGS, REGISTRY), load_providers(CONFIGS)
    of = {route: tree.load(route).config.provider for route, _ in STEPS}
    shipped = {route for route, key in of.items() if key in SANDBOXED or providers[key].auth == "none"}
    filled = {(route, params.destination_table) for route, params in STEPS if route in shipped}
    assert {(case.route, table) for case, table in EXPECTED} == filled


def test_cases_are_told_apart_by_their_days() -> None:
    assert len({case.day for case in CASES}) == len(CASES)


# What the golden rows can't miss


def every_insert() -> list[tuple[str, Insert]]:
    """Each INSERT into a table of FOCUS, with its procedure."""
    names = sorted({params.procedure for _, params in STEPS})
    paths = [(name, CONFIGS / "sql" / f"{name}.sql") for name in names]
    return [(name, found) for name, path in paths for s in of_file(path, PROJECT_ROOT) for found in inserts(s)]


INSERTS = every_insert()


def rows_of(procedure: str) -> list[tuple[str, Row]]:
    """The golden rows that a procedure makes, with their table."""
    routes = {(route, params.destination_table) for route, params in STEPS if params.procedure == procedure}
    return [(table, row) for case, table in EXPECTED if (case.route, table) in routes for row in case.expected[table]]


@pytest.mark.parametrize(("procedure", "insert"), INSERTS, ids=lambda value: getattr(value, "at", value))
def test_golden_rows_notice_when_any_two_values_of_an_insert_are_swapped(procedure: str, insert: Insert) -> None:
    """A swap of two expressions swaps the two columns in each row, so it is noticed where a golden row has two values.

    Of one type alone: BigQuery refuses others. The same expression twice can't be swapped.
    """
    others = [i for name, i in INSERTS if name == procedure and len(i.columns) < len(insert.columns)]
    rows = [row for _, row in rows_of(procedure) if fits(insert, row) and not any(fits(other, row) for other in others)]
    (table,) = {table for table, _ in rows_of(procedure)}
    kinds = {column.name: column.type for column in load_table(CONFIGS, table).all_columns}
    (values,) = insert.arms
    pairs = [(a, b) for a, b in combinations(values, 2) if kinds[a.name] == kinds[b.name] and a.sql != b.sql]
    assert rows and len(pairs) > 20
    assert [(a.name, b.name) for a, b in pairs if all(row[a.name] == row[b.name] for row in rows)] == []


def fits(insert: Insert, row: Row) -> bool:
    """Whether it fills every column of the row that has a value."""
    filled = {column.name for column in insert.columns}
    return all(value is None or name in filled for name, value in row.items())


def test_a_golden_row_lacks_no_column_and_has_none_twice() -> None:
    contract = load_table(CONFIGS, "contract_commitment_1_3")
    empty = [name for name in (*contract.names, *OF_ROW) if name != "ContractId"]
    assert golden_row("x", contract, {"ContractId": "c", WITHOUT: empty})["ContractId"] == "c"
    for wrong in ({WITHOUT: empty}, {"ContractId": "c", WITHOUT: [*empty, "ContractId"]}, {"Id": "c", WITHOUT: empty}):
        with pytest.raises(AssertionError, match="ContractId|twice"):
            golden_row("x", contract, wrong)
