"""``main.py replay``: preview, look, promote or discard, on the example pipeline and its tables."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from click.testing import CliRunner, Result

from common.adapters.bigquery import BigQueryWarehouse
from common.cli.client import ApiClient
from common.cli.main import cli
from common.platform.logs import logger
from common.platform.settings import Settings
from common.ports.secrets import CredentialInfo
from infra.local.sandbox.server import SANDBOX_ADMIN_KEY, SandboxServer
from infra.local.stack import EmbeddedStack

ORG = "acme_corp"
DAYS = {"start_date": "2026-11-01", "end_date": "2026-11-01"}
TABLES = ("genai_payg_usage", "genai_payg_cost", "cost_data_standard_1_3")


@dataclass
class World:
    """A served stack, and a run that has filled its tables."""

    settings: Settings
    client: ApiClient
    warehouse: BigQueryWarehouse
    run_id: str
    dataset: str

    def replay(self, *args: str) -> Result:
        return CliRunner().invoke(cli, ["--state-dir", str(self.settings.state_dir), "replay", *args])

    def preview(self, why: str = "new prices") -> dict[str, Any]:
        asked = self.replay(self.run_id, "--preview", "--reason", why, "--json")
        assert asked.exit_code == 0, asked.output
        found: dict[str, Any] = json.loads(asked.stdout)
        return found

    def state(self) -> list[tuple[int, Decimal]]:
        """Rows and money of three of its tables."""
        amounts = "0", "SUM(cost)", "SUM(BilledCost)"
        sums = [
            next(self.warehouse.query(f"SELECT COUNT(*) AS n, {amount} AS money FROM `{self.dataset}.{table}`"))
            for table, amount in zip(TABLES, amounts, strict=True)
        ]
        return [(row["n"], Decimal(row["money"])) for row in sums]

    def shadows(self) -> list[str]:
        sql = f"SELECT table_name FROM `{self.dataset}`.INFORMATION_SCHEMA.TABLES"
        return [row["table_name"] for row in self.warehouse.query(sql) if "__preview_" in row["table_name"]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    handlers = list(logger.handlers)
    settings = Settings(state_dir=tmp_path_factory.mktemp("replay") / "state")
    with SandboxServer(seed=7) as sandbox:
        served = replace(settings, provider_urls={"openai": sandbox.url})
        with EmbeddedStack(served) as stack:
            info = CredentialInfo(ORG, "cred_openai", "openai", datetime.now(UTC))
            stack.engine.credentials.add(info, SANDBOX_ADMIN_KEY)
            client = ApiClient(stack.url, stack.token)
            run_id = client.start(ORG, "genai/payg/openai", DAYS)["run_id"]
            ended = client.watch(ORG, run_id, lambda _: None)
            assert ended["status"] == "completed", ended
            url = stack.engine.settings.bigquery_url
            warehouse = BigQueryWarehouse(served.project_id, location="US", emulator_url=url)
            dataset = f"{served.project_id}.{served.dataset(ORG)}"
            yield World(settings, client, warehouse, run_id, dataset)
    logger.handlers[:] = handlers


def test_a_preview_changes_nothing_and_a_promotion_all_tables_at_once(world: World) -> None:
    right = world.state()
    # The tables are as an older price list would have left them: half of every price, and the FOCUS rows with it.
    list(world.warehouse.query(f"UPDATE `{world.dataset}.genai_payg_cost` SET cost = cost / 2 WHERE TRUE"))
    list(
        world.warehouse.query(
            f"UPDATE `{world.dataset}.cost_data_standard_1_3` SET BilledCost = BilledCost / 2 WHERE TRUE"
        )
    )
    wrong = world.state()

    found = world.preview()
    assert world.state() == wrong, "a preview must not touch the tables"
    usage, _reported, cost, focus = found["tables"]
    (day,) = usage["days"]
    assert (day["added"], day["changed"], day["removed"]) == (0, 0, 0) and day["same"] == right[0][0]
    (day,) = cost["days"]
    assert day["changed"] > 0 and day["added"] == day["removed"] == 0
    money, listed = cost["money"]
    assert (money["column"], money["currency"]) == ("cost", "USD")
    assert (listed["column"], Decimal(listed["change"])) == ("list_cost", 0)
    assert (Decimal(money["before"]), Decimal(money["after"])) == (wrong[1][1], right[1][1])
    billed = next(m for m in focus["money"] if m["column"] == "BilledCost")
    assert Decimal(billed["change"]) == right[2][1] - wrong[2][1]

    shown = world.replay(found["run_id"], "--show")
    assert shown.exit_code == 0 and "Largest differences" in shown.output and "--promote" in shown.output
    promoted = world.replay(found["run_id"], "--promote", "--reason", "agreed with finance")
    assert promoted.exit_code == 0, promoted.output
    assert world.state() == right
    assert world.shadows() == []
    check = CliRunner().invoke(cli, ["--state-dir", str(world.settings.state_dir), "verify", found["run_id"]])
    assert check.exit_code == 0, check.output
    assert "4 receipts checked" in check.output
    reasons = [c["reason"] for c in world.client.logs(ORG, found["run_id"], "/transitions")["transitions"]]
    assert any("agreed with finance" in reason for reason in reasons)
    again = world.replay(found["run_id"], "--promote", "--reason", "once more")
    assert again.exit_code == 1 and "was promoted already" in again.output


def test_a_preview_that_was_looked_at_before_somebody_else_wrote_is_not_promoted(world: World) -> None:
    found = world.preview("slow decision")
    other = world.client.start(ORG, "genai/payg/openai", DAYS)["run_id"]
    assert world.client.watch(ORG, other, lambda _: None)["status"] == "completed"
    state = world.state()
    refused = world.replay(found["run_id"], "--promote", "--reason", "too late")
    assert refused.exit_code == 1 and other in refused.output, refused.output
    assert world.state() == state
    dropped = world.replay(found["run_id"], "--discard", "--reason", "preview again")
    assert dropped.exit_code == 0, dropped.output
    assert world.state() == state and world.shadows() == []


def test_what_is_asked_has_to_make_sense(world: World) -> None:
    assert world.replay(world.run_id).exit_code == 2
    without = world.replay(world.run_id, "--preview")
    assert without.exit_code == 2 and "needs a --reason" in without.output
    plain = world.replay(world.run_id, "--promote", "--reason", "x")
    assert plain.exit_code == 1 and "is not a preview" in plain.output
    assert "no run" in world.replay("run_nowhere", "--show").output
