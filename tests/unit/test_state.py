"""The state machine, rule by rule. Times are seconds after T0."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from heapq import heappop, heappush
from random import Random

import pytest

from common.domain import state
from common.domain.graph import whole
from common.domain.messages import (
    AnnounceRunFinished,
    AttemptClaimed,
    AttemptFailed,
    AttemptStopped,
    AttemptSucceeded,
    AttemptSuspended,
    CancelRequested,
    DispatchStep,
    Event,
    MessageDied,
    OwnerLost,
    RunAnnounced,
    RunRejected,
    RunValidated,
    SettleReservation,
    SkipRequested,
    StartRun,
    Swept,
)
from common.domain.model import (
    ErrorKind,
    MapSpec,
    Pipeline,
    Receipt,
    RetryPolicy,
    Run,
    RunRequest,
    RunStatus,
    Staged,
    Step,
    StepSpec,
    StepStatus,
)
from common.domain.state import LEASE_MARGIN, LOOKS_LATER, RESEND_AFTER, RETRY_GRACE, Transition
from common.writes.writer import AGAIN_S

T0 = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
DAY = date(2026, 11, 20)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def step(step_id: str, *after: str, attempts: int = 1, backoff: float = 0, timeout: int = 100) -> StepSpec:
    return StepSpec(step_id, "noop", after, timeout, RetryPolicy(attempts, backoff))


def pending() -> Transition:
    return state.create(RunRequest("run_1", "acme", "a/b/c", DAY, DAY, T0))


class World:
    """A run, its clock and the commands it gave: drives the core as the engine and a store do."""

    def __init__(self, *specs: StepSpec) -> None:
        self.commands: list[object] = []
        self.now = T0
        self.header: Run = pending().run
        self.records: dict[str, Step] = {}
        if specs:
            self.tell(RunValidated(Pipeline("p", "openai", specs, "hash"), "cred"))

    @property
    def run(self) -> Run:
        return whole(self.header, self.records)

    def tell(self, event: Event, after: float = 0) -> Transition:
        self.now += timedelta(seconds=after)
        transition = state.apply(self.run, event, self.now)
        if transition.header:
            self.header = replace(transition.run, steps={}, version=self.header.version + 1)
        for step_id in transition.touched:
            changed = transition.run.steps[step_id]
            self.records[step_id] = replace(changed, version=changed.version + 1)
        self.commands.extend(transition.commands)
        return transition

    def claim(self, step_id: str, attempt: int = 1, owner: str = "me", after: float = 0) -> Transition:
        return self.tell(AttemptClaimed(step_id, attempt, owner), after)

    def succeed(self, step_id: str, attempt: int = 1, rows: int = 1) -> Transition:
        return self.tell(AttemptSucceeded(step_id, attempt, Receipt(rows=rows)))

    def fail(
        self,
        step_id: str,
        attempt: int = 1,
        *,
        kind: ErrorKind | None = ErrorKind.UNAVAILABLE,
        retry_after_s: float = 0,
    ) -> Transition:
        return self.tell(AttemptFailed(step_id, attempt, "boom", kind, retry_after_s))

    def status(self, step_id: str) -> StepStatus:
        found = self.run.step(step_id)
        assert found is not None
        return found.status

    def dispatched(self) -> list[tuple[str, int]]:
        return [(c.step.step_id, c.step.attempt) for c in self.commands if isinstance(c, DispatchStep)]

    def settled(self) -> list[SettleReservation]:
        return [c for c in self.commands if isinstance(c, SettleReservation)]


def test_a_new_run_is_pending_and_asks_to_be_started() -> None:
    new = pending()
    assert new.run.status is RunStatus.PENDING
    assert new.commands == (StartRun("run_1"),)
    assert [c.after for c in new.changes] == ["pending"]


def test_the_status_flow_of_a_run_that_goes_well() -> None:
    world = World()
    started = world.tell(RunValidated(Pipeline("p", "openai", (step("a"),), "h"), "c"))
    world.claim("a")
    ended = world.succeed("a")
    seen = [c.after for c in (*pending().changes, *started.changes, *ended.changes) if not c.step_id]
    assert seen == ["pending", "validating", "running", "completed"]


def test_only_steps_without_dependencies_start_at_once() -> None:
    world = World(step("a"), step("b", "a"), step("c"))
    assert world.dispatched() == [("a", 1), ("c", 1)]
    assert world.status("b") is StepStatus.WAITING


def test_a_step_starts_only_when_all_it_depends_on_have_succeeded() -> None:
    world = World(step("a"), step("b"), step("c", "a", "b"))
    world.claim("a")
    world.succeed("a")
    assert world.status("c") is StepStatus.WAITING
    world.claim("b")
    world.succeed("b")
    assert world.dispatched()[-1] == ("c", 1)


def test_a_repeated_success_dispatches_dependents_once() -> None:
    world = World(step("a"), step("b", "a"))
    world.claim("a")
    world.succeed("a")
    again = world.succeed("a")
    assert not again.changes and world.dispatched() == [("a", 1), ("b", 1)]


def test_a_result_without_a_claim_changes_nothing() -> None:
    world = World(step("a"))
    assert not world.succeed("a").changes
    assert world.status("a") is StepStatus.QUEUED


def test_a_second_claim_of_one_attempt_is_refused() -> None:
    world = World(step("a"))
    world.claim("a", owner="first")
    assert not world.claim("a", owner="second").changes
    assert world.run.steps["a"].owner == "first"


def test_a_late_success_of_a_superseded_attempt_is_ignored() -> None:
    world = World(step("a", attempts=2))
    world.claim("a")
    world.fail("a")
    assert not world.succeed("a", attempt=1).changes
    world.claim("a", attempt=2)
    assert not world.succeed("a", attempt=1).changes
    assert world.status("a") is StepStatus.RUNNING


def test_a_failed_attempt_is_retried_not_before_its_backoff() -> None:
    world = World(step("a", attempts=2, backoff=30))
    world.claim("a")
    world.fail("a")
    assert world.status("a") is StepStatus.RETRYING
    sent = world.commands[-1]
    assert isinstance(sent, DispatchStep) and (sent.step.attempt, sent.step.not_before) == (2, at(30))
    assert not world.claim("a", attempt=2, after=29.9).changes
    assert world.claim("a", attempt=2, after=0.1).changes


def test_retry_after_of_the_other_side_outweighs_a_shorter_backoff() -> None:
    world = World(step("a", attempts=2, backoff=5))
    world.claim("a")
    world.fail("a", retry_after_s=60)
    assert world.run.steps["a"].not_before == at(60)


def test_the_backoff_grows_from_attempt_to_attempt() -> None:
    spec = StepSpec("a", "noop", retry=RetryPolicy(3, 10, backoff_multiplier=3))
    world = World(spec)
    world.claim("a")
    world.fail("a")
    assert world.run.steps["a"].not_before == at(10)
    world.claim("a", attempt=2, after=10)
    world.fail("a", attempt=2)
    assert world.run.steps["a"].not_before == at(40)


def test_max_attempts_is_kept() -> None:
    world = World(step("a", attempts=3))
    for attempt in (1, 2, 3):
        world.claim("a", attempt)
        world.fail("a", attempt)
    assert world.status("a") is StepStatus.FAILED
    assert world.dispatched() == [("a", 1), ("a", 2), ("a", 3)]
    assert world.run.status is RunStatus.FAILED and world.run.error == "a: boom"


def test_a_permanent_error_is_not_retried() -> None:
    world = World(step("a", attempts=5))
    world.claim("a")
    world.fail("a", kind=None)
    assert world.status("a") is StepStatus.FAILED and world.dispatched() == [("a", 1)]


def test_what_depends_on_a_failed_step_is_omitted_and_other_branches_go_on() -> None:
    world = World(step("a"), step("b", "a"), step("c", "b"), step("x"), step("y", "x"))
    world.claim("a")
    world.fail("a")
    assert [world.status(s) for s in "bc"] == [StepStatus.OMITTED, StepStatus.OMITTED]
    assert world.run.status is RunStatus.RUNNING
    for name in ("x", "y"):
        world.claim(name)
        world.succeed(name)
    assert world.run.status is RunStatus.FAILED


def test_steps_declared_before_what_they_depend_on_are_omitted_too() -> None:
    world = World(step("c", "b"), step("b", "a"), step("a"))
    world.claim("a")
    world.fail("a")
    assert world.run.status is RunStatus.FAILED
    assert [s.status for s in world.run.steps.values()] == ["omitted", "omitted", "failed"]


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_run_ends_once_and_settles_its_reservation_once(ends_well: bool) -> None:
    world = World(step("a"), step("b"))
    for name in ("a", "b"):
        world.claim(name)
        world.succeed(name) if ends_well else world.fail(name)
    assert world.settled() == [SettleReservation("run_1", RunStatus.COMPLETED if ends_well else RunStatus.FAILED)]
    assert [c for c in world.commands if isinstance(c, AnnounceRunFinished)] == [AnnounceRunFinished("run_1")]
    world.tell(RunAnnounced())
    ended = world.run
    for event in (Swept(), AttemptSucceeded("a", 1, Receipt()), RunRejected("x"), OwnerLost("me")):
        assert not world.tell(event, after=10**7).changes
    assert world.run == ended and len(world.settled()) == 1


def test_a_result_that_comes_after_its_run_has_ended_changes_nothing() -> None:
    """The run's time is over while an attempt still works: its late success must not end the run again."""
    world = World(step("a"))
    world.claim("a")
    assert world.run.expires_at is not None
    world.now = world.run.expires_at
    world.tell(Swept())
    assert world.run.status is RunStatus.FAILED
    assert not world.succeed("a").changes and not world.fail("a").changes
    assert world.settled() == [SettleReservation("run_1", RunStatus.FAILED)]


