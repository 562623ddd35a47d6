"""The configuration of this repository is right, as ``main.py validate`` would say."""

import pytest

from common.config.check import Result, validate_tree
from common.config.loader import ConfigTree
from common.platform.paths import CONFIGS
from common.processors.registry import REGISTRY
from tests.config_world import VARIABLES


@pytest.mark.parametrize("result", validate_tree(CONFIGS, REGISTRY), ids=lambda result: result.path)
def test_every_file_of_the_configuration_is_right(result: Result) -> None:
    assert result.ok, "\n".join(map(str, result.problems))


@pytest.mark.parametrize("route", sorted(ConfigTree(CONFIGS, REGISTRY).scan().routes))
def test_every_pipeline_resolves_for_a_run(route: str) -> None:
    tree = ConfigTree(CONFIGS, REGISTRY)
    assert tree.resolve(tree.load(route), VARIABLES).steps
