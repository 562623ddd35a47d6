"""Pages of runs, newest first: which index finds them, and where one page ends and the next begins.

Each combination of filters reads one stretch of one index, so that a page costs the same among a million runs as among
ten. A run's status changes with every transition, and an index on it would be written as often: the indexes by status
hold ended runs only, which never change again. Open runs are few, and found by the index of those that the sweep looks
at.
"""

from datetime import datetime

from common.adapters.cursor import decode_cursor
from common.adapters.sqlite.database import to_micros
from common.domain.model import RunStatus

LATEST = 2**62
ENDED = "status IN ('completed', 'failed', 'cancelled')"
"""As the partial indexes have it, word for word: SQLite takes one only for a query that says the same."""


def page_query(route: str | None, status: str | None, since: datetime | None) -> str:
    """Return the SELECT of run ids and times for these filters; ``page_values`` has what it asks for."""
    index, more = "runs_by_org" if route is None else "runs_by_route", ""
    if status is not None:
        more = " AND status = :status"
        if RunStatus(status).is_terminal:
            index, more = "runs_by_end" if route is None else "runs_by_route_and_end", f"{more} AND {ENDED}"
        else:
            index, more = "runs_by_wake", f"{more} AND wake_at IS NOT NULL"
    if route is not None:
        more += " AND route = :route"
    if since is not None:
        more += " AND requested_at >= :since"
    return (
        f"SELECT run_id, requested_at FROM runs INDEXED BY {index} WHERE org_slug = :org"  # noqa: S608
        f" AND (requested_at, run_id) < (:at, :run){more} ORDER BY requested_at DESC, run_id DESC LIMIT :limit"
    )


def page_values(
    org_slug: str,
    *,
    limit: int,
    cursor: str | None,
    route: str | None,
    status: str | None,
    since: datetime | None,
    before: datetime | None,
) -> dict[str, str | int | None]:
    """Return the values of the query, which finds one run more than ``limit`` if there is another page."""
    first = (LATEST if before is None else to_micros(before), "")
    at, run_id = first if cursor is None else min(first, _place(cursor))
    return {
        "org": org_slug,
        "at": at,
        "run": run_id,
        "route": route,
        "status": status,
        "since": None if since is None else to_micros(since),
        "limit": limit + 1,
    }


def _place(cursor: str) -> tuple[int, str]:
    at, run_id = decode_cursor(cursor)
    return to_micros(at), run_id
