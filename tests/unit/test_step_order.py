"""What may start, what waits for what, and what a map takes as its items."""

from copy import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from common.domain.graph import MAX_ITEMS, Verdict, blocked_by, spec_of, verdict, whole
from common.domain.messages import (
    AttemptClaimed,
    AttemptFailed,
    AttemptSucceeded,
    AttemptSuspended,
    Event,
    MessageDied,
    SkipRequested,
    StepsEnded,
)
from common.domain.model import MapSpec, Receipt, Run, RunRequest, RunStatus, Step, StepSpec, StepStatus
from common.domain.state import apply, rerun

DAY, AT = date(2026, 11, 20), datetime(2026, 11, 21, tzinfo=UTC)
REQUEST = RunRequest("run_1", "acme", "a/b/c", DAY, DAY, AT)
STEP = StepSpec("list", "noop")


def of(items: Any, *, dates: bool = False) -> Verdict:
    spec = StepSpec("each", "noop", ("list",), map=MapSpec("list.outputs.names", dates=dates))
    done = Step(STEP, StepStatus.SUCCEEDED, receipt=Receipt(outputs={} if items is None else {"names": items}))
    return verdict(Run(REQUEST, specs=(STEP, spec), steps={"list": done}), "each")


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
    spec = StepSpec("each", "noop", map=MapSpec("list.outputs.names", max_parallel=2))
    parent = Step(spec, StepStatus.RUNNING, version=1, items=("a", "b", "c", "d", "e"))
    third = Step(replace(spec, step_id="each[2]", map=None), StepStatus.RUNNING, version=1)
    run = whole(Run(REQUEST, specs=(spec,), started_at=AT), {"each": parent, "each[2]": third})
    waits_for = [blocked_by(run, run.steps[f"each[{index}]"]) for index in range(5)]
    assert waits_for == [(), (), (), ("each[1]",), ("each[2]",)]


def test_an_item_of_a_map_that_was_not_loaded_is_asked_for() -> None:
    run = Run(REQUEST, specs=(StepSpec("each", "noop", map=MapSpec("list.outputs.names")),))
    assert verdict(run, "each[1]") == Verdict("unknown", unknown=("each",))


def test_what_the_pipeline_does_not_have_has_no_spec() -> None:
    run = Run(REQUEST, specs=(STEP,))
    assert (spec_of(run, "nobody"), spec_of(run, "nobody[0]")) == (None, None)


@pytest.mark.parametrize(
    "event",
    [
        AttemptClaimed("nobody", 1, "me"),
        AttemptSuspended("nobody", 1, "job", AT),
        AttemptSucceeded("nobody", 1, Receipt()),
        AttemptFailed("nobody", 1, "no"),
        MessageDied("nobody", 1, "no"),
        SkipRequested("nobody", "ana", "no need"),
        SkipRequested("list", "ana", "no need"),
        StepsEnded(("nobody",)),
    ],
)
def test_what_is_about_an_ended_step_or_none_changes_nothing(event: Event) -> None:
    ended = Step(STEP, StepStatus.FAILED, 1, 1)
    run = Run(REQUEST, RunStatus.RUNNING, specs=(STEP, StepSpec("load", "noop")), steps={"list": ended}, started_at=AT)
    transition = apply(run, event, AT)
    assert (transition.commands, transition.touched, transition.header) == ((), (), False)


def test_a_step_that_still_waits_for_others_can_not_be_skipped() -> None:
    specs = (STEP, StepSpec("load", "noop", ("list",)))
    steps = {"list": Step(STEP, StepStatus.RUNNING, 1, 1), "load": Step(specs[1], StepStatus.WAITING)}
    run = Run(REQUEST, RunStatus.RUNNING, specs=specs, steps=steps, started_at=AT)
    transition = apply(run, SkipRequested("load", "ana", "no need"), AT)
    assert (transition.commands, transition.touched) == ((), ())


def test_a_map_whose_items_are_at_work_can_not_be_skipped() -> None:
    each = StepSpec("each", "noop", map=MapSpec("list.outputs.names"))
    parent = Step(each, StepStatus.RUNNING, 1, 1, items=("a", "b"))
    run = Run(REQUEST, RunStatus.RUNNING, specs=(each,), steps={"each": parent}, started_at=AT)
    transition = apply(run, SkipRequested("each", "ana", "no need"), AT)
    assert (transition.commands, transition.touched) == ((), ())


@pytest.mark.parametrize(
    ("after_s", "status"), [(59, StepStatus.SUSPENDED), (60, StepStatus.FAILED), (61, StepStatus.FAILED)]
)
def test_a_step_waits_for_its_job_up_to_max_wait_seconds_and_not_to_their_end(after_s: int, status: StepStatus) -> None:
    spec = replace(STEP, max_wait_seconds=60)
    waiting = Step(spec, StepStatus.RUNNING, 1, 1, owner="me", give_up_at=AT + timedelta(seconds=60))
    run = Run(REQUEST, RunStatus.RUNNING, specs=(spec,), steps={"list": waiting}, started_at=AT)
    now = AT + timedelta(seconds=after_s)
    transition = apply(run, AttemptSuspended("list", 1, "job", now), now)
    assert transition.run.steps["list"].status is status


def test_a_run_whose_start_no_function_takes_fails() -> None:
    run = apply(Run(REQUEST), MessageDied("", 0, "delivered 5 times"), AT).run
    assert (run.status, run.error) == (RunStatus.FAILED, "delivered 5 times")


def test_a_rerun_of_one_step_has_no_other_than_those_before_it() -> None:
    specs = (STEP, StepSpec("load", "noop", ("list",)), StepSpec("other", "noop", ("list",)))
    steps = {spec.step_id: Step(spec, StepStatus.SUCCEEDED, 1, 1) for spec in specs}
    old = Run(REQUEST, RunStatus.COMPLETED, specs=specs, steps=steps, ended_at=AT)
    new = rerun(old, replace(REQUEST, run_id="run_2"), "load", who="ana", why="new prices").run
    assert ([spec.step_id for spec in new.specs], list(new.steps)) == (["list", "load"], ["list"])
