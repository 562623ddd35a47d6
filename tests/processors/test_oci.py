"""Oracle's reports and its usage API, against a sandbox that verifies each signature; and its reports as FOCUS."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.platform.errors import PermanentError, TransientError
from common.processors.clouds.oci.report import OciReportExtractor, OciReportParams
from common.processors.clouds.oci.usage import OciUsageApi
from common.processors.clouds.summary_rows import SummaryParams
from infra.local.sandbox import bills, oci
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.oci import REGION, TENANCY, ReportsSandbox
from infra.local.sandbox.server import SandboxServer
from tests.processors.bill_files import rows_of
from tests.processors.context import RecordingContext, make_context
from tests.processors.layouts import check_prices, read_bill, total, write_bill

SEED = 5
FIRST, LAST = date(2026, 9, 10), date(2026, 9, 14)
TABLE = {"destination_table": "cloud_focus_export"}


@contextmanager
def sandbox(fail_with: Any = (), **context: Any) -> Iterator[tuple[SandboxServer, Any]]:
    with SandboxServer(SEED, fail_with=fail_with, rate_limit_every=0) as server:
        given = {"start_date": FIRST, "end_date": LAST, "secret": oci.secret} | context
        yield server, make_context(provider_url=lambda name: server.urls[name.replace(".", "_")], **given)


def reports(context: RecordingContext, **config: Any) -> list[dict[str, Any]]:
    params = OciReportParams.model_validate(TABLE | config)
    return [row for batch in OciReportExtractor().run(context, params) for row in rows_of(batch)]


def usage(context: RecordingContext) -> list[dict[str, Any]]:
    params = SummaryParams.model_validate(TABLE)
    return [dict(row) for batch in OciUsageApi().run(context, params) for row in batch.rows]


def bucket(server: SandboxServer) -> ReportsSandbox:
    found = server.provider("oci_objectstorage")
    assert isinstance(found, ReportsSandbox)
    return found


def test_each_file_counts_once_on_the_day_that_it_was_written() -> None:
    with sandbox() as (_, context):
        rows = reports(context)
    check_prices(rows)
    assert total(rows) == oci.billed(SEED, FIRST, LAST)
    assert {row["x_pipeline_run_date"] for row in rows} == {FIRST + timedelta(days=n) for n in range(5)}
    late = [r for r in rows if r["x_pipeline_run_date"] == FIRST and r["ChargePeriodStart"].date() == date(2026, 9, 8)]
    assert len(late) == bills.LATE, "what comes a day late belongs to the day that it comes on"


def test_usage_is_asked_for_93_days_at_a_time() -> None:
    """Oracle's own tool refuses a longer range; so does the sandbox."""
    first, last = date(2026, 2, 1), date(2026, 9, 14)
    with sandbox(start_date=first, end_date=last) as (server, context):
        rows = usage(context)
        bodies = [json.loads(request.body) for request in server.requests if request.body]
    spans = dict.fromkeys((body["timeUsageStarted"][:10], body["timeUsageEnded"][:10]) for body in bodies)
    assert list(spans) == [("2026-02-01", "2026-05-05"), ("2026-05-05", "2026-08-06"), ("2026-08-06", "2026-09-15")]
    assert total(rows) == bills.billed("oci", SEED, first, last)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"isAggregateByTime": False, "compartmentDepth": 6}, 200),
        ({"isAggregateByTime": True}, 400),
        ({"timeUsageEnded": "2026-12-13T00:00:00Z"}, 400),
        ({"unknown": 1}, 400),
    ],
)
def test_the_usage_sandbox_takes_what_oracles_tools_send(change: dict[str, Any], status: int) -> None:
    query = {
        "tenantId": TENANCY,
        "timeUsageStarted": "2026-09-10T00:00:00Z",
        "timeUsageEnded": "2026-09-12T00:00:00Z",
        "granularity": "DAILY",
        "queryType": "COST",
        "groupBy": ["service"],
    }
    request = Request("/oci-usage/20200107/usage", method="POST", body=json.dumps(query | change).encode())
    assert oci.UsageSandbox(SEED).answer(request).status == status


def test_however_the_days_are_divided_into_runs_nothing_is_lost_and_nothing_counts_twice() -> None:
    parts = [(FIRST, FIRST), (date(2026, 9, 11), date(2026, 9, 12)), (date(2026, 9, 13), LAST)]
    rows: list[dict[str, Any]] = []
    for first, last in parts:
        with sandbox(start_date=first, end_date=last) as (_, context):
            rows += reports(context)
    assert total(rows) == oci.billed(SEED, FIRST, LAST)