def test_a_repeated_message_of_an_earlier_attempt_does_not_claim_the_next() -> None:
    world = World(step("a", attempts=2))
    world.claim("a")
    world.fail("a")
    assert not world.claim("a", attempt=1).changes
    assert world.status("a") is StepStatus.RETRYING


def test_a_rejected_run_fails_with_its_error() -> None:
    world = World()
    world.tell(RunRejected("openai.yml:3: schedule: not a cron expression"))
    assert world.run.status is RunStatus.FAILED and "openai.yml:3" in world.run.error
    assert world.settled() == [SettleReservation("run_1", RunStatus.FAILED)]


def test_a_second_validation_does_not_replace_the_pinned_config() -> None:
    world = World(step("a"))
    other = RunValidated(Pipeline("other", "openai", (step("z"),), "other"), "cred2")
    assert not world.tell(other).changes
    assert world.run.config_hash == "hash"


def test_the_sweep_changes_nothing_before_a_deadline() -> None:
    world = World(step("a", timeout=100))
    assert not world.tell(Swept(), after=119).changes


def test_a_lost_start_message_is_sent_again() -> None:
    world = World()
    world.tell(Swept(), after=RESEND_AFTER.total_seconds())
    assert world.commands == [StartRun("run_1")] and world.run.status is RunStatus.PENDING


