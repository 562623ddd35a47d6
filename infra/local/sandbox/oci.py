"""Oracle Cloud: a tenancy's reports in Object Storage, and its usage API, over the same made-up bills.

Paths, parameters and shapes are those of Oracle's SDK (oci 2.189.0), columns of the FOCUS reports those that public
loaders read. Signatures are checked. Made up: two files a day, of the day before; ``LATE`` rows of a day come a day
later; listings come in pages of two objects, answers of the usage API in pages of ``USAGE_PAGE`` items.
"""

import base64
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from email.utils import format_datetime
from functools import cache, lru_cache
from typing import Any
from urllib.parse import unquote

from common.processors.bills.cells import timestamp
from infra.local.sandbox import bills
from infra.local.sandbox.exchange import Answer, Request, content_answer

TENANCY = "ocid1.tenancy.oc1..aaaaaaaasandbox"
USER = "ocid1.user.oc1..aaaaaaaasandbox"
FINGERPRINT = "20:3b:97:13:55:1c:5b:0d:d3:37:d8:50:4e:c5:3a:34"
REGION = "eu-frankfurt-1"
PAGE = 2
LONGEST = timedelta(days=93)
"""Oracle's own tool asks for no longer range."""
USAGE_PAGE = 25

_SIGNATURE = re.compile(
    r'Signature algorithm="rsa-sha256",headers="([a-z0-9() -]+)",keyId="([^"]+)",signature="([^"]+)",version="1"'
)
DRAFTS = {
    "ProviderName": "Provider",
    "PublisherName": "Publisher",
    "InvoiceIssuerName": "InvoiceIssuer",
    "RegionId": "Region",
    "ConsumedQuantity": "UsageQuantity",
    "ConsumedUnit": "UsageUnit",
}
LEFT_OUT = frozenset({"ContractedCost", "ContractedUnitPrice", "PricingCurrency", "BillingAccountType", "RegionName"})
"""Columns of FOCUS that Oracle's reports do not have."""


@cache
def _key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(65537, 2048)


@cache
def secret() -> str:
    """Return the credential of the tenancy's user; each process generates its own key."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = _key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    fields = {"tenancy": TENANCY, "user": USER, "fingerprint": FINGERPRINT, "private_key": pem, "region": REGION}
    return json.dumps(fields)


class _Signed:
    """What both APIs have in common."""

    settled = True

    def __init__(self, seed: int) -> None:
        self._seed, self.secret = seed, secret()

    def refuse(self, request: Request) -> Answer | None:
        return None if _is_signed(request) else _error(401, "NotAuthenticated", "The required information is wrong.")

    def rate_limited(self) -> Answer:
        return _error(429, "TooManyRequests", "Too many requests for the tenancy.", {"retry-after": "1"})


class ReportsSandbox(_Signed):
    """``/n/bling/b/{tenancy}/o``: the FOCUS reports of every day."""

    key = "oci_objectstorage"
    base = "/oci-objects"
    prefixes: tuple[str, ...] = ("/oci-objects/",)

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.extra: dict[str, bytes] = {}
        """Objects added by a test, by name."""

    def answer(self, request: Request) -> Answer:
        bucket = f"{self.base}/n/bling/b/{TENANCY}/o"
        if not (request.path == bucket or request.path.startswith(f"{bucket}/")):
            return _error(404, "BucketNotFound", "Either the bucket does not exist or you are not authorized.")
        name = unquote(request.path.removeprefix(bucket).removeprefix("/"))
        if not name:
            return self._list(dict(request.query))
        content = self.objects().get(name)
        if content is None:
            return _error(404, "ObjectNotFound", "The object was not found.")
        item = self._item(name)
        modified = format_datetime(timestamp(item["timeCreated"]), usegmt=True)
        headers = {"content-type": "application/octet-stream", "etag": item["etag"], "last-modified": modified}
        return content_answer(request, content, headers)

    def _list(self, given: Mapping[str, str]) -> Answer:
        unknown = sorted(set(given) - {"prefix", "fields", "limit", "start", "delimiter"})
        if unknown:
            return _error(400, "InvalidParameter", f"Unknown parameter {unknown[0]}.")
        names = sorted(n for n in self.objects() if n.startswith(given.get("prefix", "")))
        left = [name for name in names if name >= given.get("start", "")]
        fields = set(given.get("fields", "name").split(","))
        items = [{k: v for k, v in self._item(name).items() if k in fields} for name in left[:PAGE]]
        more = {"nextStartWith": left[PAGE]} if len(left) > PAGE else {}
        return Answer(200, {"objects": items, "prefixes": [], **more})

    def _item(self, name: str) -> dict[str, Any]:
        content = self.objects()[name]
        dated = re.search(r"/(\d{4})/(\d{2})/(\d{2})/", name)
        created = "-".join(dated.groups()) if dated else "2026-09-12"
        etag = hashlib.sha256(content).hexdigest()[:12]
        return {"name": name, "size": len(content), "etag": etag, "timeCreated": f"{created}T06:00:00.000Z"}

    def objects(self) -> dict[str, bytes]:
        """Return all objects of the bucket by name."""
        return {**_reports(self._seed, bills.today()), **self.extra}


@lru_cache(maxsize=4)
def _reports(seed: int, today: date) -> dict[str, bytes]:
    objects: dict[str, bytes] = {}
    days = [day for month in bills.months(today) for day in bills.days_of(month, today)]
    for day in days[-400:]:
        for number, rows in enumerate(parts_of(seed, day), 1):
            name = f"FOCUS Reports/{day:%Y/%m/%d}/0001000000{day:%m%d}-{number:05}.csv.gz"
            objects[name] = bills.gzipped(list(map(_drafted, rows)))
    return objects


def parts_of(seed: int, day: date) -> list[list[bills.Values]]:
    """Return the rows of the files of one day: the day before's without its late ones, and the late ones before."""
    before, earlier = (day - timedelta(days=n) for n in (1, 2))
    late = bills.rows_of("oci", seed, earlier)[: bills.LATE]
    return [bills.rows_of("oci", seed, before)[bills.LATE :], late]


