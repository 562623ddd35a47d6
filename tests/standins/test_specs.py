"""Published specifications judge every request that our extractors send, and every answer that the sandboxes give.

OpenAI's OpenAPI document, Google's discovery documents and an example of Azure's (tests/specs). A field that none of
them has is in a list here, with what it is from.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from common.adapters.google.cloud import GoogleCloudAdapter
from common.config.loader import ConfigTree
from common.platform.paths import CONFIGS
from common.processors.clouds.gcp import api as gcp_api
from common.processors.clouds.gcp.api import GcpApiExtractor, GcpApiParams
from common.processors.genai.payg_usage import GenaiPaygUsage, GenaiPaygUsageParams
from common.processors.genai.providers import gemini
from common.processors.registry import REGISTRY
from infra.local.sandbox.azure import SCOPE, TOKENS, QuerySandbox
from infra.local.sandbox.exchange import Request
from infra.local.sandbox.server import SandboxServer
from tests.processors.context import make_context

SPECS = Path(__file__).resolve().parent.parent / "specs"
OPENAI = json.loads((SPECS / "openai.json").read_text("utf-8"))
GOOGLE = json.loads((SPECS / "google.json").read_text("utf-8"))
FIRST, LAST = date(2026, 11, 1), date(2026, 11, 9)

# OpenAI

SDK_FIELDS = {"input_cache_write_30m_tokens", "input_cache_write_12h_tokens", "api_source"}
"""In OpenAI's SDK 3.57.0 and not in the OpenAPI document 2.3.0; test_openai_sdk.py holds them to the SDK."""
SDK_PATHS = {"/organization/usage/decisions"}


@pytest.fixture(scope="module")
def openai() -> Iterator[list[tuple[Request, Any]]]:
    """Requests of all of OpenAI's reports, with the sandbox's answers."""
    with SandboxServer(1, rate_limit_every=0) as server:
        context = make_context(provider_url=lambda _key: server.url, start_date=FIRST, end_date=LAST)
        for report in ("usage", "cost"):
            params = GenaiPaygUsageParams.model_validate(
                {"destination_table": "t", "provider": "openai", "report": report}
            )
            assert sum(len(batch.rows) for batch in GenaiPaygUsage().run(context, params)) > 0
        yield [(r, server.provider("openai").answer(r).body) for r in server.requests]


def _path(request: Request) -> str:
    return request.path.removeprefix("/v1")


def test_every_path_of_the_document_is_asked(openai: list[tuple[Request, Any]]) -> None:
    assert {_path(request) for request, _ in openai} == set(OPENAI["paths"]) | SDK_PATHS


def test_every_request_to_openai_is_in_its_document(openai: list[tuple[Request, Any]]) -> None:
    for request, _ in openai:
        if (path := _path(request)) in SDK_PATHS:
            continue
        known = {item["name"]: item for item in OPENAI["paths"][path]["get"]["parameters"]}
        assert {name for name, item in known.items() if item.get("required")} <= {n for n, _ in request.query}
        for name, text in request.query:
            schema = known[name.removesuffix("[]")]["schema"]
            value: Any = [text] if schema["type"] == "array" else int(text) if schema["type"] == "integer" else text
            if name == "group_by[]" and text in SDK_FIELDS:
                continue
            assert _errors(schema, value) == [], (path, name, text)


def test_every_answer_of_the_openai_sandbox_is_in_the_document(openai: list[tuple[Request, Any]]) -> None:
    for request, body in openai:
        if _path(request) not in SDK_PATHS:
            assert _errors({"$ref": "#/components/schemas/UsageResponse"}, _documented(body)) == []


def test_a_field_that_is_not_in_the_document_is_found(openai: list[tuple[Request, Any]]) -> None:
    """Else the check above could be one that lets everything pass."""
    body = json.loads(json.dumps(next(body for request, body in openai if _path(request) == "/organization/costs")))
    result = next(result for bucket in body["data"] for result in bucket["results"])
    result["surprise"] = 1
    assert _errors({"$ref": "#/components/schemas/UsageResponse"}, _documented(body))


