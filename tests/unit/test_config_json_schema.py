"""The JSON Schema that editors use: it says what the models say, and stands in the repository up to date."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.config.json_schema import CONTRACT_SCHEMA_FILE, SCHEMA_FILE, contract_schema, pipeline_schema, schema_texts
from common.config.loader import ConfigTree
from common.config.templates import NAMES
from common.platform.paths import CONFIGS
from common.processors.registry import REGISTRY
from tests.config_world import VALID, ConfigWorld, ExtractParams

HEADER = "# yaml-language-server: $schema="


@pytest.fixture
def schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    world = ConfigWorld(tmp_path / "configs", monkeypatch)
    world.forget_missing_processor()
    return pipeline_schema(REGISTRY)


def step_of(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"]["StepConfig"]
    return found


def config_of(schema: dict[str, Any], ps_type: str) -> dict[str, Any]:
    (rule,) = [rule for rule in step_of(schema)["allOf"] if rule["if"]["properties"]["ps_type"]["const"] == ps_type]
    reference = rule["then"]["properties"]["config"]["$ref"]
    found: dict[str, Any] = schema["$defs"][reference.removeprefix("#/$defs/")]
    return found


def test_it_is_of_the_2020_12_draft_and_every_reference_in_it_leads_somewhere(schema: dict[str, Any]) -> None:
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [found for inner in value.values() for found in references(inner)]
        return [found for inner in value for found in references(inner)] if isinstance(value, list) else []

    assert references(schema) and all(ref.removeprefix("#/$defs/") in schema["$defs"] for ref in references(schema))


def test_unknown_keys_are_refused_everywhere(schema: dict[str, Any]) -> None:
    assert [name for name, part in schema["$defs"].items() if part.get("additionalProperties") is not False] == []


def test_every_key_that_is_no_processors_has_a_description(schema: dict[str, Any]) -> None:
    for name in ("PipelineConfig", "StepConfig", "RetryConfig", "MapConfig", "WriteConfig"):
        missing = [key for key, part in schema["$defs"][name]["properties"].items() if not part.get("description")]
        assert missing == []


def test_editors_know_every_ps_type_and_complete_its_config(schema: dict[str, Any]) -> None:
    assert step_of(schema)["properties"]["ps_type"]["enum"] == [
        "fake.extract",
        "fake.items",
        "fake.plain",
        "fake.transform",
    ]
    assert set(config_of(schema, "fake.extract")["properties"]) == set(ExtractParams.model_fields)
    assert config_of(schema, "fake.transform")["required"] == ["destination_table", "source_table"]


def test_a_config_may_be_left_out_only_where_nothing_in_it_is_required(schema: dict[str, Any]) -> None:
    needed = {
        rule["if"]["properties"]["ps_type"]["const"]: rule["then"].get("required") for rule in step_of(schema)["allOf"]
    }
    assert needed == {"fake.extract": ["config"], "fake.items": None, "fake.plain": None, "fake.transform": ["config"]}


def test_a_template_may_stand_where_a_date_a_number_or_a_choice_does(schema: dict[str, Any]) -> None:
    properties = config_of(schema, "fake.extract")["properties"]
    for key in ("endpoint", "limit"):
        template = properties[key]["anyOf"][-1]
        assert template["type"] == "string" and all(name in template["pattern"] for name in NAMES)
    assert "pattern" in properties["day"]["anyOf"][0]["anyOf"][-1]
    assert properties["label"]["type"] == "string", "text needs no exception"


def test_a_version_may_be_a_number(schema: dict[str, Any]) -> None:
    assert schema["$defs"]["PipelineConfig"]["properties"]["version"]["type"] == ["string", "number"]


def test_a_valid_pipeline_passes_and_bad_ones_fail(schema: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(schema).is_valid
    good = yaml.safe_load(VALID)
    assert check(good)
    step = good["steps"][0]
    for bad in (
        {key: value for key, value in good.items() if key != "provider"},
        good | {"provder": "x"},
        good | {"steps": []},
        good | {"steps": [step | {"ps_type": "fake.nothing"}]},
        good | {"steps": [step | {"timeout_seconds": 541}]},
        good | {"steps": [step | {"config": step["config"] | {"endpoint": "images"}}]},
        good | {"steps": [step | {"config": step["config"] | {"endpont": "completions"}}]},
        good | {"steps": [step | {"config": step["config"] | {"limit": "{nope}"}}]},
    ):
        assert not check(bad), bad
    assert check(good | {"steps": [step | {"config": step["config"] | {"limit": "{run_id}"}}]})


def test_the_schemas_in_the_repository_are_up_to_date() -> None:
    for name, text in schema_texts(REGISTRY).items():
        assert (CONFIGS / name).read_text("utf-8") == text, "run: python main.py schema"
    assert json.loads(schema_texts(REGISTRY)[SCHEMA_FILE])["$ref"] == "#/$defs/PipelineConfig"


def points_at(path: Path, schema_file: str) -> bool:
    first = path.read_text("utf-8").split("\n", 1)[0]
    target = (path.parent / first.removeprefix(HEADER)).resolve()
    return first.startswith(HEADER) and target == (CONFIGS / schema_file).resolve()


def test_every_pipeline_and_contract_of_the_repository_points_editors_at_its_schema() -> None:
    for path in ConfigTree(CONFIGS, REGISTRY).routes().values():
        assert points_at(path, SCHEMA_FILE), path
    for path in (CONFIGS / "schemas").rglob("*.yml"):
        assert points_at(path, CONTRACT_SCHEMA_FILE), path


def test_every_key_of_a_contract_has_a_description_and_unknown_ones_are_refused() -> None:
    for part in contract_schema()["$defs"].values():
        assert [key for key, its in part["properties"].items() if not its.get("description")] == []
        assert part["additionalProperties"] is False


def test_valid_contracts_pass_and_bad_ones_fail() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(contract_schema()).is_valid
    contracts = [yaml.safe_load(path.read_text("utf-8")) for path in (CONFIGS / "schemas").rglob("*.yml")]
    assert len(contracts) >= 8
    for good in contracts:
        assert check(good), good["table"]
        for bad in (
            {key: value for key, value in good.items() if key != "columns"},
            good | {"versoin": 2},
            good | {"version": 0},
            good | {"unknown_columns": "keep"},
            good | {"columns": [good["columns"][0] | {"type": "FLOAT64"}]},
        ):
            assert not check(bad), bad