def test_a_lost_step_message_is_sent_again_with_the_same_attempt() -> None:
    world = World(step("a"))
    world.tell(Swept(), after=RESEND_AFTER.total_seconds())
    assert world.dispatched() == [("a", 1), ("a", 1)]
    assert world.claim("a").changes and not world.claim("a").changes


def test_a_lost_retry_message_is_sent_again_only_after_it_was_due() -> None:
    world = World(step("a", attempts=2, backoff=50))
    world.claim("a")
    world.fail("a")
    world.tell(Swept(), after=50 + RETRY_GRACE.total_seconds() - 1)
    assert world.dispatched() == [("a", 1), ("a", 2)]
    world.tell(Swept(), after=1)
    assert world.dispatched() == [("a", 1), ("a", 2), ("a", 2)]


def test_an_attempt_whose_lease_ends_without_a_result_is_failed_and_retried() -> None:
    world = World(step("a", attempts=2, timeout=100))
    world.claim("a")
    world.tell(Swept(), after=100 + LEASE_MARGIN.total_seconds() - 1)
    assert world.status("a") is StepStatus.RUNNING
    world.tell(Swept(), after=1)
    assert world.status("a") is StepStatus.RETRYING and "timeout_seconds (100 s)" in world.run.steps["a"].error


def test_a_dead_owner_loses_its_attempts_and_nobody_else_does() -> None:
    world = World(step("a", attempts=2), step("b", attempts=2))
    world.claim("a", owner="dead")
    world.claim("b", owner="alive")
    world.tell(OwnerLost("dead"))
    assert (world.status("a"), world.status("b")) == (StepStatus.RETRYING, StepStatus.RUNNING)


