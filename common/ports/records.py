"""Small JSON documents. ``tests/contract`` holds every adapter to these promises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """A small JSON document. ``version`` says only whether it is still the same: no name ever has one twice."""

    name: str
    version: int
    body: Mapping[str, Any]


class Records(Protocol):
    """Small documents (some kB of JSON) by kind, organisation and name.

    All three are ASCII letters, digits, ``_`` and ``-``; what is none of that is not there. Whoever stores makes sure
    of it.
    """

    def get(self, kind: str, org_slug: str, name: str) -> Record | None:
        """Return the document as the last ``put`` left it, None if there is none."""

    def put(
        self, kind: str, org_slug: str, name: str, body: Mapping[str, Any], *, expected: int | None = None
    ) -> Record:
        """Store a document whole, safe against a power cut; return it with its new version.

        ``expected`` is the version that it must still have (0: it must not be there; None: whatever it has). Raises
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
        """Return documents in order of their names (``newest``: the last name first), those behind ``after`` alone."""

    def delete(self, kind: str, org_slug: str, name: str) -> bool:
        """Delete a document; return whether there was one."""
