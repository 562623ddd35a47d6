"""What a pipeline's file may say: every refusal names line, field and, where there is one, the nearest valid name."""

from pathlib import Path

import pytest

from common.config.model import check_cron
from tests.config_world import ROUTE, VALID, ConfigWorld


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigWorld:
    return ConfigWorld(tmp_path / "configs", monkeypatch)


def test_a_valid_file_is_loaded_with_its_defaults(world: ConfigWorld) -> None:
    config = world.tree.load(ROUTE).config
    assert (config.pipeline_id, config.provider, config.domain, config.schedule) == (
        "genai_openai_payg",
        "openai",
        "payg",
        "0 6 * * *",
    )
    extract, calculate = config.steps
    assert (extract.timeout_seconds, extract.retry.max_attempts, extract.retry.backoff_seconds) == (540, 3, 30)
    assert (calculate.timeout_seconds, calculate.retry.max_attempts, calculate.retry.backoff_seconds) == (300, 1, 0)
    assert calculate.depends_on == ("extract",)


@pytest.mark.parametrize(
    ("written", "kept"), [("1.10", "1.10"), ("2", "2"), ('"1.10"', "1.10"), ("v1-beta", "v1-beta")]
)
def test_a_version_is_kept_as_it_is_written(world: ConfigWorld, written: str, kept: str) -> None:
    world.change("version: 1.10", f"version: {written}")
    assert world.tree.load(ROUTE).config.version == kept


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "name: OpenAI",
            "nme: OpenAI",
            "2: nme: unknown key. Did you mean 'name'? Known: catchup, concurrency, description, domain,",
        ),
        ("timeout_seconds", "timeout_s", "15: steps[0].timeout_s: unknown key. Did you mean 'timeout_seconds'?"),
        ("max_attempts", "max_attempt", "17: steps[0].retry.max_attempt: unknown key. Did you mean 'max_attempts'?"),
        ("label", "lable", "13: steps[0].config.lable: unknown key. Did you mean 'label'? Known: anything, day,"),
        ("depends_on", "depend_on", "24: steps[1].depend_on: unknown key. Did you mean 'depends_on'?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(world: ConfigWorld, old: str, new: str, expected: str) -> None:
    world.change(old, new)
    assert next(problem for problem in world.problems() if "unknown key" in problem).startswith(expected)


@pytest.mark.parametrize("key", ["pipeline_id", "name", "provider", "domain", "version"])
def test_a_missing_key_is_refused(world: ConfigWorld, key: str) -> None:
    (line,) = [line for line in VALID.splitlines(keepends=True) if line.startswith(f"{key}:")]
    world.change(line, "")
    assert world.problem() == f"1: {key}: is required. Add it."


def test_a_missing_key_of_a_config_block_is_refused_at_the_block(world: ConfigWorld) -> None:
    world.change("      endpoint: completions\n", "")
    assert world.problem() == "10: steps[0].config.endpoint: is required. Add it."


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("id: genai_openai_payg", "id: GenAI-1", "1: pipeline_id: must match ^[a-z][a-z0-9_]{0,62}$."),
        ("domain: payg", "domain: a/b", "4: domain: must match ^[a-z][a-z0-9_]{0,62}$."),
        ("step_id: calculate", "step_id: ../x", "19: steps[1].step_id: must match ^[a-z][a-z0-9_]{0,62}$."),
        ("version: 1.10", "version: true", "5: version: must be text. Put it in quotes."),
        ("version: 1.10", "version: ''", "5: version: must have at least 1 character."),
        ("seconds: 540", "seconds: 541", "15: steps[0].timeout_seconds: must be less than or equal to 540."),
        ("seconds: 540", "seconds: 0", "15: steps[0].timeout_seconds: must be greater than or equal to 1."),
        ("seconds: 540", "seconds: '9'", "15: steps[0].timeout_seconds: must be a whole number."),
        ("seconds: 540", "seconds: true", "15: steps[0].timeout_seconds: must be a whole number."),
        ("attempts: 3", "attempts: 11", "17: steps[0].retry.max_attempts: must be less than or equal to 10."),
        ("attempts: 3", "attempts: 0", "17: steps[0].retry.max_attempts: must be greater than or equal to 1."),
        ("seconds: 30", "seconds: 601", "18: steps[0].retry.backoff_seconds: must be less than or equal to 600."),
        ("seconds: 30", "seconds: -1", "18: steps[0].retry.backoff_seconds: must be greater than or equal to 0."),
        ("[extract]", "extract", "24: steps[1].depends_on: must be a list."),
        ("[extract]", "[3]", "24: steps[1].depends_on[0]: must be text. Put it in quotes."),
    ],
)
def test_a_value_out_of_bounds_is_refused_at_its_line(world: ConfigWorld, old: str, new: str, expected: str) -> None:
    world.change(old, new)
    assert expected in world.problems()


