"""The records port in memory. It serialises, as every store does."""

import json
import threading
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from common.platform.errors import StaleRecordError
from common.ports.records import Record


class MemoryRecords:
    """Small documents of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions = count(1)
        self._kept: dict[tuple[str, str, str], tuple[int, str]] = {}

    def get(self, kind: str, org_slug: str, name: str) -> Record | None:
        kept = self._kept.get((kind, org_slug, name))
        return None if kept is None else Record(name, kept[0], json.loads(kept[1]))

    def put(
        self, kind: str, org_slug: str, name: str, body: Mapping[str, Any], *, expected: int | None = None
    ) -> Record:
        place, text = (kind, org_slug, name), json.dumps(body, allow_nan=False)
        with self._lock:
            if expected is not None and self._kept.get(place, (0, ""))[0] != expected:
                raise StaleRecordError(f"{kind} {name!r} of {org_slug} has changed since it was read.")
            version = next(self._versions)
            self._kept[place] = version, text
        return Record(name, version, json.loads(text))

    def list(
        self,
        kind: str,
        org_slug: str,
        *,
        limit: int | None = None,
        after: str | None = None,
        newest: bool = False,
    ) -> Sequence[Record]:
        with self._lock:
            kept = sorted(self._kept.items(), reverse=newest)
        records = [
            Record(name, version, json.loads(text))
            for (its_kind, org, name), (version, text) in kept
            if (its_kind, org) == (kind, org_slug) and (after is None or (name < after if newest else name > after))
        ]
        return records[:limit]

    def delete(self, kind: str, org_slug: str, name: str) -> bool:
        with self._lock:
            return self._kept.pop((kind, org_slug, name), None) is not None
