"""The OpenAPI document: the framework's part of each operation, completed with what all operations share."""

import json
from typing import Any

from flask_openapi.openapi import OpenAPI

from common.platform.problems import (
    CONFLICT,
    INTERNAL,
    INVALID_FIELDS,
    MALFORMED,
    MEDIA_TYPE,
    NOT_FOUND,
    OUT_OF_SCOPE,
    PLAN_INACTIVE,
    QUOTA,
    TOO_LARGE,
    UNAUTHENTICATED,
    UNAVAILABLE,
    Kind,
)
from functions.api.access import OPERATIONS
from functions.api.views import Problem

Operation = dict[str, Any]

STARTS = {"runs.start", "runs.rerun", "runs.replay"}
LOOKS_AT_STATE = {"previews.preview", "keys.revoke"}
EVERYWHERE = (MALFORMED, INVALID_FIELDS, INTERNAL, UNAVAILABLE)
WITH_KEY = (UNAUTHENTICATED, OUT_OF_SCOPE, NOT_FOUND)
WITH_BODY = (TOO_LARGE, MEDIA_TYPE, CONFLICT)


def _links(member: str, *operations: str) -> dict[str, Any]:
    """Return OpenAPI links from a response to the operations that take its ``member`` as a parameter of that name."""
    parameters = {"org": "$request.path.org", member: f"$response.body#/{member}"}
    return {name.partition(".")[2]: {"operationId": name, "parameters": parameters} for name in operations}


AFTER_START = _links(
    "run_id",
    *("runs.status", "runs.cancel", "runs.rerun", "runs.replay"),
    *("logs.lines", "logs.steps", "logs.transitions", "logs.download"),
)
LINKS: dict[str, tuple[str, dict[str, Any]]] = {
    **dict.fromkeys(STARTS, ("202", AFTER_START)),
    "credentials.add": ("201", _links("credential_id", "credentials.remove")),
    "keys.create": ("201", _links("key_id", "keys.revoke") | _links("name", "keys.rotate")),
}


EVENT = {
    "type": "object",
    "description": "A `line` for each line, with an id, then one `end`; comments come in between.",
    "properties": {
        "event": {"enum": ["line", "end"]},
        "id": {"type": "string", "description": "Where the line stands; Last-Event-ID resumes after it."},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer"},
    },
    "required": ["event", "data"],
}
"""What OpenAPI 3.1 leaves open and 3.2 settled: the schema of a stream of events describes each event."""

MORE_CONTENT = {"logs.lines": {"text/event-stream": {"schema": EVENT}}}
"""Further content types of responses, which a parameter selects."""


def document_text(app: OpenAPI) -> str:
    """Return the document as JSON."""
    spec: dict[str, Any] = json.loads(json.dumps(app.api_doc))
    schemas = spec["components"]["schemas"]
    schemas.pop("ValidationErrorModel", None)
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
    schemas |= schema.pop("$defs", {})
    schemas["Problem"] = schema
    for methods in spec["paths"].values():
        for operation in methods.values():
            _complete(operation, schemas)
    return json.dumps(spec)


def _complete(operation: Operation, schemas: dict[str, Any]) -> None:
    name = operation["operationId"]
    access = OPERATIONS[name]
    kinds = [*EVERYWHERE]
    description = operation["description"] = (operation.get("description") or "").replace("<br/>", "\n").strip()
    if access.scope is not None:
        operation["security"] = [{"key": []}]
        operation["description"] = f"{description}\n\nScope of the key: {access.scope}.".strip()
        kinds += WITH_KEY
    if "requestBody" in operation:
        body = operation["requestBody"]
        model = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        body["required"] = bool(schemas[model].get("required"))  # no body is the same as {}: all defaults
        kinds += WITH_BODY
    if name in LOOKS_AT_STATE:
        kinds.append(CONFLICT)
    if name in STARTS:
        kinds += (PLAN_INACTIVE, QUOTA)
    for parameter in operation.get("parameters", ()):
        _without_null(parameter["schema"])
    responses = operation["responses"]
    responses.pop("422", None)
    for kind in sorted(kinds, key=lambda kind: kind.status):
        responses.setdefault(str(kind.status), _problem(kind))
    if name in MORE_CONTENT:
        responses["200"]["content"] |= MORE_CONTENT[name]
    if name in LINKS:
        status, links = LINKS[name]
        responses[status]["links"] = links


def _without_null(schema: dict[str, Any]) -> None:
    """Remove null from a parameter's types: a query can leave a parameter out, but has no null."""
    kept = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(kept) == 1:
        schema |= kept[0]
        del schema["anyOf"]
    elif kept:
        schema["anyOf"] = kept


def _problem(kind: Kind) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": kind.title, "content": content}
