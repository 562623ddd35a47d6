"""Streamed responses: how many at a time, chunks and compression."""

import threading
import zlib
from collections.abc import Iterable, Iterator

from common.domain.model import ErrorKind
from common.platform.errors import TransientError

CHUNK_BYTES = 64 * 1024
GZIP = 16 + zlib.MAX_WBITS
"""zlib's code for the gzip format."""


class Slots:
    """Limits concurrent streams: each holds a thread of the server, and other requests must have some left."""

    def __init__(self, streams: str, most: int) -> None:
        self._streams, self._most, self._free = streams, most, threading.BoundedSemaphore(most)

    def acquire(self) -> "Slot":
        """Return a slot, or raise TransientError if all are taken."""
        if not self._free.acquire(blocking=False):
            raise TransientError(
                f"This process already serves {self._most} {self._streams}. Try again.",
                retry_after_s=10,
                kind=ErrorKind.RATE_LIMIT,
            )
        return Slot(self._free)


class Slot:
    """An acquired slot. Further calls of ``release`` do nothing, so that they can't free another stream's slot."""

    def __init__(self, free: threading.BoundedSemaphore) -> None:
        self._free: threading.BoundedSemaphore | None = free

    def release(self) -> None:
        """Free the slot for another stream."""
        free, self._free = self._free, None
        if free is not None:
            free.release()


def in_chunks(lines: Iterable[str]) -> Iterator[bytes]:
    """Join lines to chunks: sending single lines costs more than reading them."""
    chunk = bytearray()
    for line in lines:
        chunk += line.encode()
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)


def compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Compress chunks as one gzip file."""
    packer = zlib.compressobj(wbits=GZIP)
    for chunk in chunks:
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()
