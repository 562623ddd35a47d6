"""``AwsExportExtractor`` against a bucket that checks signatures: what is read, and what a broken export comes to."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from common.platform.errors import PermanentError, TransientError
from common.processors.bills.deliveries import ExportParams
from common.processors.clouds.aws.export import AwsExportExtractor
from infra.local.sandbox import bills
from infra.local.sandbox.aws_s3 import BUCKET, EXPORT, PREFIX, S3Sandbox, manifest_of
from infra.local.sandbox.bills import gzipped
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.server import SandboxServer
from tests.processors.bill_files import rows_of
from tests.processors.context import RecordingContext, make_context
from tests.processors.layouts import total

SEED = 4
FIRST, LAST = date(2026, 9, 10), date(2026, 9, 20)  # the 15th and 16th are in two files
DATA = f"{PREFIX}/{EXPORT}/data/BILLING_PERIOD=2026-09"
MANIFEST = f"{PREFIX}/{EXPORT}/metadata/BILLING_PERIOD=2026-09/{EXPORT}-Manifest.json"


@contextmanager
def sandbox(*answers: Answer | None, settled: bool = True, **context: Any) -> Iterator[tuple[S3Sandbox, Any]]:
    with SandboxServer(SEED, fail_with=list(answers), rate_limit_every=0, settled=settled) as server:
        secret = context.pop("secret", server.secrets["aws_s3"])
        given = {"start_date": FIRST, "end_date": LAST, "secret": lambda: secret} | context
        made = make_context(provider_url=lambda name: server.urls[name.replace(".", "_")], **given)
        bucket = server.provider("aws_s3")
        assert isinstance(bucket, S3Sandbox)
        yield bucket, made


def billed(first: date, last: date, *, settled: bool = True) -> Decimal:
    return bills.billed("aws", SEED, first, last, settled=settled)


def extract(context: RecordingContext, **config: Any) -> list[dict[str, Any]]:
    params = ExportParams.model_validate({"destination_table": "cloud_focus_export"} | config)
    rows: list[dict[str, Any]] = []
    for batch in AwsExportExtractor().run(context, params):
        assert not batch.bad, [str(bad) for bad in batch.bad]
        rows += rows_of(batch)
    return rows


def deliver(bucket: S3Sandbox, *parts: list[dict[str, str]]) -> None:
    """Put files in the place of September's."""
    keys = [f"{DATA}/part-{number}.csv.gz" for number in range(len(parts))]
    bucket.extra |= dict(zip(keys, map(gzipped, parts), strict=True))
    bucket.extra[MANIFEST] = manifest_of([f"s3://{BUCKET}/{key}" for key in keys], "test")


def of_days(*days: int) -> list[dict[str, str]]:
    return [row for day in days for row in bills.rows_of("aws", SEED, date(2026, 9, day))]


def test_the_days_of_the_run_are_read_from_all_files_and_add_up() -> None:
    outputs: dict[str, Any] = {}
    with sandbox(put_out=outputs.__setitem__) as (_, context):
        rows = extract(context)
    assert total(rows) == billed(FIRST, LAST)
    assert {row["x_pipeline_run_date"] for row in rows} == {date(2026, 9, day) for day in range(10, 21)}
    assert outputs == {"billed": {"USD": f"{bills.billed('aws', SEED, FIRST, LAST):f}"}}
    assert {row["provider"] for row in rows} == {"aws"} and context.warnings == []


def test_a_run_over_two_months_reads_both_exports() -> None:
    days = date(2026, 8, 30), date(2026, 9, 2)
    with sandbox(start_date=days[0], end_date=days[1]) as (_, context):
        assert total(extract(context)) == billed(*days)


def test_what_is_reported_late_is_there_when_the_days_are_read_again() -> None:
    with sandbox(settled=False) as (bucket, context):
        before = total(extract(context))
        bucket.settled = True
        after = total(extract(context))
    assert (before, after) == (
        billed(FIRST, LAST, settled=False),
        billed(FIRST, LAST),
    )
    assert before != after


def test_a_limit_is_waited_for_as_long_as_s3_says() -> None:
    slow = Answer(503, b"<Error><Code>SlowDown</Code></Error>", {"retry-after": "3"})
    with sandbox(slow) as (_, context):
        assert total(extract(context)) == billed(FIRST, LAST)
    assert context.time.slept == [3.0]


