"""AWS's own SDK: as the client of our sandboxes, as the judge of our requests, and its signer beside ours.

botocore's models are AWS's specification of S3 and Cost Explorer; they come with the pinned package.
"""

import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import boto3
import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import ClientError
from botocore.parsers import create_parser
from botocore.session import get_session
from botocore.validate import validate_parameters

from common.config.providers import filled, load_providers, provider_url
from common.platform.errors import PermanentError
from common.platform.paths import CONFIGS
from common.processors.clouds.aws.cost_explorer import AwsCostExplorer, CostExplorerParams
from common.processors.clouds.aws.partitions import address, cost_explorer_region, partition
from common.processors.clouds.aws.s3 import Bucket
from common.processors.clouds.aws.sigv4 import AwsKeys, CredentialScope, sign
from infra.local.sandbox import bills
from infra.local.sandbox.aws_ce import CostExplorerSandbox
from infra.local.sandbox.aws_s3 import BUCKET, EXPORT, PREFIX, S3Sandbox
from infra.local.sandbox.aws_signature import ACCESS_KEY, REGION, SECRET_KEY
from infra.local.sandbox.server import SandboxServer
from tests.processors.context import make_context

AWKWARD = {
    "exports/a b.csv": b"space",
    "exports/a+b.csv": b"plus",
    "exports/a%2Bb.csv": b"percent",
    "exports/ä (1)*~'!.csv": b"others",
    "exports//double.csv": b"double",
    "exports/./dot.csv": b"dot",
    "exports/x&y=z;1.csv": b"query",
}
AT = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
KEYS = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SESSION = AwsKeys(KEYS.access_key_id, KEYS.secret_access_key, "FQoG/session+token==")


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(3, rate_limit_every=0) as running:
        bucket = running.provider("aws_s3")
        assert isinstance(bucket, S3Sandbox)
        bucket.extra |= AWKWARD
        yield running


def client(service: str, url: str, region: str = REGION) -> Any:
    config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, proxies={})
    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
    return boto3.client(service, region_name=region, endpoint_url=url, config=config, **keys)


def ours(server: SandboxServer, region: str = REGION) -> Bucket:
    context = make_context(provider_url=lambda name: server.urls[name.partition("/")[0].replace(".", "_")])
    return Bucket(context, AwsKeys(ACCESS_KEY, SECRET_KEY), region=region, bucket=BUCKET)


def test_boto3_lists_reads_and_heads_what_our_client_does(server: SandboxServer, tmp_path: Path) -> None:
    s3 = client("s3", server.urls["aws_s3"])
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=PREFIX)
    listed = [item for page in pages for item in page["Contents"]]
    with ours(server) as bucket:
        own = list(bucket.objects(PREFIX))
        assert [(i["Key"], i["Size"], i["ETag"].strip('"'), i["LastModified"]) for i in listed] == [
            (item.key, item.size, item.etag, item.modified) for item in own
        ]
        for key in AWKWARD:
            body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            head = s3.head_object(Bucket=BUCKET, Key=key)
            bucket.download(key, tmp_path / "it")
            assert body == bucket.read(key) == (tmp_path / "it").read_bytes() == AWKWARD[key]
            assert head["ContentLength"] == len(body) and head["LastModified"].tzinfo is not None
    assert {item["Key"] for item in listed} >= set(AWKWARD)


def test_boto3_reads_a_range_and_folders_of_the_sandbox(server: SandboxServer) -> None:
    s3 = client("s3", server.urls["aws_s3"])
    assert s3.get_object(Bucket=BUCKET, Key="exports/a b.csv", Range="bytes=1-3")["Body"].read() == b"pac"
    with pytest.raises(ClientError, match="416"):
        s3.get_object(Bucket=BUCKET, Key="exports/a b.csv", Range="bytes=9-")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{PREFIX}/{EXPORT}/", Delimiter="/")
    folders = {folder["Prefix"] for page in pages for folder in page.get("CommonPrefixes", ())}
    assert folders == {f"{PREFIX}/{EXPORT}/data/", f"{PREFIX}/{EXPORT}/metadata/"}
    buffer = io.BytesIO()
    s3.download_fileobj(BUCKET, "exports/a b.csv", buffer)
    assert buffer.getvalue() == b"space"


@pytest.mark.parametrize(
    "prefix", ["exports/a b", "exports/a+b", "exports/a%2Bb", "exports/ä (1)*~'!", "exports/x&y=z;1"]
)
def test_a_prefix_is_signed_as_it_is_sent(server: SandboxServer, prefix: str) -> None:
    with ours(server) as bucket:
        assert [item.key for item in bucket.objects(prefix)] == [f"{prefix}.csv"]


