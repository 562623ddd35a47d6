"""Base of the clients for S3 buckets, Azure containers and OCI buckets: list, read and download objects."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self
from urllib.parse import quote
from xml.etree import ElementTree

from common.platform.errors import PermanentError, TransientError
from common.processors.http.client import ErrorBody, ProviderClient, ProviderNotFoundError

MAX_OBJECT_BYTES = 8 * 2**30
"""Larger files would fill the function's disk; providers split their exports long before."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object of a bucket or container, as listed."""

    key: str
    etag: str
    size: int
    modified: datetime


class ObjectStore(ABC):
    """One bucket or container, for one attempt. Use it as a context manager.

    Raises what ProviderClient raises, and PermanentError with the ``missing`` text if there is no such bucket.
    """

    provider = "The provider"

    def __init__(self, client: ProviderClient, path: str, missing: str) -> None:
        self._client, self._base, self._missing = client, path, missing

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._client.__exit__(None, None, None)

    @abstractmethod
    def objects(self, prefix: str) -> Iterator[Stored]:
        """Yield the objects whose keys begin with ``prefix``, in order of their keys."""

    def read(self, key: str) -> bytes:
        """Return a small object's content."""
        try:
            return self._client.get_bytes(self._path(key))
        except ProviderNotFoundError:
            raise self._gone(key) from None

    def download(self, key: str, target: Path) -> None:
        """Write an object to a file."""
        try:
            self._client.download(self._path(key), target, limit=MAX_OBJECT_BYTES)
        except ProviderNotFoundError:
            raise self._gone(key) from None

    def _path(self, key: str) -> str:
        return f"{self._base}/{quote(key, safe='/-_.~')}"

    def _gone(self, key: str) -> TransientError:
        # Transient: an export that is being refreshed replaces its files, and its next manifest lists the new ones.
        return TransientError(f"{self.provider}: {key} is listed and not there. It is read anew.")

    def _xml(self, params: list[tuple[str, str]]) -> ElementTree.Element:
        """Return one page of a listing."""
        try:
            body = self._client.get_bytes(self._base, params)
            return ElementTree.fromstring(body.removeprefix(b"\xef\xbb\xbf"))  # Azure Storage sends a BOM
        except ProviderNotFoundError:
            raise PermanentError(self._missing) from None
        except ElementTree.ParseError:
            raise TransientError(f"{self.provider}: a listing is not valid XML. It is read anew.") from None

    def _goes_on(self, token: str | None) -> str:
        """Return the token of a page that must follow: a listing that seemed to end here would leave out costs."""
        if not token:
            raise TransientError(f"{self.provider}: a listing says that it goes on, and not where.")
        return token

    def _odd(self) -> TransientError:
        return TransientError(f"{self.provider}: a listing has an entry without a size or time.")


def xml_error(body: bytes) -> ErrorBody:
    """Read ``<Error><Code>…</Code><Message>…</Message></Error>``, of S3 and Azure Storage."""
    try:
        root = ElementTree.fromstring(body.removeprefix(b"\xef\xbb\xbf"))
    except ElementTree.ParseError:
        return ErrorBody()
    return ErrorBody(*(root.findtext(name) or "" for name in ("Code", "Message", "Region")))
