# ruff: noqa: S608 - table ids are made here, values are parameters
"""What the product does in BigQuery, one probe each, in the order in which they need each other.

A probe returns in a few words what it has seen, or raises what the product would meet. Several prove what documentation
alone says, and what neither Google's analyzer nor the emulator can show.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from common.adapters.bigquery.doctor.bench import (
    COST,
    EVERY_TYPE,
    ORG,
    Bench,
    NotCheckedError,
    WrongResultError,
    expect,
    row,
)
from common.adapters.bigquery.errors import translated
from common.adapters.bigquery.jobs import CALL_TIMEOUT_S, patience
from common.domain.model import WriteSpec
from common.platform.errors import PermanentError, PipelineOpsError, SupersededError
from common.ports.warehouse import Commit
from common.tables.contract import DATA_DATE, Column
from common.writes.spool import hashing

TABLE_PERMISSIONS = tuple(
    f"bigquery.tables.{name}" for name in ("get", "getData", "update", "updateData", "delete", "export")
)
EDITOR = "Grant the account roles/bigquery.dataEditor on the project or the dataset."
USER = "Grant the account roles/bigquery.jobUser on the project, and enable the BigQuery API there."
REPORT = "Report it with this line: the product relies on it."
MARK = "pipeline-ops-doctor"
"""Label of the dataset. A day later its tables expire, should this process be killed."""
LIFETIME_MS = 24 * 3_600 * 1_000
ROUNDS = 3
"""Two commits that begin at once need not meet: so often they are tried, until one loses."""


@dataclass(frozen=True)
class Probe:
    """One thing to try. ``needs`` names probes without which it is not tried; ``advice`` is what to do if it fails."""

    name: str
    what: str
    does: Callable[[Bench], str]
    advice: str
    needs: tuple[str, ...] = ()


def account(bench: Bench) -> str:
    if bench.is_emulator:
        expect(bench.rows("SELECT 1 AS one"), [{"one": 1}], "SELECT 1")
        return "emulator: no account"
    [found] = bench.rows("SELECT SESSION_USER() AS account")
    return f"as {found['account']}"


def dataset(bench: Bench) -> str:
    if not bench.warehouse.tables.has_dataset(bench.dataset):
        bench.owns = "dataset"  # before: an interrupt must not leave behind what was just made
        try:
            bench.warehouse.tables.make_dataset(bench.dataset)
        except PermanentError:
            bench.owns = "nothing"
            raise
        mark(bench)
        return "made"
    times = {"retry": patience(), "timeout": CALL_TIMEOUT_S}
    with translated(f"list {bench.dataset}"):
        there = [*bench.client.list_tables(bench.dataset, **times), *bench.client.list_routines(bench.dataset, **times)]
    if there:
        raise PermanentError(
            f"Dataset {bench.dataset} has tables or procedures, and doctor removes what it makes: name one that does "
            "not exist, or an empty one."
        )
    bench.owns = "tables"
    return "was there, empty"


def mark(bench: Bench) -> None:
    """Label the new dataset, and let its tables expire: whoever finds one that was left behind knows what it is."""
    with suppress(PipelineOpsError), translated("mark the dataset"):
        found = bench.client.get_dataset(bench.dataset, retry=patience(), timeout=CALL_TIMEOUT_S)
        found.labels, found.default_table_expiration_ms = {**found.labels, MARK: "yes"}, LIFETIME_MS
        bench.client.update_dataset(found, ["labels", "default_table_expiration_ms"], retry=patience())


def location(bench: Bench) -> str:
    if bench.is_emulator:
        raise NotCheckedError("the emulator has no locations")
    with translated(f"look at {bench.dataset}"):
        found = bench.client.get_dataset(bench.dataset, retry=patience(), timeout=CALL_TIMEOUT_S).location
    expect(str(found).lower(), bench.warehouse.connection.location.lower(), "The dataset's location")
    return str(found)


def table(bench: Bench) -> str:
    target = bench.table("every_type")
    bench.warehouse.ensure_table(target, EVERY_TYPE)
    found = bench.warehouse.tables.find(target)
    if found is None:
        raise WrongResultError(f"{target} was made and is not there.")
    expect([(c.name, c.type) for c in found.columns], [(c.name, c.type) for c in EVERY_TYPE.all_columns], "Columns")
    expect(found.partitioned_by, EVERY_TYPE.partitioned_by, "Partitioned by")
    expect(found.clustered_by, EVERY_TYPE.clustered_by, "Clustered by")
    return f"{len(found.columns)} columns, partitioned and clustered"


def extend(bench: Bench) -> str:
    target = bench.table("extended")
    bench.warehouse.ensure_table(target, EVERY_TYPE)
    relaxed = [c.model_copy(update={"mode": "NULLABLE"}) for c in EVERY_TYPE.columns]
    added = Column(name="added", type="STRING", description="A column that came later")
    bench.warehouse.ensure_table(target, EVERY_TYPE.model_copy(update={"columns": (*relaxed, added)}))
    found = bench.warehouse.tables.find(target)
    modes = {c.name: c.mode for c in found.columns} if found else {}
    expect((modes.get("name"), modes.get("added")), ("NULLABLE", "NULLABLE"), "Modes of a relaxed and an added column")
    return "a column added, one relaxed"


REPLACE = WriteSpec(on_empty="replace")


def load(bench: Bench) -> str:
    staged = bench.staged(bench.table("every_type"), [row("a"), row("b")], REPLACE)
    [found] = bench.rows(
        f"SELECT COUNT(*) AS n, COUNTIF(JSON_VALUE(PARSE_JSON(tags), '$.team') = 'Käse') AS teams "
        f"FROM `{staged.staging}`"
    )
    expect(found, {"n": 2, "teams": 2}, "Rows of the staging table")
    bench.warehouse.drop(staged.staging)
    return "2 rows of Parquet, JSON as text"


def replace_key(bench: Bench) -> str:
    target = bench.table("every_type")
    bench.commit(bench.staged(target, [row("a"), row("b"), row("c")], REPLACE))
    write = bench.staged(target, [row("a"), row("d")], REPLACE)
    bench.receipts["every_type"] = receipt = bench.commit(write)
    expect(bench.names(target), ["a", "d"], "Rows after the second commit of a day")
    repeated = bench.commit(write)
    expect((repeated.ingested_at, repeated.rows), (receipt.ingested_at, 2), "Receipt of a repeated commit")
    return "3 rows, then 2 in their place; a repeat changed nothing"


def values(bench: Bench) -> str:
    sql = (
        "SELECT quantity, cost, is_on, CAST(`day` AS STRING) AS `day`, UNIX_MICROS(`at`) AS `at`, "
        "JSON_VALUE(tags, '$.team') AS team, x_org_slug FROM `{dataset}.every_type` WHERE name = 'a'"
    )
    [found] = bench.rows(sql)
    one = row("a")
    micros = (one["at"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    wanted = {
        "quantity": one["quantity"],
        "cost": COST,
        "is_on": True,
        "day": "2026-01-01",
        "at": micros,
        "team": "Käse",
        "x_org_slug": ORG,
    }
    expect(found, wanted, "A row of every type")
    return "every type to its last digit"


def content_hash(bench: Bench) -> str:
    columns = {c.name: c.type for c in EVERY_TYPE.columns} | {DATA_DATE: "DATE"}
    found = bench.rows(
        f"SELECT {hashing.SUMS} FROM (SELECT {hashing.row_hash_sql(columns)} AS {hashing.ROW_HASH} "
        "FROM `{dataset}.every_type`)"
    )
    total = hashing.total([[one[name] for name in hashing.SUM_NAMES] for one in found])
    expect(hashing.hash_text(total), bench.receipts["every_type"].content_hash, "The hash that BigQuery computes")
    return "BigQuery's equals the spool's"


def merge(bench: Bench) -> str:
    target, write = bench.table("merged"), WriteSpec("merge", ("name",))
    bench.commit(bench.staged(target, [row("a", quantity=1), row("b", quantity=1)], write))
    bench.commit(bench.staged(target, [row("b", quantity=2), row("c", quantity=2)], write))
    found = bench.rows(f"SELECT name, quantity FROM `{target}` ORDER BY name")
    expect([(one["name"], one["quantity"]) for one in found], [("a", 1), ("b", 2), ("c", 2)], "Rows after a merge")
    return "one updated, one added, one left alone"


def append_once(bench: Bench) -> str:
    target, write = bench.table("appended"), WriteSpec("append_once")
    bench.commit(bench.staged(target, [row("a")], write))
    second = bench.commit(bench.staged(target, [row("b")], write))
    expect((bench.names(target), second.rows), (["a"], 0), "Rows after a day was appended twice")
    return "a day is added once"


def truncate_partition(bench: Bench) -> str:
    target, write = bench.table("truncated"), WriteSpec("truncate_partition")
    bench.commit(bench.staged(target, [row("a"), row("b")], write))
    bench.commit(bench.staged(target, [row("c")], write))
    expect(bench.names(target), ["c"], "Rows of a snapshot")
    return "a snapshot in place of the day's"


def fence(bench: Bench) -> str:
    target = bench.table("every_type")
    late = bench.staged(target, [row("late")], REPLACE)
    bench.commit(bench.staged(target, [row("a"), row("d")], REPLACE))
    try:
        bench.commit(late)
    except SupersededError:
        expect(bench.names(target), ["a", "d"], "Rows after a late attempt")
        return "an attempt that is over is refused"
    raise WrongResultError("A commit with a lower fence than the last one's was taken.")


def conflict(bench: Bench) -> str:
    """Two clients commit to one table at once: BigQuery cancels one, which comes again, and both are in."""
    target, lost = bench.table("contended"), 0
    bench.commit(bench.staged(target, [row("first")], REPLACE))
    for number in range(1, ROUNDS + 1):
        writes = [
            replace(write, lineage=replace(write.lineage, org_slug=f"{ORG}_{number}_{side}"))
            for side, write in enumerate(bench.staged(target, [row("x")], REPLACE) for _ in range(2))
        ]
        lost += _lost_by([bench.warehouse.commit, bench.rival.commit], writes)
        expect(len(bench.names(target)), 1 + 2 * number, "Rows of two commits that met")
        if lost:
            return f"{lost} cancelled by BigQuery and tried again in round {number}: nothing lost, nothing doubled"
    return f"nothing lost; no two of {ROUNDS} pairs met"


def _lost_by(commits: Sequence[Callable[..., object]], writes: Sequence[Commit]) -> int:
    told: list[str] = []
    with ThreadPoolExecutor(len(writes)) as pool:
        for done in [pool.submit(commit, write, told.append) for commit, write in zip(commits, writes, strict=True)]:
            done.result()
    return sum(int(text.split()[-3]) for text in told if text.endswith("lost conflicts"))


PROCEDURE = """
CREATE OR REPLACE PROCEDURE `{dataset}.doctor_fill`(p_staging STRING, p_day DATE)
BEGIN
  EXECUTE IMMEDIATE FORMAT(
    "INSERT INTO `%s` (name, tags, x_pipeline_run_date) SELECT 'of SQL', JSON '{\\"team\\": \\"x\\"}', @day", p_staging
  ) USING p_day AS day;
