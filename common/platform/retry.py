"""The one retry helper: calls again after a pause, within bounds that the caller sets.

It is for errors that pass within milliseconds or seconds. The backoff between a step's attempts is decided in the core
(``common/domain/retry.py``) and stored with the step; no function sleeps through it.
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
"""Without a limit on tries, ``2.0 ** tries`` would overflow a float after a thousand of them."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses of up to ``first_s`` after the first try, twice as long after each further one, at most ``longest_s``.

    With ``jitter``, a pause has a random length up to that bound, so that callers that conflicted do not meet again.
    """

    first_s: float
    longest_s: float
    jitter: bool = True

    def rest_s(self, tried: int, uniform: Callable[[float, float], float]) -> float:
        """Return the pause in seconds after this many tries."""
        bound = min(self.longest_s, self.first_s * 2.0 ** min(tried - 1, DOUBLED_AT_MOST))
        return uniform(0.0, bound) if self.jitter else bound


AT_ONCE = Backoff(0.0, 0.0)
"""No pause: for conflicts in which every loser has a winner, so that progress is certain."""

FOR_A_RECORD = Backoff(0.002, 0.256)
"""Between tries of a compare-and-set: about as long as a store takes to write, growing with the contention."""


def countdown(seconds: float, clock: Callable[[], float] = time.monotonic) -> Callable[[], float]:
    """Return a function that returns how many of these seconds are left, negative once they are over."""
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

    The last error is raised after this many ``tries``, or if the pause would use up ``left_s`` or be longer than
    ``longest_rest_s``. ``asked_s`` reads the pause that the other side requests (``Retry-After``) from an error; it
    overrides the backoff. ``before_rest`` is called before each pause.
    """
    try:
        return call()
    except on as error:
        failed = [error]
    # Nearly all first tries succeed: only a failed one pays for the library's import, some 15 ms of a cold start.
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
