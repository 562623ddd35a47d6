"""Plan limits from a source that may be away: kept for a while, and served as last read while it is."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from copy import replace
from dataclasses import dataclass
from datetime import datetime, timedelta

from cachetools import LRUCache

from common.domain.quota import Limits
from common.platform.errors import NotFoundError, PermanentError, TransientError
from common.platform.logs import logger
from common.ports.store import PlanLimits

FRESH_FOR = timedelta(seconds=60)
"""For so long a plan that has changed may go on as before."""

UNKNOWN_FOR = timedelta(seconds=10)
"""For so long an organisation that was asked for too early stays unknown."""

REST = timedelta(seconds=5)
"""For so long nobody asks a source that did not answer."""

TELL_EVERY = timedelta(minutes=1)
MOST_KNOWN = 10_000
MOST_UNKNOWN = 1_000
"""Names that somebody has tried take memory of their own: they must not push out organisations that exist."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What the source said, and when."""

    limits: Limits
    at: datetime


class CachedPlans:
    """The plan limits port over another one, which is asked by one thread at a time for an organisation.

    While the source is away, limits are those of the last reading, for as long as this process lives, and say so with
    ``as_of``. An organisation that was never read has none then: TransientError.
    """

    def __init__(self, source: PlanLimits, now: Callable[[], datetime], *, fresh_for: timedelta = FRESH_FOR) -> None:
        self._source, self._now, self._fresh_for = source, now, fresh_for
        self._lock = threading.Lock()
        self._known: LRUCache[str, _Read] = LRUCache(MOST_KNOWN)
        self._unknown: LRUCache[str, datetime] = LRUCache(MOST_UNKNOWN)
        self._asking: dict[str, Future[Limits]] = {}
        self._failed_at: datetime | None = None
        self._told_at: datetime | None = None

    def limits(self, org_slug: str) -> Limits:
        now, mine = self._now(), None
        with self._lock:
            known = self._known.get(org_slug)
            if known is not None and now - known.at < self._fresh_for:
                return known.limits
            missed_at = self._unknown.get(org_slug)
            if missed_at is not None and now - missed_at < UNKNOWN_FOR:
                raise _unknown(org_slug)
            asking = self._asking.get(org_slug)
            if asking is None and not self._rests(now):
                mine = self._asking[org_slug] = Future()
        if mine is not None:
            return self._ask(org_slug, now, mine)
        if known is not None:
            return self._last(known)
        if asking is not None:
            return asking.result()
        raise TransientError(
            f"The plan of {org_slug} can't be read now, and was not read before. Try again.",
            retry_after_s=REST.total_seconds(),
        )

    def _rests(self, now: datetime) -> bool:
        return self._failed_at is not None and now - self._failed_at < REST

    def _last(self, known: _Read) -> Limits:
        """Return what was read last. While the source only takes its time, that needs no word."""
        return known.limits if self._failed_at is None else replace(known.limits, as_of=known.at)

    def _ask(self, org_slug: str, now: datetime, mine: "Future[Limits]") -> Limits:
        """Ask the source for all who wait for ``mine``."""
        try:
            limits = self._answer(org_slug, now)
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(limits)
            return limits
        finally:
            with self._lock:
                del self._asking[org_slug]

    def _answer(self, org_slug: str, now: datetime) -> Limits:
        try:
            limits = self._source.limits(org_slug)
        except NotFoundError:
            self._answered()
            with self._lock:
                self._known.pop(org_slug, None)
                self._unknown[org_slug] = now
            raise
        except (TransientError, PermanentError) as error:
            self._failed(error, now)
            with self._lock:
                known = self._known.get(org_slug)
            if known is None:
                raise
            return self._last(known)
        self._answered()
        with self._lock:
            self._known[org_slug] = _Read(limits, now)
        return limits

    def _answered(self) -> None:
        if self._failed_at is not None:
            self._failed_at = self._told_at = None
            logger.info("Plans can be read again.")

    def _failed(self, error: Exception, now: datetime) -> None:
        self._failed_at = now
        if self._told_at is None or now - self._told_at >= TELL_EVERY:
            self._told_at = now
            logger.warning("Plans can't be read, limits are those of the last reading: %s", error)


def _unknown(org_slug: str) -> NotFoundError:
    return NotFoundError(f"There is no organisation {org_slug!r}.")
