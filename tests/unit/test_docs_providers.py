"""docs/providers.md and docs/providers-cloud.md: every provider is in them, and what they say is what the configs say.

The provider that the first one adds, and the processor that the second one adds, work with nothing else changed.
"""

import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config.check import validate_tree
from common.config.loader import ConfigTree
from common.config.providers import load_providers
from common.domain.model import DEFAULT_WRITE
from common.platform.paths import PROJECT_ROOT, configs_dir
from common.processors import clouds, registry
from common.processors.bills.layout import LAYOUTS
from common.processors.genai import providers, sources
from common.processors.genai.payg_cost import GenaiPaygCost, GenaiPaygCostParams
from common.processors.genai.payg_usage import GenaiPaygUsage, GenaiPaygUsageParams
from common.processors.genai.price_rules import load_price_rules
from common.tables.contract import load_table
from common.writes.batch import Batch
from common.writes.spool import Spool
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.server import SandboxServer
from tests.processors.context import FakeWarehouse, make_context

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


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example, put where it says: a module, a pipeline and an entry in the registry. Returns the configs."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "acme_llm.py").write_text(block("common/processors/genai/providers/"), "utf-8")
    monkeypatch.setattr(providers, "__path__", [*providers.__path__, str(tmp_path / "modules")])
    configs = tmp_path / "configs"
    for folder in ("schemas", "system"):
        (configs / folder).mkdir(parents=True)
        for path in (configs_dir() / folder).glob("*.yml"):
            (configs / folder / path.name).write_text(path.read_text("utf-8"), "utf-8")
    registry = configs / "system" / "providers.yml"
    registry.write_text(registry.read_text("utf-8") + block("configs/system/providers.yml"), "utf-8")
    pipeline = configs / "genai" / "payg" / "acme_llm.yml"
    pipeline.parent.mkdir(parents=True)
    pipeline.write_text(block("configs/genai/payg/acme_llm.yml"), "utf-8")
    for function in (sources.known, sources.source):
        function.cache_clear()
    yield configs
    sys.modules.pop("common.processors.genai.providers.acme_llm", None)
    vars(providers).pop("acme_llm", None)
    for function in (sources.known, sources.source):
        function.cache_clear()


def acme_api(request: Request) -> Answer:
    """What the example's provider answers."""
    if request.headers.get("authorization") != "Bearer key-1":
        return Answer(401, {"error": {"message": "no"}})
    if request.path == "/v1/me":
        return Answer(200, {"account": "acme-7"})
    models = [{"model": "acme-large", "input_tokens": 1_000, "output_tokens": 10}]
    return Answer(200, {"models": models}) if dict(request.query).get("day") == "2026-11-18" else Answer(400, {})


