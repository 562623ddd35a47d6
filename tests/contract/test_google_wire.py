"""Google's clients over HTTP where no emulator listens: the metadata server, BigQuery with a key's token, certificates.

Each server here answers as Google's pages show it, and keeps what it was asked.
https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys,
https://cloud.google.com/bigquery/docs/reference/rest/v2/tables, https://www.googleapis.com/oauth2/v1/certs
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from common.adapters.google import oidc
from common.adapters.google.cloud import GoogleCloudAdapter
from common.adapters.google.oidc import Certificates, GoogleTokens
from common.platform.errors import PermanentError, TransientError, UnauthorizedError
from common.ports.google import SourceField
from infra.local.emulator import BigQueryEmulator
from infra.local.sandbox.server import SandboxServer
from infra.local.sandbox.service_accounts import BILLS
from tests.google_tokens import ACCOUNT, AUDIENCE, KEY_ID, signer, token

Answer = tuple[int, Mapping[str, str], bytes]
SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class HttpServer:
    """Answers with what ``answer`` returns for a path; ``asked`` holds (path with query, headers)."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.answer: Callable[[str], Answer] = lambda path: (404, {}, b"")
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                status, headers, body = outer.answer(urlsplit(self.path).path)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: pytest shows what matters."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"


@pytest.fixture
def http(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    monkeypatch.setenv("NO_PROXY", "*")
    made = HttpServer()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


# --- the function's own account


@pytest.fixture
def metadata(http: HttpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HttpServer:
    """The metadata server of Cloud Run; nothing else here gives credentials."""
    from google.auth.compute_engine import _metadata

    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "NO_GCE_CHECK", "GAE_RUNTIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("GCE_METADATA_IP", http.host)
    monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", http.host)  # read from the environment when it is imported
    made = iter(range(1, 100))

    def answer(path: str) -> Answer:
        flavor = {"Metadata-Flavor": "Google", "Content-Type": "application/json"}
        match path.removeprefix("/computeMetadata/v1"):
            case "/":
                return 200, flavor, b"ok"
            case "/project/project-id":
                return 200, {**flavor, "Content-Type": "application/text"}, b"my-project"
            case "/instance/service-accounts/default/":
                return 200, flavor, json.dumps({"aliases": ["default"], "email": ACCOUNT, "scopes": [SCOPE]}).encode()
            case path if path.endswith("/token"):
                body = {"access_token": f"ya29.{next(made)}", "expires_in": 3_599, "token_type": "Bearer"}
                return 200, flavor, json.dumps(body).encode()
            case _:
                return 404, flavor, b""

    http.answer = answer
    return http


def tokens_asked(server: HttpServer) -> list[str]:
    return [path for path, _ in server.asked if "/token" in path]


def test_the_function_s_own_account_has_its_token_from_the_metadata_server_once(metadata: HttpServer) -> None:
    cloud = GoogleCloudAdapter("my-project", lambda: "http://127.0.0.1:1")
    assert [cloud.token(None, [SCOPE], timeout_s=10) for _ in range(3)] == ["ya29.1"] * 3
    [path] = tokens_asked(metadata)
    assert parse_qs(urlsplit(path).query) == {"scopes": [SCOPE]}
    assert all(headers["metadata-flavor"] == "Google" for path, headers in metadata.asked)


def test_a_metadata_server_that_fails_is_worth_another_try_and_its_body_is_not_repeated(metadata: HttpServer) -> None:
    cloud, working = GoogleCloudAdapter("my-project", lambda: "http://127.0.0.1:1"), metadata.answer
    metadata.answer = lambda path: (503, {}, b"canary") if path.endswith("/token") else working(path)
    with pytest.raises(TransientError, match="the metadata server does not answer") as caught:
        cloud.token(None, [SCOPE], timeout_s=1)
    assert "canary" not in str(caught.value)


def test_without_any_credentials_it_says_how_to_get_some(http: HttpServer, metadata: HttpServer) -> None:
    metadata.answer = lambda path: (404, {}, b"")
    with pytest.raises(PermanentError, match="gcloud auth application-default login"):
        GoogleCloudAdapter("my-project", lambda: "http://127.0.0.1:1").token(None, [SCOPE], timeout_s=10)


# --- a customer's table, read with the customer's key


TABLE = {
    "kind": "bigquery#table",
    "tableReference": {"projectId": "sandbox-project", "datasetId": "billing", "tableId": "export"},
    "timePartitioning": {"type": "DAY"},
    "schema": {
        "fields": [
            {"name": "cost", "type": "FLOAT", "mode": "NULLABLE"},
            {"name": "labels", "type": "RECORD", "mode": "REPEATED", "fields": [{"name": "key", "type": "STRING"}]},
        ]
    },
}


def test_a_customer_s_table_is_looked_at_with_a_token_of_the_customer_s_key(
    http: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"http://{http.host}")
    http.answer = lambda path: (200, {"Content-Type": "application/json"}, json.dumps(TABLE).encode())
    with SandboxServer(0, rate_limit_every=0) as sandbox:
        cloud = GoogleCloudAdapter("ours-project", lambda: sandbox.urls["gcp_token"])
        found = cloud.find_table(BILLS.key_file(), "sandbox-project.billing.export")
    assert found is not None and found.partition == "_PARTITIONDATE"
    assert dict(found.fields) == {
        "cost": SourceField("FLOAT", False),
        "labels": SourceField("RECORD", True),
        "labels.key": SourceField("STRING", False),
    }
    [(path, headers)] = http.asked
    assert urlsplit(path).path == "/bigquery/v2/projects/sandbox-project/datasets/billing/tables/export"
    assert headers["authorization"].startswith("Bearer ya29.")


@pytest.mark.parametrize(
    ("status", "reason", "error", "says"),
    [
        (403, "accessDenied", PermanentError, "Access Denied: Table"),
        (503, "backendError", TransientError, "look at"),
    ],
)
def test_what_bigquery_answers_about_a_customer_s_table_is_told_by_what_to_do(
    http: HttpServer, monkeypatch: pytest.MonkeyPatch, status: int, reason: str, error: type[Exception], says: str
) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"http://{http.host}")
    monkeypatch.setattr("common.adapters.google.cloud.patience", lambda: None)
    message = "Access Denied: Table sandbox-project:billing.export: User does not have permission."
    body = {"error": {"code": status, "message": message, "errors": [{"message": message, "reason": reason}]}}
    http.answer = lambda path: (status, {"Content-Type": "application/json"}, json.dumps(body).encode())
    with SandboxServer(0, rate_limit_every=0) as sandbox, pytest.raises(error, match=says):
        GoogleCloudAdapter("ours-project", lambda: sandbox.urls["gcp_token"]).find_table(
            BILLS.key_file(), "sandbox-project.billing.export"
        )


def test_a_customer_s_rows_are_read_with_a_token_of_the_customer_s_key(
    bigquery_emulator: BigQueryEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_emulator.url)
    with SandboxServer(0, rate_limit_every=0) as sandbox:
        cloud = GoogleCloudAdapter("ours-project", lambda: sandbox.urls["gcp_token"])
        sql = "SELECT @first + n AS n FROM UNNEST([1, 2]) AS n ORDER BY n"
        batches = list(cloud.read(BILLS.key_file(), sql, {"first": 10}, max_bytes=10**9))
        asked = [request.path for request in sandbox.requests]
    assert [row for batch in batches for row in batch.to_pylist()] == [{"n": 11}, {"n": 12}]
    assert asked == ["/gcp-token"]


# --- Google's certificates


def certificates(http: HttpServer, **headers: str) -> None:
    body = json.dumps({KEY_ID: signer(KEY_ID)[1], "another": signer("another")[1]}, indent=2).encode()
    given = {"Content-Type": "application/json; charset=UTF-8", **headers}
    http.answer = lambda path: (200, given, body) if path == "/oauth2/v1/certs" else (404, {}, b"")


@pytest.fixture
def google_certs(http: HttpServer, monkeypatch: pytest.MonkeyPatch) -> HttpServer:
    monkeypatch.setattr(oidc, "CERTS_URL", f"http://{http.host}/oauth2/v1/certs")
    certificates(http, **{"Cache-Control": "public, max-age=19845, must-revalidate, no-transform"})
    return http


def test_a_token_is_checked_against_certificates_that_were_fetched_once(google_certs: HttpServer) -> None:
    tokens = GoogleTokens([AUDIENCE], [ACCOUNT], Certificates())
    assert {tokens.email(token()) for _ in range(3)} == {ACCOUNT}
    with pytest.raises(UnauthorizedError):
        tokens.email(token(by="stranger"))
    assert [path for path, _ in google_certs.asked] == ["/oauth2/v1/certs"]


def test_certificates_are_kept_as_long_as_their_header_says(google_certs: HttpServer) -> None:
    assert oidc.fetch_certs()[1] == 19_845
    certificates(google_certs)
    assert oidc.fetch_certs()[1] == oidc.DEFAULT_AGE_S


@pytest.mark.parametrize("broken", [(500, {}, b"oops"), (200, {}, b"<html>"), (302, {"Location": "/gone"}, b"")])
def test_certificates_that_can_not_be_read_make_the_message_come_back(google_certs: HttpServer, broken: Answer) -> None:
    google_certs.answer = lambda path: broken if path == "/oauth2/v1/certs" else (404, {}, b"")
    with pytest.raises(TransientError, match="certificates could not be read"):
        GoogleTokens([AUDIENCE], [ACCOUNT], Certificates()).email(token())
