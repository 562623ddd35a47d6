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

LEDGER_COLUMNS = """
  x_org_slug STRING, x_pipeline_id STRING, x_credential_id STRING, first_day DATE, last_day DATE, fence INT64,
  x_run_id STRING, step_id STRING, attempt INT64, mode STRING, row_count INT64, content_hash STRING,
  oldest_partition DATE, newest_partition DATE, x_ingested_at TIMESTAMP, x_ingestion_date DATE
"""

LEDGER_ROWS = """
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
"""What a ledger holds of the rows that its table has, and the gate."""

MAKE_LEDGER = f"""
CREATE TABLE IF NOT EXISTS {{ledger}} ({LEDGER_COLUMNS})
CLUSTER BY x_org_slug, x_pipeline_id, x_credential_id
OPTIONS (description = 'Commits into the table of the same name: fences and partitions. One row has no run: the gate.')
AS
{LEDGER_ROWS}
"""

# Two that do this at once may leave two gates, and rows of fence 0 twice: all gates are updated, and the rows say the
# same.
FILL_LEDGER = f"""
INSERT INTO {{ledger}} ({", ".join(re.findall(r"(\w+) [A-Z]", LEDGER_COLUMNS))})
SELECT * FROM ({LEDGER_ROWS})
WHERE NOT EXISTS (SELECT 1 FROM {{ledger}} WHERE x_run_id IS NULL)
"""

DECLARE = """
DECLARE found STRUCT<
  stamp TIMESTAMP, n INT64, content_hash STRING, commits INT64, last_run STRING, oldest DATE, newest DATE,
  problem STRING, outcome STRING
>;
DECLARE staged STRUCT<n INT64, problem STRING, outcome STRING>;
DECLARE v_oldest, v_newest DATE;
"""
VARIABLES = re.compile(r"(?<![\w@.'`])(?<!AS )(found|staged|v_oldest|v_newest)(?!['`\w}])")
"""Not after AS: there it names a column, which is the same in every block."""

# Each statement takes BigQuery a second or so and bills at least 10 MB a table: what can be asked at once is.
READ = """
-- The gate: every commit changes this row, so of two transactions that meet at this table BigQuery cancels one,
-- even if neither finds a row to replace.
UPDATE {ledger} SET mode = COALESCE(mode, @mode), fence = fence + 1 WHERE x_run_id IS NULL;

SET found = (
  SELECT AS STRUCT
    stamp, n, content_hash, commits, last_run, oldest, newest,
    CASE
      -- More gates than one do no harm: all are changed.
      WHEN gates = 0 THEN 'gate{{}}'
      WHEN mode != @mode THEN CONCAT('mode', TO_JSON_STRING(STRUCT(mode AS mode)))
      WHEN stamp IS NOT NULL THEN NULL
      {refusals}
    END AS problem,
    CASE WHEN stamp IS NOT NULL THEN 'repeated' {outcomes} END AS outcome
  FROM (
    SELECT
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
      MAX(IF(meets, newest_partition, NULL)) AS newest,
      {days_left} AS days_left
    FROM (
      SELECT *, x_run_id IS NOT NULL AND {meets} AS meets, x_run_id = @run AND step_id = @step AND {repeats} AS mine
      FROM {ledger}
      WHERE x_run_id IS NULL OR ({key})
    )
  )
);
IF found.problem IS NOT NULL THEN
  RAISE USING MESSAGE = CONCAT('pipeline-ops:{number}', found.problem);
