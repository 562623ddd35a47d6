"""What a template, a request or an item of a map can reach: no SQL, no path, no environment, no other organisation."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from common.config.templates import NAMES, substitute, unresolved
from common.platform.errors import PermanentError, RequestError
from common.processors import registry
from common.processors.bills.file_extractor import inside
from common.runs.request import run_request
from tests.fakes import FakeClock
from tests.harness import ORG, ROUTE, Harness, step

HOSTILE = (
    "x; DROP TABLE y",
    "x` WHERE TRUE --",
    "x' OR '1'='1",
    "globex_prod.costs",
    "`p.globex_prod.costs`",
    "../globex/bill.csv",
    "/etc/passwd",
    "..",
    "~/.ssh/id_rsa",
    "file:///etc/passwd",
    "gs://other-bucket/x",
    "https://evil.example/x",
    "http://169.254.169.254/",
    "$(id)",
    "a\nb",
    "a\x00b",
    "",
    "ä",
)

FREE_TEXT = {
    ("generic.procedure_executor", "arguments"): "reach BigQuery as query parameters",
    ("ExternalFileExtractor", "source"): "a file below the organisation's landing folder: see the test of `inside`",
    ("ExternalFileExtractor", "date_column"): "looked up among the columns of the file",
    ("ExternalFileExtractor", "extra_column"): "looked up among the columns of the contract",
    ("ExternalFileExtractor", "delimiter"): "one character, for the CSV reader",
    ("ExternalFileExtractor", "null_values"): "compared with the fields of the file",
    ("ExternalFileExtractor", "provider"): "a value in a column",
    **{
        (ps_type, "delimiter"): "one character, for the CSV reader"
        for ps_type in ("AwsExportExtractor", "AzureExportExtractor", "OciReportExtractor")
    },
    **{
        (ps_type, name): "dotted identifiers: a field of the table, each part quoted"
        for ps_type in ("ExternalBqExtractor", "ExternalBqChangedDays")
        for name in ("day_column", "label_column")
    },
    ("ExternalBqChangedDays", "export_column"): "dotted identifiers: a field of the table, each part quoted",
    ("GcpApiExtractor", "path"): "a plain path behind the registry's address: `_plain_path` checks it",
    ("GcpApiExtractor", "items"): "looked up in the answer",
    ("GcpApiExtractor", "next_page"): "looked up in the answer",
    ("GcpApiExtractor", "day_column"): "looked up in the items of the answer",
    ("GcpApiExtractor", "page_parameter"): "a name in the query, encoded",
}
"""Fields that take any text, and why that reaches nothing."""


def params_of(ps_type: str) -> Any:
    return registry.processor(ps_type).params_type


def text_fields() -> list[tuple[str, str]]:
    """Every field of every processor that can hold text, and so the value of a template or of a map's item."""
    fields = [
        (ps_type, name)
        for ps_type in registry.PROCESSORS
        for name, field in params_of(ps_type).model_fields.items()
        if re.search(r"\bstr\b", str(field.annotation))
    ]
    assert len(fields) > 5
    return fields


def refused(ps_type: str, name: str, value: str) -> bool:
    """Whether the processor's parameters refuse this value of one field, whatever else they miss."""
    try:
        params_of(ps_type).model_validate({name: value})
    except ValidationError as error:
        return any(item["loc"][:1] == (name,) for item in error.errors())
    return False


@pytest.mark.parametrize(("ps_type", "name"), [field for field in text_fields() if field not in FREE_TEXT])
def test_no_text_of_a_step_can_be_sql_a_path_or_an_address(ps_type: str, name: str) -> None:
    assert [value for value in HOSTILE if not refused(ps_type, name, value)] == []


def test_every_field_of_free_text_is_there_and_has_its_reason() -> None:
    assert set(FREE_TEXT) <= set(text_fields()) and all(FREE_TEXT.values())


@pytest.mark.parametrize("source", ["../globex/bill.csv", "/etc/passwd", "..", "file:///etc/passwd", "a\x00b", "link"])
def test_a_source_is_a_file_of_the_organisation_or_none(tmp_path: Path, source: str) -> None:
    own, other = tmp_path / "landing" / ORG, tmp_path / "landing" / "globex"
    for folder in (own, other):
        folder.mkdir(parents=True)
        (folder / "bill.csv").write_text("x")
    (own / "link").symlink_to(other / "bill.csv")
    with pytest.raises(PermanentError, match="landing folder"):
        inside(own, source)
    assert inside(own, "bill.csv") == own / "bill.csv"


