"""When a pipeline is due: cron expressions on the wall clock of a zone, as times in UTC.

cronsim says which wall times match; which moment a wall time is, this module alone says. The rule on days on which the
clock changes: a wall time is the first moment at which a clock in the zone shows it, or a later time. So a time in the
hour that is left out runs once, right after it, and one in the hour that comes twice runs once, the first time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from common.platform.errors import nearest

LONGEST_REPEAT = timedelta(hours=25)
"""The most by which a zone's clock was ever put back at once: a day, where a country crossed the date line."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A valid cron expression in a zone; ``start`` is the first day there on which it is due (None: any)."""

    cron: str
    zone: str = "UTC"
    start: date | None = None

    def due(self, after: datetime, until: datetime, most: int) -> list[datetime]:
        """Return the times that are later than ``after`` and not later than ``until``, in order; the last ``most``."""
        newest = list(islice(self._backwards(after, until), most))
        return newest[::-1]

    def following(self, after: datetime) -> Iterator[datetime]:
        """Yield the times that are later than ``after``, in order, without end."""
        from cronsim import CronSim

        zone, last = find_zone(self.zone), after
        # A time just before may be the moment of one that the clock leaves out, so the walk begins at `after` itself.
        for wall in CronSim(self.cron, _wall(after, zone)):
            at = moment(wall, zone)
            if at > last and (self.start is None or wall.date() >= self.start):
                yield at
                last = at

    def _backwards(self, after: datetime, until: datetime) -> Iterator[datetime]:
        from cronsim import CronSim

        zone, last = find_zone(self.zone), None
        # After the clock was put back it shows less than it has shown already: those times are looked at as well.
        walls = {_wall(until, zone), _wall(until - LONGEST_REPEAT, zone) + LONGEST_REPEAT}
        for wall in CronSim(self.cron, max(walls) + timedelta(minutes=1), reverse=True):
            at = moment(wall, zone)
            if at <= after or (self.start is not None and wall.date() < self.start):
                return  # a later wall time never is an earlier moment
            if at <= until and at != last:
                yield at
                last = at


def moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the first moment, in UTC, at which a clock in the zone shows ``wall`` or a later time."""
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)  # of two, the first
    if _wall(first, zone) == wall:
        return first
    # The clock never shows it. It is put forward somewhere between the two readings that there would be.
    early, late = wall.replace(tzinfo=zone, fold=1).astimezone(UTC), first
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) // 2
        if _wall(middle, zone) >= wall:
            late = middle
        else:
            early = middle
    return late.replace(microsecond=0)


def _wall(at: datetime, zone: ZoneInfo) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None)


@lru_cache(maxsize=64)
def find_zone(name: str) -> ZoneInfo:
    """Return a zone of the IANA database. Raises ValueError that names the nearest one."""
    try:
        if len(name) > 60 or name not in available_timezones():
            raise ZoneInfoNotFoundError(name)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError):
        hint = nearest(name[:60], available_timezones())
        raise ValueError(
            f"no time zone is named {name[:60]!r}.{hint} Use a name of the IANA database, e.g. Europe/Berlin or UTC."
        ) from None
