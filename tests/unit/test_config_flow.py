"""What a pipeline's file may say about steps that depend on what came before: retry_on, condition, map, run_if."""

from pathlib import Path
from typing import Any

import pytest

from common.config.params import ITEM_STAND_IN
from common.domain.mapping import item_config
from common.domain.model import MapSpec, RetryPolicy, StepSpec
from tests.config_world import ROUTE, VALID, VARIABLES, ConfigWorld

MAPPED = """\
  - step_id: each
    ps_type: fake.extract
    depends_on: [extract]
    map: {over: extract.outputs.days, max_parallel: 3, dates: true}
    config:
      endpoint: completions
      destination_table: hourly
      day: "{item}"
      label: "${org_slug}/${item}"
"""
LAST = "    depends_on: [extract]\n"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigWorld:
    made = ConfigWorld(tmp_path / "configs", monkeypatch)
    made.write("schemas/hourly.yml", "table: hourly\ndescription: t\ncolumns:\n  - {name: a, type: STRING}\n")
    return made


def steps_of(world: ConfigWorld) -> dict[str, StepSpec]:
    pipeline = world.tree.resolve(world.tree.load(ROUTE), VARIABLES)
    return {spec.step_id: spec for spec in pipeline.steps}


def with_mapped(world: ConfigWorld, old: str = "", new: str = "") -> None:
    assert old in MAPPED
    world.write(f"{ROUTE}.yml", VALID + (MAPPED.replace(old, new) if old else MAPPED))


def test_a_step_that_says_nothing_about_it_runs_once_after_a_success(world: ConfigWorld) -> None:
    spec = steps_of(world)["calculate"]
    assert (spec.condition, spec.map, spec.allow_failure, spec.always) == ("", None, False, False)
    assert (spec.max_wait_seconds, spec.retry.retry_on) == (21_600, ())


def test_all_that_a_file_says_reaches_the_step(world: ConfigWorld) -> None:
    world.change("max_attempts: 3", "max_attempts: 3\n      retry_on: [rate_limit, timeout]")
    world.change(
        LAST,
        LAST + "    condition: steps.extract.rows > 0 and run.trigger == 'cron'\n"
        "    allow_failure: true\n    run_if: always\n    max_wait_seconds: 60\n",
    )
    extract, calculate = steps_of(world).values()
    assert extract.retry == RetryPolicy(3, 30, retry_on=("rate_limit", "timeout"))
    assert calculate.condition == "steps.extract.rows > 0 and run.trigger == 'cron'"
    assert (calculate.allow_failure, calculate.always, calculate.max_wait_seconds) == (True, True, 60)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run_if: alway", "25: steps[1].run_if: must be one of 'success' or 'always'. Did you mean 'always'?"),
        ("allow_failure: 'true'", "25: steps[1].allow_failure: must be a valid boolean."),
        ("max_wait_seconds: 59", "25: steps[1].max_wait_seconds: must be greater than or equal to 60."),
        ("max_wait_seconds: 86401", "25: steps[1].max_wait_seconds: must be less than or equal to 86400."),
        ("conditon: 'true'", "25: steps[1].conditon: unknown key. Did you mean 'condition'?"),
        ("condition: true", "25: steps[1].condition: must be text. Put it in quotes."),
        ("condition: ''", "25: steps[1].condition: column 1: expected a value, found the end."),
        (
            "condition: steps.extract.rows = 0",
            "25: steps[1].condition: column 20: '= 0' can't be read. Did you mean '==",
        ),
        (
            "condition: step.extract.rows > 0",
            "25: steps[1].condition: column 1: no value is named 'step.extract.rows'.",
        ),
        (
            "condition: steps.extrac.rows > 0",
            "25: steps[1].condition: no step is named 'extrac'. Did you mean 'extract'?",
        ),
        (
            "condition: steps.calculate.rows > 0",
            "25: steps[1].condition: 'calculate' is not in this step's depends_on, so it may not have ended by then.",
        ),
        (f"condition: {'true or ' * 70}true", "25: steps[1].condition: must have at most 500 characters."),
        ("map: extract.outputs.days", "25: steps[1].map: must be a mapping of keys to values."),
        ("map: {}", "25: steps[1].map.over: is required. Add it."),
        ("map: {over: extract.days}", r"25: steps[1].map.over: must match ^[a-z][a-z0-9_]{0,62}\.outputs\."),
        (
            "map: {over: extrac.outputs.days}",
            "25: steps[1].map.over: no step is named 'extrac'. Did you mean 'extract'?",
        ),
        ("map: {over: calculate.outputs.days}", "25: steps[1].map.over: 'calculate' is not in this step's depends_on"),
        (
            "map: {over: extract.outputs.days, max_paralel: 2}",
            "25: steps[1].map.max_paralel: unknown key. Did you mean",
        ),
        (
            "map: {over: extract.outputs.days, max_parallel: 101}",
            "25: steps[1].map.max_parallel: must be less than or equal to 100.",
        ),
        ("map: {over: '{run_id}.outputs.x'}", "25: steps[1].map.over: templates are resolved inside config: only."),
        (
            "map: {over: extract.outputs.days}",
            "25: steps[1].map.dates: must be true in a step that writes a table: without a day of its own, each item",
        ),
    ],
)
def test_a_mistake_is_refused_at_its_line(world: ConfigWorld, line: str, expected: str) -> None:
    world.change(LAST, f"{LAST}    {line}\n")
    assert any(problem.startswith(expected) for problem in world.problems()), world.problems()


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        (
            "retry_on: [ratelimit]",
            "no kind of failure is named 'ratelimit'. Did you mean 'rate_limit'? Known: timeout,",
        ),
        ("retry_on: [timeout, timeout]", "steps[0].retry.retry_on[1]: 'timeout' is listed twice. Remove one."),
        ("retry_on: timeout", "steps[0].retry.retry_on: must be a list."),
        ("retry_on: [3]", "steps[0].retry.retry_on[0]: must be text. Put it in quotes."),
    ],
)
def test_a_kind_of_failure_that_is_none_is_refused(world: ConfigWorld, retry: str, expected: str) -> None:
    world.change("max_attempts: 3", f"max_attempts: 3\n      {retry}")
    assert expected in world.problem()


