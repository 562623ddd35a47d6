"""validate --online: every stored credential is tried once, and no secret is shown."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from common import bootstrap
from common.cli.main import cli
from common.platform.settings import Settings
from common.ports.secrets import CredentialInfo
from infra.local.sandbox.server import SandboxServer

SECRET = "sk-canary-55de"


GENAI = ("anthropic", "deepseek", "gemini", "openai")


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(1, rate_limit_every=0) as server:
        yield server


def add(state: Path, provider: str, secret: str, org: str = "acme_corp") -> None:
    info = CredentialInfo(org, f"cred_{provider}", provider, datetime.now(UTC))
    bootstrap.build(Settings(state_dir=state)).credentials.add(info, secret)


def validate(state: Path, sandbox: SandboxServer, *options: str) -> Result:
    environ = {f"PIPELINE_OPS_PROVIDER_URL_{key.upper()}": url for key, url in sandbox.urls.items()}
    return CliRunner().invoke(cli, ["--state-dir", str(state), "validate", *options], env=environ)


def test_good_credentials_of_every_provider_are_told_whose_they_are(tmp_path: Path, sandbox: SandboxServer) -> None:
    for provider in GENAI:
        add(tmp_path, provider, sandbox.secrets[provider])
    result = validate(tmp_path, sandbox, "--online")
    assert result.exit_code == 0, result.output
    for text in ("cred_openai (openai): organisation org-sandbox", "account in USD", "4 credentials, 0 wrong"):
        assert text in result.output
    assert not [secret for secret in sandbox.secrets.values() if secret in result.output]


def test_a_refused_credential_is_wrong_and_never_shown(tmp_path: Path, sandbox: SandboxServer) -> None:
    add(tmp_path, "openai", SECRET)
    add(tmp_path, "deepseek", sandbox.secrets["deepseek"], org="globex")
    result = validate(tmp_path, sandbox, "--online")
    assert result.exit_code == 1
    assert "WRONG acme_corp cred_openai (openai)" in result.output and "admin key" in result.output
    assert "ok    globex cred_deepseek" in result.output and "2 credentials, 1 wrong" in result.output
    assert SECRET not in result.output


def test_one_organisation_alone_may_be_tried(tmp_path: Path, sandbox: SandboxServer) -> None:
    add(tmp_path, "openai", SECRET)
    result = validate(tmp_path, sandbox, "--online", "--org", "globex", "--json")
    assert result.exit_code == 0 and not [row for row in json.loads(result.output) if "credential_id" in row]
    assert list(sandbox.requests) == []
    assert "no organisation 'nobody'" in validate(tmp_path, sandbox, "--online", "--org", "nobody").output
    assert validate(tmp_path, sandbox, "--org", "globex").exit_code == 2


def test_good_credentials_of_every_cloud_are_tried_where_their_fields_lead(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    s3, explorer = json.loads(sandbox.secrets["aws_s3"]), json.loads(sandbox.secrets["aws_ce"])
    add(tmp_path, "aws", json.dumps(explorer | s3))
    add(tmp_path, "azure", sandbox.secrets["azure_blob"])
    add(tmp_path, "oci", sandbox.secrets["oci_usage"])
    add(tmp_path, "gcp", sandbox.secrets["gemini"])
    result = validate(tmp_path, sandbox, "--online")
    assert result.exit_code == 0, result.output
    assert "manifests of" in result.output and "services had costs on" in result.output, "both of AWS's"
    assert "FOCUS reports of" in result.output and "service account" in result.output
    assert "4 credentials, 0 wrong" in result.output


def test_a_clouds_credential_that_leads_nowhere_is_wrong_and_never_shown(
    tmp_path: Path, sandbox: SandboxServer
) -> None:
    add(tmp_path, "aws", json.dumps({"access_key_id": SECRET}))
    add(tmp_path, "azure", SECRET)
    add(tmp_path, "gcp", json.dumps({"type": "external_account", "private_key": SECRET}))
    result = validate(tmp_path, sandbox, "--online")
    assert result.exit_code == 1 and "3 credentials, 3 wrong" in result.output
    assert "has none of bucket, account" in result.output and "is no JSON object" in result.output
    assert SECRET not in result.output and list(sandbox.requests) == []


def test_the_functions_own_identity_is_not_asked_for_anything(tmp_path: Path, sandbox: SandboxServer) -> None:
    add(tmp_path, "gcp", json.dumps({"type": "application_default"}))
    result = validate(tmp_path, sandbox, "--online")
    assert result.exit_code == 0 and "own identity: nothing is asked" in result.output
    assert list(sandbox.requests) == []


def test_a_provider_without_an_api_has_nothing_to_be_asked(tmp_path: Path, sandbox: SandboxServer) -> None:
    add(tmp_path, "subscription", SECRET)
    result = validate(tmp_path, sandbox, "--online", "--json")
    (row,) = (row for row in json.loads(result.output) if row.get("provider") == "subscription")
    assert (result.exit_code, row["ok"]) == (0, None)


def test_without_the_option_no_provider_is_called(tmp_path: Path, sandbox: SandboxServer) -> None:
    add(tmp_path, "openai", SECRET)
    assert validate(tmp_path, sandbox).exit_code == 0
    assert list(sandbox.requests) == []