def billed(seed: int, first: date, last: date) -> Decimal:
    """Return SUM(BilledCost) of the files of the days ``first`` to ``last``, exactly."""
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    rows = (row for day in days for part in parts_of(seed, day) for row in part)
    return sum((Decimal(row["BilledCost"]) for row in rows), Decimal(0))


def _drafted(row: bills.Values) -> bills.Values:
    kept = {DRAFTS.get(name, name): value for name, value in row.items() if name not in LEFT_OUT}
    return kept | {"PricingCategory": {"Standard": "On-Demand"}.get(row["PricingCategory"], row["PricingCategory"])}


class UsageSandbox(_Signed):
    """``POST /20200107/usage``."""

    key = "oci_usage"
    base = "/oci-usage"
    prefixes: tuple[str, ...] = ("/oci-usage/",)

    def answer(self, request: Request) -> Answer:
        if request.path != f"{self.base}/20200107/usage" or request.method != "POST":
            return _error(404, "NotFound", "No such operation.")
        given = dict(request.query)
        if unknown := sorted(set(given) - {"page", "limit"}):
            return _error(400, "InvalidParameter", f"Unknown parameter {unknown[0]}.")
        try:
            items = self._items(json.loads(request.body))
        except (ValueError, LookupError, TypeError) as error:
            return _error(400, "InvalidParameter", f"The request is not valid: {error}.")
        at = int(given.get("page") or 0)
        headers = {"opc-next-page": str(at + USAGE_PAGE)} if len(items) > at + USAGE_PAGE else {}
        text = json.dumps({"groupBy": [], "items": items[at : at + USAGE_PAGE]}, default=lambda d: f"@{d:f}@")
        return Answer(200, re.sub(r'"@(-?[0-9.]+)@"', r"\1", text).encode(), headers)

    def _items(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        known = {"tenantId", "timeUsageStarted", "timeUsageEnded", "granularity", "queryType", "groupBy"}
        neutral = {"isAggregateByTime": (None, False), "compartmentDepth": (None, 6)}  # values that Oracle's tools send
        unknown = [n for n, value in query.items() if n not in known and value not in neutral.get(n, ())]
        if unknown or query["tenantId"] != TENANCY or query["granularity"] != "DAILY":
            raise ValueError("an unknown field, tenancy or granularity")
        first, end = (timestamp(query[name]) for name in ("timeUsageStarted", "timeUsageEnded"))
        if first.hour or end.hour or not first < end <= first + LONGEST:
            raise ValueError("times must be midnights, the end after the start by 93 days at most")
        sums: dict[tuple[str, ...], list[Decimal]] = defaultdict(lambda: [Decimal(0), Decimal(0)])
        for n in range((end - first).days):
            day = first.date() + timedelta(days=n)
            for row in bills.rows_of("oci", self._seed, day, settled=self.settled):
                key = (day.isoformat(), *(row[GROUPS[name]] for name in query["groupBy"]), row["BillingCurrency"])
                sums[key][0] += Decimal(row["BilledCost"])
                sums[key][1] += Decimal(row["ConsumedQuantity"] or 0)
        return [_item(key, amounts, query["groupBy"]) for key, amounts in sorted(sums.items())]


GROUPS = {
    "service": "ServiceName",
    "skuPartNumber": "SkuId",
    "skuName": "SkuMeter",
    "unit": "ConsumedUnit",
    "region": "RegionId",
}
"""Dimensions it can group by, and the bill's columns behind them."""


def _item(key: tuple[str, ...], amounts: list[Decimal], names: list[str]) -> dict[str, Any]:
    day, *values, currency = key
    end = date.fromisoformat(day) + timedelta(days=1)
    return {
        "tenantId": TENANCY,
        **{name: value or None for name, value in zip(names, values, strict=True)},
        "timeUsageStarted": f"{day}T00:00:00.000Z",
        "timeUsageEnded": f"{end}T00:00:00.000Z",
        "computedAmount": amounts[0],
        "computedQuantity": amounts[1],
        "currency": currency,
        "isForecast": False,
        "tags": [],
    }


def _is_signed(request: Request) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    match = _SIGNATURE.fullmatch(request.headers.get("authorization", ""))
    if match is None or match[2] != f"{TENANCY}/{USER}/{FINGERPRINT}":
        return False
    names = match[1].split(" ")
    wanted = {"date", "(request-target)", "host"}
    if request.method == "POST":
        wanted |= {"content-length", "content-type", "x-content-sha256"}
        digest = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
        if request.headers.get("x-content-sha256") != digest:
            return False
    target = f"{request.method.lower()} {request.target}"
    values = {**request.headers, "(request-target)": target}
    text = "\n".join(f"{name}: {values.get(name, '')}" for name in names)
    try:
        _key().public_key().verify(base64.b64decode(match[3]), text.encode(), PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError):
        return False
    return wanted <= set(names)


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, {"code": code, "message": message}, headers or {})
