"""What the warehouse promises, on the real adapter and a real emulator. Each test has a dataset of its own."""

import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.platform.errors import PermanentError, SupersededError, TransientError
from common.tables.contract import LINEAGE
from common.writes.batch import Batch
from common.writes.spool import Spool
from tests.conftest import PROJECT
from tests.contract.writes import AT, D1, D2, D3, TABLE, Target, numbers, row


def test_rows_arrive_with_all_seven_lineage_fields_of_the_right_types(target: Target) -> None:
    receipt = target.write([row("a")])
    (found,) = target.warehouse.query(f"SELECT * FROM `{target.table_id}`")
    assert {name: found[name] for name, _ in LINEAGE} == {
        "x_org_slug": "acme",
        "x_pipeline_id": "pipe",
        "x_credential_id": "cred",
        "x_pipeline_run_date": D1,
        "x_run_id": "run_1",
        "x_ingested_at": AT,
        "x_ingestion_date": date(2026, 11, 21),
    }
    dataset, _, name = target.table_id.rpartition(".")
    columns = target.warehouse.query(
        f"SELECT column_name, data_type FROM `{dataset}`.INFORMATION_SCHEMA.COLUMNS WHERE table_name = @name",
        {"name": name},
    )
    types = {c["column_name"]: c["data_type"] for c in columns}
    assert {name: types[name] for name, _ in LINEAGE} == dict(LINEAGE)
    assert (receipt.rows, receipt.table, receipt.mode) == (1, target.table_id, "replace_key")


def test_every_type_is_read_back_as_it_was_spooled(target: Target) -> None:
    value = {
        "cost": Decimal("12345678901234567890.123456789012345678"),
        "at": AT,
        "tags": '{"a": [1, {"b": null}]}',
        "n": -(2**63),
        "flag": False,
    }
    target.write([row("ünï'\"\n`;--", **value)])
    (found,) = target.warehouse.query(f"SELECT * FROM `{target.table_id}`")
    assert {name: found[name] for name in ("cost", "at", "n", "flag", "name")} == {
        **{name: value[name] for name in ("cost", "at", "n", "flag")},
        "name": "ünï'\"\n`;--",
    }
    assert found["tags"] == {"a": [1, {"b": None}]}


def test_a_second_run_replaces_the_first_ones_rows(target: Target) -> None:
    target.write([row("a"), row("b", D2)])
    target.write([row("a"), row("b", D2)], run_id="run_2")
    assert [(n, r) for n, _, _, _, r, _ in target.names()] == [("a", "run_2"), ("b", "run_2")]


def test_each_date_of_the_range_is_replaced_and_one_without_rows_loses_its_old_ones(target: Target) -> None:
    target.write([row("old1", D1), row("old2", D2), row("old3", D3)])
    target.write([row("new1", D1)], days=(D1, D2), run_id="run_2")
    assert [n for n, *_ in target.names()] == ["new1", "old3"]


def test_an_empty_write_empties_its_range(target: Target) -> None:
    target.write([row("old", D2), row("kept", D3)])
    assert target.write([], days=(D1, D2)).rows == 0
    assert [n for n, *_ in target.names()] == ["kept"]


@pytest.mark.parametrize("other", [{"org_slug": "globex"}, {"pipeline_id": "other"}, {"credential_id": "other"}])
def test_rows_of_another_key_are_never_touched(target: Target, other: dict[str, str]) -> None:
    target.write([row("theirs")], **other)
    target.write([row("ours")])
    target.write([], run_id="run_2")
    assert [n for n, *_ in target.names()] == ["theirs"]


def test_a_staged_day_outside_the_range_is_refused_and_leaves_all_as_it_was(target: Target) -> None:
    target.write([row("old")])
    with pytest.raises(PermanentError, match="day outside the run"):
        target.commit(
            target.staged_by_sql("name, x_pipeline_run_date", "('good', DATE '2026-11-01'), ('bad', DATE '2026-11-04')")
        )
    assert [n for n, *_ in target.names()] == ["old"]


