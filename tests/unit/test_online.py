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
from infra.local.sandbox import gcp
from infra.local.sandbox.server import SandboxServer
from infra.local.sandbox.service_accounts import BILLS

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
    environ["BIGQUERY_EMULATOR_HOST"] = sandbox.urls["gcp_bigquery"]
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
    assert result.exit_code == 0 and "own identity: nothing to check" in result.output
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


def google(**places: str) -> str:
    return json.dumps({"service_account": json.loads(BILLS.key_file()), **places})


def exported(table: str, project: str = BILLS.project_id) -> str:
    return google(project=project, dataset="billing", table=table)


def test_the_billing_export_that_a_credential_names_is_looked_at(tmp_path: Path, sandbox: SandboxServer) -> None:
    add(tmp_path, "gcp", exported(gcp.DETAILED))
    result = validate(tmp_path, sandbox, "--online")
    assert result.exit_code == 0, result.output
    assert f"service account {BILLS.email}; sandbox-project.billing.{gcp.DETAILED}: " in result.output
    assert "partitioned by export_time" in result.output and "without" not in result.output
    assert [request.path.split("/")[1] for request in sandbox.requests] == ["gcp-token", "bigquery"]


def test_an_older_export_is_good_and_the_fields_that_it_lacks_are_named(tmp_path: Path, sandbox: SandboxServer) -> None:
    add(tmp_path, "gcp", exported(gcp.STANDARD))
    result = validate(tmp_path, sandbox, "--online")
    assert result.exit_code == 0, result.output
    assert ", without " in result.output and "resource.name" in result.output and "stay NULL" in result.output


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        (
            exported("billing_export"),
            "There is no table sandbox-project.billing.billing_export. A billing export appears",
        ),
        (exported(gcp.FOREIGN), "Is it the export that the step's config is for?"),
        (exported(gcp.DETAILED, project="other-project"), "Permission bigquery.tables.get denied"),
    ],
)
def test_an_export_that_no_run_could_read_is_wrong_in_words(
    tmp_path: Path, sandbox: SandboxServer, secret: str, said: str
) -> None:
    add(tmp_path, "gcp", secret)
    result = validate(tmp_path, sandbox, "--online")
    assert result.exit_code == 1 and said in result.output, result.output
    assert "PRIVATE KEY" not in result.output


def test_a_key_that_names_no_table_is_good_and_said_to_be_unproved(tmp_path: Path, sandbox: SandboxServer) -> None:
    add(tmp_path, "gcp", google())
    result = validate(tmp_path, sandbox, "--online")
    assert result.exit_code == 0 and "no table was checked" in result.output
