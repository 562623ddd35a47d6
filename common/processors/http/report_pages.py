"""Paged reports of daily buckets, as OpenAI and Anthropic return them: every page, each day once and in order."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta

from common.platform.errors import TransientError
from common.processors.http.client import ProviderClient
from common.processors.http.json_fields import Fields
from common.processors.http.pager import follow

DAY = timedelta(days=1)


def pages(
    client: ProviderClient, path: str, query: Sequence[tuple[str, str]], title: str
) -> Iterator[tuple[Fields, Mapping[str, str]]]:
    """Yield the body and the headers of each page.

    A page's token is bound to its query (OpenAI responds 400 to a changed one), so all parameters stay the same. Raises
    what the client raises, and TransientError for pages that form a circle or do not say whether there are more.
    """

    def ask(token: str | None) -> tuple[Fields, Mapping[str, str]]:
        answer = client.get_json(path, query if token is None else [*query, ("page", token)])
        return Fields.of(answer.body, title), answer.headers

    return follow(ask, lambda page: _next(page[0]), api=title, field="next_page")


def _next(body: Fields) -> str | None:
    more = body.flag("has_more")
    if more is None:  # an empty object, taken for the last page, would be a cost of 0
        body.wrong("has_more", "true or false")
    if not more:
        return None
    return body.text("next_page") or body.wrong("next_page", "the next page's token, because has_more is true")


def midnight(day: date) -> datetime:
    """Return the start of a day, in UTC."""
    return datetime.combine(day, time(), UTC)


class Days:
    """Checks that buckets cover a run's days once and in order; ``start`` is inclusive, ``end`` exclusive."""

    def __init__(self, first: date, last: date) -> None:
        self.start, self.end = midnight(first), midnight(last + DAY)
        self._read_to = self.start
        self._seen: set[date] = set()

    def take(self, bucket: Fields, begins: datetime, ends: datetime, *, start: str, end: str) -> None:
        """Record a bucket; ``start`` and ``end`` name its fields. Raises TransientError for a repeat or a foreign day.

        A repeated bucket would be counted twice; one outside the run's days belongs to another run.
        """
        if not self._read_to <= begins < self.end:
            bucket.wrong(start, f"a time from {self._read_to:%Y-%m-%d %H:%M} to before {self.end:%Y-%m-%d}, ascending")
        if not begins < ends <= begins + DAY:
            bucket.wrong(end, f"at most a day after {start}")
        self._read_to = ends
        self._seen.add(begins.date())

    def require_all(self, title: str, now: datetime) -> None:
        """Raise TransientError if a day that is over has no bucket: the commit would delete its stored rows.

        For reports that mark a day without usage with an empty bucket. Only today's may not exist yet.
        """
        days = (self.end - self.start).days
        every = (self.start.date() + timedelta(days=n) for n in range(days))
        missing = [day for day in every if day < now.astimezone(UTC).date() and day not in self._seen]
        if missing:
            raise TransientError(
                f"{title}: the report has no bucket for {missing[0]}"
                + (f" and {len(missing) - 1} more days" if len(missing) > 1 else "")
                + ". A day without usage has an empty one, so the report is incomplete. "
                "The next attempt reads it again; none of its rows are used."
            )