def test_a_run_that_outlives_its_time_fails_and_says_what_it_waited_for() -> None:
    world = World(step("a"))
    assert world.run.expires_at is not None
    world.now = world.run.expires_at
    world.tell(Swept())
    assert world.run.status is RunStatus.FAILED and "a queued" in world.run.error


def test_every_open_state_has_a_reason_and_a_time_when_the_sweep_looks() -> None:
    world = World(step("a", attempts=2, backoff=5), step("b", "a"))
    moves = (lambda: None, lambda: world.claim("a"), lambda: world.fail("a"), lambda: world.claim("a", 2, after=5))
    for move in moves:
        move()
        assert world.run.wake_at is not None and world.run.reason
        for open_step in world.run.steps.values():
            assert open_step.reason and open_step.since is not None
            followed = open_step.status in (StepStatus.WAITING, StepStatus.QUEUED)  # by the run's own wake_at
            assert open_step.due_at is not None or followed


def test_the_end_of_a_run_is_announced_until_somebody_says_that_it_was() -> None:
    world = World(step("a"))
    world.claim("a")
    world.succeed("a")
    for _ in range(2):
        assert not world.tell(Swept(), after=RESEND_AFTER.total_seconds() - 1).writes
        assert world.tell(Swept(), after=1).commands == (AnnounceRunFinished("run_1"),)
    world.tell(RunAnnounced())
    assert world.run.wake_at is None and not world.tell(Swept(), after=10**7).writes
    assert len(world.settled()) == 1


def test_an_announcement_that_nobody_can_take_is_not_repeated_for_ever() -> None:
    world = World(step("a"))
    world.claim("a")
    world.succeed("a")
    world.tell(MessageDied("", 0, "given up"))
    assert world.run.wake_at is None and world.run.status is RunStatus.COMPLETED


def test_a_run_that_has_not_ended_is_not_announced() -> None:
    world = World(step("a"))
    assert not world.tell(RunAnnounced()).writes and world.run.wake_at is not None


def test_every_change_is_logged_with_before_and_after() -> None:
    world = World(step("a"))
    claimed = world.claim("a")
    assert [(c.step_id, c.before, c.after, c.attempt) for c in claimed.changes] == [
        ("a", "waiting", "queued", 1),
        ("a", "queued", "running", 1),
    ]
    done = world.succeed("a")
    assert [(c.step_id, c.after) for c in done.changes] == [("a", "succeeded"), ("", "completed")]


def test_the_same_inputs_always_give_the_same_transition() -> None:
    world = World(step("a"), step("b", "a"))
    event = AttemptClaimed("a", 1, "me")
    assert state.apply(world.run, event, at(1)) == state.apply(replace(world.run), event, at(1))


def test_a_fence_grows_with_every_claim_of_a_step_even_if_the_clock_stands_still() -> None:
    world = World(step("a", attempts=3))
    fences = []
    for attempt, after in ((1, 0), (2, 5), (3, 0)):
        world.claim("a", attempt, after=after)
        fences.append(world.records["a"].fence)
        world.fail("a", attempt)
    assert fences[0] < fences[1] < fences[2]
    assert fences[1] - fences[0] == 5_000_000 and fences[2] == fences[1] + 1


@pytest.mark.parametrize(("waited", "next_look"), [(0, 30), (600, 30), (3_600, 180), (20_000, 1_000)])
def test_a_job_that_takes_long_is_looked_at_less_often_so_that_its_history_stays_short(
    waited: float, next_look: float
) -> None:
    world = World(step("a"))
    world.claim("a")
    world.tell(AttemptSuspended("a", 1, "job", world.now))
    world.claim("a", after=waited)
    world.tell(AttemptSuspended("a", 1, "job", world.now + timedelta(seconds=30)))
    assert world.records["a"].not_before == world.now + timedelta(seconds=next_look)


def test_a_job_is_looked_at_when_its_time_is_over_however_long_it_has_taken() -> None:
    world = World(step("a"))
    world.claim("a")
    world.tell(AttemptSuspended("a", 1, "job", world.now))
    most = world.records["a"].spec.max_wait_seconds
    world.claim("a", after=most - most / LOOKS_LATER / 2)
    world.tell(AttemptSuspended("a", 1, "job", world.now))
    assert world.records["a"].not_before == at(most)


