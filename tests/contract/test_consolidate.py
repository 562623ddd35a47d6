"""The proof that the FOCUS table adds up, on the emulator: what it passes, and what it must never pass."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.config.loader import ConfigTree
from common.focus.conformance import sources
from common.platform.errors import PermanentError
from common.platform.paths import CONFIGS
from common.processors.registry import REGISTRY
from common.processors.sql.procedure_executor import ProcedureExecutor, ProcedureParams
from common.tables.contract import load_table
from tests.conftest import PROJECT
from tests.contract.focus import DAY, FOCUS, Dataset, cost, export, numbers, reported
from tests.loaded import dropped
from tests.processors.context import make_context

PROOF = load_table(CONFIGS, "cost_consolidation")
NEXT = date(2026, 10, 6)
GENAI = "sp_convert_to_focus"


class Consolidated(Dataset):
    """A dataset whose FOCUS table is made from its sources, and proved."""

    def unify(self, procedure: str, source: str, further: str = "", pipeline: str = "pipe") -> None:
        """Fill the FOCUS table, as the unify step of a pipeline does."""
        rows = self.call(procedure, source, further, pipeline_id=pipeline)
        names = (*FOCUS.names, "x_pipeline_run_date")
        self.fill(FOCUS.table, [{name: row[name] for name in names} for row in rows], pipeline=pipeline)

    def prove(self, first: date = DAY, last: date = DAY) -> list[dict[str, Any]]:
        """Run the proof; return its rows."""
        self.warehouse.ensure_table(f"{self.name}.{FOCUS.table}", FOCUS)
        self.warehouse.ensure_table(f"{self.name}.{PROOF.table}", PROOF)
        staging = self.warehouse.create_staging(f"{self.name}.{PROOF.table}", PROOF, f"n{next(numbers)}")
        context = make_context(
            warehouse=self.warehouse,
            dataset=self.name,
            table=lambda name: f"{self.name}.{name}",
            staging=lambda: staging,
            org_slug="acme",
            pipeline_id="genai_unified_consolidate",
            credential_id="none",
            run_id=f"run{next(numbers)}",
            start_date=first,
            end_date=last,
        )
        params = ProcedureParams(procedure="sp_consolidate", source_table=FOCUS.table, destination_table=PROOF.table)
        assert list(ProcedureExecutor().run(context, params)) == []
        return list(self.warehouse.query(f"SELECT * FROM `{staging}` ORDER BY source_pipeline_id, provider"))


@pytest.fixture
def dataset(warehouse: BigQueryWarehouse, tmp_path: Path) -> Iterator[Consolidated]:
    with dropped(warehouse, f"{PROJECT}.proof{next(numbers)}") as name:
        yield Consolidated(warehouse, tmp_path, name)


def procedure(name: str) -> str:
    return (CONFIGS / "sql" / f"{name}.sql").read_text("utf-8")


def google(cost: str, **more: Any) -> dict[str, Any]:
    at = datetime(2026, 10, 5, tzinfo=UTC)
    row = {"billing_account_id": "0", "cost_type": "regular", "currency": "EUR", "usage_start_time": at}
    return {**row, "service_description": "Compute Engine", "cost": Decimal(cost), **more}


def subscription(kind: str, billed: str, effective: str, **more: Any) -> dict[str, Any]:
    names = {"subscription_id": "s", "vendor": "Acme", "service": "Chat", "account_id": "s", "plan": "Team"}
    kinds = {"category": "Business Applications", "subcategory": "Other (Business Applications)", "unit": "Charges"}
    costs = {"billed_cost": Decimal(billed), "effective_cost": Decimal(effective), "list_cost": Decimal(1)}
    priced = {"billing_cycle": "monthly", "currency": "USD", "quantity": Decimal(1), "unit_price": Decimal(1)}
    return {**names, **kinds, **costs, **priced, "kind": kind, "seats": 1, **more}


def test_every_provider_currency_and_day_is_proved_to_the_last_digit(dataset: Consolidated) -> None:
    priced = [cost("input_text", "600", "0.0000025"), cost("input_text", "400", "0.0000025", api_key_id="k")]
    dataset.fill("genai_payg_cost", [*priced, cost("images", "3", None)])
    dataset.fill("genai_reported_cost", [reported("0.00250000000000001"), reported("-1", None, credit=Decimal(-2))])
    dataset.unify(GENAI, "genai_payg_cost", "genai_reported_cost")
    bill = [export("1.10", ServiceProviderName="AWS"), export("-0.10"), export("7", ProviderName="Oracle")]
    dataset.fill("cloud_focus_export", bill, pipeline="aws")
    dataset.unify("sp_lift_focus_export", "cloud_focus_export", pipeline="aws")
    names = (
        "source_pipeline_id",
        "provider",
        "currency",
        "source",
        "rows_in",
        "rows_unpriced",
        "rows_out",
        "focus_rows",
    )
    found = dataset.prove()
    assert [tuple(row[name] for name in names) for row in found] == [
        ("aws", "AWS", "EUR", "cloud_focus_export", 2, 0, 2, 2),
        ("aws", "Oracle", "EUR", "cloud_focus_export", 1, 0, 1, 1),
        ("pipe", "OpenAI", "USD", "genai_payg_cost", 2, 1, 2, 4),
    ]
    keys = ("x_org_slug", "source_credential_id", "x_pipeline_run_date")
    assert {tuple(row[name] for name in keys) for row in found} == {("acme", "cred", DAY)}
    assert [(row["sum_in"], row["sum_out"], row["proof"]) for row in found] == [
        (Decimal(1), Decimal(1), "equal"),
        (Decimal(7), Decimal(7), "equal"),
        (Decimal("-2.99749999999999999"), Decimal("-2.99749999999999999"), "equal"),
    ]


def test_usage_that_no_provider_reports_is_proved_by_its_price(dataset: Consolidated) -> None:
    dataset.fill("genai_payg_cost", [cost("input_text", "1000", "0.0000025")])
    dataset.unify(GENAI, "genai_payg_cost")
    (row,) = dataset.prove()
    assert (row["sum_in"], row["sum_out"], row["proof"]) == (Decimal("0.0025"), Decimal("0.0025"), "equal")


def test_of_googles_export_each_row_counts_once_with_all_of_its_credits(dataset: Consolidated) -> None:
    """10 - 1 - 4 and a tax of 2, as three rows of FOCUS: the promotion is one of its own."""
    credits = [{"type": "DISCOUNT", "name": "d", "amount": -1.0}, {"type": "PROMOTION", "name": "p", "amount": -4.0}]
    dataset.fill("gcp_billing_export", [google("10", credits=credits), google("2", cost_type="tax")])
    dataset.unify("sp_gcp_billing_to_focus", "gcp_billing_export")
    (row,) = dataset.prove()
    assert (row["provider"], row["currency"], row["source"]) == ("Google Cloud", "EUR", "gcp_billing_export")
    assert (row["rows_in"], row["rows_out"], row["focus_rows"], row["sum_in"], row["sum_out"]) == (2, 2, 3, 7, 7)


@pytest.mark.parametrize("change", ["WHERE ChargeCategory = 'Credit'", "WHERE ChargeCategory = 'Tax'"])
def test_a_row_of_googles_export_that_is_lost_fails(dataset: Consolidated, change: str) -> None:
    promotion = [{"type": "PROMOTION", "name": "p", "amount": -0.000001}]
    dataset.fill("gcp_billing_export", [google("1", credits=promotion), google("0", cost_type="tax")])
    dataset.unify("sp_gcp_billing_to_focus", "gcp_billing_export")
    list(dataset.warehouse.query(f"DELETE FROM `{dataset.name}.{FOCUS.table}` {change}"))
    with pytest.raises(PermanentError, match="2 rows and 0.9999990* in gcp_billing_export, "):
        dataset.prove()


def test_of_subscriptions_charges_and_days_are_rows_and_only_charges_are_billed(dataset: Consolidated) -> None:
    seats = [subscription("cycle", "30", "0"), subscription("day", "0", "1"), subscription("refund", "-5.5", "0")]
    dataset.fill("subscription_cost", [*seats, subscription("day", "0", "2", vendor="Octo", currency="EUR")])
    dataset.unify("sp_subscription_to_focus", "subscription_cost")
    names = ("provider", "currency", "source", "rows_in", "rows_out", "sum_in", "sum_out")
    assert [tuple(row[name] for name in names) for row in dataset.prove()] == [
        ("Acme", "USD", "subscription_cost", 3, 3, Decimal("24.5"), Decimal("24.5")),
        ("Octo", "EUR", "subscription_cost", 1, 1, 0, 0),
    ]
    list(dataset.warehouse.query(f"UPDATE `{dataset.name}.{FOCUS.table}` SET BilledCost = 1 WHERE BilledCost = 0"))
    with pytest.raises(PermanentError, match="Octo EUR of pipe: 1 rows and 0[.0]* in subscription_cost, 1 rows"):
        dataset.prove()


def test_every_shipped_pipeline_has_a_source_that_the_proof_knows() -> None:
    known = re.findall(r"IF '(\w+)' IN UNNEST\(v_tables\) THEN", procedure("sp_consolidate"))
    used = {source.table for source in sources(ConfigTree(CONFIGS, REGISTRY), FOCUS.table)}
    assert used == set(known) - {"genai_reported_cost"}  # which stands beside genai_payg_cost


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("BilledCost = BilledCost + BIGNUMERIC '0.000000000000000001'", "1 rows and 0.0025"),
        ("x_SourceRows = 2", "2 rows and"),
        ("BillingCurrency = 'EUR'", "EUR of pipe"),
        ("ProviderName = 'Open AI'", "Open AI USD of pipe"),
    ],
)
def test_a_row_that_was_changed_fails_with_the_difference(dataset: Consolidated, change: str, says: str) -> None:
    dataset.fill("genai_payg_cost", [cost("input_text", "1000", "0.0000025")])
    dataset.unify(GENAI, "genai_payg_cost")
    list(dataset.warehouse.query(f"UPDATE `{dataset.name}.{FOCUS.table}` SET {change} WHERE TRUE"))
    with pytest.raises(PermanentError, match="does not add up to its sources") as caught:
        dataset.prove()
    assert says in str(caught.value) and "2026-10-05" in str(caught.value)


def test_rows_that_are_missing_or_doubled_fail(dataset: Consolidated) -> None:
    dataset.fill("cloud_focus_export", [export("1"), export("0")])  # a row without money counts too
    dataset.unify("sp_lift_focus_export", "cloud_focus_export")
    assert [row["proof"] for row in dataset.prove()] == ["equal"]
    focus = f"`{dataset.name}.{FOCUS.table}`"
    list(dataset.warehouse.query(f"INSERT INTO {focus} SELECT * FROM {focus} WHERE BilledCost = 0"))
    with pytest.raises(PermanentError, match="2 rows and .* in cloud_focus_export, 3 rows and"):
        dataset.prove()
    list(dataset.warehouse.query(f"DELETE FROM {focus} WHERE TRUE"))
    with pytest.raises(PermanentError, match="2 rows and .* in cloud_focus_export, 0 rows and"):
        dataset.prove()


def test_a_service_that_two_pipelines_bring_is_counted_twice(dataset: Consolidated) -> None:
    gemini = {"provider": "gemini", "provider_name": "Google", "service_name": "Gemini API"}
    dataset.fill("genai_payg_cost", [cost("input_text", "1", "1", **gemini)])
    dataset.unify(GENAI, "genai_payg_cost")
    dataset.fill("cloud_focus_export", [export("1", ServiceName="Gemini API")], pipeline="gcp")
    dataset.unify("sp_lift_focus_export", "cloud_focus_export", pipeline="gcp")
    with pytest.raises(PermanentError, match="Gemini API: counted twice, by pipe and by gcp"):
        dataset.prove()


def test_costs_of_a_pipeline_without_a_known_source_are_told_and_not_proved(dataset: Consolidated) -> None:
    dataset.fill("cloud_focus_export", [export("1")])
    dataset.unify("sp_lift_focus_export", "cloud_focus_export")
    list(dataset.warehouse.query(f"UPDATE `{dataset.name}.{FOCUS.table}` SET x_pipeline_id = 'seats' WHERE TRUE"))
    list(dataset.warehouse.query(f"DELETE FROM `{dataset.name}.cloud_focus_export` WHERE TRUE"))
    (row,) = dataset.prove()
    assert (row["source_pipeline_id"], row["source"], row["proof"]) == ("seats", "none", "no source")
    assert (row["rows_in"], row["sum_in"], row["sum_out"]) == (None, None, 1)


def test_an_organisation_without_any_source_has_nothing_to_prove(dataset: Consolidated) -> None:
    assert dataset.prove() == []


def test_other_organisations_and_days_are_not_looked_at(dataset: Consolidated) -> None:
    dataset.fill("genai_payg_cost", [cost("input_text", "1", "1")], org="globex")
    dataset.fill("genai_payg_cost", [cost("input_text", "1", "1")])
    assert dataset.prove(NEXT, NEXT) == []
    with pytest.raises(PermanentError, match="does not add up"):
        dataset.prove()
