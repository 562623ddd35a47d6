"""Google's own clients against our sandboxes: google-auth's tokens and session, and BigQuery's client."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from google.api_core.client_options import ClientOptions
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import bigquery
from google.oauth2 import service_account

from infra.local.sandbox import gcp, gemini_data
from infra.local.sandbox.gemini import PROJECT
from infra.local.sandbox.server import SandboxServer
from infra.local.sandbox.service_accounts import BILLS, MONITORING, SCOPE, ServiceAccount


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(1, rate_limit_every=0) as running:
        yield running


def credentials(server: SandboxServer, account: ServiceAccount, *scopes: str, **change: Any) -> Any:
    info = json.loads(account.key_file()) | {"token_uri": server.urls["gcp_token"]} | change
    of = service_account.Credentials.from_service_account_info(info, scopes=[SCOPE + scope for scope in scopes])
    return of


def session(server: SandboxServer, account: ServiceAccount, *scopes: str) -> AuthorizedSession:
    made = AuthorizedSession(credentials(server, account, *scopes))
    made.trust_env = False
    return made


def test_google_auth_gets_a_token_that_expires(server: SandboxServer) -> None:
    its = credentials(server, MONITORING, "monitoring.read")
    its.refresh(Request())
    assert its.valid and its.expiry > datetime.now(UTC).replace(tzinfo=None)


@pytest.mark.parametrize(("scopes", "change"), [(("drive",), {}), (("monitoring.read",), {"client_email": "x@y.z"})])
def test_google_auth_knows_the_refusals(server: SandboxServer, scopes: tuple[str, ...], change: Any) -> None:
    with pytest.raises(RefreshError, match="invalid_"):
        credentials(server, MONITORING, *scopes, **change).refresh(Request())


def test_an_assertion_may_be_for_the_address_that_is_asked(server: SandboxServer) -> None:
    """google-auth signs for Google's own address wherever it asks; clients in other languages for the one they ask."""
    its = credentials(server, MONITORING, "monitoring.read")
    for audience in ("https://oauth2.googleapis.com/token", server.urls["gcp_token"]):
        now = int(datetime.now(UTC).timestamp())
        claims = {"iss": MONITORING.email, "aud": audience, "iat": now, "exp": now + 3_600}
        signed = _assertion(its.signer, claims | {"scope": f"{SCOPE}monitoring.read"})
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": signed}
        answer = Request().session.post(server.urls["gcp_token"], data=form, timeout=20)
        assert answer.status_code == 200, answer.text


def _assertion(signer: Any, claims: dict[str, Any]) -> str:
    from google.auth import jwt

    return jwt.encode(signer, claims).decode()


def test_a_generated_clients_parameters_are_taken(server: SandboxServer) -> None:
    """They send ``alt=json`` with every request."""
    query = {
        "filter": f'metric.type = "{gemini_data.VERTEX}"',
        "interval.startTime": "2026-11-01T00:00:00Z",
        "interval.endTime": "2026-11-03T00:00:00Z",
        "aggregation.alignmentPeriod": "86400s",
        "aggregation.perSeriesAligner": "ALIGN_SUM",
        "alt": "json",
        "prettyPrint": "false",
    }
    monitoring = session(server, MONITORING, "monitoring.read")
    url = f"{server.urls['gemini']}/v3/projects/{PROJECT}/timeSeries"
    assert monitoring.get(url, params=query, timeout=20).json()["timeSeries"]
    assert monitoring.get(url, params=query | {"unknown": "1"}, timeout=20).status_code == 400
    billing = session(server, BILLS, "cloud-billing.readonly")
    services = billing.get(f"{server.urls['gcp_cloudbilling']}/v1/services", params={"alt": "json"}, timeout=20)
    assert len(services.json()["services"]) == gcp.PAGE


def test_bigquerys_client_reads_the_tables(server: SandboxServer) -> None:
    options = ClientOptions(api_endpoint=server.urls["gcp_bigquery"])
    its = credentials(server, BILLS, "bigquery")
    client = bigquery.Client(project=BILLS.project_id, credentials=its, client_options=options)
    table = client.get_table(f"{BILLS.project_id}.billing.{gcp.DETAILED}")
    assert {field.name for field in table.schema} == set(gcp.SCHEMA)
    assert table.time_partitioning is not None and table.time_partitioning.field == "export_time"
