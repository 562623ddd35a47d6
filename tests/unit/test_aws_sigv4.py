"""AWS's request signature. What is expected was made by botocore 1.43.117, of the same requests and time."""

from datetime import UTC, datetime

import pytest

from common.processors.clouds.aws.sigv4 import AwsKeys, CredentialScope, sign

AT = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
KEYS = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SESSION = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "FQoG/session+token==")
S3 = CredentialScope("eu-west-1", "s3")
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_listing_with_parameters_in_any_order() -> None:
    url = (
        "https://bills.s3.eu-west-1.amazonaws.com/?list-type=2&prefix=focus%2Facme%20corp%2Fmetadata%2F"
        "&continuation-token=1%2Ba%3D%3D"
    )
    assert sign(KEYS, S3, AT, "GET", url, b"", {}) == {
        "x-amz-date": "20261121T060000Z",
        "x-amz-content-sha256": EMPTY,
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/eu-west-1/s3/aws4_request, "
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
        "Signature=093145419689f3bd6fd37d9bb1883f943814f5d6bddc58fc23bccedd97fc2c39",
    }


def test_an_object_whose_key_needs_quotes_with_a_session() -> None:
    url = (
        "https://s3.eu-west-1.amazonaws.com/bills/focus/acme%20corp/data/BILLING_PERIOD%3D2026-10/a%2Bb~1_%C3%A9.csv.gz"
    )
    signed = sign(SESSION, S3, AT, "GET", url, b"", {})
    assert signed["x-amz-security-token"] == "FQoG/session+token=="
    assert signed["authorization"].endswith(
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, "
        "Signature=119c435ae432b57267585e3f24470e2613eecb4ab3805a334c6ef3f9d2ec6b55"
    )


def test_a_body_and_the_headers_that_belong_to_it() -> None:
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "AWSInsightsIndexService.GetCostAndUsage",
    }
    scope = CredentialScope("us-east-1", "ce")
    signed = sign(KEYS, scope, AT, "POST", "https://ce.us-east-1.amazonaws.com/", b'{"Granularity":"DAILY"}', headers)
    assert set(signed) == {"x-amz-date", "authorization"}
    assert signed["authorization"].endswith(
        "SignedHeaders=content-type;host;x-amz-date;x-amz-target, "
        "Signature=d464ece3b5c43af73af98277a9d21bcb03dd37b487329cc26814c25817b78790"
    )


@pytest.mark.parametrize("keys", [KEYS, SESSION])
def test_keys_do_not_show_themselves(keys: AwsKeys) -> None:
    assert "wJalr" not in repr(keys) and "FQoG" not in repr(keys)
