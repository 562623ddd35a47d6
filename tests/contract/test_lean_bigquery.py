"""The emulator's short look-ups say what its own say, which read the whole catalogue."""

import subprocess
import sys
from pathlib import Path

import pytest

from common.platform.paths import PROJECT_ROOT

ASKS_BOTH = """
import sys
from pathlib import Path
from local_bigquery.settings import settings

settings.data_dir, settings.default_project_id = Path(sys.argv[1]), "a-project"

from infra.local import lean_bigquery
from local_bigquery.catalog import datasets
from local_bigquery.engine import database
from local_bigquery.jobs import query
from local_bigquery.models import JobConfigurationQuery

objects, exists = database.objects, datasets.exists
lean_bigquery.install()


def run(sql, job=None):
    with database.cursor() as cursor:
        query.execute(cursor, "a-project", job, JobConfigurationQuery(query=sql))


def compare():
    asked = [("a-project", "d", name) for name in (None, "t", "T", "u", "v", "w")]
    asked += [("a-project", "other", "t"), ("a-project", "none", None)]
    asked += [("emulator", "_results", f"a-project:{job}") for job in ("read", "never")]
    for names in asked:
        assert database.objects(*names) == objects(*names), names
    for name in ("d", "D", "other", "none"):
        assert datasets.exists("a-project", name) == exists("a-project", name), name


for sql in [
    "CREATE SCHEMA d; CREATE SCHEMA other",
    "CREATE TABLE d.t (a STRING, n INT64); CREATE TABLE other.t (a STRING)",
    "INSERT INTO d.t VALUES ('a', 1), ('b', 2), ('c', 3)",
    "DELETE FROM d.t WHERE n = 1",
    "CREATE VIEW d.v AS SELECT * FROM d.t",
    "ALTER TABLE d.t RENAME TO u",
    "CREATE TABLE d.w (a STRING) PARTITION BY _PARTITIONDATE",
    "INSERT INTO d.w (a) VALUES ('x')",
    "SELECT * FROM d.w WHERE _PARTITIONDATE = CURRENT_DATE()",
    "DROP TABLE d.u",
    "DROP VIEW d.v",
]:
    run(sql, "read" if sql.startswith("SELECT") else None)
    compare()
run("CREATE TEMP TABLE mine AS SELECT 1 AS n; SELECT n FROM mine")
run("DROP SCHEMA d CASCADE")
compare()
print("the same")
"""


@pytest.mark.thorough
def test_the_look_ups_say_of_tables_views_and_datasets_what_the_emulators_own_say(tmp_path: Path) -> None:
    asked = subprocess.run(
        [sys.executable, "-c", ASKS_BOTH, str(tmp_path / "data")],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert asked.stdout.strip().endswith("the same"), asked.stderr[-2000:]
