"""Cost Explorer against a sandbox that checks signatures: the light way adds up to the export's sum."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from common.domain.model import ErrorKind
from common.platform.errors import PermanentError, TransientError
from common.processors.clouds.aws.cost_explorer import AwsCostExplorer, CostExplorerParams
from infra.local.sandbox import bills
from infra.local.sandbox.aws_ce import ACCOUNT, CostExplorerSandbox
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.server import SandboxServer
from tests.processors.context import RecordingContext, make_context
from tests.processors.layouts import check_prices, total

SEED = 3
FIRST, LAST = date(2026, 9, 10), date(2026, 9, 20)


@contextmanager
def sandbox(fail_with: Any = (), **context: Any) -> Iterator[tuple[SandboxServer, Any]]:
    with SandboxServer(SEED, fail_with=fail_with, rate_limit_every=0) as server:
        given = {"start_date": FIRST, "end_date": LAST, "secret": lambda: CostExplorerSandbox.secret} | context
        yield server, make_context(provider_url=lambda name: server.urls[name.replace(".", "_")], **given)


def extract(context: RecordingContext, **config: Any) -> list[dict[str, Any]]:
    params = CostExplorerParams.model_validate({"destination_table": "cloud_focus_export"} | config)
    return [dict(row) for batch in AwsCostExplorer().run(context, params) for row in batch.rows]


def test_the_days_add_up_to_the_bill_and_kinds_of_charges_are_kept() -> None:
    with sandbox() as (server, context):
        rows = extract(context)
        pages = len(server.requests)
    check_prices(rows)
    assert total(rows) == bills.billed("aws", SEED, FIRST, LAST)
    assert {row["ChargeCategory"] for row in rows} == {"Usage", "Purchase", "Credit", "Tax"}
    assert {row["x_pipeline_run_date"] for row in rows} == {date(2026, 9, day) for day in range(10, 21)}
    assert (pages, context.infos[0]) == (3, "3 requests, for which AWS charges about US$ 0.03.")


def test_usage_of_several_units_has_no_quantity_of_any() -> None:
    with sandbox() as (_, context):
        rows = extract(context, dimensions=["REGION"])
    assert {row["ConsumedUnit"] for row in rows} == {"Charges"}
    assert total(rows) == bills.billed("aws", SEED, FIRST, LAST)


def answering(*groups: dict[str, Any]) -> Any:
    period = {"Start": "2026-09-10", "End": "2026-09-11"}
    body = {"ResultsByTime": [{"TimePeriod": period, "Groups": list(groups), "Estimated": True}]}
    return lambda request: Answer(200, body) if request.path == "/aws-ce/" else None


def group(
    record: str, unblended: str, amortised: str, service: str = "Amazon Elastic Compute Cloud - Compute"
) -> dict[str, Any]:
    amounts = {"UnblendedCost": unblended, "AmortizedCost": amortised, "UsageQuantity": "1"}
    metrics = {name: {"Amount": amount, "Unit": "USD"} for name, amount in amounts.items()}
    return {"Keys": [service, record], "Metrics": metrics}


def test_the_unused_part_of_a_fee_is_a_row_of_its_own_so_that_both_sums_hold() -> None:
    """Billed 10 + 1 - 0.5; borne 6 (covered) + 4 (unused) + 0.5 tax."""
    groups = (
        group("SavingsPlanRecurringFee", "10", "4"),
        group("SavingsPlanCoveredUsage", "8", "6"),
        group("SavingsPlanNegation", "-8", "0"),
        group("Tax", "0.5", "0.5"),
    )
    with sandbox(answering(*groups)) as (_, context):
        rows = extract(context)
    check_prices(rows)
    assert (total(rows), total(rows, "EffectiveCost")) == (Decimal("10.5"), Decimal("10.5"))
    assert {row["ServiceSubcategory"] for row in rows} == {"Virtual Machines"}
    assert any("are estimates" in text for text in context.infos)


@pytest.mark.parametrize("fee", ["RIFee", "Recurring", "Recurring reservation fee", "Upfront", "SavingsPlanUpfrontFee"])
def test_a_reservations_fee_is_a_purchase_by_each_of_its_names(fee: str) -> None:
    """Billed 10; borne 6 by the usage that it covers, 4 by its unused part."""
    with sandbox(answering(group(fee, "10", "4"), group("DiscountedUsage", "0", "6"))) as (_, context):
        rows = extract(context)
    assert [(row["ChargeCategory"], row["BilledCost"], row["EffectiveCost"]) for row in rows] == [
        ("Purchase", 10, 0),
        ("Usage", 0, 4),
        ("Usage", 0, 6),
    ]
    assert context.warnings == []


@pytest.mark.parametrize("fee", ["Recurring", "Upfront"])
def test_a_fee_of_a_service_without_commitments_keeps_its_cost(fee: str) -> None:
    with sandbox(answering(group(fee, "100", "100", "Databricks Marketplace contract"))) as (_, context):
        (row,) = extract(context)
    assert (row["ChargeCategory"], row["BilledCost"], row["EffectiveCost"]) == ("Purchase", 100, 100)


def test_the_unused_part_of_a_commitment_is_usage_that_nobody_consumed() -> None:
    with sandbox(answering(group("Recurring", "10", "4"))) as (_, context):
        _, unused = extract(context)
    assert (unused["ChargeCategory"], unused["CommitmentDiscountStatus"]) == ("Usage", "Unused")
    assert (unused.get("ConsumedQuantity"), unused["CommitmentDiscountQuantity"]) == (None, 4)


@pytest.mark.parametrize("fee", ["Support", "Support fee", "Fee", "Other out-of-cycle charges"])
def test_a_fee_that_covers_no_usage_carries_its_own_cost(fee: str) -> None:
    with sandbox(answering(group(fee, "29", "29"))) as (_, context):
        (row,) = extract(context)
    assert (row["ChargeCategory"], row["BilledCost"], row["EffectiveCost"]) == ("Purchase", 29, 29)


@pytest.mark.parametrize(
    "discount",
    ["Enterprise Discount Program Discount", "Private Rate Card Discount", "Bundled Discount", "EdpDiscount"],
)
def test_a_discount_is_an_adjustment_and_no_surprise(discount: str) -> None:
    with sandbox(answering(group(discount, "-3", "-3"))) as (_, context):
        (row,) = extract(context)
    assert (row["ChargeCategory"], row["BilledCost"], context.warnings) == ("Adjustment", -3, [])


def test_a_record_type_that_is_not_known_is_counted_and_reported() -> None:
    with sandbox(answering(group("QuantumFee", "1", "1"), group("Usage", "2", "2"))) as (_, context):
        rows = extract(context)
    assert (total(rows), total(rows, "EffectiveCost")) == (3, 3)
    (warning,) = context.warnings
    assert "QuantumFee" in warning and "Adjustment" in warning


def test_the_sandbox_sends_the_record_types_of_real_accounts() -> None:
    with sandbox() as (_, context):
        sent = {row["extra"]["RECORD_TYPE"] for row in extract(context)}
    assert sent & {"Recurring", "Upfront"} and not sent & {"RIFee", "Fee", "Purchase"} and context.warnings == []


@pytest.mark.parametrize("limited", [1, 9])
def test_a_limit_is_waited_for_though_it_comes_as_a_400(limited: int) -> None:
    body = {"__type": "com.amazonaws.ce#LimitExceededException", "message": "You made too many calls."}
    with sandbox([Answer(400, body)] * limited) as (_, context):
        if limited == 1:
            assert total(extract(context)) == bills.billed("aws", SEED, FIRST, LAST)
            assert context.time.slept == [0.5]
            return
        with pytest.raises(TransientError, match="You made too many calls") as caught:
            extract(context)
    assert caught.value.kind is ErrorKind.RATE_LIMIT


@pytest.mark.parametrize(
    "odd",
    [
        {"Keys": ["one"], "Metrics": {}},
        group("Usage", "1.2.3", "0"),
        group("Usage", "NaN", "0"),
        {"Keys": ["a", "b"]},
    ],
)
def test_an_answer_of_another_shape_is_asked_for_again(odd: dict[str, Any]) -> None:
    with sandbox(answering(odd)) as (_, context), pytest.raises(TransientError, match="AWS Cost Explorer: unexpected"):
        extract(context)


def test_pages_that_lead_round_in_a_circle_are_given_up() -> None:
    def answer(request: Request) -> Answer | None:
        return Answer(200, {"ResultsByTime": [], "NextPageToken": "again"})

    with sandbox(answer) as (_, context), pytest.raises(TransientError, match="leads round in a circle"):
        extract(context)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"secret_access_key": "a-wrong-secret"}, "The request signature we calculated does not match"),
        ({"access_key_id": "AKIAOTHER0000000000"}, "The AWS Access Key Id you provided does not exist"),
        ({"account": "acme"}, "has in 'account' what can't be one"),
    ],
)
def test_a_credential_that_can_not_sign_is_told(change: dict[str, str], said: str) -> None:
    text = json.dumps(json.loads(CostExplorerSandbox.secret) | change)
    with sandbox(secret=lambda: text) as (_, context), pytest.raises(PermanentError, match=said) as caught:
        extract(context)
    assert "a-wrong-secret" not in str(caught.value)


def test_a_credential_is_tried_with_one_request() -> None:
    with sandbox() as (server, context):
        assert AwsCostExplorer().try_credential(context, CostExplorerSandbox.secret, ()).startswith(f"{ACCOUNT}: ")
        assert len(server.requests) == 1
