"""Previews: show what one would change, promote or discard it."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from flask import Response

from common.bootstrap import engine
from common.runs.previews import Previews
from common.runs.request import ControlBody
from common.writes.preview_diff import RowDiff, TableDiff
from functions.api.inputs import NoQuery, RunPath
from functions.api.part import part
from functions.api.runs import audit_decision, find_run
from functions.api.views import Preview, RunView, View, preview_state, run_view

routes = part("previews", __doc__)


class DayView(View):
    """Numbers of added, changed, removed and unchanged rows of one day."""

    day: date
    added: int
    changed: int
    removed: int
    same: int


class MoneyView(View):
    """The sum of an amount column in one currency, before and after, as text."""

    column: str
    currency: str | None
    before: str
    after: str
    change: str


class SampleView(View):
    """One group of rows that differs between the table and the preview."""

    kind: Literal["added", "changed", "removed"]
    day: date
    identity: dict[str, Any]
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class TableView(View):
    """The differences of one table."""

    table: str
    days: list[DayView]
    money: list[MoneyView]
    samples: list[SampleView]


class DiffView(View):
    """What promoting a preview would change, table by table."""

    run_id: str
    preview_of: str | None
    preview: Preview | None
    tables: list[TableView]


@routes.get("/pipelines/preview/<org>/<run_id>", responses={200: DiffView})
def preview(path: RunPath, query: NoQuery) -> Response:
    """Show what promoting a preview would change, table by table"""
    run = find_run(path)
    tables = [_table(diff) for diff in Previews(engine()).diffs(run)]
    view = DiffView(run_id=run.run_id, preview_of=run.request.rerun_of, preview=preview_state(run), tables=tables)
    return view.response()


@routes.post("/pipelines/promote/<org>/<run_id>", responses={200: RunView})
def promote(path: RunPath, query: NoQuery, body: ControlBody) -> Response:
    """Replace the tables' rows by the preview's, in one transaction for all tables"""
    audit_decision(body)
    return run_view(Previews(engine()).promote(find_run(path), who=body.by, why=body.reason)).response()


@routes.post("/pipelines/discard/<org>/<run_id>", responses={200: RunView})
def discard(path: RunPath, query: NoQuery, body: ControlBody) -> Response:
    """Drop a preview's rows"""
    audit_decision(body)
    return run_view(Previews(engine()).discard(find_run(path), who=body.by, why=body.reason)).response()


def _table(diff: TableDiff) -> TableView:
    return TableView(
        table=diff.table,
        days=[
            DayView(day=day.day, added=day.added, changed=day.changed, removed=day.removed, same=day.same)
            for day in diff.days
        ],
        money=[
            MoneyView(
                column=money.column,
                currency=money.currency or None,
                before=f"{money.before:f}",
                after=f"{money.after:f}",
                change=f"{money.change:f}",
            )
            for money in diff.money
        ],
        samples=[_sample(row) for row in diff.samples],
    )


def _sample(row: RowDiff) -> SampleView:
    identity = {name: value for name, value in row.identity.items() if value is not None}
    before, after = _numbers(row.before), _numbers(row.after)
    return SampleView(kind=row.kind, day=row.day, identity=identity, before=before, after=after)


def _numbers(side: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if side is None:
        return None
    return {name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in side.items()}
