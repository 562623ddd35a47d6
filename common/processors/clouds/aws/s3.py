"""Client for the objects of an S3 bucket. Path-style addresses, so that one URL in the registry serves every bucket."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from urllib.parse import quote
from xml.etree import ElementTree

from common.config.providers import filled
from common.ports.http import Calls
from common.processors.bills.cells import timestamp
from common.processors.clouds.aws.partitions import address, partition
from common.processors.clouds.aws.sigv4 import AwsKeys, CredentialScope, signer
from common.processors.http.client import Api, ErrorBody, ProviderClient
from common.processors.http.object_store import ObjectStore, Stored, xml_error
from common.processors.http.pager import follow

API = Api(
    key="aws",
    name="Amazon S3",
    credential_help="It needs s3:ListBucket and s3:GetObject on the export's prefix, and kms:Decrypt if a KMS key "
    "encrypts the bucket.",
    error=xml_error,
    # S3 sends RequestTimeout with status 400.
    later=frozenset({"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable"}),
)


_ELSEWHERE = frozenset(
    {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
"""What S3 answers, with 301, 307 or 400, to a request in another region than the bucket's."""


def _elsewhere(region: str, error: ErrorBody, headers: Mapping[str, str]) -> str:
    """Say in which region the bucket is; never followed, because the credential says where it is to be sent."""
    if error.code not in _ELSEWHERE:
        return ""
    named = headers.get("x-amz-bucket-region") or error.region
    right = f"is in {named!r}" if re.fullmatch(r"[a-z0-9-]{1,40}", named) else "is not there"
    return (
        f"The credential says that the bucket is in region {region!r}, and it {right}. Correct the credential: "
        "main.py credentials add."
    )


class Bucket(ObjectStore):
    """An S3 bucket, read with an access key."""

    provider = API.name

    def __init__(self, calls: Calls, keys: AwsKeys, *, region: str, bucket: str) -> None:
        client = ProviderClient(
            calls,
            replace(API, hint=lambda error, headers: _elsewhere(region, error, headers)),
            secret=keys.secret_access_key,
            headers={"accept": "*/*"},
            base=filled(calls.provider_url(address("s3", partition(region))), region=region),
            sign=signer(keys, CredentialScope(region, "s3"), calls.now),
        )
        missing = f"There is no bucket {bucket!r} in that region: check bucket and region in the credential."
        super().__init__(client, f"/{quote(bucket)}", missing)

    def objects(self, prefix: str) -> Iterator[Stored]:
        params = [("list-type", "2"), ("max-keys", "1000"), ("prefix", prefix)]

        def ask(token: str | None) -> ElementTree.Element:
            return self._xml(params if token is None else [*params, ("continuation-token", token)])

        def following(page: ElementTree.Element) -> str | None:
            if page.findtext("{*}IsTruncated") != "true":
                return None
            return self._goes_on(page.findtext("{*}NextContinuationToken"))

        for page in follow(ask, following, api=self.provider, field="NextContinuationToken"):
            yield from map(self._stored, page.iterfind("{*}Contents"))

    def _stored(self, entry: ElementTree.Element) -> Stored:
        def of(name: str) -> str:
            return entry.findtext(f"{{*}}{name}") or ""

        try:
            return Stored(of("Key"), of("ETag").strip('"'), int(of("Size")), timestamp(of("LastModified")))
        except ValueError:
            raise self._odd() from None
