"""Keeps what was made from files for as long as none of them has changed."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

TOO_FRESH_NS = 100_000_000
"""A file system's clock ticks every few milliseconds: of two changes in one tick the second would not be seen."""

Signature = tuple[tuple[int, int, int] | None, ...]


class Memo[T]:
    """One value and the files (or folders) it was made from."""

    def __init__(self) -> None:
        self._kept: tuple[Signature, T] | None = None

    def get(self, paths: Iterable[Path | str], make: Callable[[], T]) -> T:
        """Return the value that was kept, or what ``make`` returns if any of ``paths`` has changed since.

        A folder changes when a name in it comes or goes. What has only just changed is not kept.
        """
        paths = list(paths)
        signature = tuple(_signature(path) for path in paths)
        kept = self._kept
        if paths and kept is not None and kept[0] == signature:
            return kept[1]
        value = make()
        newest = max((part[0] for part in signature if part), default=0)
        if time.time_ns() - newest > TOO_FRESH_NS:
            self._kept = (signature, value)
        return value


def _signature(path: Path | str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
