"""The warehouse port on BigQuery, and on the local emulator of it, through the real client.

Job ids are deterministic, which makes them idempotency keys: BigQuery refuses a repeated id (409), and the repeat then
attaches to the job that is there. Table ids reach SQL only after a check of their form; values only as parameters.
"""

import random
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.adapters.bigquery_errors import ConflictError, translated
from common.adapters.bigquery_meta import BigQueryMeta
from common.adapters.bigquery_tables import BigQueryTables
from common.domain.model import Receipt
from common.errors import PermanentError, TransientError
from common.ports import Commit
from common.schema_sync import ensure
from common.table import DATA_DATE, Column, Table

if TYPE_CHECKING:
    from google.cloud import bigquery

TABLE_ID = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]\.[A-Za-z0-9_]{1,1024}\.[A-Za-z0-9_]{1,1024}")
MAX_ID_CHARS = 1024
STAGING_LIFETIME = timedelta(hours=24)

CALL_TIMEOUT_S = 30.0
JOB_TIMEOUT_S = 500.0
UPLOAD_TRIES = 2
"""Further tries of an upload that finds nobody, 1 s and 2 s later; the client's own six take more than a minute."""

COMMIT_TRIES = 16
LONGEST_PAUSE_S = 5.0
"""Between two tries: any time up to a bound that doubles until here, so that those who met once do not meet again."""

COMMIT_SQL = """
DECLARE staged INT64;
BEGIN TRANSACTION;
SET staged = (SELECT COUNT(*) FROM {staging});
SELECT IF(
  (SELECT COUNT(*) FROM {staging} WHERE {misplaced}) > 0,
  ERROR('rows without a value they need, or of a day outside the run'),
  0
);
-- No partition can be left out: the rows to replace were ingested on any day before. It is the clustering, by all four
-- columns of this key, that lets BigQuery read only the blocks that may hold such rows.
DELETE FROM {target}
WHERE x_org_slug = @org AND x_pipeline_id = @pipeline AND x_credential_id = @credential
  AND x_pipeline_run_date BETWEEN @first_day AND @last_day;
INSERT INTO {target}
  ({columns}, x_pipeline_run_date,
   x_org_slug, x_pipeline_id, x_credential_id, x_run_id, x_ingested_at, x_ingestion_date)
SELECT {columns}, x_pipeline_run_date, @org, @pipeline, @credential, @run, @ingested_at, DATE(@ingested_at)
FROM {staging};
COMMIT TRANSACTION;
SELECT staged;
"""


