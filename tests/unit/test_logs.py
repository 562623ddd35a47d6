"""Log lines as Cloud Logging reads them."""

import io
import json
from typing import Any

from common.platform.logs import bound, configure, logger


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_a_line_has_cloud_loggings_fields_and_the_runs_trace() -> None:
    out = io.StringIO()
    configure("my-project", out)
    with bound(run="run_abc", org="acme"), bound(step="extract", attempt=2):
        logger.warning("rate limited, %d s", 3)
    (line,) = lines(out)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "severity": "WARNING",
        "message": "rate limited, 3 s",
        "logger": "pipeline_ops",
        "run": "run_abc",
        "org": "acme",
        "step": "extract",
        "attempt": 2,
        "logging.googleapis.com/trace": "projects/my-project/traces/abc",
    }


def test_fields_end_with_their_block() -> None:
    out = io.StringIO()
    configure("my-project", out)
    with bound(run="run_abc"):
        pass
    logger.info("after")
    assert "run" not in lines(out)[0]


def test_one_record_is_one_line_even_with_a_stack_trace() -> None:
    out = io.StringIO()
    configure("my-project", out)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("failed\nbadly")
    (line,) = lines(out)
    assert line["severity"] == "ERROR" and "ValueError" in line["stack_trace"]
