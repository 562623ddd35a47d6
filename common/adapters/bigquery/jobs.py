"""Jobs: each has its caller's labels and reports its id to the caller; a repeated id attaches to the existing job."""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.adapters.bigquery.errors import translated
from common.adapters.bigquery.names import checked, label, parameters, safe_job_id

if TYPE_CHECKING:
    from google.cloud import bigquery

CALL_TIMEOUT_S = 30.0
# Below the 540 s that a function may run.
JOB_TIMEOUT_S = 500.0
UPLOAD_TRIES = 2
"""Retries of an upload that can't connect, after 1 s and 2 s; the client's default of six takes more than a minute."""


class Connection:
    """One project's client, created on first use. With ``emulator_url`` it connects to the emulator there."""

    def __init__(self, project: str, location: str, emulator_url: str | None) -> None:
        self.location = location
        self.has_locations = emulator_url is None  # the emulator says US of every table
        self._project, self._emulator_url = project, emulator_url
        self._lock = threading.Lock()
        self._made: bigquery.Client | None = None

    @property
    def client(self) -> "bigquery.Client":
        """The client, shared by all threads."""
        with self._lock:
            if self._made is None:
                self._made = self._connect()
            return self._made

    def _connect(self) -> "bigquery.Client":
        from google.cloud import bigquery

        with translated("connect to BigQuery"):
            if self._emulator_url is None:
                return bigquery.Client(project=self._project, location=self.location)
            from google.auth.credentials import AnonymousCredentials

            return bigquery.Client(
                project=self._project,
                location=self.location,
                credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
                client_options={"api_endpoint": self._emulator_url},
            )


def patience() -> Any:
    """Return the client's default retry, limited to seconds: the step's own retry covers a longer outage."""
    from google.cloud.bigquery import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(10.0)


class Jobs:
    """Starts jobs with these labels and calls ``seen`` with each job's id."""

    def __init__(
        self, connection: Connection, labels: Mapping[str, str], seen: Callable[[str], None] = lambda _job_id: None
    ) -> None:
        self._connection, self._seen = connection, seen
        self._labels = {name: label(value) for name, value in labels.items()}

    def labelled(self, labels: Mapping[str, str], seen: Callable[[str], None]) -> "Jobs":
        """Return a copy with these labels."""
        return Jobs(self._connection, labels, seen)

    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        *,
        job_id: str | None = None,
        limit_ms: int | None = None,
    ) -> Any:
        """Start a statement or script and return its job; BigQuery ends one that takes longer than ``limit_ms``."""
        from google.api_core.exceptions import Conflict
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(query_parameters=parameters(params or {}), labels=self._labels)
        if limit_ms is not None:
            config.job_timeout_ms = limit_ms
        # No job_retry: it would start a failed job again under an id that nobody here knows.
        times: dict[str, Any] = {"job_retry": None, "retry": patience(), "timeout": CALL_TIMEOUT_S}
        try:
            name = safe_job_id(job_id) if job_id else None
            job = self._connection.client.query(sql, config, job_id=name, **times)
        except Conflict as error:
            if not job_id or "already exists" not in str(error).lower():
                raise
            job = self.found(job_id)
        self._seen(job.job_id)
        return job

    def dry_run_bytes(self, sql: str, params: Mapping[str, Any]) -> int | None:
        """Return the most bytes that a statement would read, or None if BigQuery gives no upper bound.

        A dry run can't see SQL that a procedure assembles when it is called, and then returns a lower bound.
        """
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(query_parameters=parameters(params), dry_run=True, use_query_cache=False)
        job = self._connection.client.query(sql, config, job_retry=None, retry=patience(), timeout=CALL_TIMEOUT_S)
        # UNKNOWN, PRECISE, LOWER_BOUND or UPPER_BOUND; the client has no public property for it.
        accuracy = job._properties.get("statistics", {}).get("query", {}).get("totalBytesProcessedAccuracy")
        return job.total_bytes_processed if accuracy in ("PRECISE", "UPPER_BOUND") else None

    def rows(self, job: Any) -> Iterator[dict[str, Any]]:
        """Wait for a job and yield its rows."""
        for row in job.result(retry=patience(), timeout=JOB_TIMEOUT_S, page_size=5_000):
            yield dict(row.items())

    def load(self, table_id: str, schema: list[Any], parquet: Path, *, job_id: str) -> None:
        """Append a Parquet file to an existing table, and wait for the job."""
        from google.api_core.exceptions import Conflict
        from google.cloud import bigquery

        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            schema=schema,
            write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            labels=self._labels,
        )
        times: dict[str, Any] = {"num_retries": UPLOAD_TRIES, "timeout": CALL_TIMEOUT_S}
        name = safe_job_id(job_id)
        job: Any
        with translated(f"load rows into {table_id}"):
            try:
                with parquet.open("rb") as file:
                    job = self._connection.client.load_table_from_file(
                        file, checked(table_id), job_id=name, job_config=config, **times
                    )
            except Conflict:
                job = self.found(job_id)
            self._seen(job.job_id)
            job.result(retry=patience(), timeout=JOB_TIMEOUT_S)

    def found(self, job_id: str) -> Any:
        """Return the job with that id, and report it to ``seen``. Raises the client's NotFound."""
        job = self._connection.client.get_job(safe_job_id(job_id), retry=patience(), timeout=CALL_TIMEOUT_S)
        self._seen(job.job_id)
        return job