def _documented(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _documented(inner) for name, inner in value.items() if name not in SDK_FIELDS}
    return [_documented(inner) for inner in value] if isinstance(value, list) else value


def _errors(schema: Mapping[str, Any], value: Any) -> list[str]:
    whole = {"components": _closed(OPENAI["components"]), **_closed(dict(schema))}
    return [error.message[:300] for error in Draft202012Validator(whole).iter_errors(value)]


def _closed(schema: Any) -> Any:
    """Refuse fields that the document does not name, which an open schema would let pass; read its ``nullable``."""
    if isinstance(schema, list):
        return [_closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(inner) for name, inner in schema.items()}
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object":
        closed["additionalProperties"] = False
    if closed.pop("nullable", None) is True and isinstance(closed.get("type"), str):
        closed["type"] = [closed["type"], "null"]
    return closed


# Google


@pytest.fixture(scope="module")
def google() -> Iterator[list[tuple[str, str, Request, Any]]]:
    """Requests to Google, with the API, the method, and the sandbox's answer."""
    with SandboxServer(1, rate_limit_every=0) as server:
        cloud = GoogleCloudAdapter("test-project", lambda: server.urls["gcp_token"])
        given: dict[str, Any] = {
            "provider_url": lambda name: server.urls[name.replace(".", "_")],
            "google": lambda: cloud,
            "start_date": FIRST,
            "end_date": LAST,
        }
        context = make_context(**given, secret=lambda: server.secrets["gemini"])
        params = GenaiPaygUsageParams(destination_table="t", provider="gemini")
        assert sum(len(batch.rows) for batch in GenaiPaygUsage().run(context, params)) > 0
        gemini.try_credential(context, server.secrets["gemini"])
        (step,) = ConfigTree(CONFIGS, REGISTRY).load("gcp/catalog/services").config.steps
        context = make_context(**given, secret=lambda: server.secrets["gcp_cloudbilling"])
        assert list(GcpApiExtractor().run(context, GcpApiParams.model_validate(step.config)))
        tables = Request("/bigquery/v2/projects/sandbox-project/datasets/billing/tables/gcp_billing_export_v1_0")
        found = [("bigquery.v2", "tables.get", tables, server.provider("gcp_bigquery").answer(tables).body)]
        for request in server.requests:
            if request.path.endswith("/timeSeries"):
                method = "monitoring.v3", "projects.timeSeries.list"
            elif request.path.endswith("/metricDescriptors"):
                method = "monitoring.v3", "projects.metricDescriptors.list"
            elif request.path.endswith("/v1/services"):
                method = "cloudbilling.v1", "services.list"
            else:
                continue
            key = "gemini" if method[0] == "monitoring.v3" else "gcp_cloudbilling"
            answer = server.provider(key).answer(request)
            if answer.status == 200:
                found.append((*method, request, answer.body))
        yield found


def test_every_request_to_google_is_in_its_discovery_document(google: list[tuple[str, str, Request, Any]]) -> None:
    assert len({method for _, method, _, _ in google}) == 4
    for api, method, request, _ in google:
        known = GOOGLE[api]["methods"][method]
        assert request.method == known["httpMethod"]
        for name, text in request.query:
            parameter = known["parameters"][name]
            assert parameter["location"] == "query"
            assert text in parameter.get("enum", [text]), (name, text)
            if parameter["type"] == "integer":
                assert int(text) >= 1


def test_every_answer_of_googles_sandboxes_is_in_the_discovery_document(
    google: list[tuple[str, str, Request, Any]],
) -> None:
    for api, method, _, body in google:
        _conform(body, GOOGLE[api]["methods"][method]["response"], GOOGLE[api]["schemas"], method)


