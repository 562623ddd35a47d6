"""Plans from a source that may be away: when it is asked, and what is served when it does not answer."""

import logging
import threading
from datetime import datetime, timedelta

import pytest

from common.access import cached_plans
from common.access.cached_plans import FRESH_FOR, REST, UNKNOWN_FOR, CachedPlans
from common.domain.quota import Limits
from common.platform.errors import NotFoundError, PermanentError, TransientError
from common.ports.store import PLANS_PAGE
from tests.fakes import FakeClock

pytestmark = pytest.mark.timeout(60)  # what waits for what it should not is found here, and is not to hang

ACTIVE = Limits("ACTIVE", 10, 100, 2)
SECOND = timedelta(seconds=1)


class FakePlans:
    """A source of plan limits that can fail."""

    def __init__(self) -> None:
        self.plans = {"acme": ACTIVE, "globex": ACTIVE}
        self.error: Exception | None = None
        self.requested: list[str] = []

    def limits(self, org_slug: str) -> Limits:
        self.requested.append(org_slug)
        if self.error is not None:
            raise self.error
        if org_slug not in self.plans:
            raise NotFoundError(f"There is no organisation {org_slug!r}.")
        return self.plans[org_slug]

    def page(self, after: str = "", *, size: int = PLANS_PAGE) -> list[tuple[str, Limits]]:
        if self.error is not None:
            raise self.error
        return [(name, self.plans[name]) for name in sorted(self.plans) if name > after][:size]


class CountingClock(FakeClock):
    """Lets a test wait until a number of threads have called."""

    def __init__(self) -> None:
        super().__init__()
        self.called = threading.Semaphore(0)

    def __call__(self) -> datetime:
        self.called.release()
        return super().__call__()


class SlowPlans(FakePlans):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.may_answer = threading.Semaphore(0), threading.Event()

    def limits(self, org_slug: str) -> Limits:
        self.entered.release()
        assert self.may_answer.wait(10), "nobody let it answer"
        return super().limits(org_slug)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def source() -> FakePlans:
    return FakePlans()


@pytest.fixture
def plans(source: FakePlans, clock: FakeClock) -> CachedPlans:
    return CachedPlans(source, clock)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    logging.getLogger("pipeline_ops").propagate = True
    caplog.set_level("INFO", "pipeline_ops")
    return caplog


def test_a_plan_is_read_once_while_it_is_fresh_and_a_change_is_seen_after(
    plans: CachedPlans, source: FakePlans, clock: FakeClock
) -> None:
    plans.limits("acme")
    source.plans["acme"] = Limits("SUSPENDED", 10, 100, 2)
    clock.now += FRESH_FOR - SECOND
    assert plans.limits("acme") == ACTIVE and source.requested == ["acme"]
    clock.now += SECOND
    assert plans.limits("acme").status == "SUSPENDED" and source.requested == ["acme"] * 2


def test_each_organisation_is_fresh_for_itself(plans: CachedPlans, source: FakePlans, clock: FakeClock) -> None:
    plans.limits("acme")
    clock.now += FRESH_FOR - SECOND
    plans.limits("globex")
    clock.now += SECOND
    for org in ("acme", "globex"):
        plans.limits(org)
    assert source.requested == ["acme", "globex", "acme"]


@pytest.mark.parametrize("error", [TransientError("no answer"), PermanentError("no right to read")])
def test_while_the_source_is_away_the_last_limits_are_served_and_say_of_when(
    plans: CachedPlans, source: FakePlans, clock: FakeClock, error: Exception
) -> None:
    plans.limits("acme")
    read_at, source.error = clock(), error
    for _ in range(3):
        clock.now += timedelta(hours=1)
        limits = plans.limits("acme")
        assert (limits.daily, limits.status, limits.as_of) == (10, "ACTIVE", read_at)


def test_current_limits_do_not_say_of_when_they_are(plans: CachedPlans, source: FakePlans, clock: FakeClock) -> None:
    assert plans.limits("acme").as_of is None
    source.error = TransientError("no answer")
    clock.now += FRESH_FOR
    assert plans.limits("acme").as_of is not None
    source.error = None
    clock.now += REST
    assert plans.limits("acme").as_of is None


def test_an_organisation_that_was_never_read_is_not_admitted(plans: CachedPlans, source: FakePlans) -> None:
    plans.limits("acme")
    source.error = TransientError("no answer")
    with pytest.raises(TransientError, match="no answer"):
        plans.limits("globex")
    with pytest.raises(TransientError, match="globex can't be read now") as refused:
        plans.limits("globex")
    assert refused.value.retry_after_s > 0 and source.requested == ["acme", "globex"]


def test_a_source_that_is_away_is_asked_again_only_after_a_rest(
    plans: CachedPlans, source: FakePlans, clock: FakeClock
) -> None:
    plans.limits("acme")
    source.error = TransientError("no answer")
    clock.now += FRESH_FOR
    for _ in range(100):
        plans.limits("acme")
    assert len(source.requested) == 2
    clock.now += REST
    plans.limits("acme")
    assert len(source.requested) == 3


