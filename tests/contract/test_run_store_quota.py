"""What every run store promises of quota, money and queues. Its threads are in ``test_quota_threads.py``."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from common.adapters.sql.sqlite.bus import SqliteBus
from common.adapters.sql.sqlite.database import Database
from common.adapters.sql.sqlite.run_store import SqliteRunStore
from common.domain import state
from common.domain.messages import CancelRequested, JobsCost, RunAdmitted, RunAnnounced, RunKeptWaiting
from common.domain.model import Estimate, Run
from common.domain.queueing import TURN, Place
from common.domain.quota import Limits
from common.domain.state import Transition
from common.platform.errors import ConflictingStateError, QuotaExceededError, StaleRunError
from tests.contract.stores import T0, WIDE, Adapter, create, end, new_run

ONE = replace(WIDE, concurrent=1)


def wait(adapter: Adapter, number: int, limit: str = "concurrent", *, backfill: bool = False, **more: object) -> Run:
    """Store a run that waits for this limit."""
    new = new_run(number, **more)  # type: ignore[arg-type]
    asked = replace(new.run, request=replace(new.run.request, queue=True, backfill=backfill))
    adapter.store.create(state.waiting(replace(new, run=asked), limit, "it is full"), WIDE)
    return adapter.store.load(new.run.run_id)


def admit(adapter: Adapter, run: Run, limits: Limits = WIDE, at: datetime = T0) -> Run:
    stored = adapter.store.load(run.run_id, ())
    admitted = state.apply(stored, RunAdmitted(limits.global_concurrent is not None), at)
    return adapter.store.admit(admitted, limits)


def priced(number: int, queries: str, calls: str = "0", at: datetime = T0) -> Transition:
    new = new_run(number, at=at)
    return replace(new, run=replace(new.run, estimate=Estimate(Decimal(queries), Decimal(calls), "a test")))


def heads(adapter: Adapter) -> dict[str, list[int]]:
    return {q.org_slug: [int(one.run_id[4:], 16) for one in q.heads] for q in adapter.store.queues()}


def test_an_id_exists_once_whatever_is_left_of_the_quota(adapter: Adapter) -> None:
    create(adapter, 1, ONE)
    for limits in (WIDE, ONE):
        with pytest.raises(ConflictingStateError, match="already"):
            create(adapter, 1, limits)
    usage = adapter.store.usage("acme", T0)
    assert (usage.daily, usage.concurrent) == (1, 1)
    assert len(adapter.store.changes(new_run(1).run.run_id)) == 1


def test_a_pipelines_limit_counts_its_live_runs_in_one_organisation(adapter: Adapter) -> None:
    limits = replace(WIDE, pipeline=1)
    first = create(adapter, 1, limits)
    create(adapter, 2, limits, route="x/y/z")
    create(adapter, 3, limits, org="globex")
    with pytest.raises(QuotaExceededError, match="pipeline limit of 1 runs.*concurrency in the pipeline") as refused:
        create(adapter, 4, limits)
    assert (refused.value.limit, refused.value.value, refused.value.used) == ("pipeline", 1, 1)
    end(adapter, first, T0)
    create(adapter, 5, limits)


def globally(number: int, org: str, at: datetime = T0) -> Transition:
    new = new_run(number, org, at)
    return replace(new, run=replace(new.run, global_slot=True))


def test_the_deployments_limit_counts_the_live_runs_of_all_organisations(adapter: Adapter) -> None:
    limits = replace(WIDE, global_concurrent=2)
    first = globally(1, "acme")
    adapter.store.create(first, limits)
    adapter.store.create(globally(2, "globex"), limits)
    with pytest.raises(QuotaExceededError) as refused:
        adapter.store.create(globally(3, "third"), limits)
    assert (refused.value.limit, refused.value.value, refused.value.used) == ("global", 2, 2)
    end(adapter, first, T0)
    adapter.store.create(globally(4, "third"), limits)


def test_a_vanished_run_gives_back_its_slot_of_the_deployment(adapter: Adapter) -> None:
    limits = replace(WIDE, global_concurrent=1)
    first = globally(1, "acme")
    adapter.store.create(first, limits)
    assert first.run.expires_at is not None
    with pytest.raises(QuotaExceededError, match="global"):
        adapter.store.create(globally(2, "globex", first.run.expires_at), limits)
    adapter.store.create(globally(3, "globex", first.run.expires_at + timedelta(minutes=6)), limits)


def test_money_is_reserved_with_the_run_and_refused_beyond_the_months_allowance(adapter: Adapter) -> None:
    limits = replace(WIDE, money_usd=Decimal("1.00"))
    first = priced(1, "0.50", "0.10")
    adapter.store.create(first, limits)
    assert replace(adapter.store.load(first.run.run_id), version=0) == first.run
    with pytest.raises(QuotaExceededError, match="money limit of 1.00 USD") as refused:
        adapter.store.create(priced(2, "0.400001"), limits)
    assert (refused.value.limit, refused.value.value) == ("money", "1.00")
    assert Decimal(refused.value.used) == Decimal("0.6") and refused.value.retry_after_s > 9 * 24 * 3600
    adapter.store.create(priced(3, "0.40"), limits)
    usage = adapter.store.usage("acme", T0)
    assert (usage.reserved_usd, usage.spent_usd, usage.daily) == (1, 0, 2)
    with pytest.raises(QuotaExceededError, match="money"):
        adapter.store.create(priced(4, "0"), limits)
    adapter.store.create(priced(5, "1", at=T0 + timedelta(days=10)), limits)


def test_an_amount_is_counted_in_millionths_rounded_up(adapter: Adapter) -> None:
    adapter.store.create(priced(1, "0.0000000001"), replace(WIDE, money_usd=Decimal(1)))
    assert adapter.store.usage("acme", T0).reserved_usd == Decimal("0.000001")


@pytest.mark.parametrize(
    ("jobs", "spent", "known"),
    [
        (JobsCost(Decimal("0.20"), True), "0.30", "0.30"),
        (JobsCost(Decimal("0.20"), False), "0.60", None),
        (JobsCost(Decimal("0.70"), False), "0.80", None),
        (None, "0.60", None),
    ],
)
def test_money_is_settled_once_and_what_is_not_known_leaves_the_estimate(
    adapter: Adapter, jobs: JobsCost | None, spent: str, known: str | None
) -> None:
    new = priced(1, "0.50", "0.10")
    adapter.store.create(new, replace(WIDE, money_usd=Decimal(1)))
    end(adapter, new, T0)
    before = adapter.store.usage("acme", T0)
    assert (before.reserved_usd, before.spent_usd, before.concurrent) == (Decimal("0.6"), 0, 0)
    ended = adapter.store.load(new.run.run_id)
    told = state.apply(ended, RunAnnounced(jobs), T0 + timedelta(days=20))
    adapter.store.commit(told)
    with pytest.raises(StaleRunError):
        adapter.store.commit(told)
    usage = adapter.store.usage("acme", T0)
    assert (usage.reserved_usd, usage.spent_usd) == (0, Decimal(spent))
    assert adapter.store.last_cost("acme", "a/b/c") == (None if known is None else Decimal(known))
    assert adapter.store.last_cost("acme", "x/y/z") is None and adapter.store.last_cost("globex", "a/b/c") is None
    assert adapter.store.load(new.run.run_id).cost_usd == Decimal(spent)


def test_a_waiting_run_takes_no_quota_and_is_not_started(adapter: Adapter) -> None:
    run = wait(adapter, 1)
    usage = adapter.store.usage("acme", T0)
    assert (usage.daily, usage.monthly, usage.concurrent, usage.waiting) == (0, 0, 0, 1)
    assert adapter.topics() == [] and run.waits_for == "concurrent" and run.admitted_at is None
    assert list(adapter.store.due(T0 + timedelta(hours=23), 9)) == []
    assert list(adapter.store.due(T0 + timedelta(hours=24), 9)) == [run.run_id]


def test_an_admitted_run_is_counted_on_the_day_of_its_admission_and_started(adapter: Adapter) -> None:
    run, later = wait(adapter, 1), datetime(2026, 12, 1, 0, 30, tzinfo=UTC)
    admitted = admit(adapter, run, at=later)
    assert adapter.topics() == ["runs"] and admitted == adapter.store.load(run.run_id, ())
    usage = adapter.store.usage("acme", later)
    assert (usage.daily, usage.monthly, usage.concurrent, usage.waiting) == (1, 1, 1, 0)
    assert adapter.store.usage("acme", T0).monthly == 0
    end(adapter, new_run(1), later)
    assert adapter.store.usage("acme", later).failed == 1 and adapter.store.usage("acme", T0).failed == 0
    assert adapter.store.usage("acme", later).concurrent == 0


def test_of_two_that_admit_a_run_one_is_stale_and_takes_nothing(adapter: Adapter) -> None:
    run = wait(adapter, 1)
    both = [state.apply(run, RunAdmitted(False), T0) for _ in range(2)]
    adapter.store.admit(both[0], WIDE)
    with pytest.raises(StaleRunError):
        adapter.store.admit(both[1], WIDE)
    assert adapter.store.usage("acme", T0).daily == 1 and adapter.topics() == ["runs"]


@pytest.mark.parametrize("limit", ["daily", "monthly", "concurrent", "pipeline", "global", "money"])
def test_a_run_that_no_limit_lets_in_goes_on_waiting(adapter: Adapter, limit: str) -> None:
    none = {"money": {"money_usd": Decimal(0)}, "global": {"global_concurrent": 0}}.get(limit, {limit: 0})
    run = wait(adapter, 1)
    with pytest.raises(QuotaExceededError) as refused:
        admit(adapter, run, replace(WIDE, **none))  # type: ignore[arg-type]
    assert refused.value.limit == limit
    usage = adapter.store.usage("acme", T0)
    assert adapter.store.load(run.run_id) == run and (usage.daily, usage.waiting) == (0, 1)
    assert heads(adapter) == {"acme": [1]} and adapter.topics() == []
    assert [c.after for c in adapter.store.changes(run.run_id)] == ["pending"]
    admit(adapter, run)


@pytest.mark.parametrize(
    ("scope", "limits"),
    [
        ("pipeline", replace(WIDE, pipeline=1)),
        ("concurrent", ONE),
        ("global", replace(WIDE, global_concurrent=1)),
    ],
)
def test_a_new_run_comes_after_those_that_wait_for_the_same_slot(adapter: Adapter, scope: str, limits: Limits) -> None:
    waiting = wait(adapter, 1, scope)
    with pytest.raises(QuotaExceededError, match="0 used, 1 more wait for it") as refused:
        create(adapter, 2, limits)
    assert (refused.value.limit, refused.value.used, refused.value.waiting) == (scope, 0, 1)
    admit(adapter, waiting, limits)


def test_whoever_waits_for_a_wider_slot_will_take_a_narrower_one_too_and_not_the_other_way_round(
    adapter: Adapter,
) -> None:
    wait(adapter, 1, "concurrent")
    with pytest.raises(QuotaExceededError, match="pipeline"):
        create(adapter, 2, replace(WIDE, pipeline=1))
    create(adapter, 3, replace(WIDE, pipeline=1), route="x/y/z")
    create(adapter, 4, replace(WIDE, global_concurrent=2))


def test_who_waits_for_a_pipeline_or_in_another_organisation_keeps_nobody_else_from_a_slot(adapter: Adapter) -> None:
    wait(adapter, 1, "pipeline")
    wait(adapter, 2, "concurrent", org="globex")
    wait(adapter, 3, "daily")
    create(adapter, 4, ONE, route="x/y/z")


def test_a_run_waits_for_what_the_last_commit_says(adapter: Adapter) -> None:
    run = wait(adapter, 1, "pipeline")
    adapter.store.commit(state.apply(run, RunKeptWaiting("global", "nothing is free"), T0))
    (queue,) = adapter.store.queues()
    assert queue.heads[0].waits_for == adapter.store.load(run.run_id).waits_for == "global"
    with pytest.raises(QuotaExceededError, match="global"):
        create(adapter, 2, replace(WIDE, global_concurrent=1), org="globex")
    adapter.store.commit(state.apply(adapter.store.load(run.run_id), RunKeptWaiting("pipeline", "it is full"), T0))
    create(adapter, 3, replace(WIDE, global_concurrent=1), org="globex")


def test_a_cancelled_run_leaves_the_queue_and_is_counted_nowhere(adapter: Adapter) -> None:
    run = wait(adapter, 1, "global")
    adapter.store.commit(state.apply(run, CancelRequested("me", "so"), T0))
    usage = adapter.store.usage("acme", T0)
    assert (usage.waiting, usage.monthly, usage.cancelled, usage.concurrent) == (0, 0, 0, 0)
    assert list(adapter.store.queues()) == []
    create(adapter, 2, replace(WIDE, global_concurrent=1, concurrent=1))


def test_a_full_queue_is_named(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.domain.quota.QUEUE_LIMIT", 2)
    for number in (1, 2):
        wait(adapter, number)
    with pytest.raises(QuotaExceededError) as refused:
        wait(adapter, 3)
    assert (refused.value.limit, refused.value.value, refused.value.used) == ("queue", 2, 2)
    wait(adapter, 4, org="globex")
    assert adapter.store.usage("acme", T0).waiting == 2


def test_a_place_counts_live_work_before_backfills_then_the_oldest(adapter: Adapter) -> None:
    late = wait(adapter, 1, at=T0 + timedelta(seconds=2))
    early = wait(adapter, 2, at=T0 + timedelta(seconds=1))
    backfill = wait(adapter, 3, backfill=True)
    wait(adapter, 4, org="globex")
    assert [adapter.store.place(run) for run in (early, late, backfill)] == [Place(1, 3), Place(2, 3), Place(3, 3)]
    admit(adapter, early)
    assert adapter.store.place(early) is None and adapter.store.place(late) == Place(1, 2)


def test_a_queue_shows_the_next_run_of_each_pipeline_live_and_backfill(adapter: Adapter) -> None:
    for number, route, backfill in ((1, "a/b/c", True), (2, "a/b/c", False), (3, "a/b/c", False), (4, "x/y/z", False)):
        wait(adapter, number, route=route, backfill=backfill, at=T0 + timedelta(seconds=number))
    wait(adapter, 5, "global", org="globex")
    assert {org: sorted(found) for org, found in heads(adapter).items()} == {"acme": [1, 2, 4], "globex": [5]}
    (queue,) = (one for one in adapter.store.queues() if one.org_slug == "acme")
    head = min(queue.heads, key=lambda one: one.run_id)
    assert (head.route, head.waits_for, head.backfill) == ("a/b/c", "concurrent", True)
    assert head.since == T0 + timedelta(seconds=1)


def test_the_end_of_a_run_shows_the_queues_that_may_get_its_slot(adapter: Adapter) -> None:
    own, common = create(adapter, 1), globally(2, "acme")
    adapter.store.create(common, replace(WIDE, global_concurrent=9))
    other = create(adapter, 3, org="third")
    wait(adapter, 4)
    wait(adapter, 5, "global", org="globex")
    orgs = {}
    for new in (own, common, other):
        end(adapter, new, T0)
        orgs[new.run.run_id[-1]] = {q.org_slug for q in adapter.store.queues(adapter.store.load(new.run.run_id))}
    assert orgs["1"] >= {"acme"} and orgs["2"] >= {"acme", "globex"}
    assert "acme" not in orgs["3"]


def turns(adapter: Adapter) -> dict[str, int]:
    return {queue.org_slug: queue.turn for queue in adapter.store.queues()}


def test_an_admission_from_the_queue_moves_the_turn_on_by_weight_and_one_at_once_does_not(adapter: Adapter) -> None:
    runs = [wait(adapter, number, at=T0 + timedelta(seconds=number)) for number in range(1, 4)]
    create(adapter, 4)
    assert turns(adapter) == {"acme": 0}
    admit(adapter, runs[0], replace(WIDE, weight=4))
    admit(adapter, runs[1], WIDE)
    assert turns(adapter) == {"acme": TURN // 4 + TURN}


def test_whoever_begins_to_wait_starts_at_the_turn_of_those_that_wait(adapter: Adapter) -> None:
    for number in range(1, 5):
        run = wait(adapter, number)
        if number < 4:
            admit(adapter, run)
    assert turns(adapter) == {"acme": 3 * TURN}
    newcomer = wait(adapter, 9, org="globex")
    assert turns(adapter) == {"acme": 3 * TURN, "globex": 3 * TURN}
    admit(adapter, newcomer)
    admit(adapter, run)
    wait(adapter, 10, org="third")
    assert turns(adapter) == {"third": 4 * TURN}


def test_a_refused_admission_leaves_nothing_in_a_transaction_that_goes_on(tmp_path: Path) -> None:
    database = Database(tmp_path / "store.db")
    adapter = Adapter(SqliteRunStore(database, SqliteBus(database)), list)
    run = wait(adapter, 1)
    with database.batch(), pytest.raises(QuotaExceededError):
        admit(adapter, run, replace(WIDE, concurrent=0))
    assert adapter.store.load(run.run_id) == run and heads(adapter) == {"acme": [1]}
