"""``main.py validate`` analyses the SQL of configs/sql, as pipelines call it, where the analyzer is installed."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from common.adapters.googlesql import configs as googlesql_configs
from common.cli.main import cli
from common.platform.paths import CONFIGS

PIPELINE = "genai/unified/consolidate.yml"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped configs with one pipeline and one procedure, to be broken."""
    made = tmp_path / "configs"
    shutil.copytree(CONFIGS, made)
    for path in [*made.glob("sql/*.sql"), *made.glob("sql/views/*.sql")]:
        if path.stem not in ("sp_consolidate", "sp_lift_commitments"):
            path.unlink()
    for folder in ("cloud", "subscription", "genai/payg"):
        shutil.rmtree(made / folder)
    shutil.rmtree(made / "sql" / "checks")
    monkeypatch.setattr(googlesql_configs.module_cache, "cache_folder", lambda: tmp_path / "cache")
    return made


def validate(root: Path, *more: str) -> Result:
    return CliRunner().invoke(cli, ["validate", *more], env={"PIPELINE_OPS_CONFIGS": str(root)})


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_sql_that_bigquery_takes_is_right_and_is_not_analysed_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = validate(root, str(root / "sql"))
    assert (first.exit_code, first.stdout) == (
        0,
        "ok    configs/sql/sp_consolidate.sql\nok    configs/sql/sp_lift_commitments.sql\n2 files, 0 wrong\n",
    )
    monkeypatch.setattr(googlesql_configs, "analyze", lambda *_, **__: pytest.fail("it has passed already"))
    assert validate(root, str(root / "sql")).stdout == first.stdout


def test_a_mistake_in_dynamic_sql_is_told_with_line_and_column_of_the_file(root: Path) -> None:
    path = root / "sql" / "sp_consolidate.sql"
    change(path, "        SUM(BilledCost) AS amount", "        SUM(BilledCots) AS amount")
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "BilledCots" in text)
    result = validate(root, str(path))
    assert result.exit_code == 1
    assert f"  configs/sql/sp_consolidate.sql:{line}: column 13: Unrecognized name: BilledCots" in result.stdout


def test_a_procedure_that_no_pipeline_calls_is_analysed_too(root: Path) -> None:
    path = root / "sql" / "sp_own.sql"
    path.write_text("CREATE OR REPLACE PROCEDURE `{dataset}.sp_own`()\nBEGIN\n  SELECT 0 AS n ORDER BY n;\nEND")
    assert (
        "  configs/sql/sp_own.sql:3: column 17: Query without FROM clause cannot have an ORDER BY clause"
        in validate(root).stdout
    )


def test_a_view_that_names_no_column_of_its_table_is_refused(root: Path) -> None:
    (root / "sql" / "views" / "mine.sql").write_text("-- Mine.\nSELECT day FROM `{dataset}.subscription_cost`\n")
    assert "configs/sql/views/mine.sql:2: column 8: Unrecognized name: day" in validate(root).stdout


def test_a_step_that_calls_with_too_few_arguments_is_told_where_the_call_is_wrong(root: Path) -> None:
    change(root / PIPELINE, "procedure: sp_consolidate", "procedure: sp_consolidate\n      arguments: [more]")
    assert "sp_consolidate takes 7 arguments" in validate(root).stdout


def test_a_procedure_without_a_file_is_an_error_with_the_nearest_name(root: Path) -> None:
    change(root / PIPELINE, "procedure: sp_consolidate", "procedure: sp_consolidated")
    result = validate(root)
    assert result.exit_code == 1
    assert (
        "config.procedure: there is no configs/sql/sp_consolidated.sql. Did you mean 'sp_consolidate'?" in result.stdout
    )


def test_where_the_analyzer_is_not_installed_one_line_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.adapters.googlesql.is_installed", lambda: False)
    result = validate(root)
    assert result.exit_code == 0
    assert "configs/sql" not in result.stdout
    assert result.stdout.endswith("not installed here. To install it: pip install zetasql==0.1.5\n")
