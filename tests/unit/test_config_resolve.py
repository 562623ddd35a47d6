"""A valid pipeline with its templates filled in, and what else is read of its file."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from common.domain.model import RetryPolicy
from common.platform.errors import ConfigError
from tests.config_world import ROUTE, VALID, VARIABLES, ConfigWorld


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigWorld:
    return ConfigWorld(tmp_path / "configs", monkeypatch)


def test_resolving_fills_the_templates_and_keeps_plain_validated_data(world: ConfigWorld) -> None:
    file = world.tree.load(ROUTE)
    pipeline = world.tree.resolve(file, VARIABLES)
    extract, calculate = pipeline.steps
    assert (pipeline.pipeline_id, pipeline.provider, pipeline.config_hash) == (
        "genai_openai_payg",
        "openai",
        file.text_hash,
    )
    assert extract.config == {
        "destination_table": "usage",
        "endpoint": "completions",
        "day": "2026-02-03",
        "label": "acme_corp/run_1",
        "limit": 10,
        "factor": "1",
        "filters": [],
        "anything": None,
    }
    assert (extract.timeout_seconds, extract.retry, extract.depends_on) == (540, RetryPolicy(3, 30), ())
    assert (calculate.ps_type, calculate.depends_on) == ("fake.transform", ("extract",))


def test_the_hash_is_the_sha_256_of_the_file(world: ConfigWorld) -> None:
    world.write(f"{ROUTE}.yml", VALID)
    assert world.tree.load(ROUTE).text_hash == hashlib.sha256(VALID.encode()).hexdigest()


def test_pipeline_id_is_known_without_being_passed(world: ConfigWorld) -> None:
    world.change("${org_slug}/{run_id}", "{pipeline_id}")
    file = world.tree.load(ROUTE)
    assert world.tree.resolve(file, VARIABLES).steps[0].config["label"] == "genai_openai_payg"


def test_a_variable_without_a_value_is_refused_with_its_line(world: ConfigWorld) -> None:
    file = world.tree.load(ROUTE)
    with pytest.raises(ConfigError) as caught:
        world.tree.resolve(file, {key: value for key, value in VARIABLES.items() if key != "run_id"})
    assert str(caught.value) == f"configs/{ROUTE}.yml:13: steps[0].config.label: template {{run_id}} has no value here."


def test_config_is_validated_again_after_resolution(world: ConfigWorld) -> None:
    file = world.tree.load(ROUTE)
    with pytest.raises(ConfigError, match=rf"configs/{ROUTE}.yml:12: steps\[0\].config.day: ") as caught:
        world.tree.resolve(file, VARIABLES | {"start_date": "s3cret"})
    assert "s3cret" not in str(caught.value)


def test_a_value_put_in_is_not_expanded_again(world: ConfigWorld) -> None:
    file = world.tree.load(ROUTE)
    pipeline = world.tree.resolve(file, VARIABLES | {"org_slug": "{project_id}"})
    assert pipeline.steps[0].config["label"] == "{project_id}/run_1"


@pytest.mark.parametrize("change", [lambda text: text.replace("\n", "\r\n"), lambda text: "\ufeff" + text])
def test_line_ends_and_byte_order_marks_of_other_systems_change_nothing(
    world: ConfigWorld, change: Callable[[str], str]
) -> None:
    plain = world.tree.load(ROUTE).config
    world.write(f"{ROUTE}.yml", change(VALID))
    assert world.tree.load(ROUTE).config == plain


@pytest.mark.parametrize(
    ("line", "slots"),
    [
        ("", None),
        ("concurrency: 2\n", 2),
        ("concurrency: 0\n", None),
        ('concurrency: "2"\n', None),
        ("concurrency: true\n", None),
    ],
)
def test_a_pipelines_concurrency_is_known_without_the_rest_of_it(
    world: ConfigWorld, line: str, slots: int | None
) -> None:
    world.change("name: OpenAI", f"{line}name: OpenAI")
    assert world.tree.concurrency(ROUTE) == slots
    assert world.tree.concurrency("no/such/route") is None
