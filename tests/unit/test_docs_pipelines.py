"""docs/pipelines.md names every field with its default, and its examples are valid."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from common.config.loader import ConfigTree
from common.config.model import KINDS, MapConfig, PipelineConfig, RetryConfig, StepConfig, WriteConfig
from common.domain.condition import RUN_NAMES
from common.domain.expression import ENDED
from common.platform.paths import CONFIGS
from common.processors import registry
from common.processors.registry import REGISTRY

TEXT = (CONFIGS.parent / "docs" / "pipelines.md").read_text("utf-8")
HEAD = "pipeline_id: p\nname: n\nprovider: openai\ndomain: d\nversion: '1'\nsteps:\n"
FIELDS = {
    "": PipelineConfig,
    "steps[].": StepConfig,
    "steps[].retry.": RetryConfig,
    "steps[].write.": WriteConfig,
    "steps[].map.": MapConfig,
}


def fields() -> Iterator[tuple[str, Any]]:
    for prefix, model in FIELDS.items():
        assert issubclass(model, BaseModel)
        for name, field in model.model_fields.items():
            if f"{prefix}{name}." not in FIELDS:
                yield f"{prefix}{name}", field.default


def written(default: Any) -> str:
    plain = {None: "none", "": '`""`', False: "`false`"}
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, tuple | dict):
        return "`[]`" if default == () else "`{}`"
    return plain[default] if default in (None, "") or default is False else f"`{default}`"


@pytest.mark.parametrize(("name", "default"), list(fields()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_field_is_in_the_table_with_its_default(name: str, default: Any) -> None:
    assert f"\n| `{name}` | {written(default)}" in TEXT


def test_the_table_holds_no_other_field() -> None:
    table = TEXT[TEXT.index("## Every field") : TEXT.index("## Steps that")]
    assert set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)) == {name for name, _ in fields()}


@pytest.mark.parametrize("word", [*KINDS, *ENDED, *RUN_NAMES])
def test_every_kind_status_and_name_is_explained(word: str) -> None:
    assert f"`{word}`" in TEXT


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
def test_an_example_is_valid(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PROCESSORS, "acme.changed_days", "tests.config_world:FakePlain")
    root = tmp_path / "configs"
    for folder in ("schemas", "sql", "system"):
        shutil.copytree(CONFIGS / folder, root / folder)
    for procedure in re.findall(r"\bsp_\w+", example):
        (root / "sql" / f"{procedure}.sql").touch()
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "c.yml").write_text(HEAD + example, "utf-8")
    assert ConfigTree(root, REGISTRY).load("a/b/c").config.steps
