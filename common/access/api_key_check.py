"""Checks the secret of an API key against its hash: slow on purpose, bounded in memory, cached once verified."""

import hashlib
import hmac
import os
import threading
from collections.abc import Mapping
from typing import Any

from cachetools import LRUCache

from common.platform.errors import TransientError
from common.ports.records import Record

COST = {"n": 2**14, "r": 8, "p": 1}
"""scrypt's parameters: 16 MiB and some 50 ms. The secrets have 256 random bits, so nothing more is needed."""

MAX_MEMORY = 64 * 2**20
"""Whatever cost a record names, scrypt takes no more than this."""

HASH_BYTES = 32
SALT_BYTES = 16

AT_ONCE = 2
"""Secrets hashed at the same time: a flood of wrong keys takes 32 MiB at most."""

MAX_WAITING = 64
PATIENCE_S = 3.0
"""How many requests may wait for a turn, and how long: each holds a thread of the server."""

REMEMBERED = 1_000


def hashed(secret: str) -> dict[str, Any]:
    """Return what to keep of a secret, as JSON data."""
    salt = os.urandom(SALT_BYTES)
    return {**COST, "salt": salt.hex(), "hash": _scrypt(secret, salt, COST).hex()}


NOBODY: dict[str, Any] = {**COST, "salt": "00" * SALT_BYTES, "hash": "00" * HASH_BYTES}
"""Hashed where there is no key: the response takes as long, so its time does not reveal which keys exist."""


class KeyCheck:
    """Checks secrets of API keys. One per process."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        # Guards the two below it, and is never held while hashing: known keys must not wait for unknown ones.
        self._lock = threading.Lock()
        self._waiting = 0
        self._known: LRUCache[bytes, int] = LRUCache(REMEMBERED)

    def holds(self, token: str, secret: str, record: Record | None) -> bool:
        """Return whether ``secret`` is that of the key in ``record`` (None: there is no such key).

        A token that this process has verified against the same version of the record is not hashed again. Raises
        TransientError when too many others are being checked.
        """
        digest = hashlib.sha256(token.encode()).digest()  # the cache must not hold usable tokens
        if self._remembers(digest, record):
            return True
        with self._turn():
            if self._remembers(digest, record):  # verified by a concurrent request while this one waited
                return True
            kept: Mapping[str, Any] = record.body["secret"] if record is not None else NOBODY
            computed = _scrypt(secret, bytes.fromhex(kept["salt"]), kept)
        # In constant time, and before the record is looked at, which a missing key would reveal.
        right = hmac.compare_digest(computed, bytes.fromhex(kept["hash"])) and record is not None
        if right and record is not None:
            with self._lock:
                self._known[digest] = record.version
        return right

    def _remembers(self, digest: bytes, record: Record | None) -> bool:
        with self._lock:
            return record is not None and self._known.get(digest) == record.version

    def _turn(self) -> "_Turn":
        with self._lock:
            if self._waiting >= MAX_WAITING:
                raise _busy()
            self._waiting += 1
        try:
            if not self._slots.acquire(timeout=PATIENCE_S):
                raise _busy()
        finally:
            with self._lock:
                self._waiting -= 1
        return _Turn(self._slots)


class _Turn:
    """Holds a slot for a block."""

    def __init__(self, slots: threading.BoundedSemaphore) -> None:
        self._slots = slots

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._slots.release()


def _busy() -> TransientError:
    return TransientError("Too many API keys are being checked at once. Try again in a few seconds.", retry_after_s=5)


def _scrypt(secret: str, salt: bytes, cost: Mapping[str, Any]) -> bytes:
    return hashlib.scrypt(
        secret.encode(), salt=salt, n=cost["n"], r=cost["r"], p=cost["p"], maxmem=MAX_MEMORY, dklen=HASH_BYTES
    )
