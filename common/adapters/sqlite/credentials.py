"""Credentials in the run store's file, sealed under a local key file."""

from collections.abc import Sequence
from pathlib import Path

from common.adapters.sealing import KeyFile
from common.adapters.sqlite.database import Database, from_micros, to_micros
from common.errors import NotFoundError, nearest
from common.ports import CredentialInfo


class SqliteCredentials:
    """The credentials port of the embedded mode."""

    def __init__(self, database: Database, key_file: Path) -> None:
        self._database = database
        self._key_file = KeyFile(key_file)

    def add(self, info: CredentialInfo, secret: str) -> None:
        sealed = self._key_file.seal(secret, info.org_slug, info.credential_id)
        row = (info.org_slug, info.credential_id, info.provider, to_micros(info.created_at), sealed)
        self._database.write(
            lambda db: db.execute(
                "INSERT OR REPLACE INTO credentials (org_slug, credential_id, provider, created_at, sealed)"
                " VALUES (?, ?, ?, ?, ?)",
                row,
            ),
            durable=True,
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
        row = (
            self._database.connection()
            .execute(
                "SELECT sealed FROM credentials WHERE org_slug = ? AND credential_id = ?", (org_slug, credential_id)
            )
            .fetchone()
        )
        if row is None:
            raise self._unknown(org_slug, credential_id)
        return self._key_file.open(row[0], org_slug, credential_id)

    def _unknown(self, org_slug: str, credential_id: str) -> NotFoundError:
        known = [info.credential_id for info in self.list(org_slug)]
        return NotFoundError(f"{org_slug} has no credential {credential_id!r}.{nearest(credential_id, known)}")
