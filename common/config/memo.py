"""Caches a value computed from files until one of them changes."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

TOO_FRESH_NS = 100_000_000
"""Values of files that changed more recently are not cached: file times tick every few milliseconds, and a second
change in the same tick would go unnoticed."""

Signature = tuple[tuple[int, int, int] | None, ...]


class Memo[T]:
    """One value and the signature of its files or folders.

    Needs no lock: the pair is replaced in one assignment, and threads that compute it twice get equal values.
    """

    def __init__(self) -> None:
        self._cached: tuple[Signature, T] | None = None

    def get(self, paths: Iterable[Path | str], make: Callable[[], T]) -> T:
        """Return the cached value, or that of ``make`` if any of ``paths`` has changed.

        A folder changes when a file is added to it or removed.
        """
        paths = list(paths)
        # Before the files are read: a change while ``make`` reads them then has another signature.
        signature = tuple(_signature(path) for path in paths)
        cached = self._cached
        if paths and cached is not None and cached[0] == signature:
            return cached[1]
        value = make()
        newest = max((part[0] for part in signature if part), default=0)
        if time.time_ns() - newest > TOO_FRESH_NS:
            self._cached = (signature, value)
        return value


def _signature(path: Path | str) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    # The inode too: an atomic replacement may keep time and size.
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
