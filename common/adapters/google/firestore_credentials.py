"""The credentials port on Firestore: ``orgs/{org_slug}/credentials/{credential_id}``, sealed before they leave.

Sealed under a local key file, as in the embedded mode: that serves one machine on the emulator. In the cloud, where
every instance has a disk of its own, Cloud KMS is to take the key file's place; that is not built yet.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.adapters.google.firestore_client import Firestore, NotAppliedError, Operations, existing, standard_time
from common.adapters.sealing import KeyFile
from common.errors import NotFoundError, nearest
from common.ports import CredentialInfo


class FirestoreCredentials:
    """Keeps credentials in the database of the run store; ``operations`` counts what that is billed."""

    def __init__(
        self,
        project_id: str,
        key_file: Path,
        emulator_host: str | None = None,
        operations: Operations | None = None,
    ) -> None:
        self._firestore = Firestore(project_id, emulator_host, operations)
        self._key_file = KeyFile(key_file)

    def add(self, info: CredentialInfo, secret: str) -> None:
        reference = self._document(info.org_slug, info.credential_id)
        sealed = self._key_file.seal(secret, info.org_slug, info.credential_id)
        fields = {"provider": info.provider, "created_at": info.created_at, "sealed": sealed}
        self._firestore.write(lambda batch: batch.set(reference, fields))

    def list(self, org_slug: str) -> Sequence[CredentialInfo]:
        shown = self._firestore.collection("orgs", org_slug, "credentials").select(["provider", "created_at"])
        return [
            CredentialInfo(org_slug, one.id, one.get("provider"), standard_time(one.get("created_at")))
            for one in self._firestore.query(shown.order_by("__name__"))
        ]

    def remove(self, org_slug: str, credential_id: str) -> None:
        reference = self._document(org_slug, credential_id)
        try:
            self._firestore.write(lambda batch: batch.delete(reference, option=existing()))
        except NotAppliedError as error:
            raise self._unknown(org_slug, credential_id) from error

    def secret(self, org_slug: str, credential_id: str) -> str:
        reference = self._document(org_slug, credential_id)
        stored = self._firestore.get(reference).get(reference.path)
        if stored is None:
            raise self._unknown(org_slug, credential_id)
        return self._key_file.open(stored.get("sealed"), org_slug, credential_id)

    def _document(self, org_slug: str, credential_id: str) -> Any:
        return self._firestore.document("orgs", org_slug, "credentials", credential_id)

    def _unknown(self, org_slug: str, credential_id: str) -> NotFoundError:
        known = [info.credential_id for info in self.list(org_slug)]
        return NotFoundError(f"{org_slug} has no credential {credential_id!r}.{nearest(credential_id, known)}")
