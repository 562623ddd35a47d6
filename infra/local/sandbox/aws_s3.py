"""Amazon S3 with one bucket of bills, as ListObjectsV2 and GetObject are documented, path-style.

The bucket holds a FOCUS export, two gzip CSV files a month and a manifest, for every month that has bills.
Signatures are checked, unknown parameters refused, and listings come in pages of two keys (made up: S3's hold 1,000).
"""

import hashlib
import json
from datetime import date
from functools import lru_cache
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape

from infra.local.sandbox import bills
from infra.local.sandbox.aws_signature import ACCESS_KEY, REGION, SECRET_KEY, problem
from infra.local.sandbox.exchange import Answer, Request

BUCKET = "sandbox-bills"
PREFIX = "exports"
EXPORT = "focus"
PAGE = 2

LIST_PARAMETERS = frozenset({"list-type", "prefix", "max-keys", "continuation-token", "start-after", "delimiter"})


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
        """Objects that a test has put into the bucket, by key."""

    def refuse(self, request: Request) -> Answer | None:
        wrong = problem(request, region=REGION, service="s3")
        return None if wrong is None else _error(403, *wrong)

    def rate_limited(self) -> Answer:
        return _error(503, "SlowDown", "Please reduce your request rate.", {"retry-after": "1"})

    def answer(self, request: Request) -> Answer:
        bucket, _, key = request.path.removeprefix(f"{self.base}/").partition("/")
        if request.method != "GET":
            return _error(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
        if bucket != BUCKET:
            return _error(404, "NoSuchBucket", "The specified bucket does not exist")
        if not key:
            return self._list(request)
        if request.query:
            return _error(400, "InvalidArgument", f"Unknown parameter {request.query[0][0]}")
        content = self.objects().get(unquote(key))
        if content is None:
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        return Answer(200, content, {"content-type": "binary/octet-stream", "etag": f'"{_etag(content)}"'})

    def _list(self, request: Request) -> Answer:
        given = dict(request.query)
        unknown = sorted(set(given) - LIST_PARAMETERS)
        if unknown or given.get("list-type") != "2":
            return _error(400, "InvalidArgument", f"Invalid argument: {', '.join(unknown) or 'list-type'}")
        after = given.get("continuation-token", "")
        objects = [(k, c) for k, c in sorted(self.objects().items()) if k.startswith(given.get("prefix", ""))]
        left = [(k, c) for k, c in objects if k > after]
        page, is_cut = left[:PAGE], len(left) > PAGE
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{self.modified(key)}</LastModified>"
            f"<ETag>&quot;{_etag(content)}&quot;</ETag><Size>{len(content)}</Size></Contents>"
            for key, content in page
        )
        token = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if is_cut else ""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{'true' if is_cut else 'false'}</IsTruncated>{token}{entries}</ListBucketResult>"
        )
        return Answer(200, body.encode(), {"content-type": "application/xml"})

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
    """Return a manifest with the keys that public readers of such know."""
    body: dict[str, Any] = {
        "executionId": execution,
        "dataFiles": files,
        "columns": [{"name": "BilledCost", "type": "double"}],
    }
    return json.dumps(body).encode()


def _etag(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Answer:
    body = f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return Answer(status, body.encode(), {"content-type": "application/xml", **(headers or {})})
