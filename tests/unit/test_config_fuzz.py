"""Nothing that a file holds may raise anything but a ConfigError, whose every line names the file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.config.check import validate_tree
from common.config.loader import PipelineFile
from common.config.model import MapConfig, PipelineConfig, RetryConfig, StepConfig
from common.platform.errors import ConfigError
from common.processors.registry import REGISTRY
from tests.config_world import ROUTE, VALID, VARIABLES, ConfigWorld, ExtractParams

RICH = (
    VALID.replace("max_attempts: 3", "max_attempts: 3\n      retry_on: [timeout]")
    + """\
  - step_id: each
    ps_type: fake.items
    depends_on: [extract, calculate]
    condition: steps.extract.rows > 0 and steps.calculate.status == 'succeeded'
    map: {over: extract.outputs.days, max_parallel: 3}
    allow_failure: true
    run_if: always
    config: {size: "{item}", filters: [{project: "${org_slug} {item}"}]}
"""
)

quiet = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConfigWorld]:
    yield ConfigWorld(tmp_path / "configs", monkeypatch)


def load(world: ConfigWorld, content: bytes) -> PipelineFile | None:
    path = world.root / f"{ROUTE}.yml"
    path.unlink(missing_ok=True)  # a new file each time: the cache goes by time and size
    path.write_bytes(content)
    world.fresh()
    try:
        file = world.tree.load(ROUTE)
    except ConfigError as error:
        assert all(line.startswith(f"configs/{ROUTE}.yml:") for line in str(error).split("\n"))
        return None
    world.tree.resolve(file, VARIABLES)
    return file


@quiet
@given(st.binary(max_size=300))
def test_random_bytes(world: ConfigWorld, raw: bytes) -> None:
    load(world, raw)


keys = st.sampled_from(
    [
        *PipelineConfig.model_fields,
        *StepConfig.model_fields,
        *RetryConfig.model_fields,
        *MapConfig.model_fields,
        *ExtractParams.model_fields,
    ]
) | st.text(max_size=4)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(
        [
            "extract",
            "fake.extract",
            "fake.missing",
            "usage",
            "{run_id}",
            "{item}",
            "${nope}",
            "* * * * *",
            "openai",
            "break",
        ]
    ),
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)


@quiet
@given(trees)
def test_random_structures(world: ConfigWorld, tree: Any) -> None:
    load(world, yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))


@quiet
@given(st.data())
def test_a_valid_file_with_any_one_value_replaced(world: ConfigWorld, data: st.DataObject) -> None:
    content: Any = yaml.load(RICH, yaml.BaseLoader)  # text only: numbers are a mutation of their own
    node, key = content, data.draw(st.sampled_from(sorted(content)))
    while isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
        node = node[key]
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
    node[key] = data.draw(trees)
    load(world, yaml.safe_dump(content).encode())


@quiet
@given(st.integers(0, len(RICH)), st.integers(0, 40), st.text(alphabet="\t\n :-[]{}\"'#&*!|>%@`,?$ab01é\0", max_size=6))
def test_a_valid_file_with_any_piece_replaced(world: ConfigWorld, start: int, length: int, piece: str) -> None:
    load(world, (RICH[:start] + piece + RICH[start + length :]).encode())


def test_the_valid_file_is_among_what_is_accepted(world: ConfigWorld) -> None:
    assert load(world, RICH.encode()) is not None


@quiet
@given(trees)
def test_random_structures_as_contract_and_provider_registry(world: ConfigWorld, tree: Any) -> None:
    text = yaml.safe_dump(tree)
    world.write("schemas/cost.yml", text)
    world.write("system/providers.yml", text)
    world.fresh()
    assert validate_tree(world.root, REGISTRY)
