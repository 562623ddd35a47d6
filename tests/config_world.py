"""A small configuration tree with processors of its own, so that config tests do not depend on real ones."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, Field, field_validator

from common.config import yaml_source
from common.config.loader import ConfigTree
from common.platform.errors import ConfigError
from common.processors import registry
from common.processors.base import Params, TableParams
from common.processors.registry import REGISTRY

ROUTE = "genai/payg/openai"

VALID = """\
pipeline_id: genai_openai_payg
name: OpenAI usage
provider: openai
domain: payg
version: 1.10
schedule: "0 6 * * *"
steps:
  - step_id: extract
    ps_type: fake.extract
    config:
      endpoint: completions
      day: "{start_date}"
      label: "${org_slug}/{run_id}"
      destination_table: usage
    timeout_seconds: 540
    retry:
      max_attempts: 3
      backoff_seconds: 30
  - step_id: calculate
    ps_type: fake.transform
    config:
      source_table: usage
      destination_table: cost
    depends_on: [extract]
"""

PROVIDERS = """\
providers:
  openai:
    display_name: OpenAI
    base_url: https://api.openai.com/v1
    auth: bearer
    credential_hint: An admin key
  aws:
    display_name: AWS
"""

PLANS = """\
plans:
  small: {daily: 1, monthly: 2, concurrent: 3}
organisations:
  acme_corp: {plan: small, status: ACTIVE}
"""

VARIABLES = {
    "org_slug": "acme_corp",
    "project_id": "acme-prod",
    "org_dataset": "acme_corp_prod",
    "start_date": "2026-02-03",
    "end_date": "2026-02-04",
    "credential_id": "cred_1",
    "run_id": "run_1",
}


class Filter(BaseModel):
    """A block inside a config block."""

    model_config = {"extra": "forbid"}

    project: str = ""


class ExtractParams(TableParams):
    """Params with every kind of field a mistake can be made in."""

    endpoint: Literal["completions", "embeddings"]
    day: date | None = None
    label: str = ""
    limit: int = Field(default=10, ge=1)
    factor: Decimal = Decimal(1)
    filters: tuple[Filter, ...] = ()
    anything: Any = None

    @field_validator("label")
    @classmethod
    def _broken_check(cls, value: str) -> str:
        if value == "break":
            raise RuntimeError("s3cret")
        return value


class TransformParams(TableParams):
    """Params that read one table and write another."""

    source_table: str


class PlainParams(Params):
    """Params without any that is required."""

    note: str = ""


class ItemParams(Params):
    """Params of a step that writes no table."""

    size: int = 0
    filters: tuple[Filter, ...] = ()


class FakeExtract:
    """Stands for a processor; only its params matter here."""

    params_type: ClassVar[type[Params]] = ExtractParams


class FakeTransform:
    """Another one."""

    params_type: ClassVar[type[Params]] = TransformParams


class FakePlain:
    """One that needs no config at all."""

    params_type: ClassVar[type[Params]] = PlainParams


class FakeItems:
    """One for maps."""

    params_type: ClassVar[type[Params]] = ItemParams


class ConfigWorld:
    """Files below one root, and what the loader makes of them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fakes = {
            "fake.extract": "tests.config_world:FakeExtract",
            "fake.transform": "tests.config_world:FakeTransform",
            "fake.plain": "tests.config_world:FakePlain",
            "fake.items": "tests.config_world:FakeItems",
            "fake.missing": "tests.no_such_module:Processor",
        }
        monkeypatch.setattr(registry, "PROCESSORS", fakes)
        self.root = root
        self.tree = ConfigTree(root, REGISTRY)
        for table in ("usage", "cost"):
            self.write(
                f"schemas/{table}.yml", f"table: {table}\ndescription: t\ncolumns:\n  - {{name: a, type: STRING}}\n"
            )
        self.write("system/providers.yml", PROVIDERS)
        self.write("system/plans.yml", PLANS)
        self.write(f"{ROUTE}.yml", VALID)

    def write(self, name: str, content: str | bytes) -> Path:
        """Write one file below the root."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    @staticmethod
    def forget_missing_processor() -> None:
        """Leave only processors that can be loaded."""
        del registry.PROCESSORS["fake.missing"]

    @staticmethod
    def fresh() -> None:
        """Forget what was read: for tests that write faster than the clock of the file system ticks."""
        yaml_source._read.cache_clear()

    def change(self, old: str, new: str) -> None:
        """Replace one piece of the valid pipeline's text."""
        path = self.root / f"{ROUTE}.yml"
        text = path.read_text("utf-8")
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        self.write(f"{ROUTE}.yml", text.replace(old, new))

    def problems(self) -> list[str]:
        """What is wrong with the pipeline, each without the path that all of them start with."""
        with pytest.raises(ConfigError) as caught:
            self.tree.load(ROUTE)
        prefix = f"configs/{ROUTE}.yml:"
        lines = str(caught.value).split("\n")
        assert all(line.startswith(prefix) for line in lines), lines
        return [line.removeprefix(prefix) for line in lines]

    def problem(self) -> str:
        """The only thing that is wrong with the pipeline."""
        (only,) = self.problems()
        return only