def test_the_names_of_the_drafts_are_those_of_focus() -> None:
    with sandbox(end_date=FIRST) as (_, context):
        rows = reports(context)
    usage_rows = [row for row in rows if row["ChargeCategory"] == "Usage"]
    assert {(row["ProviderName"], row["InvoiceIssuerName"]) for row in rows} == {("Oracle", "Oracle")}
    assert all(row["ConsumedUnit"] for row in usage_rows)
    assert {row["RegionName"] for row in usage_rows} == {"eu-west-1", "us-east-1", None}
    assert {row["PricingCategory"] for row in usage_rows} <= {"Standard", "Committed"}
    assert all(row["ContractedCost"] == row["ListCost"] for row in usage_rows)


def test_cost_reports_are_found_by_the_day_of_their_creation() -> None:
    line = {
        "lineItem/tenantId": TENANCY,
        "lineItem/intervalUsageStart": "2026-09-11T10:00Z",
        "lineItem/intervalUsageEnd": "2026-09-11T11:00:00Z",
        "cost/myCost": "2.323760000E-9",
        "cost/currencyCode": "EUR",
    }
    with sandbox(start_date=date(2026, 9, 12), end_date=date(2026, 9, 12)) as (server, context):
        bucket(server).extra["reports/cost-csv/0001000000603747.csv.gz"] = bills.gzipped([line])
        (row,) = reports(context, layout="oci_cost")
    assert (row["BilledCost"], row["x_pipeline_run_date"]) == (Decimal("0.00000000232376"), date(2026, 9, 12))


def test_a_day_without_a_report_between_others_fails() -> None:
    with sandbox() as (server, context):
        found = bucket(server)
        kept = {name: text for name, text in found.objects().items() if "/2026/09/12/" not in name}
        found.objects = lambda: kept  # type: ignore[method-assign]
        with pytest.raises(PermanentError, match=r"and none for 2026-09-12\. Nothing is replaced"):
            reports(context)


def test_the_sum_of_the_usage_api_is_that_of_the_bill() -> None:
    with sandbox() as (server, context):
        rows = usage(context)
        asked = [request for request in server.requests if request.path.endswith("/usage")]
    check_prices(rows)
    assert total(rows) == bills.billed("oci", SEED, FIRST, LAST)
    assert {row["BillingAccountId"] for row in rows} == {TENANCY}
    assert len(asked) > 1, "else no page was followed"


def item(**change: Any) -> dict[str, Any]:
    return {
        "timeUsageStarted": "2026-09-10T00:00:00Z",
        "computedAmount": 1.5,
        "currency": "EUR",
        "service": "COMPUTE",
    } | change


def answering(*items: dict[str, Any]) -> Any:
    def answer(request: Request) -> Answer | None:
        return Answer(200, {"items": list(items)}) if request.path.endswith("/usage") else None

    return answer


def test_a_forecast_is_no_cost_and_what_costs_nothing_needs_no_currency() -> None:
    free = item(computedAmount=None, currency=" ")
    with sandbox(answering(item(), item(isForecast=True), free)) as (_, context):
        rows = usage(context)
    assert [row["BilledCost"] for row in rows] == [Decimal("1.5")]


@pytest.mark.parametrize(
    "change", [{"currency": None}, {"computedAmount": "1.5x"}, {"timeUsageStarted": "2026-10-10T00:00:00Z"}]
)
def test_an_item_of_another_shape_is_asked_for_again(change: dict[str, Any]) -> None:
    with sandbox(answering(item(**change))) as (_, context), pytest.raises(TransientError, match="OCI usage API: "):
        usage(context)


def test_a_limit_is_waited_for() -> None:
    once = [Answer(429, {"code": "TooManyRequests", "message": "slow"}, {"retry-after": "6"})]
    with sandbox(once) as (_, context):
        assert total(usage(context)) == bills.billed("oci", SEED, FIRST, LAST)
    assert context.time.slept == [6.0]


def secret(**change: Any) -> Any:
    text = json.dumps(json.loads(oci.secret()) | change)
    return lambda: text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fingerprint": "aa:" * 15 + "aa"}, "refused the credential .* with 401"),
        ({"tenancy": "ocid1.tenancy.oc1..other"}, "refused the credential .* with 401"),
        ({"region": "evil.com/"}, "has in 'region' what can't be one"),
        ({"private_key": "x" * 200}, "private_key is no RSA key"),
        ({"private_key": None}, "has no 'private_key'"),
    ],
)
def test_a_credential_that_can_not_sign_is_told(change: dict[str, Any], said: str) -> None:
    for read in (reports, usage):
        with sandbox(secret=secret(**change)) as (_, context), pytest.raises(PermanentError, match=said) as caught:
            read(context)
        assert "PRIVATE KEY" not in str(caught.value)


def test_a_bucket_that_may_not_be_read_is_told_with_the_policy_that_it_needs() -> None:
    gone = [Answer(404, {"code": "BucketNotFound", "message": "Either it does not exist or you may not."})]
    with (
        sandbox(gone) as (_, context),
        pytest.raises(PermanentError, match=f"{REGION}, or it may not be read.*endorse"),
    ):
        reports(context)


