"""A dry run counts only where BigQuery gives a bound."""

from types import SimpleNamespace
from typing import Any

import pytest

from common.adapters.bigquery.jobs import Jobs


def dry_run(accuracy: str | None) -> tuple[int | None, Any]:
    asked: list[Any] = []
    said = {} if accuracy is None else {"totalBytesProcessedAccuracy": accuracy}

    def query(_sql: str, config: Any, **_times: Any) -> Any:
        asked.append(config)
        return SimpleNamespace(_properties={"statistics": {"query": said}}, total_bytes_processed=1234)

    connection: Any = SimpleNamespace(client=SimpleNamespace(query=query))
    seen: list[str] = []
    found = Jobs(connection, {}, seen.append).dry_run_bytes("CALL `p.d.sp`(@a0)", {"a0": 1})
    assert seen == []  # it is no job
    return found, asked[0]


@pytest.mark.parametrize(
    ("accuracy", "known"),
    [("PRECISE", 1234), ("UPPER_BOUND", 1234), ("LOWER_BOUND", None), ("UNKNOWN", None), (None, None)],
)
def test_only_what_is_at_most_so_much_is_an_estimate(accuracy: str | None, known: int | None) -> None:
    found, config = dry_run(accuracy)
    assert found == known and config.dry_run is True and config.use_query_cache is False
