"""Work that has used up its time is ended, whether it looks at the clock or not."""

import random
import threading
import time
from contextlib import suppress

import pytest

from common.platform.errors import LostLeaseError, StepTimeoutError
from common.platform.stop import Stop
from common.platform.time_limit import limited
from common.runs.lease_watch import LeaseWatch

pytestmark = pytest.mark.timeout(60)  # what waits for what it should not is found here, and is not to hang


def spin() -> None:
    while True:
        time.sleep(0.001)


def test_work_in_time_gives_its_result() -> None:
    assert limited(lambda: 7, 60, "s") == 7


def test_work_that_never_looks_at_the_clock_is_ended() -> None:
    with pytest.raises(StepTimeoutError, match="'s' used up its timeout_seconds"):
        limited(spin, 0.05, "s")


def test_work_that_swallows_every_error_is_ended_too() -> None:
    caught: list[str] = []

    def stubborn() -> None:
        while len(caught) < 2:
            try:
                spin()
            except Exception as error:
                caught.append(type(error).__name__)
        spin()

    with pytest.raises(StepTimeoutError):
        limited(stubborn, 0.05, "s")
    assert len(caught) == 2


def test_an_error_of_the_work_comes_out_as_it_is() -> None:
    def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        limited(broken, 60, "s")


def test_of_two_pieces_of_work_only_the_one_over_its_time_is_ended() -> None:
    go, results = threading.Event(), []
    other = threading.Thread(target=lambda: results.append(limited(lambda: go.wait(10), 60, "other")))
    other.start()
    with pytest.raises(StepTimeoutError):
        limited(spin, 0.05, "s")
    go.set()
    other.join(10)
    assert results == [True]


def test_a_thread_is_not_disturbed_after_its_work_has_ended() -> None:
    """Work that ends just when its time does: nothing may be raised after it, in many tries."""
    for _ in range(200):
        with suppress(StepTimeoutError):
            limited(lambda: time.sleep(0.002), 0.002, "s")
        time.sleep(0)


def test_a_time_that_is_up_just_when_the_work_ends_holds_up_nobody() -> None:
    def work() -> None:
        end = time.monotonic() + random.uniform(0.0018, 0.0022)
        while time.monotonic() < end:
            pass

    def often() -> None:
        for _ in range(100):
            with suppress(StepTimeoutError):
                limited(work, 0.002, "s")

    threads = [threading.Thread(target=often, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_work_that_nobody_wants_any_more_is_ended_and_its_pause_too() -> None:
    stop = Stop()

    def work() -> None:
        threading.Thread(target=stop.request).start()
        spin()

    with pytest.raises(LostLeaseError, match="was taken from this attempt"):
        limited(work, 60, "s", stop)
    with pytest.raises(LostLeaseError):
        stop.sleep(60)


def test_work_that_is_held_is_never_interrupted() -> None:
    stop = Stop()

    def commits() -> str:
        stop.hold()
        stop.request()
        time.sleep(0.01)  # an exception would be raised here
        return "committed"

    assert limited(commits, 60, "s", stop) == "committed"


def test_a_request_that_came_before_the_commit_prevents_it() -> None:
    stop = Stop()
    stop.request()
    with pytest.raises(LostLeaseError):
        stop.hold()


def test_the_watch_stops_the_attempt_that_lost_its_lease_and_no_other() -> None:
    watch, ours = LeaseWatch(), {"a": True, "b": True}

    def unreadable() -> bool:
        raise OSError("the store is down")

    with (
        watch.watching(lambda: ours["a"]) as a,
        watch.watching(lambda: ours["b"]) as b,
        watch.watching(unreadable) as c,
    ):
        watch.look()
        for stop in (a, b, c):
            stop.check()
        ours["b"] = False
        watch.look()
        a.check()
        c.check()
        with pytest.raises(LostLeaseError):
            b.check()
