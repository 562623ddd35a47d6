"""Ends an attempt's work early: the other threads' way to say that nobody wants its result any more."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.platform.errors import LostLeaseError


class Stop:
    """Whether the work of one attempt must end, because its step was taken from it.

    Between ``hold`` and ``release`` it is not interrupted: the work's outcome would then be unknown.
    """

    def __init__(self) -> None:
        # One lock for both: otherwise a request could interrupt a commit that has just been allowed to begin.
        self._lock = threading.Lock()
        self._requested = threading.Event()
        self._held = False
        self._calls: list[Callable[[], None]] = []

    def request(self) -> None:
        """Ask the work to end, and interrupt what it waits for. Called from another thread."""
        with self._lock:
            if self._held or self._requested.is_set():
                return
            self._requested.set()
            for call in self._calls:
                call()

    def check(self) -> None:
        """Raise LostLeaseError if the work must end."""
        if self._requested.is_set():
            raise LostLeaseError(
                "The step was taken from this attempt: its run was cancelled, it was skipped, or its lease is over."
            )

    def hold(self) -> None:
        """Let no later request interrupt the work, which commits now. Raises LostLeaseError if one came before."""
        with self._lock:
            self.check()
            self._held = True

    def release(self) -> None:
        """End a ``hold``: the commit was refused for now, and nothing was written."""
        with self._lock:
            self._held = False

    def sleep(self, seconds: float) -> None:
        """Sleep; raise LostLeaseError at once if the work must end."""
        self._requested.wait(seconds)
        self.check()

    @contextmanager
    def calls(self, call: Callable[[], None]) -> Iterator[None]:
        """Have a request call ``call`` while the block runs; it must be quick and raise nothing."""
        with self._lock:
            self._calls.append(call)
            if self._requested.is_set():
                call()
        try:
            yield
        finally:
            with self._lock:
                self._calls.remove(call)
