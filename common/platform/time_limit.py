"""Ends an attempt's work when its time is up, whether or not the work checks the clock.

A thread can't be killed, but the interpreter can raise an exception in it before its next bytecode. A call that blocks
outside the interpreter (a socket, BigQuery's client) does not notice until it returns, so each such call has a timeout
of its own. The exception is raised again every second until the work ends, because code that catches everything would
swallow the first one.
"""

import ctypes
import math
import threading
import time
from collections.abc import Callable
from heapq import heappop, heappush

from common.platform.errors import StepTimeoutError
from common.platform.stop import Stop

AGAIN_S = 1.0


class _TimeUpError(StepTimeoutError):
    """Raised in the thread whose time is up. Takes no arguments: the interpreter instantiates it from the type."""

    def __init__(self) -> None:
        super().__init__("Its time was up.")


class _Limit:
    """One block of work with its limit. ``ended`` and ``sent`` are used only under the watch's lock: without it, an
    exception could be sent to a thread that has already moved on to other work."""

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.ended = self.sent = False


class _Watch:
    """One thread that watches all limits of the process; it starts with the first limit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._due: list[tuple[float, int, _Limit]] = []
        self._count = 0
        self._looks_at = math.inf
        self._thread: threading.Thread | None = None

    def begin(self, seconds: float) -> _Limit:
        limit = _Limit(threading.get_ident())
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="time limits", daemon=True)
                self._thread.start()
            at = time.monotonic() + seconds
            self._push(at, limit)
            if at < self._looks_at:
                self._looks_at = at
                self._changed.notify()
        return limit

    def end(self, limit: _Limit) -> None:
        # The lock itself, not the Condition: the exception may arrive during the wait, and a Condition, being Python
        # code, could be interrupted after taking the lock and before recording that.
        with self._lock:
            limit.ended = True
            if limit.sent:
                _raise_in(limit.worker, None)  # cancels the exception if it is not raised yet

    def interrupt(self, limit: _Limit) -> None:
        """Raise in the limit's thread now, as if its time were up."""
        with self._changed:
            self._push(time.monotonic(), limit)
            self._changed.notify()

    def _push(self, at: float, limit: _Limit) -> None:
        self._count += 1
        heappush(self._due, (at, self._count, limit))

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                while self._due and (self._due[0][2].ended or self._due[0][0] <= now):
                    _, _, limit = heappop(self._due)
                    if not limit.ended:
                        limit.sent = True
                        _raise_in(limit.worker, _TimeUpError)
                        self._push(now + AGAIN_S, limit)
                self._looks_at = self._due[0][0] if self._due else math.inf
                self._changed.wait(self._looks_at - now if self._due else None)


_WATCH = _Watch()


def limited[T](work: Callable[[], T], seconds: float, step_id: str, stop: Stop | None = None) -> T:
    """Return what ``work`` returns. Raises StepTimeoutError, inside ``work``, once it has run for ``seconds``.

    Raises LostLeaseError, likewise, soon after ``stop`` was requested.
    """
    stop = stop or Stop()
    limit = _WATCH.begin(seconds)
    with stop.calls(lambda: _WATCH.interrupt(limit)):
        try:
            try:
                return work()
            finally:
                _WATCH.end(limit)
        except _TimeUpError:
            stop.check()
            raise StepTimeoutError(
                f"Step {step_id!r} used up its timeout_seconds ({seconds:g} s) and was ended. "
                "Raise timeout_seconds, or run fewer days at once."
            ) from None
        finally:
            # The exception may have interrupted the first call, and would be sent again after a second.
            _WATCH.end(limit)


def _raise_in(thread_id: int, kind: type[BaseException] | None) -> None:
    what = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), what)