@pytest.mark.parametrize("config", ["config: 3", "config:", "config: [a]"])
def test_a_config_block_must_be_a_mapping(world: ConfigWorld, config: str) -> None:
    at = VALID.index("    config:\n      source_table")
    world.write(f"{ROUTE}.yml", f"{VALID[:at]}    {config}\n")
    assert world.problem() == "21: steps[1].config: must be a mapping of keys to values."


@pytest.mark.parametrize(
    "steps", ["steps: []\n", "steps:\n", "steps: extract\n", "steps: {a: b}\n", "steps: [1, a, null]\n"]
)
def test_steps_must_be_a_list_with_something_in_it(world: ConfigWorld, steps: str) -> None:
    world.write(f"{ROUTE}.yml", VALID[: VALID.index("steps:")] + steps)
    assert all(problem.startswith("7: steps") for problem in world.problems())


TEXTS = ("genai_openai_payg", "OpenAI usage", "fake.extract", "extract\n", "fake.transform", '"0 6 * * *"')


@pytest.mark.parametrize("value", ["[a]", "{a: b}", "3", "true"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_value_of_another_kind_is_refused_wherever_it_stands(world: ConfigWorld, text: str, value: str) -> None:
    world.change(f": {text}", f": {value}\n" if text.endswith("\n") else f": {value}")
    assert any(problem.endswith("must be text. Put it in quotes.") for problem in world.problems())


@pytest.mark.parametrize("value", ["[a]", "{a: b}", "3", "null"])
@pytest.mark.parametrize("key", ["source_table: usage", "destination_table: cost"])
def test_a_table_of_another_kind_is_refused(world: ConfigWorld, key: str, value: str) -> None:
    field = key.split(":")[0]
    world.change(key, f"{field}: {value}")
    assert world.problem().endswith(f"steps[1].config.{field}: must be text. Put it in quotes.")


def test_a_pipeline_without_a_schedule_and_a_step_without_a_config_are_fine(world: ConfigWorld) -> None:
    world.write(f"{ROUTE}.yml", VALID.replace('"0 6 * * *"', "null") + "  - {step_id: rest, ps_type: fake.plain}\n")
    assert world.tree.load(ROUTE).config.schedule is None


def test_an_unknown_ps_type_is_refused_with_the_nearest_one(world: ConfigWorld) -> None:
    world.change("ps_type: fake.transform", "ps_type: fake.tranform")
    assert world.problem().startswith(
        "20: steps[1].ps_type: no processor is named 'fake.tranform'. Did you mean 'fake.transform'? Registered:"
    )


def test_a_processor_that_cannot_be_loaded_is_named(world: ConfigWorld) -> None:
    world.change("ps_type: fake.transform", "ps_type: fake.missing")
    assert world.problem() == (
        "20: steps[1].ps_type: the processor 'fake.missing' can't be loaded "
        "(ModuleNotFoundError of tests.no_such_module)."
    )


def test_a_key_that_a_comma_made_is_explained(world: ConfigWorld) -> None:
    world.change(
        "    retry:\n      max_attempts: 3\n      backoff_seconds: 30\n", "    retry: {max_attempts: 3, or 4}\n"
    )
    assert world.problem().startswith(
        "16: steps[0].retry.'or 4': unknown key. A text with a comma inside {...} needs quotes. Known: backoff_"
    )


def test_an_unknown_provider_is_refused_with_the_nearest_one(world: ConfigWorld) -> None:
    world.change("provider: openai", "provider: opnai")
    assert world.problem() == (
        "3: provider: no provider is named 'opnai'. Did you mean 'openai'? Registered: aws, openai."
    )


def test_a_broken_provider_registry_is_said_once_and_does_not_hide_other_mistakes(world: ConfigWorld) -> None:
    world.write("system/providers.yml", "providers: {}\n")
    world.change("timeout_seconds: 540", "timeout_seconds: 999")
    first, second = world.problems()
    assert first.startswith(
        "3: provider: can't be checked, fix the provider registry first: configs/system/providers.yml"
    )
    assert "timeout_seconds" in second


def test_two_steps_of_one_id_are_refused(world: ConfigWorld) -> None:
    world.change("step_id: calculate", "step_id: extract")
    assert "19: steps[1].step_id: another step is also named 'extract'. Rename one." in world.problems()


def test_a_dependency_on_no_step_is_refused_with_the_nearest_one(world: ConfigWorld) -> None:
    world.change("[extract]", "[extrac]")
    assert world.problem() == (
        "24: steps[1].depends_on[0]: no step is named 'extrac'. Did you mean 'extract'? Steps: calculate, extract."
    )


def test_a_dependency_listed_twice_is_refused(world: ConfigWorld) -> None:
    world.change("[extract]", "[extract, extract]")
    assert world.problem() == "24: steps[1].depends_on[1]: 'extract' is listed twice. Remove one."


def test_a_cycle_is_refused_and_shown(world: ConfigWorld) -> None:
    world.change("    timeout_seconds: 540\n", "    depends_on: [calculate]\n")
    problem = world.problem()
    assert "is part of a cycle: " in problem
    assert "extract -> calculate -> extract" in problem or "calculate -> extract -> calculate" in problem


def test_a_step_that_depends_on_itself_is_refused(world: ConfigWorld) -> None:
    world.change("[extract]", "[calculate]")
    assert world.problem() == (
        "24: steps[1].depends_on: is part of a cycle: calculate -> calculate. Remove one of these dependencies."
    )


def test_two_steps_that_write_one_table_are_refused(world: ConfigWorld) -> None:
    world.change("destination_table: cost", "destination_table: usage")
    assert world.problem() == (
        "23: steps[1].config.destination_table: the step in line 14 also writes 'usage', "
        "and one would overwrite the other. Use another table."
    )


@pytest.mark.parametrize(("key", "line"), [("source_table: usage", 22), ("destination_table: cost", 23)])
def test_a_table_without_a_contract_is_refused_with_the_nearest_one(world: ConfigWorld, key: str, line: int) -> None:
    field, table = key.split(": ")
    world.change(key, f"{key}x")
    assert world.problem() == (
        f"{line}: steps[1].config.{field}: no contract in schemas/ is for table '{table}x'. "
        f"Did you mean '{table}'? Tables: cost, usage."
    )


@pytest.mark.parametrize("name", ['"../system/providers"', "/etc/passwd", '"{org_slug}"'])
def test_a_table_name_is_looked_up_and_never_used_as_a_path(world: ConfigWorld, name: str) -> None:
    world.change("source_table: usage", f"source_table: {name}")
    assert "no contract in schemas/ is for table" in world.problem()


def test_a_broken_contract_is_named_with_its_own_line(world: ConfigWorld) -> None:
    world.write("schemas/usage.yml", "table: usage\ndescription: d\ncolumns:\n  - {name: a, type: FLOAT}\n")
    assert world.problems()[0].startswith(
        "14: steps[0].config.destination_table: fix the contract first: configs/schemas/usage.yml:4: columns[0].type:"
    )


BAD_SCHEDULES = """
* * * *|0 0 6 * * *||@daily|61 * * * *|* 24 * * *|*/0 * * * *|0 0 30 2 *|0 0 * * 8|5-1 * * * *|a b c d e|0 0 * FOO *
0 0 L * *|0 0 LW * *|0 0 * * 5L|0 0 * * 1#2|0 0 ? * *|1,2/3/4 * * * *|1-*/2 * * * *
"""


@pytest.mark.parametrize("schedule", BAD_SCHEDULES.strip().replace("\n", "|").split("|"))
def test_what_is_no_five_field_cron_expression_is_refused(world: ConfigWorld, schedule: str) -> None:
    world.change("0 6 * * *", schedule)
    problem = world.problem()
    assert problem.startswith("6: schedule: ") and "'0 6 * * *' is 06:00 UTC every day" in problem


@pytest.mark.parametrize(
    "schedule", ["*/15 * * * *", "0 6 1,15 * *", "30 2 * * MON-FRI", "0 0 29 2 *", "0 0 1 JAN *", "5 4 * * 7"]
)
def test_cron_expressions_of_the_scheduler_are_accepted(schedule: str) -> None:
    check_cron(schedule)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("pipeline_id: genai_openai_payg", 'pipeline_id: "{org_slug}_payg"', "pipeline_id"),
        ("name: OpenAI usage", 'name: "${org_slug} usage"', "name"),
        ("step_id: calculate", 'step_id: "{run_id}"', "steps[1].step_id"),
        ("ps_type: fake.transform", 'ps_type: "fake.${org_slug}"', "steps[1].ps_type"),
        ("[extract]", '["{run_id}"]', "steps[1].depends_on[0]"),
    ],
)
def test_a_template_outside_a_config_block_is_refused(world: ConfigWorld, old: str, new: str, field: str) -> None:
    world.change(old, new)
    problem = next(problem for problem in world.problems() if f" {field}: " in problem)
    assert problem.endswith("templates are resolved inside config: only. Write the value itself.")


