# ruff: noqa: S608 - identifiers are checked where they are filled in, values are parameters
"""The script of a commit: one transaction that reads the ledger, checks staging, writes rows and ledger (0009).

Several writes, of one table or of several, share a transaction as blocks of one script: the second's parameters and
variables end in ``_1``, and so on. A block refuses by raising ``pipeline-ops:<number><word>{json}``, which
``refusals.py`` translates to an error; the transaction then changes nothing.

The script uses only what both BigQuery and the emulator support. In the emulator, variables survive a COMMIT but not a
ROLLBACK, so a script that has nothing to write commits, too. MERGE does not work in the emulator's transactions; DELETE
by key plus INSERT has the same effect. Subqueries on a second table join on equality, or BigQuery can't decorrelate
them.
"""

import re
from collections.abc import Sequence

from common.adapters.bigquery.names import column, ledger_of, quoted
from common.platform.errors import PermanentError
from common.ports.warehouse import Commit
from common.tables.contract import DATA_DATE

KEY = "x_org_slug = @org AND x_pipeline_id = @pipeline AND x_credential_id = @credential"
STAMPS = {
    "x_org_slug": "@org",
    "x_pipeline_id": "@pipeline",
    "x_credential_id": "@credential",
    "x_run_id": "@run",
    "x_ingested_at": "@ingested_at",
    "x_ingestion_date": "@ingestion_date",
}
"""The value that the engine writes into each row, by column. ``x_pipeline_run_date`` comes with the row."""
OF_DAYS = f"{DATA_DATE} BETWEEN @first_day AND @last_day"
SAME_DAYS = "first_day <= @last_day AND last_day >= @first_day"
WITHIN_DAYS = "first_day >= @first_day AND last_day <= @last_day"
SAME_PARTITION = "x_ingestion_date = @ingestion_date"
MODES = ("replace_key", "merge", "append_once", "truncate_partition")

MAKE_LEDGER = """
CREATE TABLE IF NOT EXISTS {ledger} (
  x_org_slug STRING, x_pipeline_id STRING, x_credential_id STRING, first_day DATE, last_day DATE, fence INT64,
  x_run_id STRING, step_id STRING, attempt INT64, mode STRING, row_count INT64, content_hash STRING,
  oldest_partition DATE, newest_partition DATE, x_ingested_at TIMESTAMP, x_ingestion_date DATE
)
CLUSTER BY x_org_slug, x_pipeline_id, x_credential_id
OPTIONS (description = 'Commits into the table of the same name: fences and partitions. One row has no run: the gate.')
AS
SELECT
  x_org_slug, x_pipeline_id, x_credential_id, x_pipeline_run_date AS first_day, x_pipeline_run_date AS last_day,
  0 AS fence, x_run_id, '' AS step_id, 0 AS attempt, '' AS mode, COUNT(*) AS row_count, '' AS content_hash,
  MIN(x_ingestion_date) AS oldest_partition, MAX(x_ingestion_date) AS newest_partition,
  MAX(x_ingested_at) AS x_ingested_at, MAX(x_ingestion_date) AS x_ingestion_date
FROM {target}
WHERE x_run_id IS NOT NULL AND x_pipeline_run_date IS NOT NULL
GROUP BY x_org_slug, x_pipeline_id, x_credential_id, x_pipeline_run_date, x_run_id
UNION ALL
SELECT
  CAST(NULL AS STRING) AS x_org_slug, CAST(NULL AS STRING) AS x_pipeline_id, CAST(NULL AS STRING) AS x_credential_id,
  CAST(NULL AS DATE) AS first_day, CAST(NULL AS DATE) AS last_day, 0 AS fence, CAST(NULL AS STRING) AS x_run_id,
  '' AS step_id, 0 AS attempt, CAST(NULL AS STRING) AS mode, 0 AS row_count, '' AS content_hash,
  CAST(NULL AS DATE) AS oldest_partition, CAST(NULL AS DATE) AS newest_partition,
  CAST(NULL AS TIMESTAMP) AS x_ingested_at, CAST(NULL AS DATE) AS x_ingestion_date
"""

