"""Ends the work of an attempt when its time is up, whether it looks at the clock or not.

A thread can't be killed, but it can be made to raise: the interpreter delivers an exception to it before its next
bytecode. A call that waits outside the interpreter (a socket, BigQuery's client) does not see that, so each of those
has a time-out of its own; the exception meets it when it returns. It is sent again every second until the work has
ended, because code that catches everything would swallow the first.
"""

import ctypes
import threading
from collections.abc import Callable

from common.errors import StepTimeoutError

AGAIN_S = 1.0


class _TimeUpError(StepTimeoutError):
    """Raised in the thread whose time is up. Without arguments, because the interpreter makes it from the type."""

    def __init__(self) -> None:
        super().__init__("Its time was up.")


def limited[T](work: Callable[[], T], seconds: float, step_id: str) -> T:
    """Return what ``work`` returns. Raises StepTimeoutError inside of it once it has run for ``seconds``."""
    ended = threading.Event()
    lock = threading.Lock()
    worker = threading.get_ident()

    def watch() -> None:
        wait = seconds
        while not ended.wait(wait):
            with lock:
                if not ended.is_set():
                    _raise_in(worker, _TimeUpError)
            wait = AGAIN_S

    def stop() -> None:
        with lock:
            ended.set()
            _raise_in(worker, None)  # takes back one that was sent and not yet raised

    threading.Thread(target=watch, name=f"time limit of {step_id}", daemon=True).start()
    try:
        try:
            return work()
        finally:
            stop()
    except _TimeUpError:
        raise StepTimeoutError(
            f"Step {step_id!r} used up its timeout_seconds ({seconds:g} s) and was ended. "
            "Raise timeout_seconds, or run fewer days at once."
        ) from None
    finally:
        stop()  # the exception may have met the first one; the next would come a second later


def _raise_in(thread_id: int, kind: type[BaseException] | None) -> None:
    what = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), what)
