"""What ``validate`` looks at, and what it says."""

import shutil
from pathlib import Path

import pytest

from common.config.check import Result, validate_tree
from common.platform.errors import ConfigError
from common.processors.registry import REGISTRY
from tests.config_world import ROUTE, VALID, ConfigWorld


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigWorld:
    return ConfigWorld(tmp_path / "configs", monkeypatch)


def only_bad(results: list[Result]) -> Result:
    (bad,) = [result for result in results if not result.ok]
    return bad


def test_pipelines_contracts_providers_and_plans_are_all_covered(world: ConfigWorld) -> None:
    results = validate_tree(world.root, REGISTRY)
    assert [(result.route, result.path, result.ok) for result in results] == [
        (ROUTE, f"configs/{ROUTE}.yml", True),
        ("", "configs/schemas/cost.yml", True),
        ("", "configs/schemas/usage.yml", True),
        ("", "configs/system/providers.yml", True),
        ("", "configs/system/plans.yml", True),
    ]


def test_problems_of_a_pipeline_are_listed_one_by_one(world: ConfigWorld) -> None:
    world.change("provider: openai", "provider: opnai")
    world.change("[extract]", "[extrat]")
    bad = only_bad(validate_tree(world.root, REGISTRY))
    assert [(problem.line, problem.field) for problem in bad.problems] == [
        (3, "provider"),
        (24, "steps[1].depends_on[0]"),
    ]


def test_a_misplaced_pipeline_is_a_result_of_its_own(world: ConfigWorld) -> None:
    world.write("top.yml", VALID)
    bad = only_bad(validate_tree(world.root, REGISTRY))
    assert (bad.route, bad.path) == ("", "configs/top.yml")


def test_two_files_with_one_route_are_two_bad_results(world: ConfigWorld) -> None:
    world.write("x/genai/payg/openai.yml", VALID)
    bad = [result.path for result in validate_tree(world.root, REGISTRY) if not result.ok]
    assert bad == [f"configs/{ROUTE}.yml", "configs/x/genai/payg/openai.yml"]


def test_two_pipelines_of_one_id_are_refused_because_they_would_delete_each_others_rows(world: ConfigWorld) -> None:
    world.write("genai/payg/other.yml", VALID)
    first, second = [result for result in validate_tree(world.root, REGISTRY) if not result.ok]
    assert str(first.problems[0]) == (
        f"configs/{ROUTE}.yml:1: pipeline_id: 'genai_openai_payg' is also the id of configs/genai/payg/other.yml. "
        "Use a different id."
    )
    assert second.path == "configs/genai/payg/other.yml"


def test_a_part_of_the_tree_is_still_compared_with_the_rest(world: ConfigWorld) -> None:
    other = world.write("genai/payg/other.yml", VALID)
    assert not only_bad(validate_tree(world.root, REGISTRY, other)).ok


@pytest.mark.parametrize(
    ("part", "paths"),
    [
        (f"{ROUTE}.yml", [f"configs/{ROUTE}.yml"]),
        ("genai", [f"configs/{ROUTE}.yml"]),
        ("schemas/cost.yml", ["configs/schemas/cost.yml"]),
        ("system", ["configs/system/providers.yml", "configs/system/plans.yml"]),
    ],
)
def test_a_file_or_a_folder_can_be_checked_alone(world: ConfigWorld, part: str, paths: list[str]) -> None:
    assert [result.path for result in validate_tree(world.root, REGISTRY, world.root / part)] == paths


@pytest.mark.parametrize("part", ["genai/payg/no.yml", "../elsewhere.yml", "nothing"])
def test_a_path_that_holds_nothing_to_check_is_refused(world: ConfigWorld, part: str) -> None:
    with pytest.raises(ConfigError, match="is not a pipeline, contract, provider registry or plans file"):
        validate_tree(world.root, REGISTRY, world.root / part)


def test_a_path_relative_to_the_working_directory_is_understood(
    world: ConfigWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.root.parent)
    assert len(validate_tree(Path("configs"), REGISTRY, Path("configs/genai"))) == 1


def test_a_tree_without_a_provider_registry_says_so(world: ConfigWorld) -> None:
    shutil.rmtree(world.root / "system")
    bad = [result for result in validate_tree(world.root, REGISTRY) if not result.ok]
    assert [result.path for result in bad] == [
        f"configs/{ROUTE}.yml",
        "configs/system/providers.yml",
        "configs/system/plans.yml",
    ]
    assert str(bad[1].problems[0]).startswith("configs/system/providers.yml:1: (file): can't be read: No such file")