DECLARE = """
DECLARE outcome STRING;
DECLARE found STRUCT<
  gates INT64, mode STRING, stamp TIMESTAMP, n INT64, content_hash STRING,
  commits INT64, fence INT64, last_run STRING, oldest DATE, newest DATE
>;
DECLARE staged STRUCT<n INT64, strays STRING, empties STRING, null_keys STRING, foreigners INT64>;
DECLARE doubled INT64;
DECLARE days_left STRING;
DECLARE problem STRING;
DECLARE v_oldest, v_newest DATE;
"""
VARIABLES = re.compile(
    r"(?<![\w@.'`])(?<!AS )(outcome|found|staged|doubled|days_left|problem|v_oldest|v_newest)(?!['`\w}])"
)
"""Not after AS: there it names a column, which is the same in every block."""

READ = """
-- The gate: every commit changes this row, so of two transactions that meet at this table BigQuery cancels one,
-- even if neither finds a row to replace.
UPDATE {ledger} SET mode = COALESCE(mode, @mode), fence = fence + 1 WHERE x_run_id IS NULL;

SET found = (
  SELECT AS STRUCT
    COUNTIF(x_run_id IS NULL) AS gates,
    MAX(IF(x_run_id IS NULL, mode, NULL)) AS mode,
    MAX(IF(mine, x_ingested_at, NULL)) AS stamp,
    MAX(IF(mine, row_count, NULL)) AS n,
    MAX(IF(mine, content_hash, NULL)) AS content_hash,
    COUNTIF(meets) AS commits,
    MAX(IF(meets, fence, NULL)) AS fence,
    -- The emulator cuts to one before it leaves out NULLs, so what counts is sorted to the front.
    ARRAY_AGG(IF(meets, x_run_id, NULL) IGNORE NULLS ORDER BY IF(meets, fence, -1) DESC LIMIT 1)[SAFE_OFFSET(0)]
      AS last_run,
    MIN(IF(meets, oldest_partition, NULL)) AS oldest,
    MAX(IF(meets, newest_partition, NULL)) AS newest
  FROM (
    SELECT *, x_run_id IS NOT NULL AND {meets} AS meets, x_run_id = @run AND step_id = @step AND {repeats} AS mine
    FROM {ledger}
    WHERE x_run_id IS NULL OR ({key})
  )
);

-- More gates than one do no harm: all are changed. The emulator fills a table twice that two processes make at once.
SET problem = CASE
  WHEN found.gates = 0 THEN 'gate{{}}'
  WHEN found.mode != @mode THEN CONCAT('mode', TO_JSON_STRING(STRUCT(found.mode AS mode)))
END;
IF problem IS NOT NULL THEN RAISE USING MESSAGE = CONCAT('pipeline-ops:{number}', problem); END IF;
IF found.stamp IS NOT NULL THEN SET outcome = 'repeated'; END IF;
"""

FENCED = """
IF outcome IS NULL AND found.fence > @fence THEN
  RAISE USING MESSAGE = CONCAT('pipeline-ops:{number}superseded', TO_JSON_STRING(STRUCT(found.last_run AS run)));
END IF;
"""

ONCE = """
SET days_left = (
  SELECT STRING_AGG(CAST(day AS STRING), ', ' ORDER BY day)
  FROM UNNEST(GENERATE_DATE_ARRAY(@first_day, @last_day)) AS day
  WHERE day NOT IN (
    SELECT held
    FROM {ledger}, UNNEST(GENERATE_DATE_ARRAY(GREATEST(first_day, @first_day), LEAST(last_day, @last_day))) AS held
    WHERE {key} AND {meets}
  )
);
IF outcome IS NULL AND days_left IS NULL THEN SET outcome = 'appended before'; END IF;
IF outcome IS NULL AND found.commits > 0 THEN
  RAISE USING MESSAGE =
    CONCAT('pipeline-ops:{number}partly', TO_JSON_STRING(STRUCT(found.last_run AS run, days_left AS days)));
END IF;
"""

