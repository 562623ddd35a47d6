"""docs/providers.md and docs/providers-cloud.md: every provider is in them, and what they say is what the configs say.

Held to that is every provider that has a sandbox: one that somebody has just begun may have its chapter later. That the
providers which the documents add work is ``tests/e2e/test_new_provider.py``.
"""

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config.loader import ConfigTree
from common.config.providers import load_providers
from common.platform.paths import CONFIGS, PROJECT_ROOT
from common.processors.bills.layout import LAYOUTS
from common.processors.genai.price_rules import load_price_rules
from common.processors.genai.registry import provider_keys
from common.processors.registry import REGISTRY
from infra.local.sandbox.server import SANDBOXED

CLOUDS = (PROJECT_ROOT / "docs" / "providers-cloud.md").read_text("utf-8")
TEXT = (PROJECT_ROOT / "docs" / "providers.md").read_text("utf-8")


def blocks(text: str) -> dict[str, str]:
    """Code by the place that its first line names."""
    return {
        match[2].strip(): match[0].split("\n", 1)[1].rsplit("```", 1)[0]
        for match in re.finditer(r"```(python|yaml)\n# ([^\n]+)\n.*?```", text, re.DOTALL)
    }


def block(name: str, text: str = TEXT) -> str:
    return next(code for title, code in blocks(text).items() if title.startswith(name))


@pytest.mark.parametrize("key", [key for key in provider_keys() if key in SANDBOXED])
def test_every_provider_has_its_column_and_its_chapter(key: str) -> None:
    assert f"`{key}`" in TEXT.split("\n\n")[2]
    its = load_providers(CONFIGS)[key]
    assert its.base_url and its.credential_hint and its.limits and its.auth != "none"
    chapter = TEXT.split(f"\n## {its.display_name.removeprefix('Google ')}\n")[1].split("\n## ")[0]
    assert "*Credential:*" in chapter


def test_the_prices_of_the_docs_are_right(tmp_path: Path) -> None:
    (tmp_path / "system" / "prices").mkdir(parents=True)
    text = block("configs/system/prices/acme_corp.yml")
    (tmp_path / "system" / "prices" / "acme_corp.yml").write_text(textwrap.dedent(text), "utf-8")
    found: Any = load_price_rules(tmp_path, "acme_corp").rules
    assert len(found) == len(yaml.safe_load(text)["rules"]) == 2


def cloud_routes() -> list[str]:
    every = [path.relative_to(CONFIGS) for path in CONFIGS.glob("cloud/*/cost/*.yml")]
    return [str(path) for path in every if path.parts[1] in SANDBOXED]


@pytest.mark.parametrize("path", cloud_routes())
def test_every_pipeline_of_a_cloud_is_in_its_chapter(path: str) -> None:
    config = ConfigTree(CONFIGS, REGISTRY).load(path.removeprefix("cloud/").removesuffix(".yml")).config
    name = load_providers(CONFIGS)[config.provider].display_name
    assert f"`configs/{path}`" in CLOUDS.split(f"\n## {name}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("key", ["aws", "azure", "gcp", "oci"])
def test_a_clouds_chapter_says_its_window_and_every_field_of_its_credential(key: str) -> None:
    its = load_providers(CONFIGS)[key]
    chapter = CLOUDS.split(f"\n## {its.display_name}\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| (\w+) \| (.*) \|$", chapter, re.MULTILINE))
    assert rows.keys() >= {"read", "credential", "limits", "restatement", "FOCUS"}
    # Yesterday is read as well.
    assert rows["restatement"].startswith(f"{its.restatement_days + 1} days"), its.restatement_days
    fields = set(re.findall(r'"(\w+)"', its.credential_hint))
    assert fields and [name for name in fields if f'"{name}"' not in rows["credential"]] == []
    assert "Missing:" in chapter


def test_every_layout_is_in_the_table_of_layouts() -> None:
    table = CLOUDS.split("| `layout` | reads |")[1].split("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+)`", table)) == {"table", *LAYOUTS}
