"""Secrets sealed with AES-256-GCM under a local key file (0600, made on first use).

The organisation and the credential's id are authenticated with the ciphertext, so that a record copied to another
organisation does not open. Losing the key file loses the credentials: they have to be added again.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from common.errors import PermanentError

KEY_BYTES = 32
NONCE_BYTES = 12


class KeyFile:
    """Seals and opens secrets with the key in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def seal(self, secret: str, org_slug: str, credential_id: str) -> bytes:
        """Return the secret encrypted, bound to its organisation and id. The first call makes the key."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self._key(make=True)).encrypt(nonce, secret.encode(), _bound_to(org_slug, credential_id))

    def open(self, sealed: bytes, org_slug: str, credential_id: str) -> str:
        """Return the secret that ``seal`` was given. Raises PermanentError if the key or the record is another."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            plain = AESGCM(self._key(make=False)).decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound_to(org_slug, credential_id)
            )
        except InvalidTag as error:
            raise PermanentError(
                f"Credential {credential_id!r} can't be opened with the key in {self._path.name}: the key file was "
                "replaced or the record changed. Add the credential again: main.py credentials add."
            ) from error
        return plain.decode()

    def _key(self, *, make: bool) -> bytes:
        """Read the key; the first credential makes it. A file that others can read is refused."""
        if make and not self._path.exists():
            self._make_key()
        try:
            mode = stat.S_IMODE(self._path.stat().st_mode)
            key = self._path.read_bytes()
        except FileNotFoundError as error:
            raise PermanentError(
                f"The key file {self._path.name} is gone, so no credential can be opened. "
                "Restore it, or add the credentials again: main.py credentials add."
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


def _bound_to(org_slug: str, credential_id: str) -> bytes:
    return f"{org_slug}\n{credential_id}".encode()