CHECK = """
IF outcome IS NULL THEN  -- of a repeat, the staging table may be gone
SET staged = (
  SELECT AS STRUCT
    COUNT(*) AS n,
    MIN(IF({stray}, COALESCE(CAST(x_pipeline_run_date AS STRING), 'NULL'), NULL)) AS strays,
    {nulls} AS empties,
    {null_keys} AS null_keys,
    COUNTIF(x_org_slug != @org) AS foreigners
  FROM {staging}
);
{doubled}
SET problem = CASE
  WHEN @spooled >= 0 AND staged.n != @spooled THEN CONCAT('rows', TO_JSON_STRING(STRUCT(staged.n AS n)))
  WHEN staged.foreigners > 0 THEN CONCAT('organisation', TO_JSON_STRING(STRUCT(staged.foreigners AS n)))
  WHEN staged.empties != '' THEN CONCAT('nulls', TO_JSON_STRING(STRUCT(staged.empties AS columns)))
  WHEN staged.strays IS NOT NULL THEN CONCAT('day', TO_JSON_STRING(STRUCT(staged.strays AS day)))
  WHEN staged.null_keys != '' THEN CONCAT('null_keys', TO_JSON_STRING(STRUCT(staged.null_keys AS columns)))
  WHEN doubled > 0 THEN CONCAT('doubled', TO_JSON_STRING(STRUCT(doubled AS n)))
  WHEN staged.n = 0 AND @on_empty = 'fail' THEN 'empty{{}}'
END;
IF problem IS NOT NULL THEN RAISE USING MESSAGE = CONCAT('pipeline-ops:{number}', problem); END IF;
IF staged.n = 0 AND @on_empty = 'keep' THEN SET outcome = 'kept'; END IF;
END IF;
"""

DOUBLED = """
SET doubled = (
  SELECT COUNT(*) FROM (SELECT 1 AS one FROM {staging} GROUP BY x_pipeline_run_date, {keys} HAVING COUNT(*) > 1)
);
"""

DELETE = """
-- Variables of their own, not fields of a struct: what prunes partitions should be as plain as can be. (v_: a column
-- of the same name would win.)
SET v_oldest = (SELECT found.oldest);  -- the emulator reads no field without the SELECT
SET v_newest = (SELECT found.newest);
IF outcome IS NULL AND found.commits > 0 THEN
  DELETE FROM {target} AS there WHERE {doomed};
  DELETE FROM {ledger} WHERE {key} AND {replaced};
END IF;
"""

WRITE = """
IF outcome IS NULL THEN
  INSERT INTO {target} ({columns}, x_pipeline_run_date, {lineage})
  SELECT {columns}, x_pipeline_run_date, {stamps}
  FROM {staging};
  INSERT INTO {ledger}
    (first_day, last_day, fence, step_id, attempt, mode, row_count, content_hash, oldest_partition, newest_partition,
     {lineage})
  SELECT
    @first_day AS first_day, @last_day AS last_day, @fence AS fence, @step AS step_id, @attempt AS attempt,
    @mode AS mode, staged.n AS row_count, @content_hash AS content_hash, {oldest} AS oldest_partition,
    {newest} AS newest_partition, {stamps};
  -- In a transaction BigQuery's clock stands still at its start; the job's time limit does the rest.
  IF CURRENT_TIMESTAMP() > @not_after THEN RAISE USING MESSAGE = 'pipeline-ops:{number}late{{}}'; END IF;
  SET outcome = 'committed';
END IF;
"""

TELL = """
SELECT
  {number} AS number,
  outcome AS outcome,
  CASE outcome WHEN 'committed' THEN staged.n WHEN 'repeated' THEN found.n ELSE 0 END AS n,
  CASE outcome WHEN 'committed' THEN @ingested_at WHEN 'repeated' THEN found.stamp END AS ingested_at,
  CASE outcome WHEN 'committed' THEN @content_hash WHEN 'repeated' THEN found.content_hash ELSE '' END AS content_hash,
  found.last_run AS run
"""


def make_ledger(target: str) -> str:
    """Return the statement that creates a table's ledger, filled from the existing rows.

    One statement does both: a ledger without these rows would hide them from the next DELETE, and double them.
    """
    return MAKE_LEDGER.format(ledger=quoted(ledger_of(target)), target=quoted(target))


def script(writes: Sequence[Commit]) -> str:
    """Return one script that commits all these writes; its result has one row for each, in order.

    Raises PermanentError for an unknown mode, or keys that are not columns.
    """
    declared = "".join(_numbered(DECLARE, number) for number in range(len(writes)))
    blocks = "".join(_block(write, number) for number, write in enumerate(writes))
    told = "UNION ALL".join(_with_parameters(_numbered(TELL, n).format(number=n), n) for n in range(len(writes)))
    # The receipts are a subquery, because GoogleSQL refuses ORDER BY in a query without FROM, as that of one write is.
    return f"{declared}\nBEGIN TRANSACTION;\n{blocks}\nCOMMIT TRANSACTION;\nSELECT * FROM ({told}) ORDER BY number;"


