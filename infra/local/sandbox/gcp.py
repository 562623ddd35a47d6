"""Google Cloud: the list of Cloud Billing's services, and the descriptions of some BigQuery tables.

Paths, parameters and shapes are the documented ones (Cloud Billing v1 ``services.list``, BigQuery v2 ``tables.get``).
Made up: the services, pages of ``PAGE``, and the tables.
"""

import re
from collections.abc import Mapping
from typing import Any

from infra.local.gcp_export import SCHEMA
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.service_accounts import BILLS, STANDARD_PARAMETERS, BillsSandbox, is_token

PAGE = 3
BILLING_SCOPES = ("cloud-billing.readonly", "cloud-platform.read-only")
SERVICES = [
    ("6F81-5844-456A", "Compute Engine"),
    ("95FF-2EF5-5EA1", "Cloud Storage"),
    ("24E6-581D-38E5", "BigQuery"),
    ("152E-C115-5142", "Cloud Run"),
    ("C7E2-9256-1C43", "Vertex AI"),
    ("9662-B51E-5089", "Cloud SQL"),
    ("A1E8-BE35-7EBC", "Cloud Pub/Sub"),
]

DETAILED, STANDARD, FOREIGN = "gcp_billing_export_resource_v1_0", "gcp_billing_export_v1_0", "daily_sums"
TABLES: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("billing", DETAILED): SCHEMA,
    ("billing", STANDARD): {name: kind for name, kind in SCHEMA.items() if name not in ("resource", "price", "tags")},
    ("billing", FOREIGN): {"usage_start_time": "TIMESTAMP", "export_time": "TIMESTAMP", "costs": "FLOAT64"},
}
"""By dataset and name: a detailed export, a standard one, which has fewer fields, and a table that is no export."""
_TABLE = re.compile(r"/bigquery/v2/projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)")


class BillingSandbox(BillsSandbox):
    """``GET /v1/services`` of cloudbilling.googleapis.com."""

    key = "gcp_cloudbilling"
    base = "/gcp-cloudbilling"
    prefixes: tuple[str, ...] = ("/gcp-cloudbilling/",)

    def refuse(self, request: Request) -> Answer | None:
        if is_token(request.headers.get("authorization", ""), BILLING_SCOPES):
            return None
        return _error(401, "Request had invalid authentication credentials.", "UNAUTHENTICATED")

    def rate_limited(self) -> Answer:
        return Answer(429, _error(429, "Quota exceeded.", "RESOURCE_EXHAUSTED").body, {"retry-after": "1"})

    def answer(self, request: Request) -> Answer:
        if request.path != f"{self.base}/v1/services" or request.method != "GET":
            return _error(404, "Requested entity was not found.", "NOT_FOUND")
        given = dict(request.query)
        if unknown := sorted(set(given) - {"pageSize", "pageToken"} - STANDARD_PARAMETERS):
            message = f'Invalid JSON payload received. Unknown name "{unknown[0]}": Cannot bind query parameter.'
            return _error(400, message, "INVALID_ARGUMENT")
        at = int(given.get("pageToken") or 0)
        size = min(int(given.get("pageSize") or PAGE), PAGE)
        page = [
            {
                "name": f"services/{service_id}",
                "serviceId": service_id,
                "displayName": name,
                "businessEntityName": "businessEntities/GCP",
            }
            for service_id, name in SERVICES[at : at + size]
        ]
        more = {"nextPageToken": str(at + size)} if at + size < len(SERVICES) else {"nextPageToken": ""}
        return Answer(200, {"services": page, **more})


class TableSandbox(BillsSandbox):
    """``GET /bigquery/v2/projects/…/datasets/…/tables/…``: the descriptions of ``TABLES``.

    Clients of an emulator send no token, so none is required; one that is sent must be valid.
    """

    key = "gcp_bigquery"
    base = ""
    prefixes: tuple[str, ...] = ("/bigquery/v2/",)

    def refuse(self, request: Request) -> Answer | None:
        given = request.headers.get("authorization")
        if given is None or is_token(given, ("bigquery", "bigquery.readonly")):
            return None
        return _error(401, "Request had invalid authentication credentials.", "UNAUTHENTICATED")

    def rate_limited(self) -> Answer:
        return Answer(403, _error(403, "Exceeded rate limits.", "PERMISSION_DENIED").body)

    def answer(self, request: Request) -> Answer:
        match = _TABLE.fullmatch(request.path)
        if match is None or request.method != "GET":
            return _error(404, "Requested entity was not found.", "NOT_FOUND")
        project, dataset, table = match.groups()
        if project != BILLS.project_id:
            name = f"{project}:{dataset}.{table}"
            denied = f"Permission bigquery.tables.get denied on table {name} (or it may not exist)."
            return _error(403, f"Access Denied: Table {name}: {denied}", "PERMISSION_DENIED")
        fields = TABLES.get((dataset, table))
        if fields is None:
            return _error(404, f"Not found: Table {project}:{dataset}.{table}", "NOT_FOUND")
        return Answer(
            200,
            {
                "kind": "bigquery#table",
                "tableReference": {"projectId": project, "datasetId": dataset, "tableId": table},
                "type": "TABLE",
                "schema": {"fields": _schema(fields)},
                "timePartitioning": {"type": "DAY", "field": "export_time"},
            },
        )


def _schema(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    for name, kind in fields.items():
        if isinstance(kind, str):
            shown.append({"name": name, "type": kind, "mode": "NULLABLE"})
        else:
            mode, inner = ("REPEATED", kind[0]) if isinstance(kind, list) else ("NULLABLE", kind)
            shown.append({"name": name, "type": "RECORD", "mode": mode, "fields": _schema(inner)})
    return shown


def _error(status: int, message: str, name: str) -> Answer:
    return Answer(status, {"error": {"code": status, "message": message, "status": name}})
