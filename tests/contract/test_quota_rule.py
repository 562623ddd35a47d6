"""One quota rule: each line of the table on the pure rule and on every store; and any store beside it at random."""

import random
from collections.abc import Callable
from copy import replace
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from common.domain import state
from common.domain.messages import CancelRequested, JobsCost, RunAnnounced, RunKeptWaiting
from common.domain.quota import (
    CostKnown,
    Counted,
    Demand,
    Limits,
    QueueMoved,
    ReservationExtended,
    ReservationFreed,
    Usage,
    changes,
    exceeded,
)
from common.domain.usage_document import UsageDocument
from common.platform.errors import PipelineOpsError, QuotaExceededError
from common.ports.store import RunStore
from tests.contract.quota_cases import (
    CASES,
    COURSES,
    HOUR,
    LAST_OF_NOVEMBER,
    START,
    Asks,
    Case,
    Course,
    begins,
    completes,
    costs,
    fails,
    is_cancelled,
    limits,
    runs,
    waits,
)
from tests.contract.stores import T0, Adapter, RecordingBus, new_run
from tests.memory_store import MemoryRunStore


def shown(usage: Usage) -> Usage:
    """What a store shows of it: not what one run is checked against."""
    return replace(usage, pipeline=0, global_concurrent=0, ahead={})


def by_name(case: Case | Course) -> str:
    return case.name


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_the_rule_says_what_the_table_says(case: Case) -> None:
    asks = case.asks
    refused = exceeded(case.limits, case.before, asks.at, cost_usd=asks.cost_usd, waited=asks.waited)
    assert refused == case.refused


@pytest.mark.parametrize("case", [case for case in CASES if case.after], ids=by_name)
def test_what_an_admission_takes_is_the_difference(case: Case) -> None:
    assert case.after is not None
    asks, counts = case.asks, {"day": 0, "month": 0, "reserved": 0}
    demand = Demand(asks.org, asks.run_id, asks.route, asks.at, asks.at + HOUR, asks.cost_usd, asks.waited)
    taken = UsageDocument().admitted(demand, case.limits).usage(asks.at)
    counts = {name: getattr(case.after, name) - getattr(case.before, name) for name in ("daily", "monthly")}
    assert counts == {"daily": taken.daily, "monthly": taken.monthly} == {"daily": 1, "monthly": 1}
    assert case.after.reserved_usd - case.before.reserved_usd == taken.reserved_usd
    assert case.after.concurrent - case.before.concurrent == taken.concurrent == 1


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_every_store_answers_as_the_rule_does(adapter: Adapter, case: Case) -> None:
    for event in case.given:
        event(adapter.store)
    asks = case.asks
    assert adapter.store.usage(asks.org, asks.at) == shown(case.before)
    if case.refused is None:
        asks.take(adapter.store, case.limits)
        assert case.after is not None and adapter.store.usage(asks.org, asks.at) == shown(case.after)
        return
    with pytest.raises(QuotaExceededError) as refused:
        asks.take(adapter.store, case.limits)
    assert str(refused.value) == str(QuotaExceededError(**case.refused._asdict()))
    assert refused.value.retry_after_s == case.refused.retry_after_s
    assert adapter.store.usage(asks.org, asks.at) == shown(case.before)


@pytest.mark.parametrize("course", COURSES, ids=by_name)
def test_every_store_counts_what_happens_as_the_rule_does(adapter: Adapter, course: Course) -> None:
    for event in course.events:
        event(adapter.store)
    for org, at, usage in course.counts:
        assert adapter.store.usage(org, at) == usage


def test_a_run_that_waits_has_no_reservation_to_extend() -> None:
    waiting = state.waiting(new_run(), "concurrent", "it is full")
    assert list(changes(waiting.run, (), extends=True)) == []
    assert list(changes(waiting.run, waiting.commands, extends=True)) == [QueueMoved("", "concurrent")]
    kept = state.apply(waiting.run, RunKeptWaiting("global", "it is full"), T0)
    assert list(changes(kept.run, kept.commands, extends=True)) == [QueueMoved("concurrent", "global")]


def test_a_running_run_extends_its_reservation_by_the_grace_that_its_sweep_needs() -> None:
    run = new_run().run
    assert list(changes(run, (), extends=True)) == [ReservationExtended(T0 + START)]
    assert list(changes(run, (), extends=False)) == []


def test_an_end_frees_the_slot_and_is_counted_in_the_day_and_month_of_admission() -> None:
    store = MemoryRunStore(RecordingBus())
    runs(1, at=LAST_OF_NOVEMBER, usd="0.5")(store)
    later = LAST_OF_NOVEMBER + timedelta(days=40)
    run = store.load(new_run().run.run_id)
    ended = state.apply(run, CancelRequested("me", "so"), later)
    outcome = Counted(("2026-11-30", "2026-11"), {"cancelled": 1})
    assert list(changes(ended.run, ended.commands, extends=True)) == [ReservationFreed(), outcome]
    told = state.apply(ended.run, RunAnnounced(None), later)
    money = Counted(("2026-11",), {"reserved": -500_000, "spent": 500_000})
    assert list(changes(told.run, told.commands, extends=True)) == [money]
    known = state.apply(ended.run, RunAnnounced(JobsCost(Decimal("0.3"), True)), later)
    assert list(changes(known.run, known.commands, extends=True))[1:] == [CostKnown(300_000)]


