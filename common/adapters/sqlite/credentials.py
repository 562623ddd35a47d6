"""Credentials in the run store's file, sealed with AES-256-GCM under a local key file (0600, made on first use).

The organisation and the credential's id are authenticated with the ciphertext, so that a row copied to another
organisation does not open. Losing the key file loses the credentials: they have to be added again.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from common.adapters.sqlite.database import Database, from_micros, to_micros
from common.errors import NotFoundError, PermanentError, nearest
from common.ports import CredentialInfo

KEY_BYTES = 32
NONCE_BYTES = 12


class SqliteCredentials:
    """The credentials port of the embedded mode."""

    def __init__(self, database: Database, key_file: Path) -> None:
        self._database = database
        self._key_file = key_file

    def add(self, info: CredentialInfo, secret: str) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + AESGCM(self._key(make=True)).encrypt(
            nonce, secret.encode(), _bound_to(info.org_slug, info.credential_id)
        )
        row = (info.org_slug, info.credential_id, info.provider, to_micros(info.created_at), sealed)
        self._database.write(
            lambda db: db.execute(
                "INSERT OR REPLACE INTO credentials (org_slug, credential_id, provider, created_at, sealed)"
                " VALUES (?, ?, ?, ?, ?)",
                row,
            )
        )

    def list(self, org_slug: str) -> Sequence[CredentialInfo]:
        rows = self._database.connection().execute(
            "SELECT org_slug, credential_id, provider, created_at FROM credentials WHERE org_slug = ?"
            " ORDER BY credential_id",
            (org_slug,),
        )
        return [CredentialInfo(org, name, provider, from_micros(at)) for org, name, provider, at in rows]

    def remove(self, org_slug: str, credential_id: str) -> None:
        delete = "DELETE FROM credentials WHERE org_slug = ? AND credential_id = ?"
        if self._database.write(lambda db: db.execute(delete, (org_slug, credential_id)).rowcount) == 0:
            raise self._unknown(org_slug, credential_id)

    def secret(self, org_slug: str, credential_id: str) -> str:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        row = (
            self._database.connection()
            .execute(
                "SELECT sealed FROM credentials WHERE org_slug = ? AND credential_id = ?", (org_slug, credential_id)
            )
            .fetchone()
        )
        if row is None:
            raise self._unknown(org_slug, credential_id)
        sealed: bytes = row[0]
        try:
            plain = AESGCM(self._key(make=False)).decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound_to(org_slug, credential_id)
            )
        except InvalidTag as error:
            raise PermanentError(
                f"Credential {credential_id!r} can't be opened with the key in {self._key_file.name}: the key file was "
                "replaced or the record changed. Add the credential again: main.py credentials add."
            ) from error
        return plain.decode()

    def _unknown(self, org_slug: str, credential_id: str) -> NotFoundError:
        known = [info.credential_id for info in self.list(org_slug)]
        return NotFoundError(f"{org_slug} has no credential {credential_id!r}.{nearest(credential_id, known)}")

    def _key(self, *, make: bool) -> bytes:
        """Read the key; the first credential makes it. A file that others can read is refused."""
        if make and not self._key_file.exists():
            self._make_key()
        try:
            mode = stat.S_IMODE(self._key_file.stat().st_mode)
            key = self._key_file.read_bytes()
        except FileNotFoundError as error:
            raise PermanentError(
                f"The key file {self._key_file.name} is gone, so no credential can be opened. "
                "Restore it, or add the credentials again: main.py credentials add."
            ) from error
        if mode & 0o077:
            raise PermanentError(f"The key file {self._key_file.name} can be read by others. Run: chmod 600 on it.")
        if len(key) != KEY_BYTES:
            raise PermanentError(f"The key file {self._key_file.name} is damaged: it must hold {KEY_BYTES} bytes.")
        return key

    def _make_key(self) -> None:
        """Write a new key beside its place and link it there whole, so that no reader ever sees half a key."""
        fresh = self._key_file.with_name(f"{self._key_file.name}.{os.getpid()}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was faster: its key counts
            os.link(fresh, self._key_file)
        fresh.unlink()


def _bound_to(org_slug: str, credential_id: str) -> bytes:
    return f"{org_slug}\n{credential_id}".encode()
