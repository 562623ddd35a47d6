"""Azure's exports and its query API against a sandbox that wants the right token for each."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from common.platform.errors import PermanentError, TransientError
from common.processors.bills.deliveries import ExportParams
from common.processors.clouds.azure.export import AzureExportExtractor
from common.processors.clouds.azure.query import AzureCostQuery, AzureQueryParams
from infra.local.sandbox import bills
from infra.local.sandbox.azure import FOLDER, SCOPE, SECRET, BlobSandbox, manifest_of
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.server import SandboxServer
from tests.processors.bill_files import rows_of
from tests.processors.context import RecordingContext, make_context
from tests.processors.layouts import check_prices, total

SEED = 9
FIRST, LAST = date(2026, 9, 10), date(2026, 9, 20)
MONTH = f"{FOLDER}/20260901-20260930/202611200510/af754a8e-30fc-4ef3-bfc6-71bd1efb8598"
MANIFEST, PART = f"{MONTH}/manifest.json", f"{MONTH}/part_0_0001.csv.gz"


@contextmanager
def sandbox(fail_with: Any = (), **context: Any) -> Iterator[tuple[SandboxServer, Any]]:
    with SandboxServer(SEED, fail_with=fail_with, rate_limit_every=0) as server:
        given = {"start_date": FIRST, "end_date": LAST, "secret": lambda: SECRET} | context
        yield server, make_context(provider_url=lambda name: server.urls[name.replace(".", "_")], **given)


def blobs(server: SandboxServer) -> BlobSandbox:
    found = server.provider("azure_blob")
    assert isinstance(found, BlobSandbox)
    return found


def export(context: RecordingContext, **config: Any) -> list[dict[str, Any]]:
    params = ExportParams.model_validate({"destination_table": "cloud_focus_export"} | config)
    return [row for batch in AzureExportExtractor().run(context, params) for row in rows_of(batch)]


def query(context: RecordingContext, **config: Any) -> list[dict[str, Any]]:
    params = AzureQueryParams.model_validate({"destination_table": "cloud_focus_export"} | config)
    return [dict(row) for batch in AzureCostQuery().run(context, params) for row in batch.rows]


def billed(first: date = FIRST, last: date = LAST) -> Decimal:
    return bills.billed("azure", SEED, first, last)


def secret(**change: Any) -> Any:
    text = json.dumps(json.loads(SECRET) | change)
    return lambda: text


def test_an_export_is_read_from_its_newest_manifest_and_adds_up() -> None:
    with sandbox() as (server, context):
        older = f"{FOLDER}/20260901-20260930/202610010510/1/manifest.json"
        blobs(server).extra[older] = manifest_of([f"{FOLDER}/gone.csv"], date(2026, 9, 1))
        newer = blobs(server).modified
        old = "Thu, 01 Oct 2026 05:10:00 GMT"
        blobs(server).modified = lambda name: old if name == older else newer(name)  # type: ignore[method-assign]
        rows = export(context)
    assert total(rows) == billed()
    assert {row["provider"] for row in rows} == {"azure"}
    assert any("2 manifests of 2026-09: the newest is read" in text for text in context.infos)


def test_a_token_for_storage_opens_no_queries_and_the_other_way_round() -> None:
    """The sandbox refuses the wrong one; both ways work, so each asks for its own."""
    with sandbox() as (server, context):
        export(context)
        query(context)
        asked = [request.form["scope"] for request in server.requests if request.path.startswith("/azure-login/")]
    assert asked == ["https://storage.azure.com/.default", "https://management.azure.com/.default"]


def test_an_export_of_another_type_is_told_with_the_layout_that_fits() -> None:
    with sandbox() as (server, context):
        blobs(server).extra[MANIFEST] = manifest_of([PART], date(2026, 9, 1), "ActualCost")
        with pytest.raises(PermanentError, match="of type 'ActualCost', not .*: set layout: azure_actual_cost"):
            export(context)
        with pytest.raises(PermanentError, match="part_0_0001.csv.gz: line 1: no column costinbillingcurrency or cost"):
            export(context, layout="azure_actual_cost")


@pytest.mark.parametrize("listed", ["other/part.csv", f"{FOLDER}/../../secrets.csv", "/part.csv"])
def test_a_manifest_does_not_lead_out_of_the_export(listed: str) -> None:
    with sandbox() as (server, context):
        blobs(server).extra[MANIFEST] = manifest_of([listed], date(2026, 9, 1))
        with pytest.raises(PermanentError, match=f"which is not below {FOLDER}/"):
            export(context)


@pytest.mark.parametrize("text", [b"{}", b"[]", b"\xff", b'{"exportConfig": {"type": "FocusCost"}, "blobs": [1]}'])
def test_a_manifest_that_is_none_is_told(text: bytes) -> None:
    with sandbox() as (server, context):
        blobs(server).extra[MANIFEST] = text
        with pytest.raises(PermanentError, match="is no manifest of an export"):
            export(context)


def test_the_sum_of_the_query_is_that_of_the_export_to_the_last_digit() -> None:
    with sandbox() as (_, context):
        rows, exported = query(context), export(context)
    check_prices(rows)
    assert total(rows) == billed() == total(exported)
    usage = [row for row in exported if row["ChargeCategory"] == "Usage"]
    assert total([row for row in rows if row["ChargeCategory"] == "Usage"], "EffectiveCost") == total(
        usage, "EffectiveCost"
    )
    assert {row["ChargeCategory"] for row in rows} == {"Usage", "Purchase", "Credit", "Tax"}
    assert {row["x_pipeline_run_date"] for row in rows} == {date(2026, 9, day) for day in range(10, 21)}
    assert {row["SubAccountId"] for row in rows} == {SCOPE.split("/")[2]}


def test_an_ordinary_purchase_keeps_its_effective_cost_and_an_unused_benefit_is_usage() -> None:
    """Actual: a Marketplace purchase of 100, a reservation of 365. Amortised: 100, and 1 of the reservation unused."""
    names = [{"name": n} for n in ("Cost", "UsageDate", "Currency", "ServiceName", "ChargeType")]
    shared = [100, 20260910, "EUR", "Contoso", "Purchase"]
    own = {
        "ActualCost": [365, 20260910, "EUR", "Virtual Machines", "Purchase"],
        "AmortizedCost": [1, 20260910, "EUR", "Virtual Machines", "UnusedReservation"],
    }

    def answering(request: Request) -> Answer | None:
        if not request.path.endswith("/query"):
            return None
        rows = [shared, own[json.loads(request.body)["type"]]]
        return Answer(200, {"properties": {"columns": names, "rows": rows}})

    with sandbox(answering) as (_, context):
        rows = query(context)
    check_prices(rows)
    assert sorted(
        (r["ChargeCategory"], r["BilledCost"], r["EffectiveCost"], r.get("CommitmentDiscountStatus")) for r in rows
    ) == [("Purchase", 100, 100, None), ("Purchase", 365, 0, None), ("Usage", 0, 1, "Unused")]


def test_the_pages_of_an_answer_are_followed_and_a_longer_span_is_asked_in_parts() -> None:
    days = {"start_date": date(2026, 8, 1), "end_date": date(2026, 9, 20)}  # 51 days: 31 and 20
    with sandbox(**days) as (server, context):
        rows = query(context)
        queries = [request for request in server.requests if request.path.endswith("/query")]
    assert total(rows) == billed(days["start_date"], days["end_date"])
    spans = {tuple(json.loads(request.body)["timePeriod"].values()) for request in queries}
    assert spans == {
        ("2026-08-01T00:00:00Z", "2026-08-31T23:59:59Z"),
        ("2026-09-01T00:00:00Z", "2026-09-20T23:59:59Z"),
    }
    assert any(dict(request.query).get("$skiptoken") for request in queries)


def test_the_longest_of_azures_waits_is_kept() -> None:
    once: list[bool] = []

    def limited(request: Request) -> Answer | None:
        if request.path.endswith("/query") and not once:
            once.append(True)
            waits = {"x-ms-ratelimit-microsoft.costmanagement-qpu-retry-after": "2", "retry-after": "1"}
            more = {"x-ms-ratelimit-microsoft.costmanagement-clienttype-retry-after": "7"}
            return Answer(429, {"error": {"code": "429", "message": "Too many requests."}}, waits | more)
        return None

    with sandbox(limited) as (_, context):
        assert total(query(context)) == billed()
    assert context.time.slept == [7.0]


def test_no_costs_at_all_are_no_rows() -> None:
    def nothing(request: Request) -> Answer | None:
        return Answer(204) if request.path.endswith("/query") else None

    with sandbox(nothing) as (_, context):
        assert query(context) == []


@pytest.mark.parametrize(
    "properties",
    [
        {"columns": [], "rows": [[1]]},
        {"columns": [{"name": "Cost"}, {"name": "UsageDate"}, {"name": "Currency"}], "rows": []},
        {"columns": "x", "rows": []},
        {"columns": [], "rows": [], "nextLink": "https://evil.example/?x=1"},
        None,
    ],
)
def test_an_answer_of_another_shape_is_asked_again(properties: Any) -> None:
    def odd(request: Request) -> Answer | None:
        return Answer(200, {"properties": properties}) if request.path.endswith("/query") else None

    with sandbox(odd) as (_, context), pytest.raises(TransientError, match="Azure Cost Management: "):
        query(context)


def test_a_next_link_to_another_host_is_not_followed() -> None:
    columns = [{"name": name} for name in ("Cost", "UsageDate", "Currency", "ServiceName", "ChargeType")]
    evil = {"columns": columns, "rows": [], "nextLink": "http://127.0.0.1:1/steal?$skiptoken=20"}
    first: list[bool] = []

    def answer(request: Request) -> Answer | None:
        if request.path.endswith("/query") and not first:
            first.append(True)
            return Answer(200, {"properties": evil})
        return None

    with sandbox(answer) as (server, context):
        query(context)
        followed = [request for request in server.requests if dict(request.query).get("$skiptoken") == "20"]
    assert followed and all(
        request.path.endswith(f"{SCOPE}/providers/Microsoft.CostManagement/query") for request in followed
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"client_secret": "wrong-secret"}, "Microsoft Entra .* refused the credential .* with 401"),
        ({"tenant_id": "11111111-2222-3333-4444-000000000000"}, "AADSTS90002: Tenant not found"),
        ({"tenant_id": "../../evil"}, "has in 'tenant_id' what can't be one"),
        ({"container": "nothere"}, "There is no container 'nothere' in the storage account 'sandboxbills'"),
        ({"account": "evil.com/"}, "has in 'account' what can't be one"),
        ({"folder": "elsewhere"}, r"There is no manifest for 2026-09\. An export delivers one below elsewhere"),
        ({"folder": None}, "has no 'folder'"),
    ],
)
def test_a_credential_that_does_not_lead_to_an_export_is_told(change: dict[str, Any], said: str) -> None:
    with sandbox(secret=secret(**change)) as (_, context), pytest.raises(PermanentError, match=said) as caught:
        export(context)
    assert "wrong-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("scope", "said"),
    [("https://evil.example/", "has in 'scope' what can't be one"), ("/subscriptions/other", "answered 404")],
)
def test_a_scope_that_is_none_is_told(scope: str, said: str) -> None:
    with sandbox(secret=secret(scope=scope)) as (_, context), pytest.raises(PermanentError, match=said):
        query(context)


def test_more_than_two_dimensions_are_refused_beforehand() -> None:
    for names in (["a", "b", "c"], [], ["a", "a"]):
        with pytest.raises(ValueError, match="dimensions"):
            AzureQueryParams.model_validate({"destination_table": "cloud_focus_export", "dimensions": names})


def test_a_credential_is_tried_with_the_least_there_is_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bills, "today", lambda: date(2026, 11, 21))
    with sandbox() as (server, context):
        assert AzureExportExtractor().try_credential(context, SECRET, ()) == f"{FOLDER}: manifests of 2026-10, 2026-11"
        assert AzureCostQuery().try_credential(context, SECRET, ()).startswith(f"{SCOPE}: ")
        assert not any("part_0" in request.path for request in server.requests)
