"""Limits under many threads: never one run more than the plan admits, and counts that are those of the runs.

The requirement is 50 threads of 2,000 requests each against a limit of 7 (SQLite and PostgreSQL), and 16 of 300 on
Firestore's emulator: those are slow tests (make test-slow). A store with a line in ``SHORT`` and ``FULL`` is held to
both.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from common.domain import state
from common.domain.messages import RunRejected
from common.domain.model import Estimate, Run
from common.domain.quota import Limits
from common.domain.state import Transition
from common.platform.errors import QuotaExceededError, TransientError
from common.ports.store import RunStore
from common.runs.admit import Admission
from tests.contract.stores import T0, WIDE, Adapter, new_run

LIMIT = 7
SHORT = [("sqlite", 50, 40), ("memory", 50, 40), ("firestore", 16, 6), ("postgres", 50, 40)]
FULL = [("sqlite", 50, 2_000), ("firestore", 16, 300), ("postgres", 50, 2_000)]
PLENTY = replace(WIDE, daily=10**9, monthly=10**9, concurrent=LIMIT)


@dataclass
class Storm:
    """Threads that ask for runs and end those they get, and what an observer sees meanwhile."""

    store: RunStore
    limits: Limits
    counts: Counter[str] = field(default_factory=Counter)
    highest: int = 0
    looks: int = 0
    _live: int = 0
    _lock: Any = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def blow(self, threads: int, requests: int) -> None:
        """Make so many requests in each of so many threads; return when the last run has ended."""
        asking = [threading.Thread(target=self._ask, args=(number, requests)) for number in range(threads)]
        watching = threading.Thread(target=self._watch)
        for thread in (watching, *asking):
            thread.start()
        for thread in asking:
            thread.join()
        self._over.set()
        watching.join()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.highest = max(self.highest, self.store.usage("acme", T0).concurrent)
            self.looks += 1

    def _ask(self, worker: int, requests: int) -> None:
        rng, mine = random.Random(worker), list[Transition]()
        for number in range(requests):
            new = new_run(worker * 1_000_000 + number + 1)
            if self._does("admitted", lambda new=new: self.store.create(new, self.limits)):
                self._count(1)
                mine.append(new)
            if mine and rng.random() < 0.6:
                self._end(mine.pop(rng.randrange(len(mine))))
        for new in mine:
            self._end(new)

    def _end(self, new: Transition) -> None:
        self._count(-1)  # before it ends: what is counted here is live for certain
        run = self.store.load(new.run.run_id)
        ended = state.apply(run, RunRejected("no"), T0)
        while not self._does("ended", lambda: self.store.commit(ended)):
            continue

    def _does(self, what: str, call: Callable[[], object]) -> bool:
        try:
            call()
        except QuotaExceededError:
            what = "refused"
        except TransientError:
            what = "too busy"
        with self._lock:
            self.counts[what] += 1
        return what in ("admitted", "ended")

    def _count(self, change: int) -> None:
        with self._lock:
            self._live += change
            self.highest = max(self.highest, self._live)


def check(adapter: Adapter, threads: int, requests: int) -> None:
    """Let the storm blow over a store, and hold it to its promises."""
    storm = Storm(adapter.store, PLENTY)
    storm.blow(threads, requests)
    usage, counts = adapter.store.usage("acme", T0), storm.counts
    print(f"\n{threads} threads x {requests}: {dict(counts)}, at most {storm.highest} live, {storm.looks} looks")  # noqa: T201
    assert storm.highest == LIMIT and counts["refused"] > 0 and storm.looks > 0
    assert counts["admitted"] + counts["refused"] + counts["too busy"] >= threads * requests
    assert counts["admitted"] == counts["ended"] == usage.daily == usage.monthly == usage.failed
    assert usage.concurrent == 0


@pytest.mark.parametrize(("adapter", "threads", "requests"), SHORT, indirect=["adapter"])
def test_many_threads_never_exceed_a_limit(adapter: Adapter, threads: int, requests: int) -> None:
    check(adapter, threads, requests)


@pytest.mark.slow
@pytest.mark.parametrize(("adapter", "threads", "requests"), FULL, indirect=["adapter"])
def test_the_required_number_of_threads_never_exceeds_a_limit(adapter: Adapter, threads: int, requests: int) -> None:
    check(adapter, threads, requests)


ORGS, ROUTES, SLOTS = ("acme", "globex", "third"), ("a/b/c", "x/y/z"), {"pipeline": 2, "concurrent": 3, "global": 5}
SHARED = replace(WIDE, concurrent=SLOTS["concurrent"], global_concurrent=SLOTS["global"])


class Crowd:
    """Threads of several organisations whose runs wait, and are let in by whoever ends one."""

    def __init__(self, store: RunStore) -> None:
        self.store, self.lock = store, threading.Lock()
        self.live: Counter[tuple[str, str]] = Counter()
        self.let_in: list[str] = []
        plans: Any = type("Plans", (), {"limits": lambda _self, _org: SHARED})()
        configs: Any = type("Configs", (), {"concurrency": lambda _self, _route: SLOTS["pipeline"]})()
        self.admission = Admission(store, plans, configs, lambda: T0, _no_estimate, self._told)

    def _told(self, told: Transition) -> None:
        """A run is admitted, at once or out of the queue: from here until its end it is live for certain."""
        run = told.run
        if not run.admitted_at or run.status.is_terminal:
            return
        org, route = run.request.org_slug, run.request.route
        with self.lock:
            self.let_in.append(run.run_id)
            self.live[org, route] += 1
            mine = sum(self.live[org, other] for other in ROUTES)
            assert self.live[org, route] <= SLOTS["pipeline"] and mine <= SLOTS["concurrent"]
            assert sum(self.live.values()) <= SLOTS["global"]

    def ask(self, worker: int, requests: int) -> None:
        rng = random.Random(worker)
        for number in range(requests):
            at = T0 - timedelta(seconds=rng.randrange(1000))
            new = new_run(worker * 1000 + number + 1, rng.choice(ORGS), at, rng.choice(ROUTES))
            request = replace(new.run.request, queue=True, backfill=rng.random() < 0.3)
            self._patiently(lambda new=new, request=request: self._admit(new, request))
            self.end_one()

    def _admit(self, new: Transition, request: Any) -> None:
        asked = replace(new, run=replace(new.run, request=request))
        self.admission.admit(asked, self.admission.limits(request.org_slug, request.route))

    def end_one(self) -> bool:
        """End a run that is live, if one is; let in whoever waits for it."""
        with self.lock:
            if not self.let_in:
                return False
            run_id = self.let_in.pop(0)
        run = self.store.load(run_id)
        with self.lock:
            self.live[run.request.org_slug, run.request.route] -= 1
        stored: Run = self._patiently(lambda: self.store.commit(state.apply(run, RunRejected("no"), T0)))
        self.admission.release(stored)
        return True

    @staticmethod
    def _patiently(call: Callable[[], Any]) -> Any:
        for _ in range(50):
            try:
                return call()
            except TransientError:
                continue
        raise AssertionError("the store is never free")


def _no_estimate(_run: Run) -> Estimate:
    raise AssertionError("no plan limits money")


@pytest.mark.parametrize(
    ("adapter", "threads", "requests"),
    [("sqlite", 12, 12), ("memory", 12, 12), ("firestore", 6, 5), ("postgres", 12, 12)],
    indirect=["adapter"],
)
def test_every_run_that_waits_is_let_in_and_no_limit_is_ever_exceeded(
    adapter: Adapter, threads: int, requests: int
) -> None:
    crowd, errors = Crowd(adapter.store), list[BaseException]()

    def work(worker: int) -> None:
        try:
            crowd.ask(worker, requests)
        except BaseException as error:
            errors.append(error)

    asking = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    while crowd.end_one() or crowd.admission.release():  # the sweep's part
        continue
    assert not errors
    usages = [adapter.store.usage(org, T0) for org in ORGS]
    assert [usage.waiting for usage in usages] == [0, 0, 0] and not list(adapter.store.queues())
    assert sum(usage.failed for usage in usages) == sum(usage.daily for usage in usages) == threads * requests
