"""The key-encryption key in a local file (0600, created on first use), for stacks on one machine.

If the file is lost, so are the secrets sealed under it: store them again.
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
        """Return the encrypted data key. The first call creates the file."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self._key(make=True)).encrypt(nonce, key, bound_to)

    def unwrap(self, wrapped: bytes, bound_to: bytes) -> bytes:
        """Return the data key. Raises WrongKeyError; PermanentError if the file is missing, damaged or readable."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self._key(make=False)).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError) as error:
            raise WrongKeyError(f"the key file {self._path.name} was replaced, or its record changed.") from error

    def _key(self, *, make: bool) -> bytes:
        """Read the key; with ``make``, create it if it is missing. A file that other users can read is refused."""
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
        """Write a new key to a temporary file and link it into place, so that no reader ever sees half a key."""
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            # Synced before it is used: after a power cut, secrets sealed under a lost key could not be opened.
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # link, not rename: another process was first, and its key is in use already
            os.link(fresh, self._path)
        fresh.unlink()