def test_an_unknown_template_is_refused_with_the_nearest_one(world: ConfigWorld) -> None:
    world.change("{run_id}", "{runid}")
    assert world.problem().startswith(
        "13: steps[0].config.label: no template variable is named 'runid'. Did you mean 'run_id'?"
    )


def test_an_unknown_template_does_not_also_fail_the_type_of_its_field(world: ConfigWorld) -> None:
    world.change("{start_date}", "{start_day}")
    assert "no template variable is named 'start_day'. Did you mean 'start_date'?" in world.problem()


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ("      endpoint: completion\n", "11: steps[0].config.endpoint: must be one of 'completions' or 'embeddings'."),
        ("      endpoint: completions\n      limit: 0\n", "12: steps[0].config.limit: must be greater than"),
        (
            "      endpoint: completions\n      filters:\n        - project: a\n        - proj: b\n",
            "14: steps[0].config.filters[1].proj: unknown key. Did you mean 'project'? Known: project.",
        ),
    ],
)
def test_a_mistake_deep_in_a_config_block_is_found_without_a_run(world: ConfigWorld, new: str, expected: str) -> None:
    world.change("      endpoint: completions\n", new)
    assert world.problem().startswith(expected)


def test_a_value_near_an_allowed_one_is_pointed_at_it(world: ConfigWorld) -> None:
    world.change("endpoint: completions", "endpoint: completion")
    assert world.problem().endswith("Did you mean 'completions'?")