@pytest.mark.parametrize("attempts", ["max_attempts: 1\n      ", ""])
def test_kinds_to_try_again_after_are_a_mistake_where_nothing_is_tried_again(world: ConfigWorld, attempts: str) -> None:
    world.change("max_attempts: 3", f"{attempts}retry_on: [timeout]")
    assert (
        "steps[0].retry.retry_on: nothing is tried again while max_attempts is 1. Set max_attempts" in world.problem()
    )


def test_a_mapped_step_keeps_its_template_for_the_run(world: ConfigWorld) -> None:
    with_mapped(world)
    spec = steps_of(world)["each"]
    assert spec.map == MapSpec("extract.outputs.days", 3, True)
    assert spec.config == {
        "endpoint": "completions",
        "destination_table": "hourly",
        "day": "{item}",
        "label": "acme_corp/${item}",
    }
    assert item_config(spec.config, "2026-02-03")["label"] == "acme_corp/2026-02-03"


def test_an_item_outside_a_mapped_step_is_refused(world: ConfigWorld) -> None:
    world.change("{start_date}", "{item}")
    assert world.problem() == (
        "12: steps[0].config.day: template {item} has a value in a step with map: only. "
        "Add map:, or write the value itself."
    )


def test_an_item_in_any_other_field_is_refused(world: ConfigWorld) -> None:
    with_mapped(world, "step_id: each", 'step_id: "{item}"')
    assert any("templates are resolved inside config: only" in problem for problem in world.problems())


