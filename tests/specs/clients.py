"""The providers' own SDKs as clients of our sandboxes: ``clients.py NAME``, with addresses and secrets on stdin.

Run by renew.py in .venv-specs. Each function fails if an answer is not as the SDK's parser wants it, and prints what
the recording says about itself as JSON.
"""

import json
import sys
from importlib.metadata import version


def main() -> None:
    given = json.load(sys.stdin)
    json.dump({"anthropic": anthropic, "azure": azure, "oci": oci, "google": google}[sys.argv[1]](given), sys.stdout)


def anthropic(given):
    from anthropic import Anthropic, APIStatusError

    made = {"base_url": given["urls"]["anthropic"], "_strict_response_validation": True, "max_retries": 0}
    client = Anthropic(auth_token=given["secrets"]["anthropic"], **made)
    days = {"starting_at": "2026-11-01T00:00:00Z", "ending_at": "2026-11-20T00:00:00Z", "time_bucket_width": "1d"}
    order = {"order": "asc", "order_by": "time", "limit": 20}
    groups = ["workspace_id", "model", "service_tier", "context_window", "inference_geo"]
    reports = client.beta.organization.analytics
    used = list(reports.usage.list(**days, **order, group_by=groups))
    fast = list(reports.usage.list(**days, **order, group_by=groups, speeds=["fast"]))
    costs = list(reports.cost.list(**days, **order, group_by=[*groups, "cost_type", "token_type"]))
    whole = list(reports.cost.list(**days, **order))
    assert len(used) > 20 and not fast and len(costs) > len(used) and len(whole) > 10
    for item in (*used, *costs, *whole):
        assert not _extra(item), _extra(item)
    assert client.beta.organization.retrieve().id if hasattr(client.beta.organization, "retrieve") else True
    for key in ("sk-ant-api03-workspace", "sk-ant-other"):
        try:
            Anthropic(auth_token=key, **made).beta.organization.analytics.usage.list(**days, **order)
        except APIStatusError as error:
            assert error.status_code in (401, 403) and error.body["error"]["message"]
        else:
            raise AssertionError("a wrong key was let in")
    from anthropic.pagination import SyncReportPageCursor

    lists = {"analytics reports": list(SyncReportPageCursor.model_fields)}
    return {"packages": [f"anthropic {version('anthropic')}"], "licence": "Apache-2.0", "lists": lists}


def _extra(model):
    """Return the fields of a pydantic model, at any depth, that it does not declare."""
    found = list(model.model_extra or ())
    for value in vars(model).values():
        if hasattr(value, "model_extra"):
            found += _extra(value)
    return found


class _Token:
    """A credential of azure-core that has its token already."""

    def __init__(self, token):
        self._token = token

    def get_token(self, *_scopes, **_more):
        from azure.core.credentials import AccessToken

        return AccessToken(self._token, 4_000_000_000)