def test_a_credential_is_tried_with_one_day_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with sandbox() as (server, context):
        assert OciReportExtractor().try_credential(context, oci.secret(), ()) == "2 FOCUS reports of 2026-11-20"
        assert not any(request.path.endswith(".gz") for request in server.requests)


LINE = {
    "lineItem/tenantId": TENANCY,
    "lineItem/intervalUsageStart": "2026-09-11T10:00Z",
    "lineItem/intervalUsageEnd": "2026-09-11T11:00:00Z",
    "usage/billedQuantity": "10",
    "cost/unitPrice": "0.5",
    "cost/myCost": "5.0",
    "cost/currencyCode": "EUR",
    "cost/productSku": "B1",
    "product/resourceId": "ocid1.instance.oc1.eu.x",
    "tags/Operations.CostCenter": "4711",
    "tags/Dev\\a.b": "x",
}


def cost_report(tmp_path: Path, *lines: dict[str, str]) -> list[dict[str, Any]]:
    rows = read_bill(write_bill(tmp_path / "cost.csv", lines), layout="oci_cost")
    check_prices(rows)
    return rows


def test_overage_is_a_part_of_the_cost_and_of_the_quantity(tmp_path: Path) -> None:
    """2 hours at 2.139 are 4.278, all of it overage; 10 hours cost 5.4, of which 2 are overage at another price."""
    all_over = LINE | {"usage/billedQuantity": "2", "usage/billedQuantityOverage": "2", "cost/unitPrice": "2.139"}
    all_over |= {"cost/unitPriceOverage": "2.139", "cost/myCost": "4.278", "cost/myCostOverage": "4.278"}
    partly = LINE | {"usage/billedQuantityOverage": "2", "cost/unitPriceOverage": "0.7", "cost/myCost": "5.4"}
    alone = LINE | {"usage/billedQuantity": "", "cost/unitPrice": "", "cost/myCost": ""}
    alone |= {"usage/billedQuantityOverage": "3", "cost/unitPriceOverage": "0.06", "cost/myCostOverage": "0.18"}
    rows = cost_report(tmp_path, all_over, partly | {"cost/myCostOverage": "1.40"}, alone)
    assert [(r["BilledCost"], r["ListCost"], r["ConsumedQuantity"], r["PricingQuantity"]) for r in rows] == [
        (Decimal("4.278"), Decimal("4.278"), 2, 2),
        (Decimal("5.4"), Decimal("5.4"), 10, 1),  # two prices are none: one charge at its cost
        (Decimal("0.18"), Decimal("0.18"), 3, 3),
    ]


def test_a_correction_within_its_month_keeps_its_amount_and_is_none_of_an_earlier_invoice(tmp_path: Path) -> None:
    back = LINE | {"usage/billedQuantity": "-1", "cost/myCost": "-0.5", "lineItem/isCorrection": "true"}
    first, row = cost_report(tmp_path, LINE, back)
    assert (row["BilledCost"], row["ListCost"], row["ConsumedQuantity"]) == (Decimal("-0.5"), Decimal("-0.5"), -1)
    assert (row["ChargeClass"], json.loads(row["extra"])["lineItem/isCorrection"]) == (None, "true")
    assert json.loads(first["Tags"]) == {"Operations.CostCenter": "4711", "Dev\\a.b": "x"}
    assert first["ResourceType"] == "instance"


@pytest.mark.parametrize("before", [0, 40])
def test_a_line_of_cost_0_without_a_currency_has_that_of_the_file(tmp_path: Path, before: int) -> None:
    free = LINE | {"usage/billedQuantity": "0", "cost/myCost": "0.000", "cost/unitPrice": "", "cost/currencyCode": ""}
    rows = cost_report(tmp_path, free, *[LINE] * before, LINE | {"cost/currencyCode": "GBP"})
    assert rows[0]["BillingCurrency"] == ("EUR" if before else "GBP")
    with pytest.raises(AssertionError, match="column cost/currencyCode: it is empty"):
        cost_report(tmp_path, LINE, LINE | {"cost/currencyCode": ""})
    with pytest.raises(AssertionError, match="cost/currencyCode: '' is not a currency, and no record of the file has"):
        cost_report(tmp_path, free)


@pytest.mark.shared
def test_a_published_cost_report_adds_up_to_the_last_digit(shared_data: Path) -> None:
    """321 rows, 1.673210844223146836 (sums.json)."""
    rows = read_bill(shared_data / "oci" / "cost_report_2023_11.part_a.csv", layout="oci_cost")
    check_prices(rows)
    assert (len(rows), total(rows)) == (321, Decimal("1.673210844223146836"))