def _block(write: Commit, number: int) -> str:
    mode, keys = write.write.mode, write.write.keys
    if mode not in MODES:
        raise PermanentError(f"write: mode {mode!r} is none of {', '.join(MODES)}.")
    missing = [key for key in keys if key not in write.table.names]
    if missing or (mode == "merge" and not keys):
        what = f"the table has no column {', '.join(missing)}" if missing else "mode merge needs at least one"
        raise PermanentError(f"write: keys: {what}. Name columns of {write.table.table} that tell its rows apart.")
    names = [column(name) for name in write.table.names]
    required = [column(c.name) for c in write.table.columns if c.mode == "REQUIRED"]
    key_columns = [column(key) for key in keys]
    staging = _staged_rows(write)
    # For an append, a commit of any earlier attempt of the step counts as this one: appending again would double it.
    repeats = "TRUE" if mode == "append_once" else "attempt = @attempt"
    parts = [READ, *((ONCE,) if mode == "append_once" else (FENCED,)), CHECK]
    parts += [*(() if mode == "append_once" else (DELETE,)), WRITE]
    oldest = newest = "@ingestion_date"
    if mode == "merge":  # rows that it did not touch stay in older partitions, which the next DELETE must not skip
        oldest, newest = (
            f"{pick}(IFNULL({known}, @ingestion_date), @ingestion_date)"
            for pick, known in (("LEAST", "v_oldest"), ("GREATEST", "v_newest"))
        )
    block = _numbered("".join(parts), number).format(
        number=number,
        ledger=quoted(ledger_of(write.target)),
        target=quoted(write.target),
        staging=staging,
        key=KEY,
        meets=SAME_PARTITION if mode == "truncate_partition" else SAME_DAYS,
        repeats=repeats,
        stray=f"{DATA_DATE} IS NULL OR {DATA_DATE} NOT BETWEEN @first_day AND @last_day",
        nulls=_with_nulls(required),
        null_keys=_with_nulls(key_columns),
        doubled=_numbered(DOUBLED, number).format(staging=staging, keys=", ".join(key_columns)) if keys else "",
        doomed=_numbered(doomed(mode, staging, key_columns), number),
        replaced=SAME_PARTITION if mode == "truncate_partition" else WITHIN_DAYS,
        columns=", ".join(names),
        lineage=", ".join(STAMPS),
        stamps=", ".join(f"{value} AS {name}" for name, value in STAMPS.items()),
        oldest=_numbered(oldest, number),
        newest=_numbered(newest, number),
    )
    return _with_parameters(block, number)


def _staged_rows(write: Commit) -> str:
    """Return SQL for the staged rows as the target takes them."""
    staging = quoted(write.staging)
    if write.of_days:
        return f"(SELECT * FROM {staging} WHERE {KEY} AND {OF_DAYS})"
    texts = [column(c.name) for c in write.table.columns if c.type == "JSON"] if write.spooled else []
    if not texts:
        return staging
    # Rounded, because the default mode refuses a number that a double can't hold, such as 0.33333333333333333333.
    parsed = ", ".join(f"PARSE_JSON({name}, wide_number_mode => 'round') AS {name}" for name in texts)
    return f"(SELECT * REPLACE ({parsed}) FROM {staging})"


def suffix(number: int) -> str:
    """Return the suffix of the parameters and variables of that block."""
    return f"_{number}" if number else ""


def _numbered(sql: str, number: int) -> str:
    return VARIABLES.sub(rf"\1{suffix(number)}", sql)


def _with_parameters(sql: str, number: int) -> str:
    return re.sub(r"@(\w+)", rf"@\1{suffix(number)}", sql)


def doomed(mode: str, staging: str, keys: Sequence[str]) -> str:
    """Return the condition for the rows of the target to delete, limited first to the partitions in the ledger."""
    if mode == "truncate_partition":
        return f"{SAME_PARTITION} AND {KEY}"
    rows = f"x_ingestion_date BETWEEN v_oldest AND v_newest AND {KEY} AND {OF_DAYS}"
    if mode != "merge":
        return rows
    same = " AND ".join(f"fresh.{key} = there.{key}" for key in (DATA_DATE, *keys))
    return f"{rows} AND EXISTS (SELECT 1 FROM {staging} AS fresh WHERE {same})"


def _with_nulls(columns: Sequence[str]) -> str:
    """Return SQL for the names of the columns that hold a NULL; an empty string if none does."""
    if not columns:
        return "''"
    each = ", ".join(f"IF(COUNTIF({name} IS NULL) > 0, '{name.strip('`')}', NULL)" for name in columns)
    return f"ARRAY_TO_STRING([{each}], ', ')"