def azure(given):
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
    from azure.core.pipeline.transport import RequestsTransport
    from azure.mgmt.costmanagement import CostManagementClient, models
    from azure.storage.blob import ContainerClient

    class Plain(RequestsTransport):
        """The SDK sends tokens over https alone; the sandbox is on loopback and has none."""

        def send(self, request, **more):
            request.url = request.url.replace("https://127.0.0.1", "http://127.0.0.1")
            return super().send(request, **more)

    def secure(name):
        return given["urls"][name].replace("http://", "https://")

    def container(name=given["container"], token=given["tokens"]["storage"]):
        made = {"credential": _Token(token), "retry_total": 0, "transport": Plain()}
        return ContainerClient(secure("azure_blob"), name, **made)

    blobs, folder = container(), given["folder"]
    listed = list(blobs.list_blobs(name_starts_with=folder))
    assert len(listed) > 4 and all(blob.size and blob.last_modified and blob.blob_type for blob in listed)
    assert all(blob.content_settings.content_type for blob in listed)
    walked = [blob.name for blob in blobs.walk_blobs(name_starts_with=f"{folder}/", delimiter="/")]
    assert walked and all(name.endswith("/") for name in walked)
    one = blobs.get_blob_client(listed[0].name)
    assert one.get_blob_properties().size == listed[0].size
    assert len(one.download_blob().readall()) == listed[0].size
    assert len(one.download_blob(offset=2, length=5).readall()) == 5
    refusals = (
        (lambda: blobs.get_blob_client("none").get_blob_properties(), ResourceNotFoundError),
        (lambda: blobs.get_blob_client("none").download_blob(), ResourceNotFoundError),
        (lambda: list(container("other").list_blobs()), ResourceNotFoundError),
        (lambda: list(container(token="wrong").list_blobs()), HttpResponseError),
    )
    for call, error in refusals:
        try:
            call()
        except error as caught:
            assert caught.status_code in (403, 404)
        else:
            raise AssertionError("something is there that is not")

    def costs(token):
        made = {"base_url": secure("azure_management"), "retry_total": 0, "transport": Plain()}
        definition = models.QueryDefinition(
            {
                "type": "ActualCost",
                "timeframe": "Custom",
                "timePeriod": {"from": "2026-09-10T00:00:00Z", "to": "2026-09-20T23:59:59Z"},
                "dataset": {
                    "granularity": "Daily",
                    "aggregation": {"Cost": {"name": "Cost", "function": "Sum"}},
                    "grouping": [{"type": "Dimension", "name": "ServiceName"}],
                },
            }
        )
        return CostManagementClient(_Token(token), **made).query.usage(given["scope"], definition)

    result = costs(given["tokens"]["management"])
    assert [column.name for column in result.columns] == ["Cost", "UsageDate", "ServiceName", "Currency"]
    assert result.rows and result.next_link
    try:
        costs("wrong")
    except ClientAuthenticationError as caught:
        assert caught.error.code == "AuthenticationFailed"
    packages = ("azure-storage-blob", "azure-mgmt-costmanagement")
    from azure.storage.blob._generated.models import ListBlobsFlatSegmentResponse

    lists = {
        "List Blobs": [field["key"] for field in ListBlobsFlatSegmentResponse._attribute_map.values()],
        "query": list(models.QueryProperties.__annotations__ if hasattr(models, "QueryProperties") else _properties()),
    }
    return {"packages": [f"{name} {version(name)}" for name in packages], "licence": "MIT", "lists": lists}


def _properties():
    from azure.mgmt.costmanagement.models._models import QueryProperties

    return QueryProperties.__annotations__


def oci(given):
    import oci as sdk
    from oci.object_storage import ObjectStorageClient
    from oci.usage_api import UsageapiClient
    from oci.usage_api.models import RequestSummarizedUsagesDetails

    stored = json.loads(given["secrets"]["oci_usage"])
    config = {
        "tenancy": stored["tenancy"],
        "user": stored["user"],
        "fingerprint": stored["fingerprint"],
        "key_content": stored["private_key"],
        "region": stored["region"],
    }
    none = {"retry_strategy": sdk.retry.NoneRetryStrategy()}
    objects = ObjectStorageClient(config, service_endpoint=given["urls"]["oci_objectstorage"], **none)
    asked = {"prefix": "FOCUS Reports/2026/09/1", "fields": "name,size,etag,timeCreated"}
    first = objects.list_objects("bling", stored["tenancy"], **asked).data
    assert first.objects and first.next_start_with and all(item.size and item.time_created for item in first.objects)
    read = objects.get_object("bling", stored["tenancy"], first.objects[0].name)
    assert len(read.data.content) == first.objects[0].size and read.headers["etag"] == first.objects[0].etag
    assert objects.head_object("bling", stored["tenancy"], first.objects[0].name).headers["last-modified"]
    usage = UsageapiClient(config, service_endpoint=given["urls"]["oci_usage"], **none)
    details = RequestSummarizedUsagesDetails(
        tenant_id=stored["tenancy"],
        time_usage_started="2026-09-10T00:00:00Z",
        time_usage_ended="2026-09-20T00:00:00Z",
        granularity="DAILY",
        query_type="COST",
        is_aggregate_by_time=False,
        compartment_depth=6,
        group_by=["service", "skuPartNumber", "unit"],
    )
    answer = usage.request_summarized_usages(details, limit=10)
    assert (
        answer.data.items and answer.next_page and all(item.computed_amount is not None for item in answer.data.items)
    )
    for call in (
        lambda: objects.get_object("bling", stored["tenancy"], "none"),
        lambda: objects.list_objects("bling", "other"),
    ):
        try:
            call()
        except sdk.exceptions.ServiceError as error:
            assert error.status == 404 and error.code
        else:
            raise AssertionError("something is there that is not")
    return {
        "packages": [f"oci {version('oci')}"],
        "licence": "UPL-1.0 OR Apache-2.0",
        "lists": {
            "usage": list(sdk.usage_api.models.UsageAggregation().attribute_map.values()),
            "objects": list(sdk.object_storage.models.ListObjects().attribute_map.values()),
        },
        "signatures": _signatures(sdk, given["awkward"]),
        "realms": _realms(),
    }


