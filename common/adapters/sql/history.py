"""Pages of runs, newest first: where one page ends and the next begins."""

from typing import Any

from common.adapters.cursor import decode_cursor
from common.adapters.sql.dialect import Dialect
from common.ports.store import HistoryQuery


def page(dialect: Dialect, query: HistoryQuery) -> tuple[str, dict[str, Any]]:
    """Return the SELECT of a page's runs, and its values. It selects one run more, to show if there is another page.

    Only the filters that the query has become conditions: an unused one (``:route IS NULL OR ...``) would keep the
    planner from the index.
    """
    runs, condition = dialect.runs_for(query)
    values: dict[str, Any] = {"org": query.org_slug, "limit": query.limit + 1}
    # A page starts after the previous page's last run. ``before`` is exclusive: "" sorts before every run id, so no
    # run of that moment is included.
    behind = [] if query.cursor is None else [decode_cursor(query.cursor)]
    behind += [] if query.before is None else [(query.before, "")]
    if behind:
        at, values["run"] = min(behind)
        values["at"] = dialect.time(at)
        condition += f" AND (requested_at, {dialect.RUN_ID}) < (:at, :run)"
    for column, value in (("route", query.route), ("status", query.status)):
        if value is not None:
            values[column] = value
            condition += f" AND {column} = :{column}"
    if query.since is not None:
        values["since"] = dialect.time(query.since)
        condition += " AND requested_at >= :since"
    select = (
        f"SELECT body, version FROM {runs} WHERE org_slug = :org{condition}"  # noqa: S608 - constants
        f" ORDER BY requested_at DESC, {dialect.RUN_ID} DESC LIMIT :limit"
    )
    return select, values
