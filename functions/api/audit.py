"""The audit log: who did what in an organisation."""

from datetime import datetime
from typing import Annotated

from flask import Response
from pydantic import Field

from common.access.audit import AuditRow
from common.bootstrap import engine
from functions.api.inputs import Cursor, Input, Limit, OrgPath
from functions.api.part import part
from functions.api.views import View

routes = part("audit", __doc__)


class RowsQuery(Input):
    """Selects a page."""

    limit: Limit = 50
    cursor: Cursor = None


class RowView(View):
    """One audited action."""

    at: datetime
    who: Annotated[str, Field(description="key:<id>, cli:<login> or operator.")]
    action: str
    target: str
    outcome: str
    details: dict[str, str]


class RowsView(View):
    """A page of audited actions, newest first."""

    rows: list[RowView]
    next_cursor: str | None


@routes.get("/pipelines/audit/<org>", responses={200: RowsView})
def rows(path: OrgPath, query: RowsQuery) -> Response:
    """List audited actions, newest first"""
    page = engine().audit.list(path.org, limit=query.limit, cursor=query.cursor)
    return RowsView(rows=[_view(row) for row in page.rows], next_cursor=page.next_cursor).response()


def _view(row: AuditRow) -> RowView:
    return RowView(
        at=row.at,
        who=row.who,
        action=row.action,
        target=row.target,
        outcome=row.outcome,
        details=dict(row.details),
    )
