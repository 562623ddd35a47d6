"""Ends the work of an attempt when its time is up, whether it looks at the clock or not.

A thread can't be killed, but it can be made to raise: the interpreter delivers an exception to it before its next
bytecode. A call that waits outside the interpreter (a socket, BigQuery's client) does not see that, so each of those
has a time-out of its own; the exception meets it when it returns. It is sent again every second until the work has
ended, because code that catches everything would swallow the first.
"""

import ctypes
import math
import threading
import time
from collections.abc import Callable
from heapq import heappop, heappush

from common.platform.errors import StepTimeoutError

AGAIN_S = 1.0


class _TimeUpError(StepTimeoutError):
    """Raised in the thread whose time is up. Without arguments, because the interpreter makes it from the type."""

    def __init__(self) -> None:
        super().__init__("Its time was up.")


class _Limit:
    """One block of work at its limit. ``ended`` is set and read under the watch's lock only."""

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.ended = self.sent = False


class _Watch:
    """One thread that watches all limits of the process; it starts with the first."""

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
        # The lock itself: the exception may come while this waits for it, and a Condition, which is Python code, would
        # be interrupted between taking it and saying so.
        with self._lock:
            limit.ended = True
            if limit.sent:
                _raise_in(limit.worker, None)  # takes it back, if it is not yet raised

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


def limited[T](work: Callable[[], T], seconds: float, step_id: str) -> T:
    """Return what ``work`` returns. Raises StepTimeoutError inside of it once it has run for ``seconds``."""
    limit = _WATCH.begin(seconds)
    try:
        try:
            return work()
        finally:
            _WATCH.end(limit)
    except _TimeUpError:
        raise StepTimeoutError(
            f"Step {step_id!r} used up its timeout_seconds ({seconds:g} s) and was ended. "
            "Raise timeout_seconds, or run fewer days at once."
        ) from None
    finally:
        _WATCH.end(limit)  # the exception may have met the first one; the next would come a second later


def _raise_in(thread_id: int, kind: type[BaseException] | None) -> None:
    what = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), what)
