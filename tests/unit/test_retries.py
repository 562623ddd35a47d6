"""Retries: how often, for how long, with which pauses. Nothing here sleeps."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.platform.errors import TransientError
from common.platform.retry import AT_ONCE, Backoff, countdown, retried

BACKOFF = Backoff(1.0, 8.0)


class LostError(Exception):
    """The error that is retried; ``wait_s`` is the pause that the other side requests."""

    def __init__(self, wait_s: float | None = None) -> None:
        self.wait_s = wait_s


@dataclass
class FlakyCall:
    """A call that raises ``errors`` in turn, and a clock that moves only with its pauses."""

    errors: list[Exception]
    now: float = 0.0
    pauses: list[float] = field(default_factory=list)
    calls: int = 0

    def call(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def run(self, backoff: Backoff = BACKOFF, **more: object) -> str:
        options: dict[str, object] = {"uniform": lambda _low, high: high, "sleep": self.sleep, **more}
        return retried(self.call, on=LostError, backoff=backoff, **options)  # type: ignore[arg-type]


def lost(times: int) -> list[Exception]:
    return [LostError() for _ in range(times)]


def test_the_bound_of_a_rest_doubles_up_to_the_longest() -> None:
    flaky = FlakyCall(lost(6))
    assert flaky.run() == "done"
    assert flaky.pauses == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


@given(st.integers(1, 5000), st.floats(0, 1))
def test_a_rest_with_jitter_has_any_length_up_to_its_bound(tried: int, chance: float) -> None:
    bound = Backoff(1.0, 8.0, jitter=False).rest_s(tried, lambda low, high: -1.0)
    assert bound == min(8.0, 2.0 ** min(tried - 1, 60))
    assert BACKOFF.rest_s(tried, lambda low, high: low + chance * (high - low)) == chance * bound


def test_after_the_last_try_its_own_error_comes_out_without_a_rest() -> None:
    errors = lost(3)
    last, flaky = errors[-1], FlakyCall(list(errors))
    with pytest.raises(LostError) as caught:
        flaky.run(tries=3)
    assert caught.value is last and flaky.calls == 3 and len(flaky.pauses) == 2


def test_what_is_not_to_be_tried_again_passes_at_once() -> None:
    for errors in ([KeyError("x")], [LostError(), KeyError("x")]):
        flaky = FlakyCall([*errors])
        with pytest.raises(KeyError):
            flaky.run()
        assert flaky.errors == []


def test_a_rest_that_leaves_no_time_for_a_try_is_not_begun() -> None:
    flaky = FlakyCall(lost(9))
    with pytest.raises(LostError):
        flaky.run(left_s=countdown(7.0, lambda: flaky.now))
    assert flaky.pauses == [1.0, 2.0] and flaky.now == 3.0  # the next rest of 4 s would use up the 4 s that are left


def test_no_time_left_is_said_by_whoever_counts_it_even_after_the_last_try() -> None:
    def none_left() -> float:
        raise TransientError("time is up")

    with pytest.raises(TransientError, match="time is up"):
        FlakyCall(lost(9)).run(left_s=none_left, tries=1)


def test_the_other_side_may_name_the_rest_but_not_a_longer_one_than_is_wanted() -> None:
    flaky = FlakyCall([LostError(5.0), LostError(), LostError(30.1)])
    announced: list[float] = []

    def asked(error: BaseException) -> float | None:
        assert isinstance(error, LostError)
        return error.wait_s

    with pytest.raises(LostError):
        flaky.run(asked_s=asked, longest_rest_s=30.0, before_rest=lambda _error, rest_s: announced.append(rest_s))
    assert flaky.pauses == announced == [5.0, 2.0]
    assert FlakyCall([LostError(30.0)]).run(asked_s=asked, longest_rest_s=30.0) == "done"


@pytest.mark.parametrize("times", [0, 1, 4])
def test_at_once_rests_for_no_time(times: int) -> None:
    flaky = FlakyCall(lost(times))
    assert flaky.run(AT_ONCE, tries=5) == "done"
    assert flaky.pauses == [0.0] * times


def test_the_library_is_imported_by_the_first_failure_alone() -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom common.platform.retry import AT_ONCE, retried\n"
        "retried(lambda: 1, on=KeyError, backoff=AT_ONCE)\nprint('tenacity' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