def test_a_value_of_a_config_block_is_never_repeated(world: ConfigWorld) -> None:
    world.change("endpoint: completions", "endpoint: sk-s3cret\n      limit: s3cret\n      api_key: s3cret")
    assert len(world.problems()) == 3
    assert "s3cret" not in "".join(world.problems())


def test_a_processor_whose_own_check_breaks_down_is_a_config_error_without_the_text_of_the_error(
    world: ConfigWorld,
) -> None:
    world.change('label: "${org_slug}/{run_id}"', "label: break")
    assert world.problem() == "10: steps[0].config: the processor's check of it broke down (RuntimeError)."


def test_a_value_that_would_change_on_its_way_through_json_is_refused(world: ConfigWorld) -> None:
    world.change("      endpoint: completions\n", "      endpoint: completions\n      anything: 0.1\n")
    assert world.problem() == (
        "10: steps[0].config: holds a value that JSON can't carry unchanged. Put decimals in quotes."
    )


def test_all_mistakes_of_a_file_are_listed_in_the_order_of_its_lines(world: ConfigWorld) -> None:
    world.change("provider: openai", "provider: opnai")
    world.change("0 6 * * *", "61 6 * * *")
    world.change("endpoint: completions", "endpoint: images")
    world.change("max_attempts: 3", "max_attempts: 30")
    world.change("ps_type: fake.transform", "ps_type: fake.transfrm")
    world.change("[extract]", "[extrct]")
    assert [int(problem.split(":")[0]) for problem in world.problems()] == [3, 6, 11, 17, 20, 24]


def test_a_file_with_thousands_of_mistakes_is_given_up_after_the_first_ones(world: ConfigWorld) -> None:
    names = "".join(f"      - nobody_{i}\n" for i in range(5000))
    world.change("    depends_on: [extract]\n", "    depends_on:\n" + names)
    assert len(world.problems()) == 50
