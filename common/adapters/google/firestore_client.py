"""The Firestore client as the adapters use it: created on first use, patient for seconds only, its operations counted.

No read-write transactions: they hold locks, and with several writers of one document Google's emulator commits one
every two seconds. A write is one atomic batch whose preconditions are the documents' update times.
"""

import re
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import cache
from typing import Any

from common.adapters.google.firestore_limits import check
from common.adapters.google_errors import Service, passing, short
from common.platform.errors import NotFoundError, PermanentError, PipelineOpsError
from common.platform.retry import Backoff, countdown, retried

PATIENCE_S = 10.0
"""All tries of one call together. By default the client retries for five minutes."""

TRIES = 5
BACKOFF = Backoff(0.1, 1.0)
SECOND_NS = 1_000_000_000
USUAL_ID = re.compile(r"(?!__)[\w\[\]-]{1,500}", re.ASCII)
"""Ids come from requests: a slash in one would address another document, and Firestore refuses ``__x__``."""


def _own(failed: str, error: Exception) -> PipelineOpsError | None:
    """Translate the refusal of an update that makes a stored document too large: see ``firestore_limits``."""
    from google.api_core import exceptions

    if isinstance(error, exceptions.InvalidArgument) and "exceeds the maximum" in str(error):
        return PermanentError(f"{failed} {short(error)} Hand less on in outputs, or split the pipeline.")
    return None


FIRESTORE = Service(
    "Firestore",
    not_found="Run the set-up, which creates the database.",
    forbidden="Give the service account roles/datastore.user.",
    precondition="Run the set-up, which creates the indexes.",
    own=_own,
)


class Operations:
    """Counts what Firestore bills: documents read and written, deletes counted as writes. Thread-safe."""

    def __init__(self) -> None:
        self.reads = self.writes = 0
        self._lock = threading.Lock()

    def count(self, *, reads: int = 0, writes: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            self.reads += reads
            self.writes += writes


class NotAppliedError(Exception):
    """The whole batch was refused: a document does not meet its precondition, or already ``exists``."""

    def __init__(self, message: str, *, exists: bool) -> None:
        super().__init__(message)
        self.exists = exists


class Firestore:
    """One project's default database. ``emulator_host`` (``host:port``) is None in the cloud."""

    def __init__(self, project_id: str, emulator_host: str | None = None, operations: Operations | None = None) -> None:
        self._project_id, self._emulator_host = project_id, emulator_host
        self._operations = operations or Operations()

    def document(self, *path: str) -> Any:
        """Return a document's reference. Raises NotFoundError for an id that no document can have."""
        for part in path:
            if not is_id(part):
                raise NotFoundError(f"There is no {part!r}.")
        with self._translated("be reached"):
            return _client(self._project_id, self._emulator_host).document(*path)

    def collection(self, *path: str) -> Any:
        """Return a collection's reference."""
        with self._translated("be reached"):
            return _client(self._project_id, self._emulator_host).collection(*path)

    def group(self, name: str) -> Any:
        """Return a collection group: the query over all collections of that name."""
        with self._translated("be reached"):
            return _client(self._project_id, self._emulator_host).collection_group(name)

    def get(self, *references: Any, fields: Sequence[str] | None = None) -> dict[str, Any]:
        """Return snapshots of the documents that exist, by path, in one call."""
        client = _client(self._project_id, self._emulator_host)
        found = self._tried(
            "read", lambda left: list(client.get_all(references, field_paths=fields, retry=None, timeout=left))
        )
        self._operations.count(reads=len(references))
        return {one.reference.path: one for one in found if one.exists}

    def query(self, query: Any) -> list[Any]:
        """Return the query's snapshots."""
        snapshots: list[Any] = self._tried("read", lambda left: list(query.stream(retry=None, timeout=left)))
        self._operations.count(reads=max(1, len(snapshots)))  # an empty result is billed as one read
        return snapshots

    def count(self, query: Any) -> int:
        """Return how many documents match the query; billed as one read for each thousand index entries."""
        results = self._tried("count", lambda left: query.count("n").get(retry=None, timeout=left))
        self._operations.count(reads=1)
        return int(results[0][0].value)

    def write(
        self,
        fill: Callable[[Any], None],
        applied: Callable[[], int | None] = lambda: None,
        told: Callable[[Sequence[Any]], None] = lambda _results: None,
    ) -> int:
        """Commit one atomic batch that ``fill`` fills; return the version that its documents then have.

        A try without a response may have been applied all the same, and then makes the next one fail its preconditions.
        In that case ``applied`` returns the version that this very write made (None if it made none), and ``told`` is
        not called with the results. Raises NotAppliedError, TooLargeError.
        """
        from google.api_core import exceptions

        client = _client(self._project_id, self._emulator_host)
        unsure = False

        def once(left: float) -> int:
            nonlocal unsure
            batch = client.batch()
            fill(batch)
            check(batch._write_pbs)  # private: the client shows its writes in no other way
            size = len(batch)
            try:
                results = batch.commit(retry=None, timeout=left)
            except (exceptions.AlreadyExists, exceptions.FailedPrecondition, exceptions.NotFound) as error:
                if unsure and (made := applied()) is not None:
                    return made
                raise NotAppliedError(short(error), exists=isinstance(error, exceptions.AlreadyExists)) from error
            except exceptions.Aborted:  # lost to another writer, so certainly not applied: not ``unsure``
                raise
            except passing():
                unsure = True
                raise
            self._operations.count(writes=size)
            told(results)
            return version(results[0].update_time or batch.commit_time)  # a delete has no update time

        return self._tried("write", once)

    def _tried[T](self, what: str, call: Callable[[float], T]) -> T:
        """Call, and retry within ``PATIENCE_S``; ``call`` gets the seconds that are left."""
        left_s = countdown(PATIENCE_S)
        with self._translated(what):
            result = retried(lambda: call(left_s()), on=passing(), backoff=BACKOFF, tries=TRIES, left_s=left_s)
        return result

    def _translated(self, what: str) -> AbstractContextManager[None]:
        return FIRESTORE.translated(f"{what} in project {self._project_id!r}")


@cache
def _client(project_id: str, emulator_host: str | None) -> Any:
    """Return this process's client for a database; one, because its channel is safe for threads and slow to open."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import firestore

    if emulator_host is None:
        return firestore.Client(project=project_id)
    anonymous: Any = AnonymousCredentials  # untyped
    client = firestore.Client(project=project_id, credentials=anonymous())
    # A private attribute: the public way, FIRESTORE_EMULATOR_HOST, would affect every client of the process.
    client._emulator_host = emulator_host
    return client


def is_id(part: str) -> bool:
    """Return whether a document can have this id."""
    return USUAL_ID.fullmatch(part) is not None


def version(at: Any) -> int:
    """Return a document's update time as exact nanoseconds since 1970 (emulators have microseconds only).

    Usually it is the client's own datetime class, but documents of a collection group have the bare protobuf message.
    """
    if hasattr(at, "nanos"):
        return int(at.seconds * SECOND_NS + at.nanos)
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    return int((since.days * 86_400 + since.seconds) * SECOND_NS + at.nanosecond)


def standard_time(at: datetime) -> datetime:
    """Return the client's datetime as the standard library's class; its own subclass has nanoseconds."""
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
    """Return the query (or collection) with one more filter."""
    from google.cloud.firestore_v1.base_query import FieldFilter

    filtered: Any = FieldFilter  # untyped
    return query.where(filter=filtered(field, operator, value))
