"""What every run store promises of a run's steps: records of their own, side by side, compared one by one."""

from datetime import timedelta

import pytest

from common.domain import state
from common.domain.messages import (
    AttemptClaimed,
    AttemptSucceeded,
    CancelRequested,
    Swept,
)
from common.domain.model import Receipt, RunStatus, StepStatus
from common.domain.state import Transition
from common.platform.errors import StaleRunError
from common.runs.topics import read_order
from tests.contract.stores import SPECS, T0, WIDE, Adapter, claimed, new_run, started, succeeded


def test_a_partial_load_brings_the_records_asked_for_and_no_other(adapter: Adapter) -> None:
    run = started(adapter)
    claimed(adapter, "a")
    claimed(adapter, "c")
    assert set(adapter.store.load(run.run_id, ()).steps) == set()
    part = adapter.store.load(run.run_id, ("a", "b"))
    assert set(part.steps) == {"a"} and part.steps["a"].owner == "me" and part.specs == SPECS


def test_a_whole_load_brings_every_step_and_what_follows_for_those_without_a_record(adapter: Adapter) -> None:
    run = started(adapter)
    claimed(adapter, "a")
    whole = adapter.store.load(run.run_id)
    assert {name: str(s.status) for name, s in whole.steps.items()} == {"a": "running", "b": "waiting", "c": "queued"}
    succeeded(adapter, "a")
    whole = adapter.store.load(run.run_id)
    assert whole.steps["b"].status is StepStatus.QUEUED and whole.steps["a"].receipt.rows == 3


def test_steps_are_written_side_by_side_from_one_reading_of_the_run(adapter: Adapter) -> None:
    run = started(adapter)
    for step_id in ("a", "c"):
        adapter.store.commit(state.apply(run, AttemptClaimed(step_id, 1, "me"), T0))
    assert adapter.store.load(run.run_id, ()).version == run.version


def test_of_two_claims_of_one_attempt_the_second_is_stale(adapter: Adapter) -> None:
    run = started(adapter)
    adapter.store.commit(state.apply(run, AttemptClaimed("a", 1, "first"), T0))
    with pytest.raises(StaleRunError):
        adapter.store.commit(state.apply(run, AttemptClaimed("a", 1, "second"), T0))
    assert adapter.store.load(run.run_id).steps["a"].owner == "first"


def test_of_two_results_of_one_attempt_the_second_is_stale(adapter: Adapter) -> None:
    started(adapter)
    claimed(adapter, "a")
    run = adapter.store.load(new_run().run.run_id, ("a",))
    adapter.store.commit(state.apply(run, AttemptSucceeded("a", 1, Receipt(rows=3)), T0))
    with pytest.raises(StaleRunError):
        adapter.store.commit(state.apply(run, AttemptSucceeded("a", 1, Receipt(rows=4)), T0))
    assert adapter.store.load(run.run_id).steps["a"].receipt.rows == 3


def test_a_commit_that_writes_what_is_there_already_makes_a_new_version_all_the_same(adapter: Adapter) -> None:
    run = started(adapter)
    same = Transition(adapter.store.load(run.run_id, ()), header=True)
    stored = adapter.store.commit(same)
    assert stored.version != same.run.version
    with pytest.raises(StaleRunError):
        adapter.store.commit(same)


def test_a_transition_of_several_records_is_stored_whole_or_not_at_all(adapter: Adapter) -> None:
    """The run is cancelled from a reading in which ``a`` was not yet claimed."""
    run = started(adapter)
    claimed(adapter, "a")
    with pytest.raises(StaleRunError):
        adapter.store.commit(state.apply(run, CancelRequested("me", "no need"), T0))
    whole = adapter.store.load(run.run_id)
    assert whole.status is RunStatus.RUNNING and whole.steps["c"].version == 0
    assert adapter.topics() == [] and adapter.store.usage("acme", T0).concurrent == 1


def test_a_cancelled_run_is_counted_and_frees_its_slot(adapter: Adapter) -> None:
    run = started(adapter)
    adapter.store.commit(state.apply(run, CancelRequested("me", "no need"), T0))
    usage = adapter.store.usage("acme", T0)
    assert (usage.cancelled, usage.failed, usage.completed, usage.concurrent) == (1, 0, 0, 0)


def test_a_step_is_held_until_its_record_changes(adapter: Adapter) -> None:
    started(adapter)
    mine = claimed(adapter, "a").steps["a"]
    assert adapter.store.holds(new_run().run.run_id, mine)
    succeeded(adapter, "a")
    assert not adapter.store.holds(new_run().run.run_id, mine)


def test_steps_have_all_ended_only_when_each_has(adapter: Adapter) -> None:
    run = started(adapter)
    claimed(adapter, "a")
    claimed(adapter, "c")
    succeeded(adapter, "a")
    assert adapter.store.all_ended(run.run_id, ("a",))
    assert not adapter.store.all_ended(run.run_id, ("a", "c")) and not adapter.store.all_ended(run.run_id, ("a", "b"))
    succeeded(adapter, "c")
    assert adapter.store.all_ended(run.run_id, ("a", "c"))


def test_the_messages_of_a_commit_carry_the_versions_it_made(adapter: Adapter) -> None:
    started(adapter)
    claimed(adapter, "a")
    succeeded(adapter, "a")
    order, step = read_order(adapter.sent()[-1].data)
    assert (step.step_id, step.version, order.specs[0].step_id) == ("b", 0, "b")


def test_a_step_past_its_deadline_makes_its_run_due(adapter: Adapter) -> None:
    started(adapter)
    deadline = claimed(adapter, "a").steps["a"].due_at
    assert deadline is not None
    run = adapter.store.load(new_run().run.run_id)
    adapter.store.commit(state.apply(run, Swept(), deadline - timedelta(seconds=1)))
    assert list(adapter.store.due(deadline - timedelta(seconds=1), 10)) == []
    assert list(adapter.store.due(deadline, 10)) == [run.run_id]


def test_a_rerun_is_created_with_its_kept_steps(adapter: Adapter) -> None:
    run = started(adapter)
    claimed(adapter, "a")
    succeeded(adapter, "a")
    cancelled = state.apply(adapter.store.load(run.run_id), CancelRequested("me", "x"), T0)
    adapter.store.commit(cancelled)
    new = state.rerun(adapter.store.load(run.run_id), new_run(2).run.request, who="me", why="again")
    adapter.store.create(new, WIDE)
    again = adapter.store.load(new.run.run_id)
    assert again.specs == SPECS and again.steps["a"].status is StepStatus.SUCCEEDED
    assert again.steps["a"].receipt.rows == 3 and again.steps["c"].status is StepStatus.WAITING