@pytest.mark.wrong_sql
def test_a_failure_after_the_delete_rolls_it_back(target: Target) -> None:
    target.write([row("old")])
    wrong = replace(target, table=TABLE.model_copy(update={"columns": TABLE.columns[:1]}))
    staging = wrong.stage([row("new")])
    with pytest.raises(PermanentError):
        target.commit(staging)
    assert [n for n, *_ in target.names()] == ["old"]


def test_a_repeated_commit_of_one_job_changes_nothing_and_gives_the_same_receipt(target: Target) -> None:
    staging = target.stage([row("a")])
    write = target.order(staging, job_id="commit-once")
    first = target.warehouse.commit(write, lambda _text: None)
    target.write([row("newer")], run_id="run_2")
    target.warehouse.drop(staging)
    assert target.warehouse.commit(write, lambda _text: None) == first
    assert [n for n, *_ in target.names()] == ["newer"]


def test_a_repeated_load_of_one_job_adds_nothing(target: Target) -> None:
    target.warehouse.ensure_table(target.table_id, TABLE)
    staging = target.warehouse.create_staging(target.table_id, TABLE, "twice", spooled=True)
    spool = Spool(target.folder / "x.parquet", TABLE, D1, D3, target.warehouse.decimal_digits)
    spool.write(Batch([row("a"), row("b")]))
    spool.close()
    job = f"load-once-{next(numbers)}"
    for _ in range(2):
        target.warehouse.load(staging, TABLE, target.folder / "x.parquet", job_id=job)
    assert target.sql(f"SELECT COUNT(*) AS n FROM `{staging}`") == [{"n": 2}]


def test_items_of_a_map_have_staging_tables_of_their_own_that_may_be_called_so(target: Target) -> None:
    target.stage([row("of a step")])
    names = ("run_1_extract[0]_1", "run_1_extract[1]_1", "run_1_extract_0__1")
    made = [target.warehouse.create_staging(target.table_id, TABLE, name) for name in names]
    assert len(set(made)) == 3
    assert [target.sql(f"SELECT COUNT(*) AS n FROM `{staging}`") for staging in made] == [[{"n": 0}]] * 3


def test_a_staging_table_starts_empty_even_if_its_name_was_used_before(target: Target) -> None:
    staging = target.stage([row("left over")])
    again = target.warehouse.create_staging(target.table_id, TABLE, staging.rpartition("__stage_")[2])
    assert again == staging
    assert next(target.warehouse.query(f"SELECT COUNT(*) AS n FROM `{again}`"))["n"] == 0


def test_writers_of_different_keys_in_one_table_lose_and_double_nothing(target: Target) -> None:
    """8 threads × 3 rounds commit at once; conflicts are retried until all are in."""
    stagings = {f"org{n}": target.stage([row(f"r{n}")]) for n in range(8)}
    failures: list[Exception] = []

    def work(org: str) -> None:
        try:
            for turn in range(3):
                target.commit(stagings[org], org_slug=org, run_id=f"run_{turn}")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(org,)) for org in stagings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [(o, r) for _, o, _, _, r, _ in target.names()] == [(f"org{n}", "run_2") for n in range(8)]


