"""The records port on Firestore: ``orgs/{org_slug}/{kind}/{name}``.

``name`` is also a field, because its automatic index sorts in both directions. ``body`` and ``commit`` have none
(``infra/firestore.indexes.json``). ``commit`` is new with each write: Firestore keeps the update time when a write
changes nothing, and the update time is the version.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from common.adapters.google.firestore_client import (
    Firestore,
    NotAppliedError,
    Operations,
    existing,
    is_id,
    unchanged_since,
    version,
)
from common.platform.errors import StaleRecordError
from common.ports.records import Record


class FirestoreRecords:
    """Stores small documents in the run store's database; ``operations`` counts what is billed."""

    def __init__(self, project_id: str, emulator_host: str | None = None, operations: Operations | None = None) -> None:
        self._firestore = Firestore(project_id, emulator_host, operations)

    def get(self, kind: str, org_slug: str, name: str) -> Record | None:
        if not is_id(org_slug) or not is_id(name):
            return None
        reference = self._firestore.document("orgs", org_slug, kind, name)
        stored = self._firestore.get(reference).get(reference.path)
        return None if stored is None else _record(stored)

    def put(
        self, kind: str, org_slug: str, name: str, body: Mapping[str, Any], *, expected: int | None = None
    ) -> Record:
        reference = self._firestore.document("orgs", org_slug, kind, name)
        text, commit = json.dumps(body, allow_nan=False), uuid.uuid4().hex
        fields = {"name": name, "body": text, "commit": commit}

        def fill(batch: Any) -> None:
            if expected is None:
                batch.set(reference, fields)
            elif expected == 0:
                batch.create(reference, fields)
            else:
                batch.update(reference, fields, option=unchanged_since(expected))

        def applied() -> int | None:
            snapshots = self._firestore.get(reference, fields=["commit"]).values()
            return next((version(one.update_time) for one in snapshots if one.get("commit") == commit), None)

        try:
            made = self._firestore.write(fill, applied)
        except NotAppliedError as error:
            raise StaleRecordError(f"{kind} {name!r} of {org_slug} has changed since it was read.") from error
        return Record(name, made, json.loads(text))

    def list(
        self,
        kind: str,
        org_slug: str,
        *,
        limit: int | None = None,
        after: str | None = None,
        newest: bool = False,
    ) -> Sequence[Record]:
        if not is_id(org_slug):
            return []
        query = self._firestore.collection("orgs", org_slug, kind)
        query = query.order_by("name", direction="DESCENDING" if newest else "ASCENDING")
        if after is not None:
            query = query.start_after({"name": after})
        if limit is not None:
            query = query.limit(limit)
        return [_record(one) for one in self._firestore.query(query)]

    def delete(self, kind: str, org_slug: str, name: str) -> bool:
        if not is_id(org_slug) or not is_id(name):
            return False
        reference = self._firestore.document("orgs", org_slug, kind, name)
        try:
            self._firestore.write(lambda batch: batch.delete(reference, option=existing()))
        except NotAppliedError:
            return False
        return True


def _record(snapshot: Any) -> Record:
    return Record(snapshot.id, version(snapshot.update_time), json.loads(snapshot.get("body")))
