"""Plan limits from a source that may be down: cached for a while, and served as last read during an outage."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from copy import replace
from dataclasses import dataclass
from datetime import datetime, timedelta

from cachetools import LRUCache

from common.domain.quota import Limits
from common.platform.errors import NotFoundError, PermanentError, TransientError
from common.platform.logs import logger
from common.ports.store import PLANS_PAGE, PlanLimits

FRESH_FOR = timedelta(seconds=60)
"""How long limits are served without reading them again: a changed plan applies after this time at the latest."""

UNKNOWN_FOR = timedelta(seconds=10)
"""How long an organisation stays unknown that was requested before it was created."""

REST = timedelta(seconds=5)
"""How long a source that failed is left alone: otherwise every request would wait for its time-out."""

TELL_EVERY = timedelta(minutes=1)
MOST_KNOWN = 10_000
MOST_UNKNOWN = 1_000
"""Unknown names have a cache of their own: made-up ones must not evict organisations that exist."""


@dataclass(frozen=True, slots=True)
class _Read:
    """Limits, and when they were read."""

    limits: Limits
    at: datetime


class CachedPlans:
    """Caches another source of plan limits, which is read by one thread at a time per organisation.

    During an outage, limits are those of the last read, for as long as this process lives, with its time as ``as_of``.
    For an organisation that was never read: TransientError.
    """

    def __init__(self, source: PlanLimits, now: Callable[[], datetime], *, fresh_for: timedelta = FRESH_FOR) -> None:
        self._source, self._now, self._fresh_for = source, now, fresh_for
        # Guards the caches, and is never held while the source is read: a slow source must not block cached limits.
        self._lock = threading.Lock()
        self._known: LRUCache[str, _Read] = LRUCache(MOST_KNOWN)
        self._unknown: LRUCache[str, datetime] = LRUCache(MOST_UNKNOWN)
        self._reading: dict[str, Future[Limits]] = {}  # one read for a burst of requests
        self._failed_at: datetime | None = None
        self._warned_at: datetime | None = None

    def limits(self, org_slug: str) -> Limits:
        now, mine = self._now(), None
        with self._lock:
            known = self._known.get(org_slug)
            if known is not None and now - known.at < self._fresh_for:
                return known.limits
            missed_at = self._unknown.get(org_slug)
            if missed_at is not None and now - missed_at < UNKNOWN_FOR:
                raise _unknown(org_slug)
            reading = self._reading.get(org_slug)
            if reading is None and not self._is_backing_off(now):
                mine = self._reading[org_slug] = Future()
        if mine is not None:
            return self._refresh(org_slug, now, mine)
        if known is not None:
            return self._last(known)
        if reading is not None:
            return reading.result()
        raise TransientError(
            f"The plan of {org_slug} can't be read now, and was not read before. Try again.",
            retry_after_s=REST.total_seconds(),
        )

    def page(self, after: str = "", *, size: int = PLANS_PAGE) -> Sequence[tuple[str, Limits]]:
        """Return organisations as the source has them now, and keep their limits: those are as fresh as one can be.

        A list is never served from memory: during an outage it raises TransientError, where an old list would leave
        organisations out silently.
        """
        now = self._now()
        try:
            page = self._source.page(after, size=size)
        except (TransientError, PermanentError) as error:
            self._failed(error, now)
            raise
        self._succeeded()
        with self._lock:
            for name, limits in page:
                self._known[name] = _Read(limits, now)
                self._unknown.pop(name, None)
        return page

    def _is_backing_off(self, now: datetime) -> bool:
        return self._failed_at is not None and now - self._failed_at < REST

    def _last(self, known: _Read) -> Limits:
        """Return the limits as last read; ``as_of`` is set only if the source has failed, not if it is just slow."""
        return known.limits if self._failed_at is None else replace(known.limits, as_of=known.at)

    def _refresh(self, org_slug: str, now: datetime, mine: "Future[Limits]") -> Limits:
        """Read the source for all threads that wait for ``mine``."""
        try:
            limits = self._read(org_slug, now)
        except BaseException as error:  # any, or the threads that wait would wait for ever
            mine.set_exception(error)
            raise
        else:
            mine.set_result(limits)
            return limits
        finally:
            with self._lock:
                del self._reading[org_slug]

    def _read(self, org_slug: str, now: datetime) -> Limits:
        try:
            limits = self._source.limits(org_slug)
        except NotFoundError:
            self._succeeded()
            with self._lock:
                self._known.pop(org_slug, None)  # deleted: an outage must not bring its limits back
                self._unknown[org_slug] = now
            raise
        except (TransientError, PermanentError) as error:
            self._failed(error, now)
            with self._lock:
                known = self._known.get(org_slug)
            if known is None:
                raise
            return self._last(known)
        self._succeeded()
        with self._lock:
            self._known[org_slug] = _Read(limits, now)
        return limits

    def _succeeded(self) -> None:
        if self._failed_at is not None:
            self._failed_at = self._warned_at = None
            logger.info("Plans can be read again.")

    def _failed(self, error: Exception, now: datetime) -> None:
        self._failed_at = now
        if self._warned_at is None or now - self._warned_at >= TELL_EVERY:
            self._warned_at = now
            logger.warning("Plans can't be read, limits are those last read: %s", error)


def _unknown(org_slug: str) -> NotFoundError:
    return NotFoundError(f"There is no organisation {org_slug!r}.")
