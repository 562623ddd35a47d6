"""One way to try again: what failed for now is called once more after a rest, within bounds that the caller sets.

This is for what milliseconds or seconds mend within a call. Rests between a step's attempts are decided in the core
(``common/domain/retry.py``): they are stored with the step, and nobody sleeps in them.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenacity import RetryCallState

DOUBLED_AT_MOST = 60
"""Rests without a try limit would overflow a float after a thousand of them."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Rests of up to ``first_s`` after the first try, twice as long after each further one, at most ``longest_s``.

    With ``jitter`` a rest has any length up to that bound, so that those who met once do not meet again.
    """

    first_s: float
    longest_s: float
    jitter: bool = True

    def rest_s(self, tried: int, uniform: Callable[[float, float], float]) -> float:
        """Return the rest after so many tries."""
        bound = min(self.longest_s, self.first_s * 2.0 ** min(tried - 1, DOUBLED_AT_MOST))
        return uniform(0.0, bound) if self.jitter else bound


AT_ONCE = Backoff(0.0, 0.0)
"""For those who lose only against somebody that has won."""

FOR_A_RECORD = Backoff(0.002, 0.256)
"""Between tries of a compare-and-set: as long as a store takes to write, more for each that writes the same."""


def countdown(seconds: float, clock: Callable[[], float] = time.monotonic) -> Callable[[], float]:
    """Return what tells how many of these seconds are left from now on; below zero once they are over."""
    until = clock() + seconds
    return lambda: until - clock()


def _asks_nothing(_error: BaseException) -> float | None:
    return None


def _silently(_error: BaseException, _rest_s: float) -> None:
    pass


def retried[T](
    call: Callable[[], T],
    *,
    on: type[Exception] | tuple[type[Exception], ...],
    backoff: Backoff,
    tries: int | None = None,
    left_s: Callable[[], float] | None = None,
    longest_rest_s: float = inf,
    asked_s: Callable[[BaseException], float | None] = _asks_nothing,
    before_rest: Callable[[BaseException, float], None] = _silently,
    sleep: Callable[[float], None] = time.sleep,
    uniform: Callable[[float, float], float] = random.uniform,
) -> T:
    """Return what ``call`` returns; call it again when it raises one of ``on``.

    The last of them is raised after so many ``tries``, or where the rest would not leave any of ``left_s`` or would be
    longer than ``longest_rest_s``. ``asked_s`` reads from an error what the other side asks for (``Retry-After``): it
    goes before the backoff. ``before_rest`` is told of each rest.
    """
    try:
        return call()
    except on as error:
        failed = [error]
    # Nearly all first tries succeed: only those that fail pay for the library's import, some 15 ms of a cold start.
    from tenacity import Retrying, retry_if_exception_type

    def again() -> T:
        if failed:
            raise failed.pop()  # the first try, done above
        return call()

    def rest(state: "RetryCallState") -> float:
        asked = asked_s(_error(state))
        return backoff.rest_s(state.attempt_number, uniform) if asked is None else asked

    def is_over(state: "RetryCallState") -> bool:
        left = inf if left_s is None else left_s()
        return state.attempt_number == tries or state.upcoming_sleep > longest_rest_s or state.upcoming_sleep >= left

    def told(state: "RetryCallState") -> None:
        before_rest(_error(state), state.upcoming_sleep)

    retrying = Retrying(
        retry=retry_if_exception_type(on), wait=rest, stop=is_over, before_sleep=told, sleep=sleep, reraise=True
    )
    return retrying(again)


def _error(state: "RetryCallState") -> BaseException:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    return error