CANCEL, SKIP = CancelRequested("ana", "wrong dates"), SkipRequested("a", "ana", "not needed")


def committed(rows: int = 3) -> Receipt:
    return Receipt(rows=rows, table="p.d.t", ingested_at=T0)


def test_a_cancel_holds_the_slot_until_the_work_has_stopped() -> None:
    world = World(step("a"), step("b", "a"))
    world.claim("a")
    world.tell(CANCEL)
    assert world.run.status is RunStatus.CANCELLING and world.status("a") is StepStatus.STOPPING
    assert world.status("b") is StepStatus.CANCELLED and world.settled() == []
    assert "waits for a to stop" in world.run.reason
    world.tell(AttemptStopped("a", 1))
    assert world.run.status is RunStatus.CANCELLED and world.status("a") is StepStatus.CANCELLED
    assert [s.outcome for s in world.settled()] == [RunStatus.CANCELLED]
    assert world.run.error == "cancelled by ana: wrong dates"


def test_a_cancel_of_a_run_without_work_under_way_ends_it_at_once() -> None:
    world = World(step("a"))
    world.tell(CANCEL)
    assert world.run.status is RunStatus.CANCELLED and len(world.settled()) == 1


def test_a_cancelled_run_ends_with_the_last_of_its_steps_at_work() -> None:
    world = World(step("a"), step("b"), step("c"))
    for name in "abc":
        world.claim(name)
    world.tell(CANCEL)
    world.fail("a")
    world.tell(AttemptSuspended("b", 1, "job", at(30)))
    assert world.run.status is RunStatus.CANCELLING and world.dispatched()[3:] == []
    world.tell(AttemptStopped("c", 1))
    assert world.run.status is RunStatus.CANCELLED
    assert {world.status(name) for name in "abc"} == {StepStatus.CANCELLED}


def test_a_commit_that_came_before_the_cancel_keeps_its_receipt_and_the_run_says_so() -> None:
    world = World(step("a"), step("b", "a"))
    world.claim("a")
    world.tell(CANCEL)
    world.tell(AttemptSucceeded("a", 1, committed()))
    assert world.run.status is RunStatus.CANCELLED and world.status("a") is StepStatus.SUCCEEDED
    assert world.run.steps["a"].receipt == committed()
    assert world.run.error == "cancelled by ana: wrong dates; a had committed before, and those rows stay"
    assert world.status("b") is StepStatus.CANCELLED and len(world.dispatched()) == 1


def test_an_attempt_that_never_answers_is_given_up_with_its_lease() -> None:
    world = World(step("a", timeout=100, attempts=3))
    world.claim("a")
    world.tell(CANCEL)
    world.tell(Swept(), after=159)
    assert world.run.status is RunStatus.CANCELLING
    world.tell(Swept(), after=1)
    assert world.run.status is RunStatus.CANCELLED and world.status("a") is StepStatus.CANCELLED


def test_a_cancel_stops_the_items_at_work_and_starts_no_others() -> None:
    each = replace(step("each", "list"), map=MapSpec("list.outputs.names", max_parallel=2))
    world = World(step("list"), each)
    world.claim("list")
    world.tell(AttemptSucceeded("list", 1, Receipt(outputs={"names": ["x", "y", "z"]})))
    world.claim("each[0]")
    world.claim("each[1]")
    world.tell(CANCEL)
    world.tell(AttemptStopped("each[0]", 1))
    assert world.run.status is RunStatus.CANCELLING and world.status("each") is StepStatus.CANCELLED
    world.tell(AttemptStopped("each[1]", 1))
    assert world.run.status is RunStatus.CANCELLED and world.status("each[2]") is StepStatus.CANCELLED


@pytest.mark.parametrize("end", [AttemptStopped("a", 1), AttemptFailed("a", 1, "boom", ErrorKind.UNAVAILABLE)])
def test_a_skipped_step_at_work_is_skipped_when_its_attempt_has_ended(end: Event) -> None:
    world = World(step("a", attempts=3), step("b", "a"))
    world.claim("a")
    world.tell(SKIP)
    assert world.status("a") is StepStatus.STOPPING and world.status("b") is StepStatus.WAITING
    world.tell(end)
    assert world.status("a") is StepStatus.SKIPPED and world.dispatched()[-1] == ("b", 1)
    assert world.run.steps["a"].reason == "skipped by ana: not needed" and world.run.steps["a"].error == ""


