"""A page of history must cost the same whatever the filters and however many runs there are."""

from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from common.adapters.sqlite.database import Database
from common.adapters.sqlite.history import page_query, page_values
from common.domain.model import RunStatus

T0 = datetime(2026, 11, 21, tzinfo=UTC)
CURSOR = "20261120T060000.000000Z_run_00000000000000000000000000000001"


@pytest.mark.parametrize("status", [None, *RunStatus])
def test_every_page_is_one_stretch_of_one_index(tmp_path: Path, status: str | None) -> None:
    db = Database(tmp_path / "store.db").connection()
    for route, cursor, since, before in product((None, "a/b/c"), (None, CURSOR), (None, T0), (None, T0)):
        query = page_query(route, status, since)
        values = page_values("acme", limit=50, cursor=cursor, route=route, status=status, since=since, before=before)
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}", values)]
        assert plan[0].startswith("SEARCH runs USING "), plan
        if status is not None and not RunStatus(status).is_terminal:
            # Open runs of all organisations, which are few, sorted.
            assert "runs_by_wake (wake_at>?)" in plan[0]
            continue
        found_by = "org_slug=?" + " AND route=?" * (route is not None) + " AND status=?" * (status is not None)
        assert found_by in plan[0] and "requested_at" in plan[0] and len(plan) == 1, plan
