"""What a map takes as its items, and what it fails with before the first of them runs."""

from copy import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from common.domain.graph import MAX_ITEMS, Verdict, blocked_by, verdict, whole
from common.domain.model import MapSpec, Receipt, Run, RunRequest, Step, StepSpec, StepStatus

DAY = date(2026, 11, 20)


def of(items: Any, *, dates: bool = False) -> Verdict:
    before = StepSpec("list", "noop")
    spec = StepSpec("each", "noop", ("list",), map=MapSpec("list.outputs.names", dates=dates))
    request = RunRequest("run_1", "acme", "a/b/c", DAY, DAY, datetime(2026, 11, 21, tzinfo=UTC))
    done = Step(before, StepStatus.SUCCEEDED, receipt=Receipt(outputs={} if items is None else {"names": items}))
    return verdict(Run(request, specs=(before, spec), steps={"list": done}), "each")


def test_as_many_items_as_a_map_takes_are_run() -> None:
    names = [str(number) for number in range(MAX_ITEMS)]
    assert of(names) == Verdict("expand", f"{MAX_ITEMS} items of list.outputs.names", items=tuple(names))


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        (None, "is not a list"),
        ("2026-11-20", "is not a list"),
        (["x"] * (MAX_ITEMS + 1), f"has {MAX_ITEMS + 1} items"),
    ],
)
def test_what_is_no_list_of_so_many_items_fails_the_map(items: Any, problem: str) -> None:
    assert (of(items).kind, problem in of(items).reason) == ("fail", True)


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        (["2026-11-20", "yesterday"], "no date"),
        ([20261120], "no date"),
        (["2026-11-20", "2026-11-20"], "a date twice"),
    ],
)
def test_where_items_are_dates_each_is_one_and_stands_once(items: Any, problem: str) -> None:
    assert of(items).kind == "expand"
    assert (of(items, dates=True).kind, problem in of(items, dates=True).reason) == ("fail", True)


def test_an_item_waits_for_the_one_before_it_in_its_lane_until_its_turn_has_come() -> None:
    spec, now = StepSpec("each", "noop", map=MapSpec("list.outputs.names", max_parallel=2)), datetime.now(UTC)
    request = RunRequest("run_1", "acme", "a/b/c", DAY, DAY, now)
    parent = Step(spec, StepStatus.RUNNING, version=1, items=("a", "b", "c", "d", "e"))
    third = Step(replace(spec, step_id="each[2]", map=None), StepStatus.RUNNING, version=1)
    run = whole(Run(request, specs=(spec,), started_at=now), {"each": parent, "each[2]": third})
    waits_for = [blocked_by(run, run.steps[f"each[{index}]"]) for index in range(5)]
    assert waits_for == [(), (), (), ("each[1]",), ("each[2]",)]
