"""Work that has used up its time is ended, whether it looks at the clock or not."""

import random
import threading
import time
from contextlib import suppress

import pytest

from common.platform.errors import StepTimeoutError
from common.platform.time_limit import limited

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