def _signatures(sdk, awkward):
    """Sign requests with a key of this moment. What is kept of it is its public half."""
    import requests
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    signer = sdk.signer.Signer("t", "u", "aa:bb", private_key_file_location=None, private_key_content=pem)
    signed = []
    for method, url, body in awkward:
        headers = {"content-type": "application/json"} if method == "POST" else {}
        request = requests.Request(method, url, headers=headers, data=body or None, auth=signer).prepare()
        signed.append(
            {
                "method": method,
                "url": request.url,
                "body": body,
                "date": request.headers["date"],
                "authorization": request.headers["authorization"],
            }
        )
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return {"public_key": public, "requests": signed}


def _realms():
    from oci.regions import endpoint_for
    from oci.regions_definitions import REGION_REALMS

    return {
        region: [realm, endpoint_for("object_storage", region=region)]
        for region, realm in sorted(REGION_REALMS.items())
    }


def google(_given):
    """Cut the discovery documents to the methods that we call and answer, with what they refer to."""
    from pathlib import Path

    import googleapiclient

    folder = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    cut = {}
    for name, methods in {
        "monitoring.v3": ("projects.timeSeries.list", "projects.metricDescriptors.list"),
        "cloudbilling.v1": ("services.list",),
        "bigquery.v2": ("tables.get",),
    }.items():
        document = json.loads((folder / f"{name}.json").read_text("utf-8"))
        cut[name] = {"revision": document["revision"], "parameters": _bare(document["parameters"]), "methods": {}}
        needed = []
        for path in methods:
            at = document
            for part in path.split("."):
                at = at.get("resources", {}).get(part) or at["methods"][part]
            cut[name]["methods"][path] = _bare({k: at[k] for k in ("path", "httpMethod", "parameters", "scopes")})
            cut[name]["methods"][path]["response"] = at["response"]
            needed.append(at["response"]["$ref"])
        schemas = {}
        while needed:
            schema = needed.pop()
            if schema not in schemas:
                schemas[schema] = _bare(document["schemas"][schema])
                needed += _references(document["schemas"][schema])
        cut[name]["schemas"] = schemas
    return {
        "packages": [f"google-api-python-client {version('google-api-python-client')}"],
        "licence": "Apache-2.0",
    } | cut


def _bare(value):
    """Leave out descriptions: the texts are Google's, and nothing here reads them."""
    if isinstance(value, dict):
        # "description" is also the name of fields, whose value is an object.
        dropped = (
            "description",
            "enumDescriptions",
            "enumDeprecated",
            "deprecated",
            "format",
            "readOnly",
            "annotations",
        )
        return {
            k: _bare(v) for k, v in value.items() if not (k in dropped and not isinstance(v, dict)) or k == "format"
        }
    return [_bare(v) for v in value] if isinstance(value, list) else value


def _references(value):
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in _references(inner)]
    return [found for inner in value for found in _references(inner)] if isinstance(value, list) else []


if __name__ == "__main__":
    main()
