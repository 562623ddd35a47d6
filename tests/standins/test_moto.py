"""Our S3 client and the export pipeline against moto, an S3 that others wrote, with signature checks."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import boto3
import httpx2
import pytest
from moto.server import ThreadedMotoServer

from common.platform.errors import PermanentError
from common.processors.bills.deliveries import ExportParams
from common.processors.clouds.aws.export import AwsExportExtractor
from common.processors.clouds.aws.s3 import Bucket
from common.processors.clouds.aws.sigv4 import AwsKeys
from infra.local.sandbox import bills
from infra.local.sandbox.aws_s3 import BUCKET, EXPORT, PREFIX, S3Sandbox
from tests.processors.bill_files import rows_of
from tests.processors.context import RecordingContext, make_context
from tests.processors.layouts import total

SEED, REGION = 4, "eu-west-1"
FIRST, LAST = date(2026, 9, 10), date(2026, 9, 20)
AWKWARD = ("exports/a b.csv", "exports/a+b.csv", "exports/ä (1)*~'!.csv", "exports/%2B.csv", "exports/x&y=z;1.csv")


class Moto:
    """A running moto with one user, who may read S3."""

    def __init__(self, url: str, keys: AwsKeys) -> None:
        self.url, self.keys = url, keys

    def context(self, **more: Any) -> RecordingContext:
        return make_context(provider_url=lambda _name: self.url, **more)

    def bucket(self, keys: AwsKeys | None = None, name: str = BUCKET) -> Bucket:
        return Bucket(self.context(), keys or self.keys, region=REGION, bucket=name)


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        # Checked are the requests after the first three, which make the user and its key.
        httpx2.post(f"{url}/moto-api/reset-auth", content=b"3", trust_env=False).raise_for_status()
        first = {"endpoint_url": url, "region_name": REGION, "aws_access_key_id": "x", "aws_secret_access_key": "x"}
        iam = boto3.client("iam", **first)
        iam.create_user(UserName="reader")
        allowed = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
        iam.put_user_policy(UserName="reader", PolicyName="s3", PolicyDocument=allowed)
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        own = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
        s3 = boto3.client("s3", **{**first, **own})
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        for name, content in S3Sandbox(SEED).objects().items():
            if "2026-09" in name:
                s3.put_object(Bucket=BUCKET, Key=name, Body=content)
        for name in AWKWARD:
            s3.put_object(Bucket=BUCKET, Key=name, Body=name.encode())
        yield Moto(url, AwsKeys(key["AccessKeyId"], key["SecretAccessKey"]))
    finally:
        httpx2.post(f"{url}/moto-api/reset-auth", content=b"inf", trust_env=False)
        server.stop()


def test_awkward_keys_and_prefixes_are_listed_and_read(moto: Moto) -> None:
    with moto.bucket() as bucket:
        for name in AWKWARD:
            prefix = name.removesuffix(".csv")
            assert [item.key for item in bucket.objects(prefix)] == [name]
            assert bucket.read(name) == name.encode()


def test_a_wrong_secret_is_refused(moto: Moto) -> None:
    """Without this, moto could be one that checks nothing."""
    wrong = AwsKeys(moto.keys.access_key_id, "not-the-secret")
    with moto.bucket(wrong) as bucket, pytest.raises(PermanentError, match="SignatureDoesNotMatch|signature"):
        list(bucket.objects(PREFIX))


def test_a_bucket_that_is_not_there_is_named(moto: Moto) -> None:
    with moto.bucket(name="no-such-bucket") as bucket, pytest.raises(PermanentError, match="There is no bucket"):
        list(bucket.objects(PREFIX))


def test_the_export_pipeline_reads_the_bill_from_moto(moto: Moto) -> None:
    secret = (
        f'{{"access_key_id": "{moto.keys.access_key_id}", "secret_access_key": "{moto.keys.secret_access_key}", '
        f'"region": "{REGION}", "bucket": "{BUCKET}", "prefix": "{PREFIX}", "export": "{EXPORT}"}}'
    )
    context = moto.context(start_date=FIRST, end_date=LAST, secret=lambda: secret)
    params = ExportParams.model_validate({"destination_table": "cloud_focus_export"})
    rows = [row for batch in AwsExportExtractor().run(context, params) for row in rows_of(batch)]
    assert total(rows) == bills.billed("aws", SEED, FIRST, LAST) > Decimal(0)