@pytest.mark.parametrize("ps_type", list(registry.PROCESSORS))
@pytest.mark.parametrize("name", ["base_url", "url", "endpoint", "host", "provider_url", "proxy", "project", "dataset"])
def test_no_step_can_name_the_address_it_reads_from(ps_type: str, name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        params_of(ps_type).model_validate({name: "https://evil.example"})
    # A table of BigQuery has a project and a dataset: names, which no address fits.
    names = ps_type.startswith("ExternalBq") and name in ("project", "dataset")
    why = "string_pattern_mismatch" if names else "extra_forbidden"
    assert (why, (name,)) in [(item["type"], item["loc"]) for item in caught.value.errors()]


@pytest.mark.parametrize(
    "field", ["base_url", "provider_url", "provider_urls", "url", "endpoint", "org_slug", "config"]
)
def test_no_request_can_name_an_address_or_another_organisation(field: str) -> None:
    with pytest.raises(RequestError, match="unknown field"):
        run_request(ORG, ROUTE, {field: "https://evil.example"}, now=FakeClock().now, trigger="api")


@pytest.mark.parametrize(
    "text",
    [
        "{HOME}",
        "${PATH}",
        "${PIPELINE_OPS_OPERATOR_TOKEN}",
        "{environ}",
        "{secret}",
        "{credential}",
        "{settings}",
        "{self}",
    ],
)
def test_no_template_reads_the_environment_a_secret_or_the_program(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "PATH", "PIPELINE_OPS_OPERATOR_TOKEN", "environ", "secret"):
        monkeypatch.setenv(name, "canary")
    ((_, message),) = unresolved({"a": text}, NAMES)
    assert "no template variable is named" in message and "canary" not in message
    assert substitute({"a": text}, dict.fromkeys(NAMES, "x")) == {"a": text}


@pytest.mark.parametrize("value", [v for v in HOSTILE if v])
def test_no_request_gives_a_template_a_value_of_another_alphabet(harness: Harness, value: str) -> None:
    """org_slug, credential_id, start_date and end_date come from requests; all other values are the program's own."""
    now = harness.clock.now
    with pytest.raises(RequestError):
        run_request(value, ROUTE, {}, now=now, trigger="api")
    for field in ("credential_id", "start_date", "end_date"):
        with pytest.raises(RequestError):
            run_request(ORG, ROUTE, {field: value}, now=now, trigger="api")
    if "/" in value or value.startswith("."):
        with pytest.raises(RequestError):
            run_request(ORG, ROUTE, {"source": value}, now=now, trigger="api")


def test_the_values_of_all_templates_are_plain_and_of_the_runs_own_organisation(harness: Harness) -> None:
    seen: list[str] = []
    harness.script("note", lambda _context, params: seen.append(params.note))
    harness.pipeline(step("only", script="note", note=" ".join(f"{{{name}}}" for name in NAMES)))
    run_id = harness.start()
    harness.drain()
    values = dict(zip(NAMES, seen[0].split(" "), strict=True))
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", value) for value in values.values()), values
    assert values["org_slug"] == ORG and values["org_dataset"] == f"{ORG}_local" and values["run_id"] == run_id


@pytest.mark.parametrize("item", [v for v in HOSTILE if v])
def test_an_item_of_a_map_is_data_of_one_step_and_no_template_of_another(harness: Harness, item: str) -> None:
    """A map's items come from a provider's answer at the latest: what they say is not resolved again."""
    seen: list[str] = []
    tricky = f"{item} {{org_slug}} ${{run_id}} {{item}}"
    harness.script("list", lambda context, _params: context.put_out("names", [tricky]))
    harness.script("note", lambda _context, params: seen.append(params.note))
    over = {"over": "a.outputs.names"}
    harness.pipeline(step("a", script="list"), step("m", "a", script="note", note="{item}", map=over))
    harness.start()
    harness.drain()
    assert seen == [tricky]
