"""Small JSON documents. ``tests/contract`` holds every adapter to these promises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """A small JSON document. ``version`` only shows whether it has changed: a name never has the same one twice."""

    name: str
    version: int
    body: Mapping[str, Any]


class Records(Protocol):
    """Small documents (some kB of JSON) by kind, organisation and name.

    All three are ASCII letters, digits, ``_`` and ``-``; any other name is not found. Callers that
    store make sure of it.
    """

    def get(self, kind: str, org_slug: str, name: str) -> Record | None:
        """Return the document as the last ``put`` left it, None if there is none."""

    def put(
        self, kind: str, org_slug: str, name: str, body: Mapping[str, Any], *, expected: int | None = None
    ) -> Record:
        """Store a document whole, safe against a power cut; return it with its new version.

        ``expected`` is the version that it must still have (0: it must not exist; None: any). Raises
        StaleRecordError, and has then stored nothing.
        """

    def list(
        self,
        kind: str,
        org_slug: str,
        *,
        limit: int | None = None,
        after: str | None = None,
        newest: bool = False,
    ) -> Sequence[Record]:
        """Return documents in order of their names (``newest``: the last name first), only those behind ``after``."""

    def delete(self, kind: str, org_slug: str, name: str) -> bool:
        """Delete a document; return whether there was one."""
