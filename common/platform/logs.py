"""Structured logs: one JSON object a line, in Cloud Logging's field names.

https://cloud.google.com/logging/docs/structured-logging lists ``severity``, ``message``, ``time`` and
``logging.googleapis.com/trace``. A run's id is its trace, so that one filter shows all functions of a run.
"""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

from common.platform.redaction import scrubbed

_FIELDS: ContextVar[dict[str, str | int]] = ContextVar("pipeline_ops_log_fields", default={})  # noqa: B039

NOTICE = 25
"""Cloud Logging's severity for normal but significant events, which Python's logging lacks."""

logging.addLevelName(NOTICE, "NOTICE")
logger = logging.getLogger("pipeline_ops")


class bound:
    """A block in which every log line has these fields (run, step, attempt, org)."""

    def __init__(self, **fields: str | int) -> None:
        self._fields = fields

    def __enter__(self) -> None:
        self._token = _FIELDS.set(_FIELDS.get() | self._fields)

    def __exit__(self, *_: object) -> None:
        _FIELDS.reset(self._token)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON. The run id becomes a trace name of project ``project_id``."""

    def __init__(self, project_id: str) -> None:
        super().__init__()
        self._project_id = project_id

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, str | int] = {
            "severity": record.levelname,
            "message": scrubbed(record.getMessage()),
            "time": at.isoformat(),
            "logger": record.name,
            **_FIELDS.get(),
        }
        run = line.get("run")
        if isinstance(run, str):
            line["logging.googleapis.com/trace"] = f"projects/{self._project_id}/traces/{run.removeprefix('run_')}"
        if record.exc_info:
            line["stack_trace"] = scrubbed(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def configure(project_id: str, stream: TextIO | None = None) -> None:
    """Send this project's log lines to ``stream`` (standard output, where Cloud Run reads them)."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter(project_id))
    # Replaced, not added: a second call redirects the log instead of writing each line twice.
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
