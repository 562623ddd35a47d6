"""Azure: Microsoft Entra's tokens, a storage container with a FocusCost export, and Cost Management's query API.

Paths, parameters, headers and shapes are the documented ones (finops-toolkit's data-processing.md for exports, the SDK
azure-mgmt-costmanagement 5.0.0 for queries). Each API takes only tokens that are for it. Made up: tokens are readable,
listings come in pages of two blobs, answers to queries in pages of ``QUERY_PAGE`` rows.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from email.utils import format_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape

from common.domain.dates import next_month
from common.processors.bills.cells import timestamp
from infra.local.sandbox import bills
from infra.local.sandbox.exchange import Answer, Request, content_answer

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-000000000000"
CLIENT_SECRET = "sandbox~azure.secret"
ACCOUNT, CONTAINER, FOLDER = "sandboxbills", "exports", "daily/focus"
SCOPE = "/subscriptions/99999999-2222-3333-4444-555555555555"
TOKENS = {
    "https://storage.azure.com/.default": "sandbox-storage-token",
    "https://management.azure.com/.default": "sandbox-management-token",
}
PAGE = 2
QUERY_PAGE = 20
SECRET = json.dumps(
    {
        "tenant_id": TENANT,
        "client_id": CLIENT,
        "client_secret": CLIENT_SECRET,
        "account": ACCOUNT,
        "container": CONTAINER,
        "folder": FOLDER,
        "scope": SCOPE,
    }
)


class LoginSandbox:
    """``POST /{tenant}/oauth2/v2.0/token`` with client credentials."""

    key = "azure_login"
    base = "/azure-login"
    prefixes: tuple[str, ...] = ("/azure-login/",)
    secret = SECRET
    settled = True

    def __init__(self, _seed: int) -> None:
        """No seed changes its data."""

    def refuse(self, request: Request) -> Answer | None:
        if request.method != "POST" or request.path != f"{self.base}/{TENANT}/oauth2/v2.0/token":
            return _oauth(400, "invalid_request", "AADSTS90002: Tenant not found.")
        form = dict(request.form)
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT, CLIENT_SECRET):
            return _oauth(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        return None

    def rate_limited(self) -> Answer:
        return Answer(429, {"error": "temporarily_unavailable", "error_description": "Busy"}, {"retry-after": "1"})

    def answer(self, request: Request) -> Answer:
        form = dict(request.form)
        unknown = set(form) - {"grant_type", "client_id", "client_secret", "scope"}
        token = TOKENS.get(form.get("scope", ""))
        if form.get("grant_type") != "client_credentials" or unknown or token is None:
            return _oauth(400, "invalid_scope", "AADSTS70011: The provided value for the input parameter is not valid.")
        return Answer(200, {"token_type": "Bearer", "expires_in": 3599, "access_token": token})


class BlobSandbox:
    """List Blobs and Get Blob of one container: a FocusCost export, a part file and a manifest a month."""

    key = "azure_blob"
    base = "/azure-blob"
    prefixes: tuple[str, ...] = ("/azure-blob/",)
    secret = SECRET
    settled = True

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.extra: dict[str, bytes] = {}
        """Blobs added by a test, by name."""

    def refuse(self, request: Request) -> Answer | None:
        if request.headers.get("authorization") != f"Bearer {TOKENS['https://storage.azure.com/.default']}":
            return _storage(403, "AuthorizationPermissionMismatch", "This request is not authorized.")
        if "x-ms-version" not in request.headers:
            return _storage(400, "MissingRequiredHeader", "x-ms-version is required for this operation.")
        return None

    def rate_limited(self) -> Answer:
        return _storage(503, "ServerBusy", "The server is busy.", {"retry-after": "1"})

    def answer(self, request: Request) -> Answer:
        container, _, name = request.path.removeprefix(f"{self.base}/").partition("/")
        if container != CONTAINER:
            return _storage(404, "ContainerNotFound", "The specified container does not exist.")
        if not name:
            return self._list(dict(request.query))
        if request.query:
            return _storage(400, "InvalidQueryParameterValue", f"Unknown parameter {request.query[0][0]}")
        content = self.blobs().get(unquote(name))
        if content is None:
            return _storage(404, "BlobNotFound", "The specified blob does not exist.")
        headers = {
            "content-type": "application/octet-stream",
            "etag": f'"{_etag(content)}"',
            "last-modified": self.modified(unquote(name)),
            "x-ms-blob-type": "BlockBlob",
            "x-ms-version": request.headers["x-ms-version"],
        }
        found = content_answer(
            request, content, headers, header="x-ms-range" if "x-ms-range" in request.headers else "range"
        )
        return found if found.status != 416 else _storage(416, "InvalidRange", "The range specified is invalid.")

    def _list(self, given: Mapping[str, str]) -> Answer:
        unknown = sorted(set(given) - {"restype", "comp", "prefix", "maxresults", "marker", "include", "delimiter"})
        if unknown or (given.get("restype"), given.get("comp")) != ("container", "list"):
            return _storage(400, "InvalidQueryParameterValue", f"Unknown: {', '.join(unknown) or 'comp'}")
        names = sorted(name for name in self.blobs() if name.startswith(given.get("prefix", "")))
        # With a delimiter, names with the same beginning up to it are one entry: a BlobPrefix.
        prefix, delimiter = given.get("prefix", ""), given.get("delimiter", "")
        found: dict[str, str] = {}
        for name in names:
            head, cut, _ = name.removeprefix(prefix).partition(delimiter) if delimiter else ("", "", "")
            folder = f"<BlobPrefix><Name>{escape(prefix + head + cut)}</Name></BlobPrefix>"
            found[prefix + head + cut if cut else name] = folder if cut else self._entry(name)
        left = [name for name in found if name > given.get("marker", "")]
        entries = "".join(found[name] for name in left[:PAGE])
        marker = escape(left[PAGE - 1]) if len(left) > PAGE else ""
        body = (
            '\ufeff<?xml version="1.0" encoding="utf-8"?>'
            f'<EnumerationResults ServiceEndpoint="https://{ACCOUNT}.blob.core.windows.net/" '
            f'ContainerName="{CONTAINER}">'
            f"<Blobs>{entries}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
        )
        return Answer(200, body.encode(), {"content-type": "application/xml"})

    def _entry(self, name: str) -> str:
        content = self.blobs()[name]
        return (
            f"<Blob><Name>{escape(name)}</Name><Properties><Creation-Time>{self.modified(name)}</Creation-Time>"
            f"<Last-Modified>{self.modified(name)}</Last-Modified><Etag>{_etag(content)}</Etag>"
            f"<Content-Length>{len(content)}</Content-Length><Content-Type>application/octet-stream</Content-Type>"
            "<BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier><LeaseStatus>unlocked</LeaseStatus>"
            "<LeaseState>available</LeaseState><ServerEncrypted>true</ServerEncrypted></Properties></Blob>"
        )

    def modified(self, name: str) -> str:
        """When a blob was written."""
        at = timestamp(f"2026-11-20T05:{10 if self.settled else 9:02}:00Z")
        return format_datetime(at + timedelta(seconds=int(name.endswith("manifest.json"))), usegmt=True)

    def blobs(self) -> dict[str, bytes]:
        """Return all blobs of the container by name."""
        return {**_export(self._seed, bills.today(), self.settled), **self.extra}


@lru_cache(maxsize=8)
def _export(seed: int, today: date, settled: bool) -> dict[str, bytes]:
    blobs: dict[str, bytes] = {}
    for month in bills.months(today):
        days = bills.days_of(month, today)
        if days:
            last = next_month(month) - timedelta(days=1)
            folder = f"{FOLDER}/{month:%Y%m%d}-{last:%Y%m%d}/202611200510/af754a8e-30fc-4ef3-bfc6-71bd1efb8598"
            part = f"{folder}/part_0_0001.csv.gz"
            rows = [row for day in days for row in bills.rows_of("azure", seed, day, settled=settled)]
            blobs[part] = bills.gzipped(rows)
            blobs[f"{folder}/manifest.json"] = manifest_of([part], month)
    return blobs


def manifest_of(names: list[str], month: date, kind: str = "FocusCost") -> bytes:
    """Return a manifest as exports write them."""
    body: dict[str, Any] = {
        "blobCount": len(names),
        "exportConfig": {"exportName": "focus", "type": kind, "dataVersion": "1.0r2"},
        "deliveryConfig": {"partitionData": True, "dataOverwriteBehavior": "OverwritePreviousReport"},
        "runInfo": {"submittedTime": "2026-11-20T05:09:00.1032074Z", "startDate": f"{month}T00:00:00"},
        "blobs": [{"blobName": name, "byteCount": 123} for name in names],
    }
    return json.dumps(body).encode()


class QuerySandbox:
    """``POST {scope}/providers/Microsoft.CostManagement/query`` over the same bills as the export's."""

    key = "azure_management"
    base = "/azure-management"
    prefixes: tuple[str, ...] = ("/azure-management/",)
    secret = SECRET
    settled = True

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def refuse(self, request: Request) -> Answer | None:
        if request.headers.get("authorization") != f"Bearer {TOKENS['https://management.azure.com/.default']}":
            return _management(401, "AuthenticationFailed", "Authentication failed.")
        return None

    def rate_limited(self) -> Answer:
        """Azure names a wait for each of its limits; clients must observe the longest."""
        waits = {
            "x-ms-ratelimit-microsoft.costmanagement-qpu-retry-after": "2",
            "x-ms-ratelimit-microsoft.costmanagement-clienttype-retry-after": "4",
            "x-ms-ratelimit-remaining-microsoft.costmanagement-tenant-requests": "DefaultQuota:3",
        }
        return Answer(429, _management(429, "429", "Too many requests. Please retry.").body, waits)

    def answer(self, request: Request) -> Answer:
        if request.path != f"{self.base}{SCOPE}/providers/Microsoft.CostManagement/query" or request.method != "POST":
            return _management(404, "NotFound", f"No resource was found at {request.path}.")
        given = dict(request.query)
        if set(given) - {"api-version", "$skiptoken"} or given.get("api-version") != "2025-03-01":
            return _management(400, "InvalidApiVersionParameter", "The api-version is missing or not supported.")
        try:
            query = json.loads(request.body)
            rows = self._rows(query)
        except (ValueError, LookupError, TypeError) as error:
            return _management(400, "BadRequest", f"Invalid query definition: {error}.")
        at = int(given.get("$skiptoken") or 0)
        more = f"{at + QUERY_PAGE}" if len(rows) > at + QUERY_PAGE else None
        host = request.headers.get("host", "")
        link = f"http://{host}{request.path}?api-version=2025-03-01&$skiptoken={more}" if more else None
        names = ["Cost", "UsageDate", *(group["name"] for group in query["dataset"]["grouping"]), "Currency"]
        columns = [{"name": n, "type": "Number" if n in ("Cost", "UsageDate") else "String"} for n in names]
        page = {"nextLink": link, "columns": columns, "rows": rows[at : at + QUERY_PAGE]}
        # A JSON number can have any number of digits; a Python float cannot.
        name = hashlib.sha256(request.body).hexdigest()[:12]
        kind, where = "Microsoft.CostManagement/query", request.path.removeprefix(f"{self.base}/")
        body = {"id": f"{where}/{name}", "name": name, "type": kind, "properties": page}
        text = json.dumps(body, default=lambda amount: f"@{amount:f}@")
        return Answer(200, re.sub(r'"@(-?[0-9.]+)@"', r"\1", text).encode())

    def _rows(self, query: Mapping[str, Any]) -> list[list[Any]]:
        unknown = set(query) - {"type", "timeframe", "timePeriod", "dataset"}
        dataset = query["dataset"]
        if unknown or query["timeframe"] != "Custom" or dataset["granularity"] != "Daily":
            raise ValueError(f"unsupported {sorted(unknown) or 'timeframe'}")
        column = {"ActualCost": "BilledCost", "AmortizedCost": "EffectiveCost"}[query["type"]]
        first, last = (timestamp(query["timePeriod"][name]).date() for name in ("from", "to"))
        if (last - first).days >= 31 or len(dataset["grouping"]) > 2:
            raise ValueError("at most 31 days and two dimensions")
        names = [DIMENSIONS[group["name"]] for group in dataset["grouping"]]
        sums: dict[tuple[str, ...], Decimal] = defaultdict(Decimal)
        for n in range((last - first).days + 1):
            day = first + timedelta(days=n)
            for row in bills.rows_of("azure", self._seed, day, settled=self.settled):
                key = (f"{day:%Y%m%d}", *(row[name] for name in names), row["BillingCurrency"])
                sums[key] += Decimal(row[column])
        return [[amount, int(day), *rest] for (day, *rest), amount in sorted(sums.items())]


DIMENSIONS = {"ServiceName": "ServiceName", "ChargeType": "ChargeCategory", "ResourceLocation": "RegionName"}
"""Dimensions it supports, and the bill's columns behind them."""


def _etag(content: bytes) -> str:
    return f"0x{hashlib.sha256(content).hexdigest()[:15].upper()}"


def _oauth(status: int, error: str, description: str) -> Answer:
    return Answer(status, {"error": error, "error_description": description})


def _management(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"error": {"code": code, "message": message}})


def _storage(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>'
    named = {"content-type": "application/xml", "x-ms-error-code": code}
    return Answer(status, body.encode(), {**named, **(headers or {})})
