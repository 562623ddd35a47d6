"""The key-encryption key in a local file (0600, made on first use), for stacks on one machine.

Losing the file loses the secrets under it: they have to be stored again.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from common.access.sealing import KEY_BYTES, NONCE_BYTES, WrongKeyError
from common.platform.errors import PermanentError


class KeyFile:
    """Wraps data keys with the key in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def wrap(self, key: bytes, bound_to: bytes) -> bytes:
        """Return the data key encrypted. The first call makes the file."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self._key(make=True)).encrypt(nonce, key, bound_to)

    def unwrap(self, wrapped: bytes, bound_to: bytes) -> bytes:
        """Return the data key. Raises WrongKeyError, and PermanentError if the file is not as it should be."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self._key(make=False)).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError) as error:
            raise WrongKeyError(f"the key file {self._path.name} was replaced, or its record changed.") from error

    def _key(self, *, make: bool) -> bytes:
        """Read the key; the first secret makes it. A file that others can read is refused."""
        if make and not self._path.exists():
            self._make_key()
        try:
            mode = stat.S_IMODE(self._path.stat().st_mode)
            key = self._path.read_bytes()
        except FileNotFoundError as error:
            raise PermanentError(
                f"The key file {self._path.name} is gone, so no secret can be opened. Restore it, or store the secrets "
                "again: main.py credentials add."
            ) from error
        if mode & 0o077:
            raise PermanentError(f"The key file {self._path.name} can be read by others. Run: chmod 600 on it.")
        if len(key) != KEY_BYTES:
            raise PermanentError(f"The key file {self._path.name} is damaged: it must hold {KEY_BYTES} bytes.")
        return key

    def _make_key(self) -> None:
        """Write a new key beside its place and link it there whole, so that no reader ever sees half a key."""
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was faster: its key counts
            os.link(fresh, self._path)
        fresh.unlink()
