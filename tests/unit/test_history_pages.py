"""A page of history must cost the same whatever the filters and however many runs there are."""

from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from common.adapters.sql import history
from common.adapters.sql.sqlite.database import Database
from common.domain.model import RunStatus
from common.ports.store import HistoryQuery

T0 = datetime(2026, 11, 21, tzinfo=UTC)
CURSOR = "20261120T060000.000000Z_run_00000000000000000000000000000001"


@pytest.mark.parametrize("status", [None, *RunStatus])
def test_every_page_is_one_stretch_of_one_index(tmp_path: Path, status: str | None) -> None:
    database = Database(tmp_path / "store.db")
    for route, cursor, since, before in product((None, "a/b/c"), (None, CURSOR), (None, T0), (None, T0)):
        query = HistoryQuery("acme", 50, cursor, route, status, since, before)
        select, values = history.page(database.dialect, query)
        plan = [row[3] for row in database.connection().execute(f"EXPLAIN QUERY PLAN {select}", values)]
        assert plan[0].startswith("SEARCH runs USING "), plan
        if status is not None and not RunStatus(status).is_terminal:
            # Open runs of all organisations, which are few, sorted.
            assert "runs_by_wake (wake_at>?)" in plan[0]
            continue
        found_by = "org_slug=?" + " AND route=?" * (route is not None) + " AND status=?" * (status is not None)
        assert found_by in plan[0] and len(plan) == 1, plan
        assert ("requested_at" in plan[0]) == bool(cursor or since or before), plan
