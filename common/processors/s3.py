"""Objects of one S3 bucket: listed, read and downloaded. Path-style addresses, so that one URL serves every bucket."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from common.config.providers import filled
from common.errors import PermanentError, TransientError
from common.processors.aws_sigv4 import AwsKeys, Scope, signer
from common.processors.cells import timestamp
from common.processors.provider_http import Api, Calls, ProviderClient, ProviderNotFoundError, Said

MAX_OBJECT_BYTES = 8 * 2**30
PAGE = 1_000
"""Keys a page: S3's most."""

HELP = (
    "It needs s3:ListBucket and s3:GetObject on the export's prefix, and kms:Decrypt where the bucket is encrypted so."
)


@dataclass(frozen=True, slots=True)
class S3Object:
    """One object of a listing."""

    key: str
    etag: str
    size: int
    modified: datetime


def xml_error(body: bytes) -> Said:
    """Read ``<Error><Code>…</Code><Message>…</Message></Error>``."""
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return Said()
    return Said(root.findtext("Code") or "", root.findtext("Message") or "")


API = Api(
    key="aws",
    name="Amazon S3",
    credential_help=HELP,
    error=xml_error,
    later=frozenset({"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable"}),
)


class Bucket:
    """One bucket, with one access key, for one attempt. Use it as a context manager.

    Raises what ProviderClient raises; a bucket or object that is not there is a PermanentError in words.
    """

    def __init__(self, calls: Calls, keys: AwsKeys, *, region: str, bucket: str) -> None:
        self._bucket = bucket
        self._client = ProviderClient(
            calls,
            API,
            secret=keys.secret_access_key,
            headers={"accept": "*/*"},
            base=filled(calls.provider_url("aws.s3"), region=region),
            sign=signer(keys, Scope(region, "s3"), calls.now),
        )

    def __enter__(self) -> "Bucket":
        self._client.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._client.__exit__(None, None, None)

    def objects(self, prefix: str) -> Iterator[S3Object]:
        """Yield the objects whose keys begin so, in order of their keys."""
        token: str | None = None
        while True:
            params = [("list-type", "2"), ("max-keys", str(PAGE)), ("prefix", prefix)]
            if token is not None:
                params.append(("continuation-token", token))
            page = self._page(params)
            for entry in page.iterfind("{*}Contents"):
                yield _object(entry)
            if page.findtext("{*}IsTruncated") != "true":
                return
            following = page.findtext("{*}NextContinuationToken")
            if not following or following == token:
                raise TransientError("Amazon S3: a listing says that it goes on, and not where.")
            token = following

    def _page(self, params: list[tuple[str, str]]) -> ElementTree.Element:
        try:
            body = self._client.get_bytes(f"/{quote(self._bucket)}", params)
            return ElementTree.fromstring(body)
        except ProviderNotFoundError:
            raise PermanentError(
                f"There is no bucket {self._bucket!r} in that region: check bucket and region in the credential."
            ) from None
        except ElementTree.ParseError:
            raise TransientError(
                "Amazon S3: a listing is not valid XML. It is read again in the next attempt."
            ) from None

    def read(self, key: str) -> bytes:
        """Return a small object's content."""
        try:
            return self._client.get_bytes(self._path(key))
        except ProviderNotFoundError:
            raise self._gone(key) from None

    def download(self, key: str, target: Path) -> None:
        """Write an object to a file."""
        try:
            self._client.download(self._path(key), target, limit=MAX_OBJECT_BYTES)
        except ProviderNotFoundError:
            raise self._gone(key) from None

    def _path(self, key: str) -> str:
        return f"/{quote(self._bucket)}/{quote(key, safe='/-_.~')}"

    def _gone(self, key: str) -> TransientError:
        # An export that is just being refreshed replaces its files: its next manifest names others.
        return TransientError(f"Amazon S3: {self._bucket}/{key} is listed and not there. It is read anew.")


def _object(entry: ElementTree.Element) -> S3Object:
    key, modified = entry.findtext("{*}Key"), entry.findtext("{*}LastModified")
    try:
        size = int(entry.findtext("{*}Size") or "0")
        return S3Object(key or "", (entry.findtext("{*}ETag") or "").strip('"'), size, timestamp(modified))
    except ValueError:
        raise TransientError("Amazon S3: a listing has an entry without a size or time.") from None