@pytest.mark.parametrize(
    ("contract", "expected"),
    [
        ("table: coast\n", "1: table: must be 'cost', the name of its file."),
        (
            "colums: []\n",
            "4: colums: unknown key. Did you mean 'columns'? Known: billed, billed_credits, columns, description",
        ),
        ("  - {name: A, type: STRING}\n", "columns[1].name: column 'a' is listed twice. Remove one."),
        ("  - {name: x_run_id, type: STRING}\n", "columns[1].name: the engine sets x_run_id on every row."),
        ("  - {name: b, type: FLOAT64}\n", "columns[1].type: must be one of 'STRING', 'INT64', 'BIGNUMERIC'"),
        ("  - {name: b c, type: DATE}\n", "columns[1].name: must match ^[A-Za-z_]"),
        ("  - {name: [b], type: DATE}\n", "columns[1].name: must be text. Put it in quotes."),
        ("  - b\n", "columns[1]: must be a mapping of keys to values."),
        (
            "  - {name: b, type: DATE, mode: REQUIRED, policy: discard_value}\n",
            "5: columns[1].policy: a discarded value becomes NULL, which a REQUIRED column refuses. Use discard_row,",
        ),
        (
            "  - {name: b, type: DATE, policy: discard_rows}\n",
            "policy: must be one of 'freeze', 'discard_value' or 'discard_row'. Did you mean 'discard_row'?",
        ),
        ("  - {name: b, type: DATE, policy: evolve}\n", "5: columns[1].policy: must be one of 'freeze',"),
        ("  - {name: b, type: BIGNUMERIC, currency: aa}\n", "5: columns[1].currency: no STRING column is named 'aa'."),
        ("  - {name: b, type: INT64, currency: a}\n", "5: columns[1].currency: only an amount of money (BIGNUMERIC)"),
        (
            "  - {name: _PARTITIONTIME, type: DATE}\n",
            "5: columns[1].name: BigQuery reserves names like '_PARTITIONTIME'",
        ),
        ("unknown_columns: evolv\n", "5: unknown_columns: must be one of 'evolve', 'freeze', 'discard_value' or"),
        ("billed: a\n", "5: billed: no column with a currency is named 'a'."),
        ("billed_credits: a\n", "5: billed_credits: no JSON column is named 'a'."),
        ("version: 0\n", "5: version: must be greater than or equal to 1."),
        ("version: '1'\n", "5: version: must be a whole number."),
    ],
)
def test_mistakes_in_a_contract_are_named_with_line_and_field(world: ConfigWorld, contract: str, expected: str) -> None:
    valid = "table: cost\ndescription: d\ncolumns:\n  - {name: a, type: STRING}\n"
    if contract.startswith("table"):
        valid = valid.replace("table: cost\n", contract)
    elif contract.startswith("colums"):
        valid = f"table: cost\ndescription: d\ncolumns: [{{name: a, type: STRING}}]\n{contract}"
    else:
        valid += contract
    world.write("schemas/cost.yml", valid)
    results = validate_tree(world.root, REGISTRY, world.root / "schemas")
    assert expected in str(only_bad(results).problems[0])


def test_a_contract_with_an_extension_that_nothing_reads_is_refused(world: ConfigWorld) -> None:
    world.write("schemas/more.yaml", "table: more\ndescription: d\ncolumns:\n  - {name: a, type: DATE}\n")
    assert "a contract must be in <table>.yml" in str(only_bad(validate_tree(world.root, REGISTRY)).problems[0])


def test_nothing_in_any_file_stops_the_check_of_the_others(world: ConfigWorld) -> None:
    world.write("a/b/c.yml", b"\xff\xfe")
    world.write("a/b/d.yml", "pipeline_id: [a]\n")
    world.write("schemas/cost.yml", "[[[[")
    world.write("system/providers.yml", "a: &b *b\n")
    assert [result.ok for result in validate_tree(world.root, REGISTRY)] == [
        False,
        False,
        False,
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("name", ["cost__commits", "org_meta_costs"])
def test_names_of_tables_that_the_engine_keeps_are_refused(world: ConfigWorld, name: str) -> None:
    text = f"table: {name}\ndescription: d\ncolumns:\n  - {{name: a, type: STRING}}\n"
    world.write(f"schemas/{name}.yml", text)
    problem = str(only_bad(validate_tree(world.root, REGISTRY)).problems[0])
    assert problem.startswith(f"configs/schemas/{name}.yml:1: table: ")


META = """\
table: org_meta_x
description: d
partition_by: at
cluster_by: [name]
columns:
  - {name: at, type: TIMESTAMP}
  - {name: name, type: STRING}
  - {name: more, type: JSON}
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("partition_by: at", "partition_by: att", "3: partition_by: no column is named 'att'. Did you mean 'at'?"),
        ("partition_by: at", "partition_by: name", "3: partition_by: name is STRING: partitions are by day"),
        ("partition_by: at\n", "", "1: partition_by: is required. Add it."),
        ("[name]", "[nam]", "4: cluster_by[0]: no column is named 'nam'. Did you mean 'name'?"),
        ("[name]", "[more]", "4: cluster_by[0]: more is JSON, which BigQuery can't cluster by."),
        ("[name]", "[]", "4: cluster_by: must have at least 1."),
        ("table: org_meta_x", "table: runs_x", "1: table: must be 'org_meta_x', the name of its file."),
    ],
)
def test_mistakes_in_a_contract_of_a_table_about_runs_are_named(
    world: ConfigWorld, old: str, new: str, expected: str
) -> None:
    world.write("schemas/meta/org_meta_x.yml", META)
    assert all(result.ok for result in validate_tree(world.root, REGISTRY))
    world.fresh()
    world.write("schemas/meta/org_meta_x.yml", META.replace(old, new))
    problems = [str(problem) for problem in only_bad(validate_tree(world.root, REGISTRY)).problems]
    assert any(expected in problem for problem in problems), problems


def test_a_table_about_runs_has_a_name_that_says_so(world: ConfigWorld) -> None:
    world.write("schemas/meta/runs.yml", META.replace("org_meta_x", "runs"))
    assert "meta tables are named org_meta_*" in str(only_bad(validate_tree(world.root, REGISTRY)).problems[0])
