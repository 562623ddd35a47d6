"""The Firestore client as the adapters use it: made on first use, patient for seconds only, its operations counted.

No read-write transactions anywhere: they hold locks, and where writers of one document meet, Google's emulator gets
through one every two seconds. A write is one atomic batch whose preconditions are the documents' update times.
"""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import cache
from typing import Any

from common.adapters.google_errors import Service, passing, short
from common.platform.errors import NotFoundError
from common.platform.retry import Backoff, countdown, retried

PATIENCE_S = 10.0
"""All tries of one call together. The client's own patience is five minutes."""

TRIES = 5
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
BACKOFF = Backoff(2 * FIRST_PAUSE_S, LONGEST_PAUSE_S)
SECOND_NS = 1_000_000_000
USUAL_ID = re.compile(r"(?!__)[\w\[\]-]{1,500}", re.ASCII)
"""Ids come from outside: a slash in one would name another document, and Firestore refuses ``__x__``."""


FIRESTORE = Service(
    "Firestore",
    not_found="Run the set-up, which creates the database.",
    forbidden="Give the service account roles/datastore.user.",
    precondition="Run the set-up, which creates the indexes.",
)


class Operations:
    """Counts what Firestore bills: documents read and written, deletes among the writes. Threads may share one."""

    def __init__(self) -> None:
        self.reads = self.writes = 0
        self._lock = threading.Lock()

    def count(self, *, reads: int = 0, writes: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            self.reads += reads
            self.writes += writes


class NotAppliedError(Exception):
    """A batch was refused as a whole: one of its documents is not as a precondition says, or ``exists`` already."""

    def __init__(self, message: str, *, exists: bool) -> None:
        super().__init__(message)
        self.exists = exists


class Firestore:
    """One project's default database. ``emulator_host`` (``host:port``) is None in the cloud."""

    def __init__(self, project_id: str, emulator_host: str | None = None, operations: Operations | None = None) -> None:
        self._project_id, self._emulator_host = project_id, emulator_host
        self._operations = operations or Operations()

    def document(self, *path: str) -> Any:
        """Return the reference of a document. Raises NotFoundError for an id that no document can have."""
        for part in path:
            if not is_id(part):
                raise NotFoundError(f"There is no {part!r}.")
        with self._translated("be reached"):
            return _client(self._project_id, self._emulator_host).document(*path)

    def collection(self, *path: str) -> Any:
        """Return the reference of a collection."""
        with self._translated("be reached"):
            return _client(self._project_id, self._emulator_host).collection(*path)

    def group(self, name: str) -> Any:
        """Return the query over all collections of that name."""
        with self._translated("be reached"):
            return _client(self._project_id, self._emulator_host).collection_group(name)

    def get(self, *references: Any, fields: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the snapshots of those of these documents that exist, by path. All of them are one call."""
        client = _client(self._project_id, self._emulator_host)
        found = self._tried(
            "read", lambda left: list(client.get_all(references, field_paths=fields, retry=None, timeout=left))
        )
        self._operations.count(reads=len(references))
        return {one.reference.path: one for one in found if one.exists}

    def query(self, query: Any) -> list[Any]:
        """Return the snapshots that the query finds."""
        found: list[Any] = self._tried("read", lambda left: list(query.stream(retry=None, timeout=left)))
        self._operations.count(reads=max(1, len(found)))
        return found

    def count(self, query: Any) -> int:
        """Return how many documents the query finds, for the price of one read (of a thousand index entries)."""
        found = self._tried("count", lambda left: query.count("n").get(retry=None, timeout=left))
        self._operations.count(reads=1)
        return int(found[0][0].value)

    def write(
        self,
        fill: Callable[[Any], None],
        applied: Callable[[], int | None] = lambda: None,
        told: Callable[[Sequence[Any]], None] = lambda _results: None,
    ) -> int:
        """Commit one atomic batch that ``fill`` fills; return the version that its documents have after.

        A try that got no answer may have been applied all the same, and makes the next one fail its preconditions:
        then ``applied`` is asked for the version that this very write has made, and nobody is ``told`` the results.
        Raises NotAppliedError.
        """
        from google.api_core import exceptions

        client = _client(self._project_id, self._emulator_host)
        unsure = False

        def once(left: float) -> int:
            nonlocal unsure
            batch = client.batch()
            fill(batch)
            size = len(batch)
            try:
                results = batch.commit(retry=None, timeout=left)
            except (exceptions.AlreadyExists, exceptions.FailedPrecondition, exceptions.NotFound) as error:
                if unsure and (made := applied()) is not None:
                    return made
                raise NotAppliedError(short(error), exists=isinstance(error, exceptions.AlreadyExists)) from error
            except exceptions.Aborted:  # lost against another writer, and certainly not applied
                raise
            except passing():
                unsure = True
                raise
            self._operations.count(writes=size)
            told(results)
            return version(results[0].update_time or batch.commit_time)  # a delete has no update time

        return self._tried("write", once)

    def _tried[T](self, what: str, call: Callable[[float], T]) -> T:
        """Call until it answers, within ``PATIENCE_S``; it is given the seconds that are left."""
        left_s = countdown(PATIENCE_S)
        with self._translated(what):
            result = retried(lambda: call(left_s()), on=passing(), backoff=BACKOFF, tries=TRIES, left_s=left_s)
        return result

    def _translated(self, what: str) -> AbstractContextManager[None]:
        return FIRESTORE.translated(f"{what} in project {self._project_id!r}")


@cache
def _client(project_id: str, emulator_host: str | None) -> Any:
    """Return the one client that this process has for a database."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import firestore

    if emulator_host is None:
        return firestore.Client(project=project_id)
    anonymous: Any = AnonymousCredentials  # untyped
    client = firestore.Client(project=project_id, credentials=anonymous())
    # What FIRESTORE_EMULATOR_HOST would set, which counts for the whole process and for every client in it.
    client._emulator_host = emulator_host
    return client


def is_id(part: str) -> bool:
    """Return whether a document can have this id."""
    return USUAL_ID.fullmatch(part) is not None


def pauses(tries: int, longest_s: float = LONGEST_PAUSE_S) -> Iterator[float]:
    """Yield the seconds left for each try, after a rest of random length; stop when there are none, or no tries."""
    deadline = time.monotonic() + PATIENCE_S
    for tried in range(tries):
        if tried:
            time.sleep(random.uniform(0, min(longest_s, FIRST_PAUSE_S * 2**tried)))
        left = deadline - time.monotonic()
        if left <= 0:
            return
        yield left


def version(at: Any) -> int:
    """Return a document's update time as whole nanoseconds since 1970, exactly (emulators give microseconds).

    The client gives it as a datetime of its own, but a collection group's documents have the bare message.
    """
    if hasattr(at, "nanos"):
        return int(at.seconds * SECOND_NS + at.nanos)
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    return int((since.days * 86_400 + since.seconds) * SECOND_NS + at.nanosecond)


def standard_time(at: datetime) -> datetime:
    """Return a time as the standard library's own kind, which the client's is a subclass of."""
    return datetime(at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond, tzinfo=UTC)


def unchanged_since(version: int) -> Any:
    """Return the precondition that a document is still at this version."""
    from google.cloud.firestore_v1 import LastUpdateOption
    from google.protobuf.timestamp_pb2 import Timestamp

    seconds, nanos = divmod(version, SECOND_NS)
    option: Any = LastUpdateOption  # untyped
    return option(Timestamp(seconds=seconds, nanos=nanos))


def existing() -> Any:
    """Return the precondition that a document exists."""
    from google.cloud.firestore_v1 import ExistsOption

    option: Any = ExistsOption  # untyped
    return option(exists=True)


def where(query: Any, field: str, operator: str, value: Any) -> Any:
    """Return the query (or collection) with one more condition."""
    from google.cloud.firestore_v1.base_query import FieldFilter

    filtered: Any = FieldFilter  # untyped
    return query.where(filter=filtered(field, operator, value))
