"""Answers that come piece by piece: how many at a time, and in what form."""

import threading
import zlib
from collections.abc import Iterable, Iterator

from common.domain.model import ErrorKind
from common.platform.errors import TransientError

PIECE_BYTES = 64 * 1024
GZIP = 16 + zlib.MAX_WBITS
"""What zlib calls the form of a gzip file."""


class Slots:
    """So many streams at a time: each holds a thread of the server, and others must have some left."""

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most, self._free = what, most, threading.BoundedSemaphore(most)

    def take(self) -> "Slot":
        """Return a slot, or raise TransientError if all are taken."""
        if not self._free.acquire(blocking=False):
            raise TransientError(
                f"{self._most} {self._what} are at work in this process already. Try again.",
                retry_after_s=10,
                kind=ErrorKind.RATE_LIMIT,
            )
        return Slot(self._free)


class Slot:
    """A taken slot. It is given back once, however often that is asked for."""

    def __init__(self, free: threading.BoundedSemaphore) -> None:
        self._free: threading.BoundedSemaphore | None = free

    def give_back(self) -> None:
        """Let another stream have it."""
        free, self._free = self._free, None
        if free is not None:
            free.release()


def in_pieces(lines: Iterable[str]) -> Iterator[bytes]:
    """Join lines to pieces of some size: single ones cost more to send than to make."""
    piece = bytearray()
    for line in lines:
        piece += line.encode()
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def zipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Compress pieces as one gzip file."""
    packer = zlib.compressobj(wbits=GZIP)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()