class BigQueryWarehouse:
    """One project's datasets. With ``emulator_url`` it talks to the emulator there, without credentials."""

    def __init__(self, project: str, *, location: str, emulator_url: str | None = None) -> None:
        self._project, self._location, self._emulator_url = project, location, emulator_url
        # The emulator reads decimals wider than 38 digits through a double and loses the end of them.
        self.decimal_digits = (76, 38) if emulator_url is None else (38, 18)
        self._ensured: set[tuple[str, ...]] = set()
        self._deployed: dict[str, str] = {}
        # Held while something is made: threads that all find a table missing would make it against each other.
        self._making = threading.Lock()
        self._writing: dict[tuple[str, ...], threading.Lock] = {}

    @cached_property
    def _client(self) -> "bigquery.Client":
        from google.cloud import bigquery

        with translated("connect to BigQuery"):
            if self._emulator_url is None:
                return bigquery.Client(project=self._project, location=self._location)
            from google.auth.credentials import AnonymousCredentials

            return bigquery.Client(
                project=self._project,
                location=self._location,
                credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
                client_options={"api_endpoint": self._emulator_url},
            )

    @cached_property
    def tables(self) -> BigQueryTables:
        """Tables as such."""
        return BigQueryTables(lambda: self._client, self._location)

    @cached_property
    def meta(self) -> BigQueryMeta:
        """The tables about runs."""
        return BigQueryMeta(lambda: self._client, is_emulator=self._emulator_url is not None)

    def ensure_table(self, target: str, table: Table) -> None:
        key = (target, *(f"{c.name} {c.type} {c.mode}" for c in table.columns))
        with self._making:
            if key not in self._ensured:
                ensure(self.tables, _checked(target), table)
                self._ensured.add(key)

    def create_staging(self, target: str, table: Table, name: str, *, keep: bool = False) -> str:
        from google.cloud import bigquery

        # A table id has no hyphen; in the name of an attempt an underscore in its place stays unique.
        staging = _checked(f"{target}__stage_{name.replace('-', '_')}")
        schema = [*_fields(table.columns), bigquery.SchemaField(DATA_DATE, "DATE", mode="REQUIRED")]
        made = bigquery.Table(staging, schema=schema)
        made.expires = datetime.now(UTC) + STAGING_LIFETIME
        with translated(f"make staging table {staging}"):
            if not keep:
                self._client.delete_table(staging, not_found_ok=True, retry=self._retry(), timeout=CALL_TIMEOUT_S)
            self._client.create_table(made, exists_ok=True, retry=self._retry(), timeout=CALL_TIMEOUT_S)
        return staging

    def load(self, staging: str, table: Table, spool: Path, *, job_id: str) -> int:
        from google.api_core.exceptions import Conflict
        from google.cloud import bigquery

        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            schema=[*_fields(table.columns), bigquery.SchemaField(DATA_DATE, "DATE", mode="REQUIRED")],
            write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
        )
        job: Any
        with translated(f"load rows into {staging}"):
            try:
                with spool.open("rb") as file:
                    job = self._client.load_table_from_file(
                        file,
                        _checked(staging),
                        job_id=_job_id(job_id),
                        job_config=config,
                        num_retries=UPLOAD_TRIES,
                        timeout=CALL_TIMEOUT_S,
                    )
            except Conflict:
                job = self._client.get_job(_job_id(job_id), retry=self._retry(), timeout=CALL_TIMEOUT_S)
            job.result(retry=self._retry(), timeout=JOB_TIMEOUT_S)
        counted = next(self.query(f"SELECT COUNT(*) AS n FROM {_quoted(staging)}"))  # noqa: S608
        rows: int = counted["n"]
        return rows

    def commit(self, write: Commit) -> Receipt:
        columns = ", ".join(f"`{name}`" for name in write.table.names)
        required = [f"`{c.name}` IS NULL" for c in write.table.columns if c.mode == "REQUIRED"]
        day = f"{DATA_DATE} IS NULL OR {DATA_DATE} NOT BETWEEN @first_day AND @last_day"
        sql = COMMIT_SQL.format(
            target=_quoted(write.target),
            staging=_quoted(write.staging),
            columns=columns,
            misplaced=" OR ".join([day, *required]),
        )
        lineage = write.lineage
        params = {
            "org": lineage.org_slug,
            "pipeline": lineage.pipeline_id,
            "credential": lineage.credential_id,
            "run": lineage.run_id,
            "ingested_at": lineage.ingested_at,
            "first_day": write.first_day,
            "last_day": write.last_day,
        }
        # Two runs of one key that meet here would both find nothing to delete where nothing was written yet. BigQuery
        # cancels one of two transactions that delete from one table; the emulator does so only if both delete a row.
        key = (write.target, lineage.org_slug, lineage.pipeline_id, lineage.credential_id)
        with self._writing.setdefault(key, threading.Lock()):
            return self._commit(write, sql, params)

    def _commit(self, write: Commit, sql: str, params: Mapping[str, Any]) -> Receipt:
        for tried in range(COMMIT_TRIES):
            # A conflict ends its job for good, so each try is a job of its own, with an id that a repeat finds again.
            job_id = _job_id(f"{write.job_id}_{tried}")
            try:
                rows = self._run(f"commit to {write.target}", sql, params, job_id, write.labels)
            except ConflictError:
                time.sleep(random.uniform(0.0, min(LONGEST_PAUSE_S, 0.2 * 2**tried)))
                continue
            return Receipt(rows=rows[0]["staged"], table=write.target, job_ids=(job_id,))
        raise TransientError(f"Other writers kept {write.target} busy: {COMMIT_TRIES} commits in a row conflicted.")

    def drop(self, table_id: str) -> None:
        with translated(f"drop {table_id}"):
            self._client.delete_table(
                _checked(table_id), not_found_ok=True, retry=self._retry(), timeout=CALL_TIMEOUT_S
            )

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(query_parameters=_named(params or {}))
        with translated("query"):
            job = self._client.query(sql, config, job_retry=None, retry=self._retry(), timeout=CALL_TIMEOUT_S)
            for row in job.result(retry=self._retry(), timeout=JOB_TIMEOUT_S, page_size=5_000):
                yield dict(row.items())

    def start_call(self, procedure: str, args: Sequence[Any], *, job_id: str) -> None:
        names = [f"a{number}" for number in range(len(args))]
        sql = f"CALL {_quoted(procedure)}({', '.join('@' + name for name in names)})"
        with translated(f"call {procedure}"):
            self._submit(sql, dict(zip(names, args, strict=True)), _job_id(job_id), {})

    def job_done(self, job_id: str, wait_s: float) -> bool | None:
        import concurrent.futures

        from google.api_core.exceptions import NotFound

        with translated(f"finish job {job_id}"):
            try:
                job = self._client.get_job(_job_id(job_id), retry=self._retry(), timeout=CALL_TIMEOUT_S)
            except NotFound:
                return None
            if wait_s <= 0 and not job.done(retry=self._retry(), timeout=CALL_TIMEOUT_S):
                return False
            try:
                job.result(retry=self._retry(), timeout=max(wait_s, 1.0))
            except (concurrent.futures.TimeoutError, TimeoutError):
                return False
            return True

    def ensure_procedure(self, procedure: str, ddl: str) -> None:
        text = sha256(ddl.encode()).hexdigest()
        with self._making:
            if self._deployed.get(_checked(procedure)) == text:
                return
            with translated(f"make procedure {procedure}"):
                job = self._client.query(ddl, job_retry=None, retry=self._retry(), timeout=CALL_TIMEOUT_S)
                job.result(retry=self._retry(), timeout=JOB_TIMEOUT_S)
            self._deployed[procedure] = text

    def _run(
        self, what: str, sql: str, params: Mapping[str, Any], job_id: str, labels: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        """Run a statement or script under this job id, or attach to the job that already has it."""
        with translated(what):
            job = self._submit(sql, params, job_id, labels)
            return [dict(row.items()) for row in job.result(retry=self._retry(), timeout=JOB_TIMEOUT_S)]

    def _submit(self, sql: str, params: Mapping[str, Any], job_id: str, labels: Mapping[str, str]) -> Any:
        from google.api_core.exceptions import Conflict
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(query_parameters=_named(params), labels={k: _label(labels[k]) for k in labels})
        try:
            return self._client.query(
                sql, config, job_id=job_id, job_retry=None, retry=self._retry(), timeout=CALL_TIMEOUT_S
            )
        except Conflict as error:
            if "already exists" not in str(error).lower():
                raise
            return self._client.get_job(job_id, retry=self._retry(), timeout=CALL_TIMEOUT_S)

    @staticmethod
    def _retry() -> Any:
        """Retry what is worth it, but for seconds: a longer outage is for the step's own retry to sit out."""
        from google.cloud.bigquery import DEFAULT_RETRY

        return DEFAULT_RETRY.with_timeout(10.0)


def _fields(columns: Sequence[Column]) -> list["bigquery.SchemaField"]:
    from google.cloud import bigquery

    return [bigquery.SchemaField(c.name, c.type, mode=c.mode, description=c.description) for c in columns]


def _checked(table_id: str) -> str:
    if not TABLE_ID.fullmatch(table_id):
        raise PermanentError(f"{table_id!r} is not a table id of the form project.dataset.name.")
    return table_id


def _quoted(table_id: str) -> str:
    return f"`{_checked(table_id)}`"


def _job_id(text: str) -> str:
    """The text as a job id: as it is if it may be one, else with a hash, so that two texts never share an id."""
    if re.fullmatch(rf"[A-Za-z0-9_-]{{1,{MAX_ID_CHARS}}}", text):
        return text
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', text)[:900]}_{sha256(text.encode()).hexdigest()}"


def _label(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "_", text.lower())[:63]


def _named(params: Mapping[str, Any]) -> list["bigquery.ScalarQueryParameter"]:
    from google.cloud import bigquery

    return [bigquery.ScalarQueryParameter(name, _parameter_type(value), value) for name, value in params.items()]


def _parameter_type(value: Any) -> str:
    match value:
        case bool():
            return "BOOL"
        case int():
            return "INT64"
        case Decimal():
            return "BIGNUMERIC"
        case datetime():
            return "TIMESTAMP"
        case date():
            return "DATE"
        case None | str():
            return "STRING"
    raise PermanentError(f"A {type(value).__name__} can't be a query parameter.")