END IF;
"""

FENCED = "WHEN fence > @fence THEN CONCAT('superseded', TO_JSON_STRING(STRUCT(last_run AS run)))"

PARTLY = """
      WHEN days_left IS NOT NULL AND commits > 0
        THEN CONCAT('partly', TO_JSON_STRING(STRUCT(last_run AS run, days_left AS days)))"""
APPENDED = "WHEN days_left IS NULL THEN 'appended before'"

DAYS_LEFT = """(
        SELECT STRING_AGG(CAST(day AS STRING), ', ' ORDER BY day)
        FROM UNNEST(GENERATE_DATE_ARRAY(@first_day, @last_day)) AS day
        WHERE day NOT IN (
          SELECT held
          FROM
            {ledger},
            UNNEST(GENERATE_DATE_ARRAY(GREATEST(first_day, @first_day), LEAST(last_day, @last_day))) AS held
          WHERE {key} AND {meets}
        )
      )"""

CHECK = """
IF found.outcome IS NULL THEN  -- of a repeat, the staging table may be gone
SET staged = (
  SELECT AS STRUCT
    n,
    CASE
      WHEN @spooled >= 0 AND n != @spooled THEN CONCAT('rows', TO_JSON_STRING(STRUCT(n AS n)))
      WHEN foreigners > 0 THEN CONCAT('organisation', TO_JSON_STRING(STRUCT(foreigners AS n)))
      WHEN empties != '' THEN CONCAT('nulls', TO_JSON_STRING(STRUCT(empties AS columns)))
      WHEN strays IS NOT NULL THEN CONCAT('day', TO_JSON_STRING(STRUCT(strays AS day)))
      WHEN null_keys != '' THEN CONCAT('null_keys', TO_JSON_STRING(STRUCT(null_keys AS columns)))
      WHEN doubled > 0 THEN CONCAT('doubled', TO_JSON_STRING(STRUCT(doubled AS n)))
      WHEN n = 0 AND @on_empty = 'fail' THEN 'empty{{}}'
    END AS problem,
    IF(n = 0 AND @on_empty = 'keep', 'kept', NULL) AS outcome
  FROM (
    SELECT
      COUNT(*) AS n,
      MIN(IF({stray}, COALESCE(CAST(x_pipeline_run_date AS STRING), 'NULL'), NULL)) AS strays,
      {nulls} AS empties,
      {null_keys} AS null_keys,
      COUNTIF(x_org_slug != @org) AS foreigners,
      {doubled} AS doubled
    FROM {staging}
  )
);
IF staged.problem IS NOT NULL THEN
  RAISE USING MESSAGE = CONCAT('pipeline-ops:{number}', staged.problem);
END IF;
IF staged.outcome IS NULL THEN
"""

DOUBLED = """(
        SELECT COUNT(*) FROM (SELECT 1 AS one FROM {staging} GROUP BY x_pipeline_run_date, {keys} HAVING COUNT(*) > 1)
      )"""

DELETE = """
IF found.commits > 0 THEN
  -- Variables of their own, not fields of a struct: what prunes partitions should be as plain as can be. (v_: a column
  -- of the same name would win. The emulator reads no field without the SELECT.)
  SET (v_oldest, v_newest) = ((SELECT found.oldest), (SELECT found.newest));
  DELETE FROM {target} AS there WHERE {doomed};
  DELETE FROM {ledger} WHERE {key} AND {replaced};
END IF;
"""

WRITE = """
INSERT INTO {target} ({columns}, x_pipeline_run_date, {lineage})
SELECT {columns}, x_pipeline_run_date, {stamps}
FROM {rows};
INSERT INTO {ledger}
  (first_day, last_day, fence, step_id, attempt, mode, row_count, content_hash, oldest_partition, newest_partition,
   {lineage})
SELECT
  @first_day AS first_day, @last_day AS last_day, @fence AS fence, @step AS step_id, @attempt AS attempt,
  @mode AS mode, staged.n AS row_count, @content_hash AS content_hash, {oldest} AS oldest_partition,
  {newest} AS newest_partition, {stamps};
-- In a transaction BigQuery's clock stands still at its start; the job's time limit does the rest.
IF CURRENT_TIMESTAMP() > @not_after THEN RAISE USING MESSAGE = 'pipeline-ops:{number}late{{}}'; END IF;
END IF;
END IF;
"""

TELL = """
SELECT
  {number} AS number,
  COALESCE(found.outcome, staged.outcome, 'committed') AS outcome,
  CASE COALESCE(found.outcome, staged.outcome, 'committed')
    WHEN 'committed' THEN staged.n WHEN 'repeated' THEN found.n ELSE 0
  END AS n,
  CASE COALESCE(found.outcome, staged.outcome, 'committed')
    WHEN 'committed' THEN @ingested_at WHEN 'repeated' THEN found.stamp
  END AS ingested_at,
  CASE COALESCE(found.outcome, staged.outcome, 'committed')
    WHEN 'committed' THEN @content_hash WHEN 'repeated' THEN found.content_hash ELSE ''
  END AS content_hash,
  found.last_run AS run