@pytest.mark.parametrize(
    ("bucket", "key", "code"), [(BUCKET, "exports/none", "NoSuchKey"), ("other", "exports/none", "NoSuchBucket")]
)
def test_boto3_knows_the_errors_of_the_sandbox(server: SandboxServer, bucket: str, key: str, code: str) -> None:
    with pytest.raises(ClientError) as caught:
        client("s3", server.urls["aws_s3"]).get_object(Bucket=bucket, Key=key)
    assert caught.value.response["Error"]["Code"] == code


@pytest.mark.parametrize(("region", "status"), [("eu-central-1", 301), ("us-east-1", 400)])
def test_a_wrong_region_is_named_and_not_followed(server: SandboxServer, region: str, status: int) -> None:
    with ours(server, region) as bucket, pytest.raises(PermanentError) as caught:
        list(bucket.objects(PREFIX))
    text = str(caught.value)
    assert f"answered {status}" in text and f"is in region '{region}', and it is in '{REGION}'" in text
    assert "Correct the credential" in text and "base URL" not in text


def test_boto3_follows_the_sandbox_to_the_right_region(server: SandboxServer) -> None:
    """It reads the region in the 301 and the 400, and asks again, signed for that one."""
    for region in ("eu-central-1", "us-east-1"):
        assert client("s3", server.urls["aws_s3"], region).list_objects_v2(Bucket=BUCKET)["KeyCount"] == 2


# Cost Explorer: AWS's model of the operation judges the request and the answer.


def test_boto3_reads_cost_explorer_as_our_client_does(server: SandboxServer) -> None:
    ce = client("ce", server.urls["aws_ce"], "us-east-1")
    days = {"Start": "2026-09-10", "End": "2026-09-21"}
    query: dict[str, Any] = {"TimePeriod": days, "Granularity": "DAILY", "Metrics": ["UnblendedCost"]}
    query["GroupBy"] = [{"Type": "DIMENSION", "Key": "RECORD_TYPE"}]
    total, token = 0.0, None
    while True:
        page = ce.get_cost_and_usage(**query, **({"NextPageToken": token} if token else {}))
        groups = [group for result in page["ResultsByTime"] for group in result["Groups"]]
        total += sum(float(group["Metrics"]["UnblendedCost"]["Amount"]) for group in groups)
        if (token := page.get("NextPageToken")) is None:
            break
    assert total == pytest.approx(float(bills.billed("aws", 3, date(2026, 9, 10), date(2026, 9, 20))))
    with pytest.raises(ClientError) as caught:
        ce.get_cost_and_usage(**query | {"Metrics": ["UsageQuantity"], "Granularity": "HOURLY"})
    assert caught.value.response["Error"]["Code"] == "ValidationException"


def test_what_cost_explorer_is_asked_and_answers_is_in_its_model(server: SandboxServer) -> None:
    model = get_session().get_service_model("ce").operation_model("GetCostAndUsage")
    server.requests.clear()
    context = make_context(
        provider_url=lambda name: server.urls[name.replace(".", "_")],
        secret=lambda: CostExplorerSandbox.secret,
        start_date=date(2026, 9, 10),
        end_date=date(2026, 9, 20),
    )
    params = CostExplorerParams.model_validate({"destination_table": "cloud_focus_export"})
    assert sum(len(batch.rows) for batch in AwsCostExplorer().run(context, params)) > 0
    parser = create_parser(model.metadata["protocol"])
    for request in server.requests:
        sent = json.loads(request.body)
        validate_parameters(sent, model.input_shape)  # unknown fields, types, required ones, lengths
        assert set(sent) <= set(model.input_shape.members)
        for group in sent["GroupBy"]:
            assert group["Type"] in model.service_model.shape_for("GroupDefinitionType").enum
            assert group["Key"] in model.service_model.shape_for("Dimension").enum
        assert sent["Granularity"] in model.service_model.shape_for("Granularity").enum
        answer = server.provider("aws_ce").answer(request)
        read = parser.parse({"status_code": 200, "headers": {}, "body": answer.content()}, model.output_shape)
        assert set(answer.body) <= set(model.output_shape.members)
        _closed(answer.body, model.output_shape)
        assert read["ResultsByTime"]


def _closed(value: Any, shape: Any) -> None:
    """Fail for a field that the model does not have, at any depth."""
    if shape.type_name == "structure":
        assert set(value) <= set(shape.members), (shape.name, set(value) - set(shape.members))
        for name, inner in value.items():
            _closed(inner, shape.members[name])
    elif shape.type_name == "list":
        for inner in value:
            _closed(inner, shape.member)
    elif shape.type_name == "map":
        for inner in value.values():
            _closed(inner, shape.value)
    else:
        assert isinstance(value, {"string": str, "boolean": bool, "integer": int}[shape.type_name]), shape.name


