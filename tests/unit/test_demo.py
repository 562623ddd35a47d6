"""The demo: it runs every provider, and says that all is good only if it is."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, cast

import pytest

from common.cli.demo import ORG, show_proof
from common.config.loader import ConfigTree
from common.config.providers import load_providers
from common.platform.paths import CONFIGS
from common.platform.settings import Settings
from common.ports.warehouse import Warehouse
from common.processors.registry import REGISTRY
from infra.local.demo_data import DEMO_PIPELINES, DemoSetup
from infra.local.sandbox.server import SANDBOXED, SandboxServer
from tests.focus.tables import FOCUS

BILLS = {"aws": Decimal(3), "openai": None}


class Proofs:
    """A warehouse that has one answer."""

    def __init__(self, *rows: Mapping[str, Any]) -> None:
        self._rows = rows

    def query(self, _sql: str, _params: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
        return self._rows


def proof(pipeline: str, billed: str, **more: Any) -> dict[str, Any]:
    sums = {"sum_in": Decimal(billed), "sum_out": Decimal(billed), "sum_made": Decimal(billed)}
    counts = {"rows_in": 1, "rows_out": 1, "proof": "equal", "proofs": 1}
    return {"pipeline": pipeline, "provider": pipeline, "currency": "USD", **sums, **counts, **more}


def test_the_demo_runs_one_pipeline_of_every_provider_that_needs_no_api_or_has_a_sandbox() -> None:
    tree, providers = ConfigTree(CONFIGS, REGISTRY), load_providers(CONFIGS)
    configs = [tree.load(route).config for route in tree.routes()]
    writers = [c for c in configs if any(s.config.get("destination_table") == FOCUS.table for s in c.steps)]
    run = [tree.load(pipeline.route).config.provider for pipeline in DEMO_PIPELINES]
    can_run = {key for key, provider in providers.items() if key in SANDBOXED or provider.auth == "none"}
    assert sorted(run) == sorted({config.provider for config in writers} & can_run)


@pytest.mark.parametrize(
    ("rows", "good", "says"),
    [
        ([proof("aws", "3"), proof("openai", "7")], True, "equal"),
        ([proof("aws", "3.000000000000000001"), proof("openai", "7")], False, "DIFFERENT: 3"),
        ([proof("aws", "3"), proof("openai", "7", proof="no source")], False, "no source"),
        ([proof("aws", "3"), proof("openai", "7", proofs=2)], False, "different"),
        ([proof("aws", "3")], False, "openai has no rows."),
    ],
)
def test_all_is_good_only_if_every_pipeline_brought_something_and_it_is_equal(
    rows: list[dict[str, Any]], good: bool, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = DemoSetup(Settings(), SandboxServer(), ORG, 1, date(2026, 11, 1), 3)
    assert show_proof(cast(Warehouse, Proofs(*rows)), "table", setup, BILLS) is good
    assert says in capsys.readouterr().out
