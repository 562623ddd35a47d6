"""The next month, from any day of any month."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from common.domain.dates import next_month

DAYS = st.dates(date(1970, 1, 1), date(2200, 1, 1))


@given(DAYS)
def test_the_next_month_is_the_first_day_whose_month_differs(day: date) -> None:
    after = next_month(day)
    assert after.day == 1 and after > day
    assert (after - timedelta(days=1)).replace(day=1) == day.replace(day=1)


def test_a_datetime_keeps_its_time_of_day_and_zone() -> None:
    assert next_month(datetime(2026, 12, 31, 6, 30, tzinfo=UTC)) == datetime(2027, 1, 1, 6, 30, tzinfo=UTC)