def test_a_connection_that_breaks_in_the_middle_of_a_file_is_tried_again() -> None:
    """The answer says that it is longer than it is, as one that was cut off does."""
    cut = Answer(200, b"\x1f\x8b", {"content-length": "1000", "connection": "close"})
    answered: list[str] = []

    def once(request: Request) -> Answer | None:
        if "/data/" in request.path and not answered:
            answered.append(request.path)
            return cut
        return None

    with SandboxServer(SEED, fail_with=once, rate_limit_every=0) as server:
        secret = server.secrets["aws_s3"]
        context = make_context(
            provider_url=lambda name: server.urls[name.replace(".", "_")],
            secret=lambda: secret,
            start_date=FIRST,
            end_date=LAST,
        )
        assert total(extract(context)) == billed(FIRST, LAST)
    assert answered and any("next try" in text for text in context.infos)


def test_a_charge_outside_its_billing_period_belongs_to_the_nearest_day_of_it() -> None:
    """A refund of August's usage in September's bill: neither August's run nor September's would bring it otherwise."""
    late = bills.rows_of("aws", SEED, date(2026, 9, 1))[-1] | {
        "ChargePeriodStart": "2026-08-14T00:00:00Z",
        "ChargePeriodEnd": "2026-08-15T00:00:00Z",
        "BilledCost": "-7.5",
        "ChargeClass": "Correction",
    }
    with sandbox(start_date=date(2026, 9, 1), end_date=date(2026, 9, 1)) as (bucket, context):
        deliver(bucket, [*of_days(1, 2), late])
        rows = extract(context)
    assert total(rows) == billed(date(2026, 9, 1), date(2026, 9, 1)) - Decimal("7.5")
    (refund,) = (row for row in rows if row.get("ChargeClass"))
    assert (refund["x_pipeline_run_date"], refund["ChargePeriodStart"].date()) == (date(2026, 9, 1), date(2026, 8, 14))


def test_the_newest_of_several_manifests_is_read_and_the_others_are_told() -> None:
    with sandbox() as (bucket, context):
        older = f"{PREFIX}/{EXPORT}/metadata/BILLING_PERIOD=2026-09/2026-09-30T00-00Z-x/{EXPORT}-Manifest.json"
        bucket.extra[older] = manifest_of([f"s3://{BUCKET}/{DATA}/gone.csv.gz"], "old")
        times = {older: "2026-10-01T00:00:00.000Z"}
        bucket.modified = lambda key: times.get(key, "2026-11-20T05:00:00.000Z")  # type: ignore[method-assign]
        assert total(extract(context)) == billed(FIRST, LAST)
    assert any("2 manifests of 2026-09: the newest is read" in text for text in context.infos)


def test_two_manifests_of_the_same_second_are_left_to_people() -> None:
    with sandbox() as (bucket, context):
        bucket.extra[MANIFEST.replace("BILLING_PERIOD", "billing_period")] = manifest_of(["s3://x/y"], "other")
        with pytest.raises(PermanentError, match=r"two manifests of 2026-09 .*Which one is right\?"):
            extract(context)


def test_a_file_that_a_manifest_lists_twice_is_read_once() -> None:
    with sandbox() as (bucket, context):
        deliver(bucket, of_days(*range(1, 31)))
        address = f"s3://{BUCKET}/{DATA}/part-0.csv.gz"
        bucket.extra[MANIFEST] = manifest_of([address, address], "test")
        assert total(extract(context)) == billed(FIRST, LAST)


@pytest.mark.parametrize(
    "listed",
    [
        f"s3://other-bucket/{DATA}/part-0.csv.gz",
        f"s3://{BUCKET}/secrets/part-0.csv.gz",
        f"s3://{BUCKET}/{PREFIX}/{EXPORT}/../../secrets/x.csv.gz",
        "/etc/passwd",
    ],
)
def test_a_manifest_does_not_lead_out_of_the_export(listed: str) -> None:
    with sandbox() as (bucket, context):
        bucket.extra[MANIFEST] = manifest_of([listed], "test")
        with pytest.raises(PermanentError, match=f"which is not below {BUCKET}/{PREFIX}/{EXPORT}/"):
            extract(context)