END
"""


def procedure(bench: Bench) -> str:
    target, name = bench.table("filled"), bench.table("doctor_fill")
    bench.warehouse.ensure_table(target, EVERY_TYPE)
    number = bench.next_number()
    staging = bench.warehouse.create_staging(target, EVERY_TYPE, f"{bench.name}_{number}")
    bench.warehouse.ensure_procedure(name, PROCEDURE.replace("{dataset}", bench.dataset))
    job_id = f"{bench.name}_{number}_call"
    for _ in range(2):  # the second finds the first one's job, or there would be two rows
        bench.warehouse.start_call(name, (staging, row("")[DATA_DATE]), job_id=job_id)
    expect(bench.warehouse.job_done(job_id, 60.0), True, "The CALL's job")
    receipt = bench.commit(bench.order(target, staging, number, REPLACE, None))
    expect((receipt.rows, bench.names(target)), (1, ["of SQL"]), "Rows that a procedure staged")
    return "dynamic SQL filled a staging table; a repeated job id started nothing"


def dry_run(bench: Bench) -> str:
    bytes_ = bench.warehouse.dry_run_bytes(bench.table("doctor_fill"), ("x", row("")[DATA_DATE]))
    return "no upper bound" if bytes_ is None else f"{bytes_:,} bytes at most"


def view(bench: Bench) -> str:
    target = bench.table("a_view")
    sql = f"SELECT name, SUM(cost) AS cost FROM `{bench.table('every_type')}` GROUP BY name"
    bench.warehouse.tables.make_view(target, sql, description='With "quotes"', state="1")
    expect(bench.warehouse.tables.find_view(target), "1", "The view's label")
    expect(bench.names(target), ["a", "d"], "Rows of the view")
    return "made, labelled, read"


def label(bench: Bench) -> str:
    bench.rows("SELECT 1 AS one")
    job_id = next(reversed(bench.jobs))
    stats = bench.warehouse.meta.job_stats(job_id)
    labels = dict(stats.labels) if stats else {}
    expect({name: labels.get(name) for name in bench.labels}, dict(bench.labels), "A job's labels")
    return ", ".join(f"{name}={value}" for name, value in bench.labels.items())


def information_schema(bench: Bench) -> str:
    sql = "SELECT COUNT(*) AS n FROM `{dataset}`.INFORMATION_SCHEMA.TABLES WHERE table_name = 'every_type'"
    expect(bench.rows(sql), [{"n": 1}], "INFORMATION_SCHEMA.TABLES")
    return "read"


def permissions(bench: Bench) -> str:
    if bench.is_emulator:
        raise NotCheckedError("the emulator has no permissions")
    with translated("test permissions"):
        answer = bench.client.test_iam_permissions(
            bench.table("every_type"), list(TABLE_PERMISSIONS), retry=patience(), timeout=CALL_TIMEOUT_S
        )
    missing = sorted(set(TABLE_PERMISSIONS) - set(answer.get("permissions", ())) - {"bigquery.tables.export"})
    if missing:
        raise PermanentError(f"Missing on its own tables: {', '.join(missing)}.")
    return f"{len(answer['permissions'])} of {len(TABLE_PERMISSIONS)} on tables"


def expiry(bench: Bench) -> str:
    target = bench.table("extended")
    bench.warehouse.tables.expire(target, datetime.now(UTC) + timedelta(days=1))
    bench.warehouse.tables.remove(target)
    if bench.warehouse.tables.find(target) is not None:
        raise WrongResultError(f"{target} was removed and is still there.")
    return "a table set to expire, and removed"


PROBES: tuple[Probe, ...] = (
    Probe("account", "run a query with your credentials", account, USER),
    Probe(
        "dataset",
        "make a dataset",
        dataset,
        "Grant the account roles/bigquery.user on the project, or make an empty dataset and name it with --dataset.",
        ("account",),
    ),
    Probe(
        "location",
        "have the dataset where the settings say",
        location,
        "Set --location (PIPELINE_OPS_LOCATION) to the dataset's location.",
        ("dataset",),
    ),
    Probe("table", "make a table of every column type", table, EDITOR, ("dataset",)),
    Probe("extend", "add and relax columns", extend, EDITOR, ("dataset",)),
    Probe("load", "load Parquet, JSON as text", load, EDITOR, ("table",)),
    Probe("replace_key", "commit: replace a day's rows", replace_key, REPORT, ("load",)),
    Probe("values", "read back what was written", values, REPORT, ("replace_key",)),
    Probe("content_hash", "compute the rows' hash in BigQuery", content_hash, REPORT, ("replace_key",)),
    Probe("merge", "commit: merge by key", merge, REPORT, ("load",)),
    Probe("append_once", "commit: append a day once", append_once, REPORT, ("load",)),
    Probe("truncate_partition", "commit: replace a snapshot", truncate_partition, REPORT, ("load",)),
    Probe("fence", "refuse an attempt that is over", fence, REPORT, ("replace_key",)),
    Probe("conflict", "commit from two clients at once", conflict, REPORT, ("replace_key",)),
    Probe("procedure", "make, call and wait for a procedure", procedure, EDITOR, ("table",)),
    Probe("dry_run", "ask what a call would read", dry_run, USER, ("procedure",)),
    Probe("view", "make and read a view", view, EDITOR, ("fence",)),
    Probe("label", "find a job's labels", label, USER, ("account",)),
    Probe("information_schema", "list the dataset's tables", information_schema, EDITOR, ("table",)),
    Probe("permissions", "ask for permissions on tables", permissions, EDITOR, ("table",)),
    Probe("expiry", "let a table expire, and remove it", expiry, EDITOR, ("extend",)),
)