def test_every_field_of_a_list_answer_is_read_or_has_a_reason_for_not_being_read() -> None:
    """A partial-result field that AWS adds shows here when botocore is renewed."""
    session = get_session()
    ce = session.get_service_model("ce").operation_model("GetCostAndUsage").output_shape
    assert set(ce.members) == {
        "NextPageToken",  # followed
        "ResultsByTime",  # read
        "GroupDefinitions",  # repeats the question
        "DimensionValueAttributes",  # names of accounts, not amounts
    }
    s3 = session.get_service_model("s3").operation_model("ListObjectsV2").output_shape
    assert set(s3.members) == {
        *("Contents", "IsTruncated", "NextContinuationToken"),  # read and followed
        *("Name", "Prefix", "Delimiter", "MaxKeys", "EncodingType", "KeyCount", "ContinuationToken", "StartAfter"),
        *("CommonPrefixes", "RequestCharged"),  # no delimiter is sent
    }


# Hosts: every region that botocore knows


def test_every_region_of_s3_and_cost_explorer_is_reached_where_botocore_reaches_it() -> None:
    registry, data = load_providers(CONFIGS), get_session().get_component("data_loader")
    partitions = data.load_data("partitions")
    rules = {
        service: EndpointProvider(data.load_service_model(service, "endpoint-rule-set-1"), partitions)
        for service in ("s3", "ce")
    }
    regions = [region for part in data.load_data("endpoints")["partitions"] for region in part["regions"]]
    for region in regions:
        found = rules["s3"].resolve_endpoint(Region=region, Bucket="b", ForcePathStyle=True)
        own = filled(provider_url(registry, address("s3", partition(region))), region=region)
        assert f"{own}/b" == found.url
        found = rules["ce"].resolve_endpoint(Region=region)
        assert provider_url(registry, address("ce", partition(region))) == found.url
        signed_for = found.properties["authSchemes"][0]["signingRegion"]
        assert cost_explorer_region(partition(region)) == signed_for
    assert len(regions) > 40


# Signatures

URLS = (
    "https://s3.eu-west-1.amazonaws.com/bills?list-type=2&prefix=a%20b&max-keys=1000",
    "https://s3.eu-west-1.amazonaws.com/bills?prefix=a%2Bb&prefix-x=1&list-type=2",
    "https://s3.eu-west-1.amazonaws.com/bills?a=2&a=1&a-b=0&a%20=3",
    "https://s3.eu-west-1.amazonaws.com/bills?continuation-token=1%2Fab%3D%3D&empty=",
    "https://s3.eu-west-1.amazonaws.com/bills?prefix=%C3%A4%20%281%29%2A~%27%21",
    "https://s3.eu-west-1.amazonaws.com/bills/a%20b/c%2Bd/%C3%A4%20%281%29%2A~%27%21.csv.gz",
    "https://s3.eu-west-1.amazonaws.com/bills//double//slash",
    "https://s3.eu-west-1.amazonaws.com/bills/a/./b",
    "https://s3.eu-west-1.amazonaws.com/bills/a/../b",
    "https://s3.eu-west-1.amazonaws.com/bills/BILLING_PERIOD%3D2026-10/x",
    "https://s3.eu-west-1.amazonaws.com:8443/bills/x",
    "http://127.0.0.1:5000/bills?list-type=2&prefix=a%20b",
)


@pytest.mark.parametrize("keys", [KEYS, SESSION], ids=["key", "session"])
@pytest.mark.parametrize("url", URLS)
def test_our_signature_is_botocores(url: str, keys: AwsKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: AT.replace(tzinfo=None))
    request = AWSRequest(method="GET", url=url)
    request.context["client_config"] = Config(s3={"payload_signing_enabled": True})
    credentials = Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token)
    botocore.auth.S3SigV4Auth(credentials, "s3", "eu-west-1").add_auth(request)
    own = sign(keys, CredentialScope("eu-west-1", "s3"), AT, "GET", url, b"", {})
    assert own["authorization"] == request.headers["Authorization"]


def test_our_signature_of_a_body_is_botocores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: AT.replace(tzinfo=None))
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "AWSInsightsIndexService.GetCostAndUsage"}
    body, url = b'{"Granularity":"DAILY"}', "https://ce.us-east-1.amazonaws.com/"
    request = AWSRequest(method="POST", url=url, data=body, headers=headers)
    botocore.auth.SigV4Auth(Credentials(KEYS.access_key_id, KEYS.secret_access_key), "ce", "us-east-1").add_auth(
        request
    )
    own = sign(KEYS, CredentialScope("us-east-1", "ce"), AT, "POST", url, body, headers)
    assert own["authorization"] == request.headers["Authorization"]
