"""Which files are pipelines, and by which route they are found."""

from pathlib import Path

import pytest

from common.config import yaml_source
from common.platform.errors import ConfigError, NotFoundError
from tests.config_world import ROUTE, VALID, ConfigWorld

FOLDERS = ("schemas", "sql", "system", "environments")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigWorld:
    return ConfigWorld(tmp_path / "configs", monkeypatch)


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("cloud/gcp/cost/billing.yml", "gcp/cost/billing"),
        ("genai/payg/anthropic.yaml", "genai/payg/anthropic"),
        ("a/b/c/d/e-1.yml", "c/d/e-1"),
    ],
)
def test_a_route_is_the_last_three_parts_of_the_path(world: ConfigWorld, name: str, route: str) -> None:
    path = world.write(name, VALID)
    assert world.tree.routes() == {ROUTE: world.root / f"{ROUTE}.yml", route: path}
    assert world.tree.find(route) == path
    assert world.tree.load(route).route == route


@pytest.mark.parametrize("name", [*(f"{folder}/a/b/c.yml" for folder in FOLDERS), "a/b/.c.yml", ".a/b/c/d.yml"])
def test_folders_of_other_things_and_hidden_files_hold_no_pipelines(world: ConfigWorld, name: str) -> None:
    world.write(name, VALID)
    assert list(world.tree.routes()) == [ROUTE]


def test_a_folder_named_like_a_file_is_no_pipeline(world: ConfigWorld) -> None:
    (world.root / "a/b/c.yml").mkdir(parents=True)
    assert list(world.tree.routes()) == [ROUTE]


@pytest.mark.parametrize("name", ["billing.yml", "aws/billing.yaml"])
def test_a_file_with_fewer_than_three_parts_is_refused(world: ConfigWorld, name: str) -> None:
    world.write(name, VALID)
    with pytest.raises(ConfigError) as caught:
        world.tree.routes()
    assert str(caught.value) == (f"configs/{name}:1: (path): must be in provider/domain/pipeline.yml. Move it.")


@pytest.mark.parametrize("name", ["a/b/C.yml", "a/b c/d.yml", "a/b/c.d.yml", "a/b/é.yml"])
def test_a_name_that_can_be_no_part_of_a_route_is_refused(world: ConfigWorld, name: str) -> None:
    world.write(name, VALID)
    with pytest.raises(ConfigError, match=r"can't be part of a route: use lower-case letters"):
        world.tree.routes()


@pytest.mark.parametrize("other", ["cloud/genai/payg/openai.yml", "genai/payg/openai.yaml"])
def test_two_files_with_one_route_are_refused_and_both_named(world: ConfigWorld, other: str) -> None:
    world.write(other, VALID)
    for ask in (world.tree.routes, lambda: world.tree.find(ROUTE), lambda: world.tree.load(ROUTE)):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert f"configs/{ROUTE}.yml" in str(caught.value) and f"configs/{other}" in str(caught.value)
        assert "has the same route as" in str(caught.value)


def test_a_misplaced_file_does_not_stop_the_other_pipelines(world: ConfigWorld) -> None:
    world.write("billing.yml", VALID)
    world.write("a/gcp/cost/billing.yml", VALID)
    world.write("b/gcp/cost/billing.yml", VALID)
    assert world.tree.load(ROUTE).route == ROUTE


def test_an_unknown_route_is_not_found_and_the_nearest_one_named(world: ConfigWorld) -> None:
    with pytest.raises(NotFoundError) as caught:
        world.tree.find("genai/payg/openia")
    assert str(caught.value) == ("No pipeline has the route 'genai/payg/openia'. Did you mean 'genai/payg/openai'?")


@pytest.mark.parametrize(
    "route", ["", "x", "../../etc/passwd", "system/providers", "a\0b", "é" * 100_000, "genai/payg/openai.yml"]
)
def test_a_hostile_route_is_just_not_found(world: ConfigWorld, route: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        world.tree.load(route)
    assert len(str(caught.value)) < 1000


def test_messages_show_nothing_of_the_machine(world: ConfigWorld) -> None:
    world.change("provider: openai", "provider: x")
    world.write("top.yml", VALID)
    with pytest.raises(ConfigError) as one:
        world.tree.load(ROUTE)
    with pytest.raises(ConfigError) as two:
        world.tree.routes()
    assert str(world.root.parent) not in f"{one.value} {two.value}"


def test_an_empty_or_missing_root_has_no_routes(tmp_path: Path, world: ConfigWorld) -> None:
    tree = type(world.tree)(tmp_path / "nowhere", world.tree.registry)
    assert tree.routes() == {}
    with pytest.raises(NotFoundError, match="Pipelines: none"):
        tree.load(ROUTE)


def test_an_unchanged_file_is_parsed_once_and_a_changed_one_again(
    world: ConfigWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    parse = yaml_source.parse
    monkeypatch.setattr(yaml_source, "parse", lambda raw, name: parsed.append(name) or parse(raw, name))
    first = world.tree.load(ROUTE)
    again = world.tree.load(ROUTE)
    assert again == first and parsed.count(f"configs/{ROUTE}.yml") == 1
    world.change("name: OpenAI usage", "name: OpenAI")
    assert world.tree.load(ROUTE).config.name == "OpenAI"


def test_what_a_caller_does_to_a_config_does_not_reach_the_next_one(world: ConfigWorld) -> None:
    world.tree.load(ROUTE).config.steps[0].config["label"] = "changed"
    assert world.tree.load(ROUTE).config.steps[0].config["label"] == "${org_slug}/{run_id}"


def test_a_contract_that_goes_is_missed_though_the_pipeline_is_unchanged(world: ConfigWorld) -> None:
    world.tree.load(ROUTE)
    (world.root / "schemas/cost.yml").unlink()
    assert "no contract in schemas/ is for table 'cost'" in world.problem()


def test_a_pipeline_file_that_is_a_broken_link_is_no_pipeline(world: ConfigWorld) -> None:
    (world.root / "genai/payg/other.yml").symlink_to(world.root / "nowhere.yml")
    assert list(world.tree.routes()) == [ROUTE]
