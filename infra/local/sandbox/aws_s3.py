"""Amazon S3 with one bucket of bills, as ListObjectsV2 and GetObject are documented, path-style.

The bucket holds a FOCUS export, two gzip CSV files a month and a manifest, for every month that has bills.
Signatures are checked, unknown parameters refused, and listings come in pages of two keys (made up: S3's hold 1,000).
It supports what boto3 and obstore use: encoded keys, delimiters, HEAD and ranges.
"""

import hashlib
import json
from datetime import date
from email.utils import format_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

from common.processors.bills.cells import timestamp
from infra.local.sandbox import bills
from infra.local.sandbox.aws_signature import ACCESS_KEY, REGION, SECRET_KEY, problem
from infra.local.sandbox.exchange import Answer, Request, content_answer

BUCKET = "sandbox-bills"
PREFIX = "exports"
EXPORT = "focus"
PAGE = 2

LIST_PARAMETERS = frozenset(
    {
        "list-type",
        "prefix",
        "max-keys",
        "continuation-token",
        "start-after",
        "delimiter",
        "encoding-type",
        "fetch-owner",
    }
)
OTHER_REGION = "us-east-1"
"""Its endpoint answers with 400 for a bucket elsewhere, the others with 301: S3 does both."""


class S3Sandbox:
    """One region's S3."""

    key = "aws_s3"
    base = "/aws-s3"
    prefixes: tuple[str, ...] = ("/aws-s3/",)
    secret = json.dumps(
        {
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "region": REGION,
            "bucket": BUCKET,
            "prefix": PREFIX,
            "export": EXPORT,
        }
    )
    settled = True

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.extra: dict[str, bytes] = {}
        """Objects added by a test, by key."""

    def refuse(self, request: Request) -> Answer | None:
        wrong = problem(request, region=REGION, service="s3")
        if wrong is None:
            return None
        if wrong[0] != "AuthorizationHeaderMalformed":
            return _error(403, *wrong)
        if f"/{OTHER_REGION}/" in request.headers["authorization"]:
            return _error(400, *wrong, more=f"<Region>{REGION}</Region>")
        message = "The bucket you are attempting to access must be addressed using the specified endpoint."
        more = f"<Endpoint>{BUCKET}.s3.{REGION}.amazonaws.com</Endpoint><Bucket>{BUCKET}</Bucket>"
        return _error(301, "PermanentRedirect", message, {"x-amz-bucket-region": REGION}, more=more)

    def rate_limited(self) -> Answer:
        return _error(503, "SlowDown", "Please reduce your request rate.", {"retry-after": "1"})

    def answer(self, request: Request) -> Answer:
        bucket, _, key = request.path.removeprefix(f"{self.base}/").partition("/")
        if request.method not in ("GET", "HEAD"):
            return _error(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
        if bucket != BUCKET:
            return _error(404, "NoSuchBucket", "The specified bucket does not exist")
        if not key:
            return self._list(request)
        if unknown := [name for name, _ in request.query if name != "x-id"]:
            return _error(400, "InvalidArgument", f"Unknown parameter {unknown[0]}")
        content = self.objects().get(unquote(key))
        if content is None:
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        modified = format_datetime(timestamp(self.modified(unquote(key))), usegmt=True)
        headers = {
            "content-type": "binary/octet-stream",
            "etag": f'"{_etag(content)}"',
            "last-modified": modified,
            "x-amz-request-id": "SANDBOX",
        }
        return content_answer(request, content, headers)

    def _list(self, request: Request) -> Answer:
        given = dict(request.query)
        unknown = sorted(set(given) - LIST_PARAMETERS)
        if unknown or given.get("list-type") != "2":
            return _error(400, "InvalidArgument", f"Invalid argument: {', '.join(unknown) or 'list-type'}")
        if given.get("encoding-type", "url") != "url":
            return _error(400, "InvalidArgument", "Invalid Encoding Method specified in Request")
        prefix, delimiter = given.get("prefix", ""), given.get("delimiter", "")
        after = given.get("continuation-token") or given.get("start-after", "")
        encoded = "encoding-type" in given
        entries: dict[str, str] = {}
        for key in sorted(self.objects()):
            if key.startswith(prefix):
                # Keys with the same beginning up to the delimiter are one entry.
                head, cut, _ = key.removeprefix(prefix).partition(delimiter) if delimiter else ("", "", "")
                name = prefix + head + cut if cut else key
                shown = escape(quote(name, safe="/-_.~") if encoded else name)
                folder = f"<CommonPrefixes><Prefix>{shown}</Prefix></CommonPrefixes>"
                entries[name] = folder if cut else self._entry(key, shown)
        size = min(int(given.get("max-keys") or 1_000), PAGE)
        left = [name for name in entries if name > after]
        page, is_cut = left[:size], len(left) > size
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if is_cut else ""
        encoding = "<EncodingType>url</EncodingType>" if encoded else ""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
            f"<MaxKeys>{size}</MaxKeys>{encoding}<IsTruncated>{'true' if is_cut else 'false'}</IsTruncated>{token}"
            f"{''.join(entries[name] for name in page)}</ListBucketResult>"
        )
        return Answer(200, body.encode(), {"content-type": "application/xml"})

    def _entry(self, key: str, shown: str) -> str:
        content = self.objects()[key]
        return (
            f"<Contents><Key>{shown}</Key><LastModified>{self.modified(key)}</LastModified>"
            f"<ETag>&quot;{_etag(content)}&quot;</ETag><Size>{len(content)}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )

    def modified(self, key: str) -> str:
        """When an object was written: all of a month together, the manifest last."""
        seconds = 59 if key.endswith("-Manifest.json") else 0
        return f"2026-11-20T05:{10 if self.settled else 9:02}:{seconds:02}.000Z"

    def objects(self) -> dict[str, bytes]:
        """Return all objects of the bucket by key."""
        return {**_export(self._seed, bills.today(), self.settled), **self.extra}


@lru_cache(maxsize=8)
def _export(seed: int, today: date, settled: bool) -> dict[str, bytes]:
    objects: dict[str, bytes] = {}
    for month in bills.months(today):
        days = bills.days_of(month, today)
        named = f"BILLING_PERIOD={month:%Y-%m}"
        files = []
        for number, part in enumerate((days[:15], days[15:]), 1):
            if part:
                key = f"{PREFIX}/{EXPORT}/data/{named}/{EXPORT}-{number:05}.csv.gz"
                rows = [row for day in part for row in bills.rows_of("aws", seed, day, settled=settled)]
                objects[key] = bills.gzipped(rows)
                files.append(f"s3://{BUCKET}/{key}")
        if files:
            manifest = f"{PREFIX}/{EXPORT}/metadata/{named}/{EXPORT}-Manifest.json"
            objects[manifest] = manifest_of(files, f"{seed}-{month:%Y%m}-{settled}")
    return objects


def manifest_of(files: list[str], execution: str) -> bytes:
    """Return a manifest with the keys that public readers of manifests use."""
    body: dict[str, Any] = {
        "executionId": execution,
        "dataFiles": files,
        "columns": [{"name": "BilledCost", "type": "double"}],
    }
    return json.dumps(body).encode()


def _etag(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None, *, more: str = "") -> Answer:
    body = f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>{escape(message)}</Message>{more}</Error>"
    return Answer(status, body.encode(), {"content-type": "application/xml", **(headers or {})})
