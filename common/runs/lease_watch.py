"""Notices that a step was taken from an attempt that is still at work, and stops that work.

An attempt looks at its lease itself right before its commit. That is enough for its rows, but until then it would go on
calling a provider for minutes after its run was cancelled.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.platform.logs import logger
from common.platform.stop import Stop

LOOK_EVERY_S = 3.0
"""A cancel stops the work within five seconds. Each look is one read of the store for each attempt that takes longer
than this: two cents a day in Firestore for one that never ends, far less than its function costs."""


class LeaseWatch:
    """One thread that looks after all attempts of the process; it starts with the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._watched: dict[Stop, Callable[[], bool]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, still_ours: Callable[[], bool]) -> Iterator[Stop]:
        """Yield what is requested to stop if ``still_ours`` turns False while the block runs."""
        stop = Stop()
        with self._changed:
            self._watched[stop] = still_ours
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()
            elif len(self._watched) == 1:
                self._changed.notify()
        try:
            yield stop
        finally:
            with self._lock:
                del self._watched[stop]

    def look(self) -> None:
        """Look at every attempt once."""
        with self._lock:
            watched = list(self._watched.items())
        for stop, still_ours in watched:
            try:
                if not still_ours():
                    stop.request()
            except Exception as error:  # the store is down: the attempt goes on, its commit is fenced
                logger.debug("A lease could not be looked at: %s", error)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._watched:
                    self._changed.wait()
            time.sleep(LOOK_EVERY_S)
            self.look()


WATCH = LeaseWatch()