def test_an_export_that_is_refreshed_while_it_is_read_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with sandbox() as (bucket, context):
        reads: list[str] = []
        answer = S3Sandbox.answer

        def refreshed(self: S3Sandbox, request: Request) -> Answer:
            if "/data/" in request.path and not reads:
                reads.append(request.path)
                bucket.extra[MANIFEST] = manifest_of([f"s3://{BUCKET}/{DATA}/{EXPORT}-00001.csv.gz"], "refreshed")
            return answer(self, request)

        monkeypatch.setattr(S3Sandbox, "answer", refreshed)
        with pytest.raises(TransientError, match="was refreshed while it was being read"):
            extract(context)


def test_a_cut_off_gzip_is_refused() -> None:
    with sandbox() as (bucket, context):
        deliver(bucket, of_days(*range(1, 31)))
        key = f"{DATA}/part-0.csv.gz"
        bucket.extra[key] = bucket.extra[key][:-200]
        with pytest.raises(PermanentError, match=r"part-0\.csv\.gz: the gzip data ends too early"):
            extract(context)


def test_a_wrong_delimiter_is_told() -> None:
    with sandbox() as (bucket, context):
        deliver(bucket, of_days(10))
        lines = gzip.decompress(bucket.extra[f"{DATA}/part-0.csv.gz"]).decode().replace(",", ";")
        bucket.extra[f"{DATA}/part-0.csv.gz"] = gzip.compress(lines.encode())
        with pytest.raises(PermanentError, match="one single column that holds ';': set the step's delimiter to it"):
            extract(context)


def test_currencies_are_kept_apart_and_never_added() -> None:
    mixed = of_days(10)
    for row in mixed[::2]:
        row["BillingCurrency"] = "EUR"
    outputs: dict[str, Any] = {}
    with sandbox(start_date=FIRST, end_date=FIRST, put_out=outputs.__setitem__) as (bucket, context):
        deliver(bucket, mixed)
        rows = extract(context)
    euros = [row for row in rows if row["BillingCurrency"] == "EUR"]
    dollars = [row for row in rows if row["BillingCurrency"] == "USD"]
    assert {name: Decimal(value) for name, value in outputs["billed"].items()} == {
        "EUR": total(euros),
        "USD": total(dollars),
    }
    assert total(euros) + total(dollars) == billed(FIRST, FIRST)


def test_a_day_that_is_missing_in_the_middle_fails_and_nothing_is_replaced() -> None:
    days = [day for day in range(1, 31) if day != 15]
    with sandbox() as (bucket, context):
        deliver(bucket, of_days(*days))
        with pytest.raises(
            PermanentError, match=r"from 2026-09-01 to 2026-09-30, and none for 2026-09-15\. Nothing is"
        ):
            extract(context)
        rows = extract(context, missing_days="accept")
    assert total(rows) == billed(FIRST, LAST) - bills.billed("aws", SEED, date(2026, 9, 15), date(2026, 9, 15))
    assert any("none for 2026-09-15" in text for text in context.warnings)


def test_days_that_are_not_delivered_yet_are_told_and_do_not_fail() -> None:
    with sandbox() as (bucket, context):
        deliver(bucket, of_days(*range(1, 19)))
        assert total(extract(context)) == billed(FIRST, date(2026, 9, 18))
    assert any("ends with 2026-09-18: nothing yet for 2026-09-19, 2026-09-20" in text for text in context.infos)


def test_an_export_that_changes_its_columns_half_way_is_read_and_told() -> None:
    newer = [{k: v for k, v in row.items() if k != "x_Operation"} | {"x_New": "1"} for row in of_days(*range(16, 31))]
    with sandbox() as (bucket, context):
        deliver(bucket, of_days(*range(1, 16)), newer)
        rows = extract(context)
    assert total(rows) == billed(FIRST, LAST)
    assert {"x_New"} <= set(json.loads(rows[-1]["extra"]))
    (warning,) = context.warnings
    assert "part-1.csv.gz is without x_Operation and has x_New" in warning


