"""Statements are money and time: how many a commit takes, and which tables each reads or writes."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import pytest

from common.adapters.bigquery import commit_sql
from common.adapters.googlesql.catalog import unwrap
from common.adapters.googlesql.service import service
from common.domain.model import WriteSpec
from common.platform.paths import CONFIGS
from common.ports.warehouse import Commit, Lineage
from common.tables.contract import load_table

DAY = date(2026, 11, 20)
AT = datetime(2026, 11, 21, tzinfo=UTC)
TABLE = load_table(CONFIGS, "cloud_focus_export")
SPECS = {
    "replace_key": WriteSpec(keys=("source_file", "source_row")),
    "merge": WriteSpec(mode="merge", keys=("source_file", "source_row")),
    "append_once": WriteSpec(mode="append_once", keys=("source_file",)),
    "truncate_partition": WriteSpec(mode="truncate_partition"),
}
BILLED = {"replace_key": 6, "merge": 7, "append_once": 4, "truncate_partition": 6}
"""Tables that a commit is billed for, at 10 MB each, counted by hand: see docs/cost.md."""


class Statement(NamedTuple):
    """A statement of the longest path: of the script's own (SET, IF) or of SQL."""

    kind: str
    tables: tuple[str, ...]


def walk(sql: str) -> list[Statement]:
    """Return the statements that the script runs if every condition holds, apart from RAISE."""
    script = service().parse(sql).statement_list_node
    return list(_statements(script, sql.encode()))


def _statements(node: Any, sql: bytes) -> Iterator[Statement]:
    for any_statement in node.statement_list:
        found = unwrap(any_statement)
        kind = found.DESCRIPTOR.name.removeprefix("AST").removesuffix("Proto").removesuffix("Statement")
        if kind == "If":
            yield Statement("If", ())
            yield from _statements(found.then_list, sql)
        elif kind != "Raise":
            node_at = found
            while "parse_location_range" not in node_at.DESCRIPTOR.fields_by_name:
                node_at = node_at.parent
            at = node_at.parse_location_range
            named = re.findall(r"`project-x\.d\.(\w+)`", sql[at.start : at.end].decode())
            yield Statement(kind, tuple(dict.fromkeys(named)))


def script(mode: str, number: int = 1) -> str:
    write = Commit(
        target="project-x.d.target",
        table=TABLE,
        staging="project-x.d.staging",
        lineage=Lineage("acme", "pipe", "cred", "run_1", AT),
        first_day=DAY,
        last_day=DAY,
        write=SPECS[mode],
        step_id="load",
        attempt=1,
        fence=1,
        not_after=AT,
        job_id="job",
        spooled=True,
    )
    return commit_sql.script([write] * number)


def billed(statement: Statement) -> int:
    """How many tables a statement is billed for: those that it reads, and those whose rows it changes or deletes."""
    read = set(statement.tables)
    return len(read - {"target", "target__commits"} if statement.kind == "Insert" else read)


@pytest.mark.parametrize("mode", commit_sql.MODES)
def test_the_commit_of_one_write_takes_at_most_eight_statements_on_tables(mode: str) -> None:
    statements = walk(script(mode))
    on_tables = [statement for statement in statements if statement.tables]
    print(f"\n{mode}: {len(statements)} statements, {len(on_tables)} on tables, {sum(map(billed, on_tables))} billed")  # noqa: T201
    assert len(on_tables) <= 8
    assert sum(map(billed, on_tables)) == BILLED[mode]


@pytest.mark.parametrize("mode", commit_sql.MODES)
def test_a_transaction_holds_no_ddl_and_ends_in_the_receipts(mode: str) -> None:
    kinds = [statement.kind for statement in walk(script(mode, 2))]
    inside = kinds[kinds.index("Begin") + 1 : kinds.index("Commit")]
    assert set(inside) <= {"If", "SingleAssignment", "AssignmentFromStruct", "Update", "Delete", "Insert"}
    assert kinds[kinds.index("Commit") + 1 :] == ["Query"]


def test_the_longest_script_and_its_parameters_stay_within_bigquery_s_limits() -> None:
    """1 MB of SQL, 10,000 parameters: a promoted preview commits all its tables in one script."""
    sql = script("merge", 20)
    assert len(sql.encode()) < 1_000_000 and len(set(re.findall(r"@\w+", sql))) < 10_000