def test_an_outage_is_warned_of_once_a_minute_and_its_end_is_told(
    plans: CachedPlans, source: FakePlans, clock: FakeClock, warnings: pytest.LogCaptureFixture
) -> None:
    plans.limits("acme")
    source.error = TransientError("no answer")
    clock.now += FRESH_FOR
    for _ in range(125):
        plans.limits("acme")
        clock.now += SECOND
    assert [r.levelname for r in warnings.records] == ["WARNING"] * 3
    source.error = None
    clock.now += REST
    plans.limits("acme")
    assert warnings.records[-1].message == "Plans can be read again."


def test_an_organisation_that_is_gone_is_gone(plans: CachedPlans, source: FakePlans, clock: FakeClock) -> None:
    plans.limits("acme")
    del source.plans["acme"]
    clock.now += FRESH_FOR
    for _ in range(2):
        with pytest.raises(NotFoundError):
            plans.limits("acme")
    source.error = TransientError("no answer")
    clock.now += UNKNOWN_FOR
    with pytest.raises(TransientError):
        plans.limits("acme")


def test_an_unknown_organisation_is_asked_for_once_in_a_while(
    plans: CachedPlans, source: FakePlans, clock: FakeClock
) -> None:
    for _ in range(3):
        with pytest.raises(NotFoundError, match="'nobody'"):
            plans.limits("nobody")
    assert source.requested == ["nobody"]
    source.plans["nobody"] = ACTIVE
    clock.now += UNKNOWN_FOR
    assert plans.limits("nobody") == ACTIVE


def test_names_that_somebody_tries_take_bounded_memory_and_no_place_of_the_known(
    clock: FakeClock, source: FakePlans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_plans, "MOST_UNKNOWN", 10)
    plans = CachedPlans(source, clock)
    plans.limits("acme")
    for number in range(50):
        with pytest.raises(NotFoundError):
            plans.limits(f"nobody_{number}")
    assert len(plans._unknown) == 10 and not plans._reading
    plans.limits("acme")
    assert source.requested.count("acme") == 1


def test_of_those_that_are_known_the_least_used_gives_way(
    clock: FakeClock, source: FakePlans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_plans, "MOST_KNOWN", 2)
    plans = CachedPlans(source, clock)
    source.plans["third"] = ACTIVE
    for org in ("acme", "globex", "acme", "third", "acme"):
        plans.limits(org)
    assert source.requested == ["acme", "globex", "third"]


def together(count: int, source: SlowPlans) -> list[object]:
    """Let so many threads ask for one organisation before the source answers; return what they got."""
    clock = CountingClock()
    plans = CachedPlans(source, clock)
    got: list[object] = []

    def ask() -> None:
        try:
            got.append(plans.limits("acme"))
        except Exception as error:
            got.append(error)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert clock.called.acquire(timeout=10)
    source.may_answer.set()
    for thread in threads:
        thread.join(10)
    return got


def test_one_thread_asks_and_those_that_know_nothing_wait_for_it() -> None:
    source = SlowPlans()
    assert together(8, source) == [ACTIVE] * 8 and source.requested == ["acme"]


def test_those_that_wait_hear_that_there_is_no_answer() -> None:
    source = SlowPlans()
    source.error = TransientError("no answer")
    got = together(8, source)
    assert len(got) == 8 and all(isinstance(one, TransientError) for one in got) and source.requested == ["acme"]


def test_while_one_thread_asks_again_the_others_get_what_was_read_last(clock: FakeClock) -> None:
    source = SlowPlans()
    plans = CachedPlans(source, clock)
    source.may_answer.set()
    plans.limits("acme")
    assert source.entered.acquire(timeout=10)
    source.may_answer.clear()
    clock.now += FRESH_FOR
    thread = threading.Thread(target=plans.limits, args=("acme",))
    thread.start()
    assert source.entered.acquire(timeout=10)
    assert [plans.limits("acme") for _ in range(5)] == [ACTIVE] * 5 and source.requested == ["acme"]
    source.may_answer.set()
    thread.join(10)
    assert source.requested == ["acme"] * 2


def test_a_page_of_organisations_is_never_served_from_memory_and_its_limits_are() -> None:
    source, clock = FakePlans(), FakeClock()
    plans = CachedPlans(source, clock)
    assert [name for name, _ in plans.page()] == ["acme", "globex"]
    assert plans.limits("globex") == ACTIVE and source.requested == []
    source.error = TransientError("away")
    with pytest.raises(TransientError):
        plans.page()


def test_an_organisation_that_was_unknown_is_known_as_soon_as_it_is_listed() -> None:
    source = FakePlans()
    plans = CachedPlans(source, FakeClock())
    with pytest.raises(NotFoundError):
        plans.limits("new")
    source.plans["new"] = ACTIVE
    plans.page()
    assert plans.limits("new") == ACTIVE