def _conform(value: Any, schema: Mapping[str, Any], schemas: Mapping[str, Any], at: str) -> None:
    """Fail for a field, type or enum value that a discovery document does not have; int64 is text in JSON."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    kind = schema["type"]
    if kind == "object":
        assert isinstance(value, dict), at
        for name, inner in value.items():
            of = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            assert of, f"{at}.{name} is in no discovery document"
            _conform(inner, of, schemas, f"{at}.{name}")
    elif kind == "array":
        assert isinstance(value, list), at
        for inner in value:
            _conform(inner, schema["items"], schemas, f"{at}[]")
    elif kind != "any":
        wanted = {"string": str, "boolean": bool, "integer": int, "number": (int, float)}[kind]
        assert isinstance(value, wanted), at
        assert value in schema.get("enum", [value]), at


# List APIs: what of an answer is not read

READ = {
    "ListTimeSeriesResponse": {
        "timeSeries": "read",
        "nextPageToken": "followed",
        "executionErrors": "refused: partial",
        "unreachable": "refused: partial",
        "unit": "that of all series; tokens have none",
    },
    "ListServicesResponse": {"services": "read", "nextPageToken": "followed"},
    "ListMetricDescriptorsResponse": {"metricDescriptors": "tried only", "nextPageToken": "tried only"},
}


def test_every_field_of_a_list_of_googles_is_read_refused_or_has_a_reason() -> None:
    """A new partial-result field shows here when `make specs` renews the documents."""
    lists = {
        name: set(schema["properties"])
        for api in ("monitoring.v3", "cloudbilling.v1")
        for name, schema in GOOGLE[api]["schemas"].items()
        if "nextPageToken" in schema.get("properties", {})
    }
    assert lists == {name: set(fields) for name, fields in READ.items()}
    partial = {field for fields in READ.values() for field, what in fields.items() if what == "refused: partial"}
    assert partial == set(gemini.PARTIAL) <= set(gcp_api.PARTIAL)


def test_every_field_of_a_page_of_openais_is_read_or_has_a_reason() -> None:
    page = OPENAI["components"]["schemas"]["UsageResponse"]["properties"]
    assert set(page) == {"object", "data", "has_more", "next_page"}
    bucket = OPENAI["components"]["schemas"]["UsageTimeBucket"]["properties"]
    assert set(bucket) == {"object", "start_time", "end_time", "results"}


def test_every_count_of_tokens_in_the_document_is_a_meter_or_a_sum_of_some() -> None:
    """A token count that OpenAI adds, and we do not know, would be cost that is missing."""
    results = OPENAI["components"]["schemas"]["UsageCompletionsResult"]["properties"]
    counted = {name for name in results if name.endswith("_tokens")}
    parts = {f"{kind}_{m}_tokens" for kind in ("input", "input_cached", "output") for m in ("text", "audio", "image")}
    sums = {f"input{of}_tokens" for of in ("", "_uncached", "_cached", "_cache_write")} | {"output_tokens"}
    assert counted == parts | sums


# Azure


def test_the_answer_of_azures_query_looks_like_the_specifications_example() -> None:
    example = json.loads((SPECS / "azure-query.json").read_text("utf-8"))["body"]
    query = {
        "type": "ActualCost",
        "timeframe": "Custom",
        "timePeriod": {"from": "2026-09-10T00:00:00Z", "to": "2026-09-20T23:59:59Z"},
        "dataset": {
            "granularity": "Daily",
            "aggregation": {"Cost": {"name": "Cost", "function": "Sum"}},
            "grouping": [{"type": "Dimension", "name": "ServiceName"}],
        },
    }
    headers = {"authorization": f"Bearer {TOKENS['https://management.azure.com/.default']}", "host": "127.0.0.1"}
    path = f"/azure-management{SCOPE}/providers/Microsoft.CostManagement/query"
    request = Request(path, [("api-version", "2025-03-01")], headers, "POST", body=json.dumps(query).encode())
    sandbox = QuerySandbox(1)
    assert sandbox.refuse(request) is None
    body = json.loads(sandbox.answer(request).content())
    assert set(body) == set(example) and set(body["properties"]) == set(example["properties"])
    assert {column["type"] for column in body["properties"]["columns"]} <= {"Number", "String"}
    assert all(len(row) == len(body["properties"]["columns"]) for row in body["properties"]["rows"])
    assert "$skiptoken=" in body["properties"]["nextLink"] and "$skiptoken=" in example["properties"]["nextLink"]