def test_a_skipped_step_whose_commit_came_first_has_succeeded() -> None:
    world = World(step("a"), step("b", "a"))
    world.claim("a")
    world.tell(SKIP)
    world.tell(AttemptSucceeded("a", 1, committed()))
    assert world.status("a") is StepStatus.SUCCEEDED and world.run.steps["a"].receipt == committed()
    assert "it had ended before it was skipped by ana" in world.run.steps["a"].reason
    assert world.dispatched()[-1] == ("b", 1)


def test_another_attempts_end_stops_nothing() -> None:
    world = World(step("a"))
    world.claim("a")
    world.tell(CANCEL)
    world.tell(AttemptStopped("a", 2))
    assert world.run.status is RunStatus.CANCELLING


def test_a_rate_limit_that_names_its_end_is_waited_for_and_costs_no_attempt() -> None:
    world = World(step("a", attempts=1))
    world.claim("a")
    world.fail("a", kind=ErrorKind.RATE_LIMIT, retry_after_s=60)
    waits = world.run.steps["a"]
    assert (waits.status, waits.attempt, waits.not_before) == (StepStatus.SUSPENDED, 1, at(60))
    assert waits.reason == "boom" and world.dispatched()[-1] == ("a", 1)
    assert not world.claim("a").writes, "it is not due yet"
    world.claim("a", after=60)
    world.succeed("a")
    assert world.run.status is RunStatus.COMPLETED


def test_waiting_has_a_limit_of_its_own() -> None:
    world = World(replace(step("a", attempts=2), max_wait_seconds=100))
    for _ in range(2):
        world.claim("a", after=60)
        world.fail("a", kind=ErrorKind.RATE_LIMIT, retry_after_s=60)
    assert (world.status("a"), world.run.steps["a"].attempt) == (StepStatus.SUSPENDED, 1)
    world.claim("a", after=60)
    world.fail("a", kind=ErrorKind.RATE_LIMIT, retry_after_s=60)
    assert (world.status("a"), world.run.steps["a"].attempt) == (StepStatus.RETRYING, 2)
    assert world.run.steps["a"].error == "not over within max_wait_seconds (100 s): boom"


def test_a_rate_limit_that_the_pipeline_does_not_retry_fails_at_once() -> None:
    spec = replace(step("a"), retry=RetryPolicy(3, retry_on=("timeout",)))
    world = World(spec)
    world.claim("a")
    world.fail("a", kind=ErrorKind.RATE_LIMIT, retry_after_s=60)
    assert world.status("a") is StepStatus.FAILED


def test_what_is_staged_travels_with_the_wait_and_ends_with_the_attempt() -> None:
    staged = Staged("p.d.s", Receipt(rows=3), 7)
    world = World(step("a", attempts=2))
    world.claim("a")
    world.tell(AttemptSuspended("a", 1, "", at(30), "waits for other writers of t", staged))
    assert world.run.steps["a"].reason == "waits for other writers of t"
    (order,) = [c.step for c in world.commands if isinstance(c, DispatchStep) and c.step.staged]
    assert order.staged == staged
    assert world.claim("a", after=30).run.steps["a"].staged == staged
    world.fail("a")
    assert world.run.steps["a"].staged is None, "the next attempt has a staging table of its own"


def test_two_hundred_runs_of_one_table_all_complete_with_their_first_attempt() -> None:
    """The table takes a writer every two seconds; before, waiting used up the attempts and none of 200 completed."""
    chance, worlds = Random(16), [World(step("a", timeout=100, attempts=3)) for _ in range(200)]
    due = [(0.0, number) for number in range(200)]
    free_at = 0.0
    while due:
        now, number = heappop(due)
        world = worlds[number]
        assert world.claim("a", after=now - (world.now - T0).total_seconds()).writes
        if now >= free_at:
            free_at = now + 2
            world.succeed("a")
        else:
            look_at = at(now + chance.uniform(*AGAIN_S))
            world.tell(AttemptSuspended("a", 1, "", look_at, "waits for other writers of t"))
            wait = world.run.steps["a"].not_before
            assert wait is not None
            heappush(due, ((wait - T0).total_seconds(), number))
    assert {(w.run.status, w.run.steps["a"].attempt) for w in worlds} == {(RunStatus.COMPLETED, 1)}
