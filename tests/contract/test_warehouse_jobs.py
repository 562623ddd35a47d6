"""What the warehouse promises of jobs that go on by themselves, on the real adapter and a real emulator."""

from uuid import uuid4

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.platform.errors import PermanentError
from common.tables.contract import Table
from tests.conftest import PROJECT

TABLE = Table.model_validate({"table": "t", "description": "d", "columns": [{"name": "n", "type": "INT64"}]})
DDL = """
CREATE OR REPLACE PROCEDURE `{dataset}.sp_add`(p_n INT64)
BEGIN
  IF p_n < 0 THEN RAISE USING MESSAGE = 'no negative numbers'; END IF;
  INSERT INTO `{dataset}.done` (n) VALUES (p_n);
END
"""


@pytest.fixture
def dataset(warehouse: BigQueryWarehouse) -> str:
    """A dataset with a procedure that leaves one row a call."""
    dataset = f"{PROJECT}.jobs_{uuid4().hex[:8]}"
    warehouse.ensure_table(f"{dataset}.any", TABLE)
    list(warehouse.query(f"CREATE TABLE `{dataset}.done` (n INT64)"))
    warehouse.ensure_procedure(f"{dataset}.sp_add", DDL.format(dataset=dataset))
    return dataset


def left(warehouse: BigQueryWarehouse, dataset: str) -> list[int]:
    return [row["n"] for row in warehouse.query(f"SELECT n FROM `{dataset}.done` ORDER BY n")]


def test_a_job_that_was_started_twice_does_its_work_once(warehouse: BigQueryWarehouse, dataset: str) -> None:
    job_id = f"job_{uuid4().hex}"
    for _ in range(2):
        warehouse.start_call(f"{dataset}.sp_add", (7,), job_id=job_id)
        assert warehouse.job_done(job_id, 30) is True
    assert left(warehouse, dataset) == [7]


def test_a_job_that_nobody_started_is_not_there(warehouse: BigQueryWarehouse) -> None:
    assert warehouse.job_done(f"job_{uuid4().hex}", 0) is None


def test_a_job_that_failed_says_why_to_whoever_asks(warehouse: BigQueryWarehouse, dataset: str) -> None:
    job_id = f"job_{uuid4().hex}"
    for _ in range(2):
        with pytest.raises(PermanentError, match="no negative numbers"):
            warehouse.start_call(f"{dataset}.sp_add", (-1,), job_id=job_id)
            warehouse.job_done(job_id, 30)
    assert left(warehouse, dataset) == []


def test_a_staging_table_that_is_kept_holds_what_a_job_put_there(warehouse: BigQueryWarehouse, dataset: str) -> None:
    staging = warehouse.create_staging(f"{dataset}.any", TABLE, "one")
    list(warehouse.query(f"INSERT INTO `{staging}` (n, x_pipeline_run_date) VALUES (1, '2026-11-01')"))
    assert warehouse.create_staging(f"{dataset}.any", TABLE, "one", keep=True) == staging
    assert [row["n"] for row in warehouse.query(f"SELECT n FROM `{staging}`")] == [1]
    warehouse.create_staging(f"{dataset}.any", TABLE, "one")
    assert list(warehouse.query(f"SELECT n FROM `{staging}`")) == []


def test_a_dry_run_does_nothing_and_of_what_has_no_bound_it_says_nothing(
    warehouse: BigQueryWarehouse, dataset: str
) -> None:
    assert warehouse.dry_run_bytes(f"{dataset}.sp_add", (7,)) is None
    assert left(warehouse, dataset) == []
