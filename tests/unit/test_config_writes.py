"""What a pipeline's file may say about how rows come into their table."""

from pathlib import Path

import pytest

from common.config.check import validate_tree
from common.config.model import WriteConfig
from common.domain.model import DEFAULT_WRITE, Run, RunRequest, WriteSpec
from common.processors.registry import REGISTRY
from common.runs.codec import decode_run, encode_run
from tests.config_world import ROUTE, VALID, VARIABLES, ConfigWorld
from tests.fakes import FakeClock

LAST = "    depends_on: [extract]\n"
COST = """\
table: cost
description: t
columns:
  - {name: a, type: STRING}
  - {name: endpoint, type: STRING}
  - {name: tags, type: JSON}
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigWorld:
    made = ConfigWorld(tmp_path / "configs", monkeypatch)
    made.write("schemas/cost.yml", COST)
    return made


def with_write(world: ConfigWorld, write: str) -> None:
    world.change(LAST, f"{LAST}    write: {write}\n")


def spec_of(world: ConfigWorld) -> WriteSpec:
    return world.tree.resolve(world.tree.load(ROUTE), VARIABLES).steps[1].write


def test_a_step_that_says_nothing_replaces_its_days_and_fails_without_rows(world: ConfigWorld) -> None:
    assert spec_of(world) == WriteSpec("replace_key", (), "fail", 0) == DEFAULT_WRITE
    assert WriteSpec(**WriteConfig().model_dump()) == DEFAULT_WRITE


def test_all_that_a_file_says_of_a_write_reaches_the_step_and_outlives_the_store(world: ConfigWorld) -> None:
    with_write(world, "{mode: merge, keys: [endpoint, a], on_empty: keep, max_bad_rows: 7}")
    wanted = WriteSpec("merge", ("endpoint", "a"), "keep", 7)
    pipeline = world.tree.resolve(world.tree.load(ROUTE), VARIABLES)
    assert pipeline.steps[1].write == wanted
    now = FakeClock()()
    run = Run(RunRequest("run_1", "acme_corp", ROUTE, now.date(), now.date(), now), specs=pipeline.steps)
    assert decode_run(encode_run(run), 1).specs[1].write == wanted


@pytest.mark.parametrize("mode", ["replace_key", "append_once", "truncate_partition"])
def test_modes_that_need_no_keys_may_name_some_to_have_them_checked(world: ConfigWorld, mode: str) -> None:
    with_write(world, f"{{mode: {mode}, keys: [endpoint]}}")
    assert spec_of(world) == WriteSpec(mode, ("endpoint",))


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        ("{mode: merg}", "25: steps[1].write.mode: must be one of 'replace_key', 'merge', 'append_once' or"),
        ("{mode: merg}", "Did you mean 'merge'?"),
        ("{on_empty: drop}", "25: steps[1].write.on_empty: must be one of 'replace', 'keep' or 'fail'."),
        ("{max_bad_rows: -1}", "25: steps[1].write.max_bad_rows: must be greater than or equal to 0."),
        ("{max_bad_rows: 100001}", "25: steps[1].write.max_bad_rows: must be less than or equal to 100000."),
        ("{max_bad_rows: '3'}", "25: steps[1].write.max_bad_rows: must be a whole number."),
        ("{key: [a]}", "25: steps[1].write.key: unknown key. Did you mean 'keys'?"),
        ("merge", "25: steps[1].write: must be a mapping of keys to values."),
        ("{keys: a}", "25: steps[1].write.keys: must be a list."),
        ("{keys: [1]}", "25: steps[1].write.keys[0]: must be text. Put it in quotes."),
        ("{mode: merge}", "25: steps[1].write.mode: merge needs the columns that identify a row."),
        ("{mode: merge, keys: []}", "25: steps[1].write.keys: merge needs the columns that identify a row"),
        (
            "{mode: merge, keys: [a, endpint]}",
            "25: steps[1].write.keys[1]: table cost has no column 'endpint'. Did you mean 'endpoint'? Columns: a, "
            "endpoint, tags.",
        ),
        ("{keys: [A]}", "25: steps[1].write.keys[0]: table cost has no column 'A'."),
        ("{keys: [a, a]}", "25: steps[1].write.keys[1]: 'a' is listed twice. Remove one."),
        ("{keys: [x_run_id]}", "25: steps[1].write.keys[0]: x_run_id is already part of every row's key, or the same"),
        ("{keys: [x_pipeline_run_date]}", "25: steps[1].write.keys[0]: x_pipeline_run_date is already part of every"),
        ("{keys: [tags]}", "25: steps[1].write.keys[0]: tags is JSON, which BigQuery can't compare."),
        ("{keys: ['{run_id}']}", "25: steps[1].write.keys[0]: templates are resolved inside config: only."),
    ],
)
def test_a_mistake_in_a_write_is_refused_at_its_line(world: ConfigWorld, write: str, expected: str) -> None:
    with_write(world, write)
    assert any(expected in problem for problem in world.problems()), world.problems()


@pytest.mark.parametrize("config", ["", "    config: {note: x}\n"])
def test_a_write_needs_a_table(world: ConfigWorld, config: str) -> None:
    step = f"  - step_id: plain\n    ps_type: fake.plain\n{config}    write: {{on_empty: keep}}\n"
    world.write(f"{ROUTE}.yml", VALID + step)
    assert "steps[2].write: is set, but the step has no destination_table." in world.problem()


def test_the_items_of_a_map_must_not_truncate_each_others_rows(world: ConfigWorld) -> None:
    with_write(world, "{mode: truncate_partition}")
    assert world.tree.load(ROUTE)
    world.fresh()
    world.change(
        "mode: truncate_partition}\n", "mode: truncate_partition}\n    map: {over: extract.outputs.d, dates: true}\n"
    )
    assert "steps[1].write.mode: truncate_partition can't be used in a step with map" in world.problem()


def test_a_table_whose_contract_is_broken_is_told_once(world: ConfigWorld) -> None:
    world.write("schemas/cost.yml", "columns: [{name: a}, b, {type: STRING}]\n")
    with_write(world, "{keys: [zzz]}")
    assert any("fix the contract first" in problem for problem in world.problems())
    world.write("schemas/cost.yml", "columns: {}\n")
    world.fresh()
    assert all("has no column" not in problem for problem in world.problems())


OTHER = VALID.replace("pipeline_id: genai_openai_payg", "pipeline_id: other")


def test_two_pipelines_that_write_one_table_in_different_modes_are_both_refused(world: ConfigWorld) -> None:
    world.write("genai/payg/other.yml", OTHER + "    write: {mode: merge, keys: [a]}\n")
    first, second = [result for result in validate_tree(world.root, REGISTRY) if not result.ok]
    assert str(first.problems[0]) == (
        f"configs/{ROUTE}.yml:23: steps[1].config.destination_table: cost is written with mode replace_key here, "
        "but differently in configs/genai/payg/other.yml:25 (merge). Use the same mode everywhere."
    )
    assert str(second.problems[0]) == (
        "configs/genai/payg/other.yml:25: steps[1].write.mode: cost is written with mode merge here, "
        f"but differently in configs/{ROUTE}.yml:23 (replace_key). Use the same mode everywhere."
    )


def test_two_pipelines_may_write_one_table_in_one_mode_however_they_say_it(world: ConfigWorld) -> None:
    world.write("genai/payg/other.yml", OTHER + "    write: {mode: replace_key, on_empty: keep}\n")
    assert all(result.ok for result in validate_tree(world.root, REGISTRY))


def test_a_file_with_mistakes_is_still_compared_by_what_can_be_read_in_it(world: ConfigWorld) -> None:
    world.write("genai/payg/other.yml", OTHER + "    write: {mode: merge}\n")
    problems = [str(problem) for result in validate_tree(world.root, REGISTRY) for problem in result.problems]
    assert any("but differently in configs/genai/payg/other.yml:25 (merge)" in problem for problem in problems)
    world.write("genai/payg/other.yml", OTHER.replace("steps:", "stops:"))
    world.fresh()
    assert all(
        "but differently in" not in str(p) for result in validate_tree(world.root, REGISTRY) for p in result.problems
    )
