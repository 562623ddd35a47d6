"""The JSON Schemas of pipelines and contracts, with which editors complete and check YAML as it is typed.

``main.py schema`` writes ``configs/pipeline.schema.json`` and ``contract.schema.json``; a test keeps them up to date.
They check single values. Rules between values are checked by ``main.py validate`` only.
"""

import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from common.config.model import MapConfig, PipelineConfig, RetryConfig, StepConfig, WriteConfig
from common.config.registry import Registry
from common.config.templates import ITEM, NAMES
from common.tables.contract import MetaTable, Table

SCHEMA_FILE = "pipeline.schema.json"
CONTRACT_SCHEMA_FILE = "contract.schema.json"

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEMPLATE = {"type": "string", "pattern": r"\$?\{(" + "|".join((*NAMES, ITEM)) + r")\}"}
_SCALARS = frozenset({"string", "integer", "number", "boolean"})
_ANNOTATIONS = ("title", "description", "default")


def pipeline_schema(registry: Registry) -> dict[str, Any]:
    """Return the schema (draft 2020-12), with the ``config:`` of every registered ``ps_type``.

    Raises ConfigError or ImportError if a processor can't be loaded.
    """
    params = {ps_type: registry.params_type(ps_type) for ps_type in sorted(registry.ps_types)}
    own = (PipelineConfig, StepConfig, RetryConfig, MapConfig, WriteConfig)
    name_of, defs = _definitions([*own, *params.values()])
    of_params = defs.keys() - {name_of[model] for model in own}
    defs |= {name: _open_to_templates(defs[name]) for name in of_params}
    step = defs[name_of[StepConfig]]
    step["properties"]["ps_type"]["enum"] = list(params)
    step["allOf"] = [_config_of(ps_type, name_of[model], defs) for ps_type, model in params.items()]
    return {"$schema": _DIALECT, "$ref": f"#/$defs/{name_of[PipelineConfig]}", "$defs": defs}


def _definitions(models: Iterable[type[BaseModel]]) -> tuple[dict[type[BaseModel], str], dict[str, Any]]:
    """Return each model's name, and the schemas by name; generated together, so that equal names are made unique."""
    modes: list[Any] = [(model, "validation") for model in dict.fromkeys(models)]
    by_model, generated = models_json_schema(modes)
    names: dict[Any, str] = {model: ref["$ref"].removeprefix("#/$defs/") for (model, _), ref in by_model.items()}
    return names, generated["$defs"]


def _config_of(ps_type: str, name: str, defs: dict[str, Any]) -> dict[str, Any]:
    then: dict[str, Any] = {"properties": {"config": {"$ref": f"#/$defs/{name}"}}}
    if defs[name].get("required"):  # an absent block is the same as an empty one, which lacks a required key
        then["required"] = ["config"]
    return {"if": {"properties": {"ps_type": {"const": ps_type}}, "required": ["ps_type"]}, "then": then}


def _open_to_templates(schema: Any) -> Any:
    """Accept a template wherever a value is: ``{start_date}`` is not a date before it is replaced."""
    if isinstance(schema, list):
        return [_open_to_templates(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") in _SCALARS or "enum" in schema or "const" in schema:
        notes = {key: schema[key] for key in _ANNOTATIONS if key in schema}
        rest = {key: value for key, value in schema.items() if key not in notes}
        return schema if rest == {"type": "string"} else {**notes, "anyOf": [rest, _TEMPLATE]}
    children = {key: _open_to_templates(value) for key, value in schema.items() if key not in ("default", "properties")}
    if "properties" in schema:  # a property may be called `type` or `enum`: names are not keywords
        children["properties"] = {name: _open_to_templates(value) for name, value in schema["properties"].items()}
    return {**schema, **children}


def contract_schema() -> dict[str, Any]:
    """Return the schema of a table's contract. A contract with ``partition_by`` is that of a meta table."""
    name_of, defs = _definitions([Table, MetaTable])
    return {
        "$schema": _DIALECT,
        "if": {"type": "object", "required": ["partition_by"]},
        "then": {"$ref": f"#/$defs/{name_of[MetaTable]}"},
        "else": {"$ref": f"#/$defs/{name_of[Table]}"},
        "$defs": defs,
    }


def schema_texts(registry: Registry) -> dict[str, str]:
    """Return the text of each schema file, by its name below ``configs/``."""
    schemas = {SCHEMA_FILE: pipeline_schema(registry), CONTRACT_SCHEMA_FILE: contract_schema()}
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in schemas.items()}