def test_the_provider_of_the_docs_works_with_nothing_else_changed(acme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_providers(acme)["acme_llm"].restatement_days == 2
    file = ConfigTree(acme).load("genai/payg/acme_llm")
    assert [step.step_id for step in file.config.steps] == ["extract", "calculate", "unify"]
    with SandboxServer(fail_with=acme_api) as server:
        origin = server.urls["anthropic"]
        context = make_context(provider_url=lambda _key: origin, secret=lambda: "key-1")
        assert sources.source("acme_llm").try_credential(context, "key-1") == "acme-7"
        params = GenaiPaygUsageParams.model_validate(dict(file.config.steps[0].config))
        rows = [dict(row) for batch in GenaiPaygUsage().run(context, params) for row in batch.rows]
    assert {row["meter"]: row["quantity"] for row in rows} == {"input_text": 1_000, "output_text": 10}
    assert {row["x_pipeline_run_date"] for row in rows} == {date(2026, 11, 18)}

    monkeypatch.setenv("PIPELINE_OPS_CONFIGS", str(acme))
    (acme / "system" / "prices").mkdir()
    rule = 'organisation: acme_corp\nrules:\n  - {provider: acme_llm, unit_price: "2", per: 1000000}\n'
    (acme / "system" / "prices" / "acme_corp.yml").write_text(rule, "utf-8")
    absent = dict.fromkeys(load_table(configs_dir(), "genai_payg_usage").names)
    priced = make_context(warehouse=FakeWarehouse([absent | row for row in rows]))
    cost = GenaiPaygCostParams.model_validate(dict(file.config.steps[1].config))
    found = [dict(row) for batch in GenaiPaygCost().run(priced, cost) for row in batch.rows]
    assert sum(row["cost"] for row in found) == Decimal("0.00202")  # 1,010 tokens at 2 a million
    assert {row["service_name"] for row in found} == {"Acme LLM"}


@pytest.fixture
def acme_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The processor of the example, put where it says. Returns the configs, in which its pipeline is."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "acme.py").write_text(block("common/processors/clouds/acme.py", CLOUDS), "utf-8")
    monkeypatch.setattr(clouds, "__path__", [*clouds.__path__, str(tmp_path / "modules")])
    monkeypatch.delitem(sys.modules, "common.processors.clouds.acme", raising=False)
    (line,) = re.findall(r'"(\w+)": "([\w.:]+)",', block("common/processors/registry.py", CLOUDS))
    monkeypatch.setitem(registry.PROCESSORS, *line)
    configs = tmp_path / "configs"
    for folder in ("schemas", "sql", "system"):
        shutil.copytree(configs_dir() / folder, configs / folder)
    file = configs / "system" / "providers.yml"
    file.write_text(file.read_text("utf-8") + block("configs/system/providers.yml", CLOUDS), "utf-8")
    pipeline = configs / "cloud" / "acme" / "cost" / "billing.yml"
    pipeline.parent.mkdir(parents=True)
    pipeline.write_text(block("configs/cloud/acme/cost/billing.yml", CLOUDS), "utf-8")
    return configs


def test_the_processor_of_the_docs_works_with_nothing_else_changed(acme_cloud: Path) -> None:
    wrong = [result for result in validate_tree(acme_cloud, None) if not result.ok]
    assert wrong == []
    config = ConfigTree(acme_cloud).load("acme/cost/billing").config
    built = registry.processor(config.steps[0].ps_type)
    params = built.params_type.model_validate(dict(config.steps[0].config))

    def api(request: Request) -> Answer:
        costs = [{"organization": "acme-7", "service": "Runner", "amount": "1.25", "currency": "EUR"}]
        known = request.path == "/v1/costs" and request.headers.get("authorization") == "Bearer key-1"
        return Answer(200, {"costs": costs}) if known else Answer(401, {"error": {"message": "no"}})

    with SandboxServer(fail_with=api) as server:
        context = make_context(
            provider_url=lambda _key: server.urls["anthropic"],
            secret=lambda: "key-1",
            start_date=date(2026, 11, 17),
            end_date=date(2026, 11, 18),
        )
        rows = [dict(row) for batch in built.run(context, params) for row in batch.rows]
    assert [(row["x_pipeline_run_date"].day, row["BilledCost"], row["BillingCurrency"]) for row in rows] == [
        (17, Decimal("1.25"), "EUR"),
        (18, Decimal("1.25"), "EUR"),
    ]
    days = date(2026, 11, 17), date(2026, 11, 18)
    contract, path = load_table(configs_dir(), "cloud_focus_export"), acme_cloud / "rows.parquet"
    spool = Spool(path, contract, *days, (76, 38), write=DEFAULT_WRITE, org_slug="acme_corp")
    spool.write(Batch(rows))
    spool.close()


@pytest.mark.parametrize("key", sources.known())
def test_every_provider_has_its_column_and_its_chapter(key: str) -> None:
    assert f"`{key}`" in TEXT.split("\n\n")[2]
    its = load_providers(configs_dir())[key]
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
    return [str(path.relative_to(configs_dir())) for path in configs_dir().glob("cloud/*/cost/*.yml")]


@pytest.mark.parametrize("path", cloud_routes())
def test_every_pipeline_of_a_cloud_is_in_its_chapter(path: str) -> None:
    config = ConfigTree(configs_dir()).load(path.removeprefix("cloud/").removesuffix(".yml")).config
    name = load_providers(configs_dir())[config.provider].display_name
    assert f"`configs/{path}`" in CLOUDS.split(f"\n## {name}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("key", ["aws", "azure", "gcp", "oci"])
def test_a_clouds_chapter_says_its_window_and_every_field_of_its_credential(key: str) -> None:
    its = load_providers(configs_dir())[key]
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
