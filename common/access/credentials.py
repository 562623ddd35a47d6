"""Provider credentials: sealed secrets among the records, one document each."""

from collections.abc import Sequence
from datetime import datetime

from common.access.sealing import Sealer, WrongKeyError
from common.platform.errors import NotFoundError, PermanentError, nearest
from common.ports.records import Record, Records
from common.ports.secrets import CredentialInfo

KIND = "credentials"


class SealedCredentials:
    """The credentials port, over records."""

    def __init__(self, records: Records, sealer: Sealer) -> None:
        self._records, self._sealer = records, sealer

    def add(self, info: CredentialInfo, secret: str) -> None:
        sealed = self._sealer.seal(secret, KIND, info.org_slug, info.credential_id)
        body = {"provider": info.provider, "created_at": info.created_at.isoformat(), "secret": sealed}
        self._records.put(KIND, info.org_slug, info.credential_id, body)

    def list(self, org_slug: str) -> Sequence[CredentialInfo]:
        return [_info(org_slug, record) for record in self._records.list(KIND, org_slug)]

    def remove(self, org_slug: str, credential_id: str) -> None:
        if not self._records.delete(KIND, org_slug, credential_id):
            raise self._unknown(org_slug, credential_id)

    def secret(self, org_slug: str, credential_id: str) -> str:
        record = self._records.get(KIND, org_slug, credential_id)
        if record is None:
            raise self._unknown(org_slug, credential_id)
        try:
            return self._sealer.open(record.body["secret"], KIND, org_slug, credential_id)
        except WrongKeyError as error:
            raise PermanentError(f"{error} Add the credential: main.py credentials add {org_slug}.") from None

    def _unknown(self, org_slug: str, credential_id: str) -> NotFoundError:
        known = [info.credential_id for info in self.list(org_slug)]
        return NotFoundError(f"{org_slug} has no credential {credential_id!r}.{nearest(credential_id, known)}")


def _info(org_slug: str, record: Record) -> CredentialInfo:
    at = datetime.fromisoformat(record.body["created_at"])
    return CredentialInfo(org_slug, record.name, record.body["provider"], at)
