"""Writes meta rows, one script job per write, and reads the statistics of jobs.

The rows are a JSON parameter: no load job (BigQuery allows 1,500 a table and day) and no staging. INSERTs do not
conflict with each other, so runs of an organisation may end at the same time. The job id makes a write happen once: a
second writer attaches to the first one's job. A failed job wrote nothing, so the next number is tried.
"""

import itertools
import json
import threading
from datetime import UTC, datetime
from typing import Any

from common.adapters.bigquery.errors import translated
from common.adapters.bigquery.jobs import CALL_TIMEOUT_S, Connection, patience
from common.adapters.bigquery.names import label, quoted
from common.ports.meta import JobStats, MetaRows, MetaWrite
from common.tables.contract import Column

JOB_TIMEOUT_S = 300.0

SCRIPT = """
DECLARE is_there BOOL DEFAULT (
  SELECT COUNT(*) > 0 FROM {marker} WHERE run_id = @run AND run_ended_at = @ended_at
);
IF NOT is_there THEN
  BEGIN TRANSACTION;
  {inserts}
  COMMIT TRANSACTION;
END IF;
"""


class BigQueryMeta:
    """The ``MetaWarehouse`` port. With ``is_emulator``, unfinished jobs older than this process are dead."""

    def __init__(self, connection: Connection, *, is_emulator: bool) -> None:
        self._connection, self._is_emulator = connection, is_emulator
        self._started_at = datetime.now(UTC)
        # The emulator may run both of two new jobs that arrive with one id at the same instant. 64 locks by hash of the
        # id are enough to prevent that, and need no cleaning up.
        self._turns = [threading.Lock() for _ in range(64)]

    def append(self, write: MetaWrite) -> None:
        with self._turns[hash(write.job_id) % len(self._turns)], translated(f"keep run {write.run_id}"):
            for number in itertools.count():
                job, is_ours = self._started(write, f"{write.job_id}_{number}")
                if not is_ours and self._has_failed(job):
                    continue
                job.result(**_times(JOB_TIMEOUT_S))
                return

    def _started(self, write: MetaWrite, job_id: str) -> tuple[Any, bool]:
        """Start the job, or get the existing one with this id; return it, and whether it was started here."""
        from google.api_core.exceptions import Conflict
        from google.cloud import bigquery

        values: dict[str, tuple[str, Any]] = {
            "run": ("STRING", write.run_id),
            "ended_at": ("TIMESTAMP", write.run_ended_at),
        }
        for number, part in enumerate(write.parts):
            values[f"rows{number}"] = ("STRING", json.dumps(part.rows, ensure_ascii=False, allow_nan=False))
        config = bigquery.QueryJobConfig(
            query_parameters=[bigquery.ScalarQueryParameter(name, *value) for name, value in values.items()],
            labels={name: label(value) for name, value in write.labels.items()},
        )
        try:
            job = self._connection.client.query(
                script(write), config, job_id=job_id, job_retry=None, **_times(CALL_TIMEOUT_S)
            )
        except Conflict as error:
            if "already exists" not in str(error).lower():
                raise
            return self._connection.client.get_job(job_id, **_times(CALL_TIMEOUT_S)), False
        return job, True

    def _has_failed(self, job: Any) -> bool:
        if job.state == "DONE":
            return bool(job.error_result)
        return self._is_emulator and job.created < self._started_at  # it died with the emulator's previous process

    def job_stats(self, job_id: str) -> JobStats | None:
        from google.api_core.exceptions import NotFound

        with translated(f"ask for job {job_id}"):
            try:
                job = self._connection.client.get_job(job_id, **_times(CALL_TIMEOUT_S))
            except NotFound:
                return None
        return JobStats(
            job_id=job_id,
            job_type=job.job_type or "",
            statement_type=getattr(job, "statement_type", None) or "",
            started_at=job.started,
            ended_at=job.ended,
            bytes_processed=getattr(job, "total_bytes_processed", None),
            bytes_billed=getattr(job, "total_bytes_billed", None),
            slot_ms=getattr(job, "slot_millis", None),
            labels=dict(job.labels or {}),
        )


def script(write: MetaWrite) -> str:
    """Return the SQL of a write; its parameters are ``run``, ``ended_at`` and ``rows0``, ``rows1``, ..."""
    inserts = "\n  ".join(_insert(part, number) for number, part in enumerate(write.parts))
    return SCRIPT.format(marker=quoted(write.marker), inserts=inserts)


def _insert(part: MetaRows, number: int) -> str:
    columns = ", ".join(f"`{column.name}`" for column in part.table.columns)
    values = ", ".join(f"{_value(column)} AS `{column.name}`" for column in part.table.columns)
    rows = f"UNNEST(JSON_QUERY_ARRAY(PARSE_JSON(@rows{number}))) AS row_"
    return f"INSERT INTO {quoted(part.target)} ({columns}) SELECT {values} FROM {rows};"  # noqa: S608 - checked names


def _value(column: Column) -> str:
    if column.type == "JSON":
        return f"JSON_QUERY(row_, '$.{column.name}')"
    text = f"JSON_VALUE(row_, '$.{column.name}')"
    return text if column.type == "STRING" else f"CAST({text} AS {column.type})"


def _times(timeout_s: float) -> dict[str, Any]:
    return {"retry": patience(), "timeout": timeout_s}