def test_an_export_that_loses_the_column_of_its_days_is_refused() -> None:
    without = [{k: v for k, v in row.items() if k != "ChargePeriodStart"} for row in of_days(16)]
    with sandbox() as (bucket, context):
        deliver(bucket, of_days(15), without)
        with pytest.raises(PermanentError, match="part-1.csv.gz: line 1: there is no date column 'ChargePeriodStart'"):
            extract(context)


def test_negative_usage_and_usage_of_nothing_are_kept() -> None:
    back, nothing = of_days(10)[:2]
    back |= {"ConsumedQuantity": "-2", "PricingQuantity": "-2", "BilledCost": "-0.2"}
    nothing |= {"ConsumedQuantity": "0", "PricingQuantity": "0", "BilledCost": "0"}
    with sandbox(start_date=FIRST, end_date=FIRST) as (bucket, context):
        deliver(bucket, [back, nothing])
        rows = extract(context)
    assert [(row["BilledCost"], row["ConsumedQuantity"]) for row in rows] == [(Decimal("-0.2"), -2), (0, 0)]


def test_an_export_without_a_manifest_is_told_with_what_may_be_the_reason() -> None:
    said = r"There is no manifest for 2025-01\. AWS delivers one to sandbox-bills/exports/focus within a day"
    days = {"start_date": date(2025, 1, 1), "end_date": date(2025, 1, 1)}
    with sandbox(**days) as (_, context), pytest.raises(PermanentError, match=said):
        extract(context)


def test_a_manifest_that_is_none_is_told() -> None:
    with sandbox() as (bucket, context):
        bucket.extra[MANIFEST] = b"{}"
        with pytest.raises(PermanentError, match=r"lists no files \(dataFiles or reportKeys\)"):
            extract(context)


def with_secret(**change: Any) -> str:
    return json.dumps(json.loads(S3Sandbox.secret) | change)


def test_a_wrong_secret_is_refused_and_not_repeated() -> None:
    said, secret = "refused the credential 'cred_openai' with 403", with_secret(secret_access_key="a-wrong-secret")
    with sandbox(secret=secret) as (_, context), pytest.raises(PermanentError, match=said) as caught:
        extract(context)
    assert "a-wrong-secret" not in str(caught.value) and "s3:ListBucket" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bucket": "other-bucket"}, "There is no bucket 'other-bucket' in that region"),
        ({"bucket": "Not/a bucket"}, "has in 'bucket' what can't be one"),
        ({"region": "evil.com/"}, "has in 'region' what can't be one"),
        ({"export": None}, "has no 'export'"),
    ],
)
def test_a_credential_that_does_not_lead_to_an_export_is_told(change: dict[str, Any], said: str) -> None:
    with sandbox(secret=with_secret(**change)) as (_, context), pytest.raises(PermanentError, match=said):
        extract(context)


def test_a_credential_is_tried_by_listing_manifests_and_no_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bills, "today", lambda: date(2026, 11, 21))
    with SandboxServer(SEED, rate_limit_every=0) as server:
        context = make_context(provider_url=lambda name: server.urls[name.replace(".", "_")])
        found = AwsExportExtractor().try_credential(context, server.secrets["aws_s3"], ())
        assert found == f"{BUCKET}/{PREFIX}/{EXPORT}: manifests of 2026-10, 2026-11"
        assert not any("/data/" in request.path for request in server.requests)


def test_a_legacy_report_is_found_by_the_dates_in_its_path() -> None:
    folder = f"{PREFIX}/cur/20260901-20261001"
    with sandbox(secret=with_secret(export="cur")) as (bucket, context):
        line = {
            "bill/PayerAccountId": "1",
            "lineItem/LineItemType": "Usage",
            "lineItem/UsageStartDate": "2026-09-10T00:00:00Z",
            "lineItem/CurrencyCode": "USD",
            "lineItem/UnblendedCost": "1.25",
        }
        bucket.extra[f"{folder}/a1/cur-1.csv.gz"] = gzipped([line])
        manifest = json.dumps({"assemblyId": "a1", "reportKeys": [f"{folder}/a1/cur-1.csv.gz"]}).encode()
        bucket.extra[f"{folder}/cur-Manifest.json"] = manifest
        bucket.extra[f"{folder}/a1/cur-Manifest.json"] = manifest  # the copy beside the files, which is not asked
        rows = extract(context, layout="aws_cur")
    assert total(rows) == Decimal("1.25")