@pytest.mark.parametrize("unknown", ["admitted_at", "expires_at"])
def test_only_a_run_that_is_being_admitted_asks_for_quota(unknown: str) -> None:
    run = new_run().run
    assert Demand.of(run, waited=False).at == T0
    with pytest.raises(ValueError, match="not one that is being admitted"):
        Demand.of(replace(run, **{unknown: None}), waited=False)


@pytest.mark.parametrize("adapter", ["sqlite", "postgres"], indirect=True)
def test_a_refusal_that_the_rule_can_not_explain_is_a_conflict_and_takes_nothing(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the two disagree about, nobody gets an error of ours, and nobody a run too many."""
    monkeypatch.setattr(Demand, "refused", lambda *_: None)
    with pytest.raises(PipelineOpsError, match="Try again"):
        Asks().take(adapter.store, limits(concurrent=0))
    assert adapter.store.usage("acme", T0) == UsageDocument().usage(T0)


ORGS, ROUTES = ("acme", "globex"), ("a/b/c", "x/y/z")


@dataclass
class Chance:
    """Something that may happen, the same on two stores."""

    rng: random.Random
    shares: bool
    numbers: int = 0

    def limits(self) -> Limits:
        few = lambda most: self.rng.choice((None, *range(most)))  # noqa: E731 - a name for what is drawn below
        money = self.rng.choice((None, Decimal("0.5"), Decimal("1"), Decimal("2")))
        shared = {"global_concurrent": few(6)} if self.shares else {}
        return limits(
            daily=self.rng.randrange(12),
            monthly=self.rng.randrange(20),
            concurrent=self.rng.randrange(5),
            money_usd=money,
            pipeline=few(3),
            weight=self.rng.randrange(1, 4),
            **shared,
        )

    def at(self) -> datetime:
        return T0 + timedelta(minutes=self.rng.randrange(6 * 60), days=self.rng.choice((0, 0, 0, 9, 10)))

    def event(self) -> Callable[[RunStore], object]:
        rng, at, its_limits = self.rng, self.at(), self.limits()
        number = rng.randrange(1, max(2, self.numbers + 1))
        org, route = ORGS[number % 2], ROUTES[number // 2 % 2]
        usd = rng.choice((None, "0", "0.1", "0.25"))
        match rng.randrange(10):
            case 0 | 1 | 2 | 3:
                self.numbers += 1
                new = self.numbers
                org, route = ORGS[new % 2], ROUTES[new // 2 % 2]
                return lambda store: Asks(new, org, route, at, usd).take(store, its_limits)
            case 4:
                self.numbers += 1
                new, limit = self.numbers, rng.choice(("pipeline", "concurrent", "global"))
                return waits(new, limit, org=ORGS[new % 2], route=ROUTES[new // 2 % 2], at=at, usd=usd)
            case 5:
                return lambda store: Asks(number, org, route, at, waited=True).take(store, its_limits)
            case 6:
                return begins(number, at, rng.choice((60, 3600)))
            case 7:
                return rng.choice((fails(number, at), is_cancelled(number, at)))
            case 8:
                return costs(number, rng.choice((None, "0.05", "0.9")), at)
        return completes(number, at)


def outcome(event: Callable[[RunStore], object], store: RunStore) -> Any:
    try:
        event(store)
    except PipelineOpsError as error:
        return type(error), str(error) if isinstance(error, QuotaExceededError) else ""
    return None


HOW_OFTEN = {"sqlite": 1_000, "postgres": 200, "firestore": 60}


@pytest.mark.parametrize("adapter", ["sqlite", "postgres", "firestore"], indirect=True)
def test_whatever_happens_a_store_answers_and_counts_as_the_rule_does(
    adapter: Adapter, request: pytest.FixtureRequest
) -> None:
    name, seed = request.node.callspec.params["adapter"], random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - for who replays it
    # Firestore counts slots of the deployment apart: runs from before there was such a limit have none.
    chance, twin = Chance(random.Random(seed), shares=name != "firestore"), MemoryRunStore(RecordingBus())
    for _ in range(HOW_OFTEN[name]):
        event = chance.event()
        assert outcome(event, adapter.store) == outcome(event, twin)
        for org in ORGS:
            for at in (T0, T0 + 2 * HOUR, T0 + timedelta(days=10)):
                assert adapter.store.usage(org, at) == twin.usage(org, at)
    queues = {queue.org_slug: (queue.turn, sorted(one.run_id for one in queue.heads)) for queue in twin.queues()}
    assert queues == {
        queue.org_slug: (queue.turn, sorted(one.run_id for one in queue.heads)) for queue in adapter.store.queues()
    }