def test_a_misspelt_item_is_refused_with_the_nearest_name(world: ConfigWorld) -> None:
    with_mapped(world, "${item}", "{itm}")
    assert "no template variable is named 'itm'. Did you mean 'item'?" in world.problem()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("endpoint: completions", "endpoint: images", "config.endpoint: must be one of 'completions' or 'embeddings'."),
        ("endpoint: completions", "lable: x", "config.endpoint: is required. Add it."),
        ('label: "${org_slug}/${item}"', 'limit: "{item}"', "config.limit: must be a valid integer"),
        ('label: "${org_slug}/${item}"', "factor: 0.5", "config: holds a value that JSON can't carry unchanged."),
        (
            "destination_table: hourly",
            'destination_table: "t_{item}"',
            "config.destination_table: must match ^[a-z][a-z0-9_]{0,127}$.",
        ),
        ("destination_table: hourly", "destination_table: usage", "the step in line 14 writes 'usage' too"),
    ],
)
def test_the_config_of_a_mapped_step_is_checked_with_a_day(
    world: ConfigWorld, old: str, new: str, expected: str
) -> None:
    with_mapped(world, old, new)
    assert any(expected in problem for problem in world.problems()), world.problems()


def test_a_mapped_step_that_writes_no_table_may_say_so(world: ConfigWorld) -> None:
    with_mapped(
        world, "map: {over: extract.outputs.days, max_parallel: 3, dates: true}", "map: {over: extract.outputs.x}"
    )
    world.change("destination_table: hourly", "destination_table: null")
    assert not any("dates" in problem for problem in world.problems())


def plain_map(world: ConfigWorld, config: str) -> None:
    step = (
        "  - {step_id: each, ps_type: fake.items, depends_on: [extract], map: {over: extract.outputs.names}, config: "
    )
    world.write(f"{ROUTE}.yml", f"{VALID}{step}{{{config}}}}}\n")


@pytest.mark.parametrize("value", ['"{item}"', '"${item}"', '"{item}-{item}"'])
def test_what_only_the_run_can_tell_about_items_that_are_no_days_is_left_to_it(world: ConfigWorld, value: str) -> None:
    plain_map(world, f"size: {value}, filters: [{{project: {value}}}]")
    text: Any = value.strip('"')
    assert steps_of(world)["each"].config == {"size": text, "filters": [{"project": text}]}


def test_what_does_not_depend_on_the_item_is_checked_all_the_same(world: ConfigWorld) -> None:
    plain_map(world, 'size: big, filters: [{project: "{item}", nope: 1}]')
    first, second = world.problems()
    assert "steps[2].config.size: must be a valid integer" in first + second
    assert "steps[2].config.filters[0].nope: unknown key" in first + second


def test_a_mapped_config_is_checked_again_with_the_runs_values(world: ConfigWorld) -> None:
    with_mapped(world, 'day: "{item}"', 'day: "{start_date}"')
    file = world.tree.load(ROUTE)
    with pytest.raises(Exception, match=r"steps\[2\].config.day: ") as caught:
        world.tree.resolve(file, VARIABLES | {"start_date": "s3cret"})
    assert "s3cret" not in str(caught.value) and ITEM_STAND_IN not in str(caught.value)


READER = """\
  - step_id: reader
    ps_type: fake.transform
    config: {source_table: cost, destination_table: hourly}
    depends_on: [%s]
"""
BETWEEN = "  - step_id: between\n    ps_type: fake.plain\n    depends_on: [calculate]\n"


@pytest.mark.parametrize("waits_for", ["extract", ""])
def test_a_step_that_reads_what_another_writes_has_to_wait_for_it(world: ConfigWorld, waits_for: str) -> None:
    """Independent steps start together, whatever their order in the file."""
    world.write(f"{ROUTE}.yml", VALID + READER % waits_for)
    problem = world.problem()
    assert problem.startswith(
        "27: steps[2].config.source_table: step 'calculate' writes 'cost', and this step does not"
    )
    assert problem.endswith("Add 'calculate' to depends_on.")


@pytest.mark.parametrize("text", [READER % "calculate", BETWEEN + READER % "between"], ids=["directly", "by another"])
def test_a_step_that_waits_for_the_writer_of_what_it_reads_is_right(world: ConfigWorld, text: str) -> None:
    world.write(f"{ROUTE}.yml", VALID + text)
    assert len(world.tree.load(ROUTE).config.steps) == 2 + text.count("step_id")
