"""``AwsExportExtractor``: AWS Data Exports (FOCUS, CUR 2.0) and legacy Cost and Usage Reports, from their bucket.

An export is delivered a billing period (a month) at a time, the manifest last: what is read is exactly what the newest
manifest of each month lists. Each delivery holds the whole month as AWS knows it by then.

Facts: docs.aws.amazon.com/cur/latest/userguide/dataexports-export-delivery and billing-reports-costusage-files. What a
manifest holds is not documented; its keys (``executionId``, ``dataFiles`` with s3:// addresses, ``columns``; of legacy
reports ``assemblyId``, ``reportKeys``) are those that three public readers agree on.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, ClassVar

from common.errors import PermanentError, TransientError
from common.processors.aws_sigv4 import AwsKeys
from common.processors.base import Batch, Params, StepContext
from common.processors.deliveries import Delivery, ExportParams, Part
from common.processors.provider_http import Calls
from common.processors.s3 import Bucket, S3Object
from common.processors.stored_settings import StoredSettings

HELP = (
    'Paste {"access_key_id": …, "secret_access_key": …, "region": …, "bucket": …, "prefix": …, "export": …}: the keys '
    "of an IAM user that may list and read the export's prefix, where the bucket is, and the export's name."
)

_MONTH = re.compile(r"/metadata/BILLING_PERIOD=(\d{4})-(\d{2})/", re.IGNORECASE)
_LEGACY_MONTH = re.compile(r"/(\d{4})(\d{2})\d{2}-\d{8}/[^/]+$")
Month = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an export is, and the keys that open it."""

    keys: AwsKeys
    region: str
    bucket: str
    folder: str


class AwsExportExtractor:
    """Reads the months of the run. Rows of a charge outside its billing period belong to the period's nearest day."""

    params_type: ClassVar[type[Params]] = ExportParams
    needs_credential: ClassVar[bool] = True

    def run(self, context: StepContext, params: ExportParams) -> Iterator[Batch]:
        place = _place(context.credential_id, context.secret())
        with Bucket(context, place.keys, region=place.region, bucket=place.bucket) as bucket:
            wanted = _months(context.start_date, context.end_date)
            found = _manifests(context, bucket, place, wanted)
            if not found:
                raise PermanentError(
                    f"{place.bucket}/{place.folder} has no manifest for {_shown(wanted)}. AWS delivers one within a "
                    "day after the export was made; else check prefix and export in the credential."
                )
            delivery = Delivery(context, params, "aws")
            files = (part for item in found.values() for part in _parts(context, bucket, place, item))
            yield from delivery.batches(files)
            # A refresh replaces files: half of the old ones and half of the new ones would be no month at all.
            if _manifests(context, bucket, place, wanted, quiet=True) != found:
                raise TransientError("AWS has refreshed the export while it was read. It is read anew.")


def check(calls: Calls, secret: str) -> str:
    """List the export's manifests, the least there is to ask; return what was found. Raises as ``run`` does."""
    place = _place(calls.credential_id, secret)
    today = calls.now().date()
    with Bucket(calls, place.keys, region=place.region, bucket=place.bucket) as bucket:
        found = _manifests(calls, bucket, place, _months(today - timedelta(days=31), today), quiet=True)
    last = f"manifests of {_shown(list(found))}" if found else "no manifest of this month or the last"
    return f"{place.bucket}/{place.folder}: {last}"


def _place(credential_id: str, secret: str) -> Place:
    stored = StoredSettings(credential_id, secret, HELP)
    prefix = stored.optional("prefix", r"[ -~]{0,900}") or ""
    name = stored.text("export", r"[0-9A-Za-z!\-_.*'() ]{1,256}")
    return Place(
        aws_keys(stored),
        stored.text("region", r"[a-z0-9-]{1,40}"),
        stored.text("bucket", r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
        "/".join(part for part in (*prefix.split("/"), name) if part),
    )


def aws_keys(stored: StoredSettings) -> AwsKeys:
    """Return the access key of a credential."""
    return AwsKeys(
        stored.text("access_key_id", r"[A-Z0-9]{16,128}"),
        stored.text("secret_access_key"),
        stored.optional("session_token"),
    )


def _months(first: date, last: date) -> list[Month]:
    begins, ends = first.year * 12 + first.month - 1, last.year * 12 + last.month - 1
    return [(number // 12, number % 12 + 1) for number in range(begins, ends + 1)]


def _manifests(
    calls: Calls, bucket: Bucket, place: Place, months: list[Month], *, quiet: bool = False
) -> dict[Month, S3Object]:
    """Return the newest manifest of each of the months. An export that keeps its deliveries has many of one month."""
    found: dict[Month, list[S3Object]] = {}
    for item in _objects(bucket, place, months):
        match = _MONTH.search(item.key) or _LEGACY_MONTH.search(item.key)
        if match is not None and item.key.endswith("-Manifest.json"):
            found.setdefault((int(match[1]), int(match[2])), []).append(item)
    newest: dict[Month, S3Object] = {}
    for month in (month for month in months if month in found):
        *older, last = sorted(found[month], key=lambda item: item.modified)
        if older and older[-1].modified == last.modified:
            raise PermanentError(
                f"{place.bucket}/{place.folder} has two manifests of {_shown([month])} from the same second: "
                f"{older[-1].key} and {last.key}. Which one is right? Delete the other."
            )
        if older and not quiet:
            calls.info(f"{len(older) + 1} manifests of {_shown([month])}: the newest is read, {last.key}.")
        newest[month] = last
    return newest


def _objects(bucket: Bucket, place: Place, months: list[Month]) -> Iterator[S3Object]:
    """Yield what lies where manifests do: of a Data Export, or else of a legacy report."""
    is_export = False
    for item in bucket.objects(f"{place.folder}/metadata/"):
        is_export = True
        yield item
    if not is_export:
        for year, month in months:
            yield from bucket.objects(f"{place.folder}/{year}{month:02}01-")


def _parts(context: StepContext, bucket: Bucket, place: Place, manifest: S3Object) -> Iterator[Part]:
    """Yield the files that a manifest lists, each once."""
    for key in dict.fromkeys(_keys(bucket.read(manifest.key), place, manifest.key)):
        context.remaining_s()
        yield Part(key, lambda path, key=key: bucket.download(key, path))  # type: ignore[misc]


def _keys(text: bytes, place: Place, name: str) -> list[str]:
    try:
        manifest = json.loads(text)
        listed: Any = manifest.get("dataFiles") or manifest.get("reportKeys")
    except (ValueError, RecursionError, AttributeError):
        raise TransientError(f"{name} is no JSON object. It is read anew.") from None
    if not isinstance(listed, list) or not listed or not all(isinstance(item, str) for item in listed):
        raise PermanentError(f"{name} lists no files (dataFiles or reportKeys). Has AWS changed its manifests?")
    keys = [item.removeprefix(f"s3://{place.bucket}/") for item in listed]
    for key in keys:
        # The credential may open more than the export: what a manifest says must not lead elsewhere.
        if not key.startswith(f"{place.folder}/") or ".." in key.split("/"):
            raise PermanentError(f"{name} lists {key[:200]!r}, which is not below {place.bucket}/{place.folder}/.")
        if key.endswith(".zip"):
            raise PermanentError(f"{name} lists ZIP files: set the export's compression to GZIP or Parquet.")
    return keys


def _shown(months: list[Month]) -> str:
    return ", ".join(f"{year}-{month:02}" for year, month in months)
