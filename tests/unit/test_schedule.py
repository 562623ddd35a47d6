"""When a cron expression is due in a zone: compared with a second library, and with a table made by hand."""

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from croniter import CroniterBadDateError, croniter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from common.config.model import check_cron
from common.config.schedule import Schedule, find_zone, moment

# By hand, from the rules of the European Union, the United States, New South Wales (Lord Howe: half an hour) and Samoa
# (no 30 December in 2011). Each line: cron, zone, a UTC window, and the UTC times in it.
TABLE = [
    # The clock goes from 02:00 to 03:00 at 01:00 UTC. A time in the missing hour runs once, right after it.
    ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-30T12:00", ["03-29T01:00", "03-30T00:30"]),
    ("0,30 2 * * *", "Europe/Berlin", "2026-03-29T00:00", "2026-03-29T12:00", ["03-29T01:00"]),
    ("30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00", "2026-03-29T12:00", ["03-29T01:00", "03-29T01:30"]),
    (
        "0 * * * *",
        "Europe/Berlin",
        "2026-03-28T23:30",
        "2026-03-29T02:30",
        ["03-29T00:00", "03-29T01:00", "03-29T02:00"],
    ),
    # The clock goes from 03:00 back to 02:00 at 01:00 UTC. A doubled time runs once, the first time.
    ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-26T12:00", ["10-25T00:30", "10-26T01:30"]),
    ("0 * * * *", "Europe/Berlin", "2026-10-24T23:30", "2026-10-25T02:30", ["10-25T00:00", "10-25T02:00"]),
    ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45", "2026-10-25T12:00", []),
    ("30 1 * * *", "America/New_York", "2026-11-01T00:00", "2026-11-02T00:00", ["11-01T05:30"]),
    ("30 2 * * *", "America/New_York", "2026-03-08T00:00", "2026-03-09T00:00", ["03-08T07:00"]),
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00", "2026-10-04T00:00", ["10-03T15:30"]),
    ("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00", "2012-01-01T00:00", ["12-30T10:00"]),
    # Days that not every month or year has.
    ("0 0 29 2 *", "UTC", "2026-01-01T00:00", "2029-01-01T00:00", ["02-29T00:00"]),
    ("0 0 31 * *", "UTC", "2026-01-31T12:00", "2026-06-01T00:00", ["03-31T00:00", "05-31T00:00"]),
    ("0 6 1 * *", "UTC", "2026-12-31T00:00", "2027-01-02T00:00", ["01-01T06:00"]),
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(("cron", "zone", "after", "until", "times"), TABLE)
def test_times_on_odd_days_are_those_of_the_table(
    cron: str, zone: str, after: str, until: str, times: list[str]
) -> None:
    schedule = Schedule(cron, zone)
    found = schedule.due(utc(after), utc(until), 100)
    assert [f"{at:%m-%dT%H:%M}" for at in found] == times
    assert list(islice(schedule.following(utc(after)), len(times))) == found


def test_the_window_has_its_end_and_not_its_beginning() -> None:
    six = utc("2026-11-20T06:00")
    assert Schedule("0 6 * * *").due(six, six + timedelta(days=1), 9) == [six + timedelta(days=1)]


def test_of_many_times_the_last_are_returned_in_order_however_long_the_window() -> None:
    now = utc("2026-11-20T06:00")
    found = Schedule("* * * * *").due(now - timedelta(days=3650), now, 3)
    assert found == [now - timedelta(minutes=2), now - timedelta(minutes=1), now]


def test_no_time_is_due_before_the_first_day_which_is_one_of_the_zone() -> None:
    schedule = Schedule("0 0 * * *", "Asia/Tokyo", date(2026, 11, 20))
    days = schedule.due(utc("2026-11-01T00:00"), utc("2026-11-21T00:00"), 9)
    assert days == [utc("2026-11-19T15:00"), utc("2026-11-20T15:00")]
    assert next(schedule.following(utc("2026-11-01T00:00"))) == days[0]


@pytest.mark.parametrize("name", ["Europe/Berln", "", "/etc/passwd", "../UTC", "CEST", "x" * 1000])
def test_an_unknown_zone_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone is named .* e.g. Europe/Berlin") as refused:
        find_zone(name)
    assert len(str(refused.value)) < 250


FIELDS = st.tuples(
    st.sampled_from(["*", "0", "30", "5,35", "*/15", "10-20/5"]),
    st.sampled_from(["*", "0", "2", "1,2,3", "*/6", "22-23"]),
    st.sampled_from(["*", "1", "29", "31", "15,28"]),
    st.sampled_from(["*", "2", "3,10", "MAR", "1-6"]),
    st.sampled_from(["*", "0", "MON-FRI", "6"]),
)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]


@settings(max_examples=40, deadline=None)
@given(FIELDS, st.sampled_from(ZONES), st.integers(0, 21 * 365 * 24 * 60), st.integers(1, 60))
def test_times_are_the_wall_times_of_a_second_library_at_their_first_moment(
    fields: tuple[str, ...], zone: str, minutes: int, hours: int
) -> None:
    """croniter on naive times: of time zones it says nothing here, of cron everything."""
    cron, place = " ".join(fields), ZoneInfo(zone)
    assume(_is_ever_due(cron))
    after = datetime(2011, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    until = after + timedelta(hours=hours)
    begin = (after - timedelta(days=2)).replace(tzinfo=None)
    days = (until + timedelta(days=2)).replace(tzinfo=None)
    walls = list(_walls(cron, begin, days))
    expected = sorted({at for wall in walls if after < (at := _first_reading(wall, place)) <= until})
    found = Schedule(cron, zone).due(after, until, 100_000)
    assert found == expected
    assert all(moment(wall, place) == _first_reading(wall, place) for wall in walls[:5])


def _is_ever_due(cron: str) -> bool:
    try:
        check_cron(cron)
    except ValueError:
        return False
    return True


def _walls(cron: str, begin: datetime, end: datetime) -> list[datetime]:
    found: list[datetime] = []
    times = croniter(cron, begin, max_years_between_matches=10)
    with suppress(CroniterBadDateError):  # not again in ten years
        while (at := times.get_next(datetime)) <= end:
            found.append(at)
    return found


def _first_reading(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first minute of a plain walk through time at which the clock shows the wall time or more.

    Every minute of a window in which the clock shows less at the beginning, and more at the end.
    """
    at = wall.replace(tzinfo=UTC) - timedelta(hours=15)
    offsets = {(at + timedelta(hours=hour)).astimezone(zone).utcoffset() for hour in range(0, 31, 5)}
    if len(offsets) == 1:  # no change near: there is one reading
        (offset,) = offsets
        assert offset is not None
        return wall.replace(tzinfo=UTC) - offset
    while at.astimezone(zone).replace(tzinfo=None) < wall:
        at += timedelta(minutes=1)
    return at
