"""Receipts against rows, by hand: each thing that can be wrong is named, and nothing is where all is right."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from common.domain.model import MapSpec, PreviewEnd, Receipt, Run, RunRequest, RunStatus, Step, StepSpec, StepStatus
from common.writes.receipts import Finding, Key, Ledger, Rows, compare

D1, D2, D3 = (date(2026, 11, day) for day in (1, 2, 3))
MORNING = datetime(2026, 11, 4, 6, tzinfo=UTC)
TABLE = "p.acme_local.costs"
KEY = Key(TABLE, "pipe", "cred")


def at(minutes: float) -> datetime:
    return MORNING + timedelta(minutes=minutes)


def step(
    step_id: str = "load", rows: int = 2, minute: float = 1, took: float = 1, content: str = "aa", mode: str = ""
) -> Step:
    """A step that has committed at ``minute`` and was recorded as succeeded ``took`` minutes later."""
    receipt = Receipt(rows, TABLE, ("job",), content, at(minute), mode=mode)
    return Step(StepSpec(step_id, "x"), StepStatus.SUCCEEDED, attempt=1, receipt=receipt, ended_at=at(minute + took))


def unsuccessful(status: StepStatus) -> Step:
    spec = StepSpec("load", "x", config={"destination_table": "costs"})
    return Step(spec, status, attempt=1, ended_at=at(2))


def run(run_id: str, *steps: Step, days: tuple[date, date] = (D1, D1), minute: float = 0, **more: Any) -> Run:
    more = {"status": RunStatus.COMPLETED, **more}
    of_request = {name: more.pop(name) for name in ("rerun_of", "preview") if name in more}
    request = RunRequest(run_id, "acme", "a/b/c", *days, at(minute), **of_request)
    return Run(
        request,
        pipeline_id="pipe",
        credential_id="cred",
        specs=tuple(s.spec for s in steps),
        steps={s.step_id: s for s in steps},
        **more,
    )


def rows(run_id: str = "one", day: date = D1, minute: float = 1, count: int = 2, key: Key = KEY) -> Rows:
    return Rows(key, run_id, day, at(minute), count)


def verified(runs: Iterable[Run], there: Iterable[Rows], hashes: Mapping[str, str] | None = None) -> list[Finding]:
    ledger = Ledger("acme", lambda name: f"p.acme_local.{name}")
    for one in runs:
        ledger.add(one)
    found = compare(ledger, there, ledger.writes, lambda write: (hashes or {}).get(write.run_id, "aa"))
    return [*ledger.kept, *found]


def named(findings: list[Finding]) -> list[tuple[str, str, str, date | None, int, int]]:
    return [(f.kind, f.run_id, f.step_id, f.day, f.expected, f.found) for f in findings]


def test_nothing_is_found_where_all_is_right() -> None:
    assert verified([run("one", step())], [rows()]) == []
    assert verified([run("one", step(rows=0, content=""))], []) == []
    assert verified([run("one", step(rows=5), days=(D1, D3))], [rows(count=4), rows(day=D3, count=1)]) == []


def test_a_previews_rows_are_looked_for_once_it_was_promoted() -> None:
    """Until then they are in shadow tables, which expire."""
    for end in (None, PreviewEnd.DISCARDED):
        assert verified([run("one", step(), preview=True, preview_end=end)], []) == []
    promoted = run("one", step(), preview=True, preview_end=PreviewEnd.PROMOTED)
    assert named(verified([promoted], [])) == [("missing", "one", "load", D1, 2, 0)]
    assert verified([promoted], [rows()]) == []


@pytest.mark.parametrize("config", [{}, {"destination_table": "a`b"}])
def test_a_step_without_a_table_is_no_write(config: dict[str, str]) -> None:
    """Its table would be looked up in the warehouse."""
    ended = Step(StepSpec("load", "x", config=config), StepStatus.FAILED, attempt=1, ended_at=at(2))
    ledger = Ledger("acme", lambda name: f"p.acme_local.{name}")
    ledger.add(run("one", ended, status=RunStatus.FAILED))
    assert ledger.writes == []


def test_missing_rows_are_named_with_the_command_that_brings_them_back() -> None:
    (finding,) = verified([run("one", step(rows=3))], [rows(count=2)])
    assert named([finding]) == [("missing", "one", "load", D1, 3, 2)] and finding.is_wrong
    assert finding.text.startswith("1 of 3 rows are missing. ")
    assert "`main.py rerun acme one --step load --reason verify`" in finding.text


def test_days_are_not_told_apart_where_the_receipt_does_not() -> None:
    assert named(verified([run("one", step(), days=(D1, D3))], [])) == [("missing", "one", "load", None, 2, 0)]


def test_rows_with_the_runs_own_lineage_that_are_too_many_are_doubled() -> None:
    assert named(verified([run("one", step())], [rows(count=3)])) == [("doubled", "one", "load", D1, 2, 3)]


def test_rows_of_a_replaced_run_that_are_still_there_are_doubled() -> None:
    runs = [run("one", step()), run("two", step(minute=5))]
    found = verified(runs, [rows(count=1), rows("two", minute=5)])
    assert named(found) == [("doubled", "one", "load", D1, 0, 1), ("replaced", "one", "load", D1, 0, 0)]
    assert "two load has replaced them" in found[0].text and "rerun acme two" in found[0].text


def test_rows_of_another_ingestion_of_the_run_are_of_a_stale_attempt() -> None:
    found = verified([run("one", step())], [rows(), rows(minute=0.5, count=7)])
    assert named(found) == [("stale attempt", "one", "load", D1, 0, 7)]
    assert "2026-11-04T06:00:30" in found[0].text


@pytest.mark.parametrize("status", [StepStatus.FAILED, StepStatus.CANCELLED, StepStatus.SKIPPED])
def test_a_step_that_did_not_succeed_has_no_rows(status: StepStatus) -> None:
    failed = run("one", unsuccessful(status), status=RunStatus.FAILED)
    assert verified([failed], []) == []
    assert named(verified([failed], [rows()])) == [("stale attempt", "one", "load", D1, 0, 2)]


def test_rows_of_a_run_that_nobody_knows_are_foreign() -> None:
    found = verified([run("one", step())], [rows(), rows("ghost", count=4)])
    assert named(found) == [("foreign", "ghost", "", D1, 0, 4)] and "rerun acme one" in found[0].text


def test_changed_values_are_told_by_their_hash() -> None:
    assert named(verified([run("one", step())], [rows()], {"one": "bb"})) == [("content", "one", "load", D1, 2, 2)]


def test_rows_that_a_procedure_made_are_counted_and_said_not_to_be_hashed() -> None:
    (finding,) = verified([run("one", step(content=""))], [rows()])
    assert finding.kind == "not hashed" and not finding.is_wrong


def test_a_run_that_was_replaced_is_right_and_says_by_which() -> None:
    runs = [run("one", step()), run("two", step(minute=5, rows=0))]
    (finding,) = verified(runs, [])
    assert (finding.kind, finding.run_id, finding.is_wrong) == ("replaced", "one", False)
    assert finding.text == "two load has replaced 2026-11-01."


def test_only_the_days_that_were_replaced_are_gone() -> None:
    runs = [run("one", step(rows=6), days=(D1, D3)), run("two", step(minute=5), days=(D2, D2))]
    there = [rows(count=2), rows("two", D2, 5), rows(day=D3, count=2)]
    assert named(verified(runs, there)) == [("replaced", "one", "load", None, 0, 4)]
    assert [f.kind for f in verified(runs, [*there, rows(day=D2, count=2)])] == ["doubled", "replaced"]
    there[0] = rows(count=5)
    assert named(verified(runs, there)) == [("doubled", "one", "load", None, 6, 7)]


@pytest.mark.parametrize("last", ["one", "two"])
def test_of_two_runs_that_overlapped_either_may_have_come_last(last: str) -> None:
    runs = [run("one", step(minute=1, took=3)), run("two", step(minute=2, took=3))]
    only = rows("one", minute=1) if last == "one" else rows("two", minute=2)
    assert [(f.kind, f.run_id) for f in verified(runs, [only])] == [("replaced", "two" if last == "one" else "one")]
    both = verified(runs, [rows("one", minute=1), rows("two", minute=2)])
    assert named(both) == [("doubled", "one", "load", D1, 0, 2)]


def test_a_later_run_that_is_of_another_key_replaces_nothing() -> None:
    other = replace(run("two", step(minute=5)), credential_id="other")
    assert [f.kind for f in verified([run("one", step()), other], [])] == ["missing", "missing"]
    theirs = rows("two", minute=5, key=KEY._replace(credential_id="other"))
    assert verified([run("one", step()), other], [rows(), theirs]) == []


def test_a_run_at_work_may_have_committed_already() -> None:
    running = replace(step("load"), status=StepStatus.RUNNING, receipt=Receipt(), ended_at=None)
    runs = [run("one", step()), run("two", running, minute=4, status=RunStatus.RUNNING)]
    assert [(f.kind, f.run_id) for f in verified(runs, [rows("two", minute=5)])] == [("replaced", "one")]
    (doubled, _) = verified(runs, [rows(), rows("two", minute=5)])
    assert doubled.kind == "doubled" and "Wait for the end of two" in doubled.text


def test_items_of_a_map_are_checked_on_their_own_days_and_its_sum_is_not() -> None:
    spec = StepSpec("load", "x", map=MapSpec("list.outputs.days", dates=True))
    parent = replace(step(rows=4), spec=spec, items=("2026-11-01", "2026-11-02"))
    mapped = run("one", parent, step("load[0]"), step("load[1]", minute=2), days=(D1, D3))
    assert verified([mapped], [rows(), rows(day=D2, minute=2)]) == []
    found = verified([mapped], [rows(), rows(day=D3, minute=2)])
    assert named(found) == [("stale attempt", "one", "", D3, 0, 2), ("missing", "one", "load[1]", D2, 2, 0)]
    assert "--step load --reason" in found[1].text


def test_what_a_rerun_has_kept_is_checked_with_the_run_that_wrote_it() -> None:
    again = run("two", step(), minute=10, rerun_of="one")
    (finding,) = verified([run("one", step()), again], [rows()])
    assert (finding.kind, finding.run_id) == ("kept", "two") and "main.py verify one" in finding.text


def test_rows_that_a_later_merge_left_alone_are_right_and_those_it_took_are_noted() -> None:
    runs = [run("one", step(rows=3, mode="merge")), run("two", step(rows=1, minute=5, mode="merge"))]
    left_alone = verified(runs, [rows(count=3), rows("two", minute=5, count=1)])
    assert left_alone == []
    (taken,) = verified(runs, [rows(count=2), rows("two", minute=5, count=1)])
    assert named([taken]) == [("replaced", "one", "load", D1, 0, 2)] and not taken.is_wrong
    assert taken.text == "two load has replaced rows of 2026-11-01."


def test_of_a_merge_missing_doubled_and_changed_rows_are_found_too() -> None:
    one = run("one", step(rows=3, mode="merge"))
    two = run("two", step(rows=1, minute=5, mode="merge"))
    assert named(verified([one], [rows(count=2)])) == [("missing", "one", "load", D1, 3, 2)]
    assert named(verified([one, two], [rows(count=4), rows("two", minute=5, count=1)])) == [
        ("doubled", "one", "load", D1, 3, 4)
    ]
    changed = verified([one, two], [rows(count=3), rows("two", minute=5, count=1)], {"one": "bb"})
    assert named(changed) == [("content", "one", "load", D1, 3, 3)]
    assert named(verified([one], [rows(count=3), rows(minute=2, count=1)])) == [
        ("stale attempt", "one", "load", D1, 0, 1)
    ]


def test_an_append_that_found_its_days_in_has_nothing_to_answer_for_and_takes_nothing_away() -> None:
    nothing = step(rows=0, minute=5, content="", mode="append_once")
    nothing = replace(nothing, receipt=replace(nothing.receipt, ingested_at=None))
    runs = [run("one", step(mode="append_once")), run("two", nothing, minute=4)]
    assert verified(runs, [rows()]) == []
    (finding,) = verified(runs, [rows(count=1)])
    assert named([finding]) == [("missing", "one", "load", D1, 2, 1)]
    assert "a rerun" not in finding.text and f"{TABLE}__commits" in finding.text


def test_a_day_that_was_appended_twice_is_doubled() -> None:
    runs = [run("one", step(mode="append_once")), run("two", step(minute=5, mode="append_once"))]
    first = verified(runs, [rows(), rows("two", minute=5)])[0]
    assert named([first]) == [("doubled", "one", "load", D1, 0, 2)]
    assert "two load has appended the same day" in first.text


DAY_MINUTES = 24 * 60


def test_a_snapshot_is_replaced_by_one_of_the_same_day_of_ingestion_whatever_its_days() -> None:
    morning = run("one", step(rows=3, mode="truncate_partition"), days=(D1, D2))
    evening = run("two", step(minute=60, mode="truncate_partition"), days=(D3, D3))
    gone = verified([morning, evening], [rows("two", D3, minute=60)])
    assert [(f.kind, f.run_id) for f in gone] == [("replaced", "one")]
    left_over = verified([morning, evening], [rows(count=3), rows("two", D3, minute=60)])
    assert [(f.kind, f.run_id, f.found) for f in left_over] == [("doubled", "one", 3), ("replaced", "one", 0)]


def test_a_snapshot_of_the_next_day_leaves_the_one_of_today() -> None:
    today = run("one", step(rows=3, mode="truncate_partition"), days=(D1, D2))
    tomorrow = run("two", step(minute=DAY_MINUTES, mode="truncate_partition"), days=(D1, D2))
    both = [rows(count=2), rows(day=D2, count=1), rows("two", minute=DAY_MINUTES)]
    assert verified([today, tomorrow], both) == []
    assert named(verified([today, tomorrow], both[1:])) == [("missing", "one", "load", None, 3, 1)]
