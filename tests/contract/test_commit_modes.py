"""What a commit does in each mode, what it refuses, and what no rows mean."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from common.domain.model import WriteSpec
from common.platform.errors import PermanentError, TransientError
from tests.contract.writes import AT, D1, D2, D3, TABLE, Target, row

MERGE = WriteSpec(mode="merge", keys=("name",), on_empty="keep")
ONCE = WriteSpec(mode="append_once", on_empty="replace")
TODAY = WriteSpec(mode="truncate_partition", on_empty="replace")
KEYED = WriteSpec(keys=("name",), on_empty="replace")
TOMORROW = AT + timedelta(days=1)


def values(target: Target) -> list[tuple[str, int, str]]:
    return sorted((r["name"], r["n"], r["x_run_id"]) for r in target.sql("SELECT name, n, x_run_id FROM {table}"))


def test_merge_replaces_rows_of_its_keys_and_leaves_the_others(target: Target) -> None:
    target.write([row("a", n=1), row("b", n=1), row("a", D2, n=1)], write=MERGE)
    receipt = target.write([row("a", n=2), row("c", n=2)], write=MERGE, run_id="run_2", ingested_at=TOMORROW)
    assert (receipt.rows, receipt.mode) == (2, "merge")
    assert values(target) == [("a", 1, "run_1"), ("a", 2, "run_2"), ("b", 1, "run_1"), ("c", 2, "run_2")]


def test_merge_finds_rows_in_every_partition_that_merges_before_it_left_them_in(target: Target) -> None:
    target.write([row("a", n=1), row("b", n=1)], write=MERGE)
    target.write([row("b", n=2)], write=MERGE, ingested_at=TOMORROW)
    target.write([row("a", n=3), row("b", n=3)], write=MERGE, ingested_at=TOMORROW + timedelta(days=1))
    assert [(name, n) for name, n, _ in values(target)] == [("a", 3), ("b", 3)]
    assert len(target.ledger()) == 1


def test_merge_never_touches_rows_of_another_key(target: Target) -> None:
    target.write([row("a", n=1)], write=MERGE, org_slug="globex")
    target.write([row("a", n=2)], write=MERGE)
    assert [(name, n) for name, n, _ in values(target)] == [("a", 1), ("a", 2)]


def test_append_once_adds_a_day_once_whichever_run_asks(target: Target) -> None:
    assert target.write([row("a"), row("b", D2)], (D1, D2), write=ONCE).rows == 2
    again = target.write([row("a"), row("b", D2)], (D1, D2), write=ONCE, run_id="run_2")
    assert (again.rows, again.ingested_at, again.content_hash) == (0, None, "")
    assert again.warnings == (
        f"run_1 has appended 2026-11-01..2026-11-02 to {target.table_id} already: nothing was added.",
    )
    assert target.write([row("c", D3)], (D3, D3), write=ONCE, run_id="run_2").rows == 1
    assert target.runs() == [("a", "run_1"), ("b", "run_1"), ("c", "run_2")]


def test_append_once_of_days_that_are_in_by_half_says_which_to_run(target: Target) -> None:
    target.write([row("a", D2)], (D2, D2), write=ONCE)
    with pytest.raises(PermanentError, match=r"run_1 .* Run only the days that are not in: 2026-11-01, 2026-11-03\."):
        target.write([row("a", D1), row("b", D2)], write=ONCE, run_id="run_2")
    assert target.runs() == [("a", "run_1")]


def test_append_once_that_was_done_by_an_attempt_before_gives_its_receipt(target: Target) -> None:
    first = target.write([row("a")], write=ONCE, content_hash="hash", attempt=1)
    second = target.write([row("a")], write=ONCE, attempt=2, ingested_at=TOMORROW)
    assert second == first and second.rows == 1 and second.ingested_at == AT
    assert len(target.names()) == 1


def test_truncate_partition_replaces_what_its_key_has_ingested_on_the_same_day(target: Target) -> None:
    target.write([row("yesterday")], write=TODAY)
    target.write([row("theirs")], write=TODAY, ingested_at=TOMORROW, org_slug="globex")
    target.write([row("morning", D1), row("morning", D2)], write=TODAY, ingested_at=TOMORROW, run_id="run_2")
    target.write([row("evening", D3)], (D3, D3), write=TODAY, ingested_at=TOMORROW, run_id="run_3")
    assert [name for name, _ in target.runs()] == ["evening", "theirs", "yesterday"]
    ours = [commit for commit in target.ledger() if commit["x_org_slug"] == "acme"]
    assert [commit["x_run_id"] for commit in ours] == ["run_1", "run_3"]


@pytest.mark.parametrize("other", [MERGE, ONCE, TODAY], ids=lambda spec: spec.mode)
def test_a_table_has_one_mode(target: Target, other: WriteSpec) -> None:
    target.write([row("old")])
    with pytest.raises(PermanentError, match=f"is written with mode replace_key, this step says {other.mode}"):
        target.write([row("new")], write=other, org_slug="globex")
    assert [name for name, _ in target.runs()] == ["old"]


@pytest.mark.parametrize("by_sql", [False, True], ids=["spooled", "filled by SQL"])
@pytest.mark.parametrize("mode", ["replace_key", "merge", "append_once", "truncate_partition"])
def test_no_rows_fail_the_step_unless_it_says_what_they_mean(target: Target, mode: str, by_sql: bool) -> None:
    spec = WriteSpec(mode=mode, keys=("name",))
    target.write([row("old")], (D1, D1), write=spec)
    empty: dict[str, Any] = {"rows": None if by_sql else 0, "run_id": "run_2", "days": (D2, D2)}
    with pytest.raises(PermanentError, match=r"no rows at all.*on_empty: replace.*Nothing was changed"):
        target.commit(target.stage([]), write=spec, **empty)
    kept = target.commit(target.stage([]), write=replace(spec, on_empty="keep"), **empty)
    assert (kept.rows, kept.ingested_at) == (0, None) and "was kept" in kept.warnings[0]
    assert target.runs() == [("old", "run_1")] and len(target.ledger()) == 1
    done = target.commit(target.stage([]), write=replace(spec, on_empty="replace"), **empty)
    assert (done.rows, done.ingested_at) == (0, AT) and not done.warnings
    assert target.runs() == ([] if mode == "truncate_partition" else [("old", "run_1")])


@pytest.mark.parametrize("spec", [KEYED, MERGE, replace(ONCE, keys=("name",))], ids=lambda spec: spec.mode)
def test_a_key_that_stands_twice_on_a_day_is_refused(target: Target, spec: WriteSpec) -> None:
    target.write([row("a"), row("a", D2)], (D1, D2), write=spec)
    with pytest.raises(PermanentError, match=r"1 values of write: keys \(name\) occur more than once"):
        target.write([row("b", D3), row("b", D3)], (D3, D3), write=spec, run_id="run_2")
    assert len(target.names()) == 2


def test_a_key_that_is_null_is_refused(target: Target) -> None:
    with pytest.raises(PermanentError, match=r"NULL in a column of write: keys \(n\)"):
        target.write([row("a", n=1), row("b")], write=replace(MERGE, keys=("name", "n")))
    assert target.names() == []


@pytest.mark.parametrize(("keys", "text"), [((), "needs at least one"), (("nowhere",), "no column nowhere")])
def test_merge_without_keys_of_the_table_is_refused(target: Target, keys: tuple[str, ...], text: str) -> None:
    with pytest.raises(PermanentError, match=text):
        target.write([row("a")], write=replace(MERGE, keys=keys))


def test_a_row_of_another_organisation_is_refused(target: Target) -> None:
    columns = "name, x_pipeline_run_date, x_org_slug"
    staging = target.staged_by_sql(columns, "('a', '2026-11-01', 'acme'), ('b', '2026-11-01', 'globex')")
    with pytest.raises(PermanentError, match="1 staged rows are of another organisation than acme"):
        target.commit(staging)
    assert target.names() == []
    own = target.staged_by_sql(columns, "('a', '2026-11-01', 'acme'), ('b', '2026-11-01', NULL)")
    assert target.commit(own).rows == 2


def test_staged_rows_without_a_value_that_the_contract_requires_are_refused(target: Target) -> None:
    target.warehouse.ensure_table(target.table_id, TABLE)
    loose = TABLE.model_copy(
        update={"columns": tuple(c.model_copy(update={"mode": "NULLABLE"}) for c in TABLE.columns)}
    )
    staging = target.warehouse.create_staging(target.table_id, loose, "loose")
    target.sql(f"INSERT INTO `{staging}` (n, x_pipeline_run_date) VALUES (1, '2026-11-01')")
    with pytest.raises(PermanentError, match=r"hold NULL where .* requires a value: name"):
        target.commit(staging)


def test_another_number_of_rows_than_was_spooled_is_tried_again(target: Target) -> None:
    with pytest.raises(TransientError, match="3 rows were spooled but the staging table holds 2"):
        target.commit(target.stage([row("a"), row("b")]), rows=3)
    assert target.names() == [] and target.commit(target.stage([row("a"), row("b")]), rows=2).rows == 2


def test_a_delete_names_the_partitions_that_the_ledger_knows_and_no_others(target: Target) -> None:
    """Beside the ledger's range lies a row that nothing but tampering can have put there: it is not even looked at."""
    target.write([row("old")])
    for days in (-5, 5):
        target.sql(
            "INSERT INTO {table} SELECT * REPLACE (DATE_ADD(x_ingestion_date, INTERVAL @days DAY) AS x_ingestion_date,"
            " 'outside' AS name) FROM {table} WHERE name = 'old'",
            days=days,
        )
    target.write([row("new")], run_id="run_2", ingested_at=TOMORROW)
    assert [name for name, _ in target.runs()] == ["new", "outside", "outside"]


def test_rows_of_days_that_were_ingested_on_different_days_all_go(target: Target) -> None:
    target.write([row("a", D1)], (D1, D1), ingested_at=AT - timedelta(days=30))
    target.write([row("b", D2)], (D2, D2))
    target.write([row("new", D1)], (D1, D3), ingested_at=TOMORROW, run_id="run_2")
    assert target.runs() == [("new", "run_2")]
