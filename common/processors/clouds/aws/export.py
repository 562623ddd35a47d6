"""``AwsExportExtractor``: AWS Data Exports (FOCUS, CUR 2.0) and legacy Cost and Usage Reports, from their bucket.

A delivery holds a whole billing period (a month), and its manifest is written last: so exactly the files that the
newest manifest of each month lists are read, and never a delivery that is incomplete.

Facts: docs.aws.amazon.com/cur/latest/userguide/dataexports-export-delivery and billing-reports-costusage-files. A
manifest's keys are not documented; those used here (``executionId``, ``dataFiles`` with s3:// addresses, ``columns``;
of legacy reports ``assemblyId``, ``reportKeys``) are those on which three public readers agree.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

from common.platform.errors import PermanentError, TransientError
from common.processors.base import Caller, Params, StepContext
from common.processors.bills.deliveries import (
    ExportParams,
    Manifests,
    Month,
    Part,
    delivered,
    months_of,
    newest,
    shown,
)
from common.processors.clouds.aws.s3 import Bucket
from common.processors.clouds.aws.sigv4 import AwsKeys
from common.processors.http.object_store import Stored
from common.processors.http.stored_settings import StoredSettings
from common.writes.batch import Batch
from common.writes.parts import PartRead, WholeDelivery

HELP = (
    'Paste {"access_key_id": …, "secret_access_key": …, "region": …, "bucket": …, "prefix": …, "export": …}: the keys '
    "of an IAM user that may list and read the export's prefix, where the bucket is, and the export's name."
)

# Case-insensitive: AWS's guide has BILLING_PERIOD, FOCUS exports have been seen with billing_period.
_MONTH = re.compile(r"/metadata/BILLING_PERIOD=(\d{4})-(\d{2})/", re.IGNORECASE)
_LEGACY_MONTH = re.compile(r"/(\d{4})(\d{2})\d{2}-\d{8}/[^/]+$")


@dataclass(frozen=True, slots=True)
class Place:
    """Location of an export, and the keys to read it."""

    keys: AwsKeys
    region: str
    bucket: str
    folder: str


class AwsExportExtractor:
    """Reads the run's months. A charge outside its billing period belongs to the period's nearest day."""

    params_type: ClassVar[type[Params]] = ExportParams
    needs_credential: ClassVar[bool] = True
    credential_field: ClassVar[str] = "bucket"

    def run(self, context: StepContext, params: ExportParams) -> Iterator[Batch | PartRead | WholeDelivery]:
        place = _place(context.credential_id, context.secret())
        with Bucket(context, place.keys, region=place.region, bucket=place.bucket) as bucket:
            yield from delivered(
                context,
                params,
                "aws",
                find=lambda months, tell: newest(_listed(bucket, place, months), months, tell),
                parts=lambda manifests: _parts(bucket, place, manifests),
                missing=f"AWS delivers one to {place.bucket}/{place.folder} within a day after the export was made; "
                "else check prefix and export in the credential.",
            )

    def try_credential(self, caller: Caller, secret: str, configured: Sequence[Params]) -> str:
        """List the export's manifests, the cheapest call, and return a summary. Raises what ``run`` raises."""
        place = _place(caller.credential_id, secret)
        today = caller.now().date()
        months = months_of(today - timedelta(days=31), today)
        with Bucket(caller, place.keys, region=place.region, bucket=place.bucket) as bucket:
            manifests = newest(_listed(bucket, place, months), months, lambda _text: None)
        last = f"manifests of {shown(manifests)}" if manifests else "no manifest of this month or the last"
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


def _listed(bucket: Bucket, place: Place, months: list[Month]) -> Iterator[tuple[Month, Stored]]:
    for item in _objects(bucket, place, months):
        match = _MONTH.search(item.key) or _LEGACY_MONTH.search(item.key)
        if match is not None and item.key.endswith("-Manifest.json"):
            yield (int(match[1]), int(match[2])), item


def _objects(bucket: Bucket, place: Place, months: list[Month]) -> Iterator[Stored]:
    """Yield the objects in the manifests' folder of a Data Export, or else of a legacy report."""
    is_export = False
    for item in bucket.objects(f"{place.folder}/metadata/"):
        is_export = True
        yield item
    if not is_export:
        for year, month in months:
            yield from bucket.objects(f"{place.folder}/{year}{month:02}01-")


def _parts(bucket: Bucket, place: Place, manifests: Manifests) -> Iterator[Part]:
    """Yield the files that the manifests list; one that is listed twice is read once."""
    for manifest in manifests.values():
        for key in dict.fromkeys(_keys(bucket.read(manifest.key), place, manifest.key)):
            yield Part(key, partial(bucket.download, key))


def _keys(text: bytes, place: Place, name: str) -> list[str]:
    try:
        manifest = json.loads(text)
        listed: Any = manifest.get("dataFiles") or manifest.get("reportKeys")
    except (ValueError, RecursionError, AttributeError):
        raise TransientError(f"{name} is not a JSON object. The next attempt reads it again.") from None
    if not isinstance(listed, list) or not listed or not all(isinstance(item, str) for item in listed):
        raise PermanentError(f"{name} lists no files (dataFiles or reportKeys). Has AWS changed its manifests?")
    keys = [item.removeprefix(f"s3://{place.bucket}/") for item in listed]
    for key in keys:
        # The credential may open more than the export: a manifest must not be able to lead to other objects.
        if not key.startswith(f"{place.folder}/") or ".." in key.split("/"):
            raise PermanentError(f"{name} lists {key[:200]!r}, which is not below {place.bucket}/{place.folder}/.")
        if key.endswith(".zip"):
            raise PermanentError(f"{name} lists ZIP files: set the export's compression to GZIP or Parquet.")
    return keys