"""


def make_ledger(target: str) -> str:
    """Return the statement that creates a table's ledger, filled from the existing rows.

    One statement does both: a ledger without these rows would hide them from the next DELETE, and double them.
    """
    return MAKE_LEDGER.format(ledger=quoted(ledger_of(target)), target=quoted(target))


def fill_ledger(target: str) -> str:
    """Return the statement that fills a ledger which has no gate, as ``make_ledger`` would have: all of it or nothing.

    Whoever creates a table from a query and dies may leave it empty: the emulator does that in two steps.
    """
    return FILL_LEDGER.format(ledger=quoted(ledger_of(target)), target=quoted(target))


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
    staging, rows = _staged(write)
    # For an append, a commit of any earlier attempt of the step counts as this one: appending again would double it.
    repeats = "TRUE" if mode == "append_once" else "attempt = @attempt"
    once = mode == "append_once"
    meets = SAME_PARTITION if mode == "truncate_partition" else SAME_DAYS
    ledger = quoted(ledger_of(write.target))
    parts = [READ, CHECK, *(() if once else (DELETE,)), WRITE]
    oldest = newest = "@ingestion_date"
    if mode == "merge":  # rows that it did not touch stay in older partitions, which the next DELETE must not skip
        oldest, newest = (
            f"{pick}(IFNULL({known}, @ingestion_date), @ingestion_date)"
            for pick, known in (("LEAST", "v_oldest"), ("GREATEST", "v_newest"))
        )
    block = _numbered("".join(parts), number).format(
        number=number,
        ledger=ledger,
        target=quoted(write.target),
        staging=staging,
        rows=rows,
        key=KEY,
        meets=meets,
        refusals=PARTLY if once else FENCED,
        outcomes=APPENDED if once else "",
        days_left=DAYS_LEFT.format(ledger=ledger, key=KEY, meets=meets) if once else "CAST(NULL AS STRING)",
        repeats=repeats,
        stray=f"{DATA_DATE} IS NULL OR {DATA_DATE} NOT BETWEEN @first_day AND @last_day",
        nulls=_with_nulls(required),
        null_keys=_with_nulls(key_columns),
        doubled=DOUBLED.format(staging=staging, keys=", ".join(key_columns)) if keys else "0",
        doomed=_numbered(doomed(mode, staging, key_columns), number),
        replaced=SAME_PARTITION if mode == "truncate_partition" else WITHIN_DAYS,
        columns=", ".join(names),
        lineage=", ".join(STAMPS),
        stamps=", ".join(f"{value} AS {name}" for name, value in STAMPS.items()),
        oldest=_numbered(oldest, number),
        newest=_numbered(newest, number),
    )
    return _with_parameters(block, number)


def _staged(write: Commit) -> tuple[str, str]:
    """Return SQL for the staged rows, and for them as the target takes them: checks read no JSON."""
    staging = quoted(write.staging)
    if write.parts:
        names = ", ".join([*map(column, write.table.names), DATA_DATE, "x_org_slug"])
        staging = f"({' UNION ALL '.join(f'SELECT {names} FROM {quoted(part)}' for part in write.parts)})"
    if write.of_days:
        staging = f"(SELECT * FROM {staging} WHERE {KEY} AND {OF_DAYS})"
    texts = [column(c.name) for c in write.table.columns if c.type == "JSON"] if write.spooled else []
    if not texts:
        return staging, staging
    # Rounded, because the default mode refuses a number that a double can't hold, such as 0.33333333333333333333.
    parsed = ", ".join(f"PARSE_JSON({name}, wide_number_mode => 'round') AS {name}" for name in texts)
    return staging, f"(SELECT * REPLACE ({parsed}) FROM {staging})"


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