@pytest.mark.parametrize("earlier", [(), ("earlier",)], ids=["first write", "rewrite"])
def test_rivals_for_one_key_leave_the_rows_of_one(target: Target, earlier: tuple[str, ...]) -> None:
    """Nothing is there to delete for the first write, so the emulator's transactions do not notice each other."""
    for name in earlier:
        target.write([row(name)])
    stagings = [target.stage([row(f"of {number}")]) for number in range(4)]

    def commit(number: int) -> None:
        with suppress(SupersededError):  # who started earlier and comes later
            target.commit(stagings[number], run_id=f"run_{number}")

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(len(stagings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(target.names()) == 1, target.names()


def test_threads_that_all_find_a_table_missing_make_it_once(target: Target) -> None:
    failures: list[Exception] = []

    def ensure() -> None:
        try:
            target.warehouse.ensure_table(target.table_id, TABLE)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ensure) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_new_column_of_the_contract_is_added_and_old_rows_stay(target: Target) -> None:
    target.write([row("old", D1)])
    wider = TABLE.model_copy(
        update={"columns": (*TABLE.columns, TABLE.columns[1].model_copy(update={"name": "extra"}))}
    )
    grown = replace(target, table=wider)
    grown.write([row("new", D2, extra=Decimal("1.5"))], days=(D2, D2))
    found = target.warehouse.query(f"SELECT name, extra FROM `{target.table_id}` ORDER BY name")
    assert [tuple(r.values()) for r in found] == [("new", Decimal("1.5")), ("old", None)]


def test_a_column_of_another_type_is_refused_and_named(target: Target) -> None:
    target.write([row("old")])
    retyped = TABLE.columns[1].model_copy(update={"type": "STRING"})
    other = TABLE.model_copy(update={"columns": (TABLE.columns[0], retyped)})
    with pytest.raises(PermanentError, match="cost is BIGNUMERIC in the table, STRING in the contract"):
        target.warehouse.ensure_table(target.table_id, other)


def test_tables_are_partitioned_and_clustered_for_the_delete(target: Target) -> None:
    target.warehouse.ensure_table(target.table_id, TABLE)
    made = target.warehouse.connection.client.get_table(target.table_id)
    assert made.time_partitioning.field == "x_ingestion_date"
    assert made.clustering_fields == ["x_org_slug", "x_pipeline_id", "x_credential_id", "x_pipeline_run_date"]


def test_a_staging_table_expires_by_itself(target: Target) -> None:
    made = target.warehouse.connection.client.get_table(target.stage([]))
    assert made.expires is None or 23 <= (made.expires - datetime.now(UTC)).total_seconds() / 3600 <= 25


@pytest.mark.parametrize("name", ["p.d.t", "project-x.d`.t", "project-x.d.t; DROP TABLE x", "project-x.d.t$20260101"])
def test_what_is_no_table_id_never_reaches_sql(warehouse: BigQueryWarehouse, name: str) -> None:
    with pytest.raises(PermanentError, match="not a table id"):
        warehouse.drop(name)


def test_a_missing_table_is_a_permanent_error_in_words(warehouse: BigQueryWarehouse) -> None:
    with pytest.raises(PermanentError, match="Not found") as raised:
        list(warehouse.query(f"SELECT * FROM `{PROJECT}.nowhere.nothing`"))
    assert "http" not in str(raised.value) and "Job ID" not in str(raised.value)


def test_a_warehouse_that_does_not_answer_is_a_transient_error_within_seconds(target: Target) -> None:
    away = BigQueryWarehouse(PROJECT, location="US", emulator_url="http://127.0.0.1:9")
    began = time.monotonic()
    for call in (lambda: away.ensure_table(target.table_id, TABLE), lambda: list(away.query("SELECT 1"))):
        with pytest.raises(TransientError, match="no answer"):
            call()
    assert time.monotonic() - began < 60


def test_the_quarantine_is_made_when_it_is_needed_and_a_repeated_load_adds_nothing(target: Target) -> None:
    path, job = target.folder / "bad.parquet", f"quarantine{next(numbers)}"
    kinds = {"attempt": 2, "x_ingested_at": AT, "x_ingestion_date": AT.date()}
    texts = dict.fromkeys(
        ("reason", "column", "source", "row", "x_org_slug", "x_pipeline_id", "x_credential_id", "x_run_id", "step_id"),
        "text",
    )
    row = texts | kinds
    pq.write_table(pa.Table.from_pylist([row]), path)
    for _ in range(2):
        target.warehouse.quarantine(target.table_id, path, job_id=job)
    assert target.sql(f"SELECT * FROM `{target.table_id}__quarantine`") == [row]
    made = target.warehouse.connection.client.get_table(f"{target.table_id}__quarantine")
    assert made.time_partitioning.field == "x_ingestion_date"
