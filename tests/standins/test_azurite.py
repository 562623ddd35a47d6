"""Our Azure client and the export pipeline against Azurite, Microsoft's own emulator of Blob Storage, with OAuth.

It is 186 MB of npm, so it runs with make test-slow, is installed into .azurite on first use, and is left out, by name,
where npm is absent. Azurite checks a token's issuer, audience and times, not its signature.
"""

import base64
import functools
import ipaddress
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from common.platform.errors import PermanentError
from common.platform.paths import PROJECT_ROOT
from common.processors.bills.deliveries import ExportParams
from common.processors.clouds.azure.blobs import VERSION, Container
from common.processors.clouds.azure.export import AzureExportExtractor
from infra.local.sandbox import bills
from infra.local.sandbox.azure import CONTAINER, FOLDER, SECRET, BlobSandbox
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.server import SandboxServer
from tests.processors.bill_files import rows_of
from tests.processors.context import make_context
from tests.processors.layouts import total

pytestmark = pytest.mark.slow

AZURITE = "azurite@3.37.0"
ACCOUNT = "devstoreaccount1"
SEED, FIRST, LAST = 6, date(2026, 9, 10), date(2026, 9, 20)
AWKWARD = ("a b.csv", "a+b.csv", "ä (1)~!.csv", "a%2Bb.csv")


def token(audience: str = "https://storage.azure.com") -> str:
    now = int(datetime.now(UTC).timestamp())
    claims = {
        "aud": audience,
        "iss": "https://sts.windows.net/11111111-2222-3333-4444-555555555555/",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + 3_600,
    }
    parts = ({"alg": "RS256", "typ": "JWT"}, claims, "unchecked")
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


@pytest.fixture(scope="module")
def installed() -> Path:
    if shutil.which("npm") is None:
        pytest.skip("Azurite needs npm")
    folder = PROJECT_ROOT / ".azurite"
    program = folder / "node_modules" / ".bin" / "azurite-blob"
    if not program.exists():
        folder.mkdir(exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", AZURITE], cwd=folder, check=True)
    return program


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate of 127.0.0.1: Azurite takes tokens over TLS alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert, private


@pytest.fixture(scope="module")
def azurite(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ssl.SSLContext]]:
    folder = tmp_path_factory.mktemp("azurite")
    cert, private = certificate(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
    secure = ["--oauth", "basic", "--cert", str(cert), "--key", str(private)]
    process = subprocess.Popen(
        [str(installed), *where, *secure, "--disableTelemetry"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:  # it says so when it listens; the test's time limit bounds the wait
            if "successfully listens" in line or "successfully listening" in line:
                break
        context = ssl.create_default_context(cafile=cert)
        base = f"https://127.0.0.1:{port}/{ACCOUNT}"
        with httpx2.Client(verify=context, trust_env=False) as http:
            headers = {"authorization": f"Bearer {token()}", "x-ms-version": VERSION}
            http.put(f"{base}/{CONTAINER}?restype=container", headers=headers).raise_for_status()
            blobs = {name: content for name, content in BlobSandbox(SEED).blobs().items() if "/20260901-" in name}
            blobs |= {f"{FOLDER}/{name}": name.encode() for name in AWKWARD}
            for name, content in blobs.items():
                path = f"{base}/{CONTAINER}/{quote(name, safe='/-_.~')}"
                kind = {"x-ms-blob-type": "BlockBlob"}
                http.put(path, headers=headers | kind, content=content).raise_for_status()
        yield base, context
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(autouse=True)
def trusted(azurite: tuple[str, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx2, "Client", functools.partial(httpx2.Client, verify=azurite[1]))


def test_awkward_names_are_listed_and_read(azurite: tuple[str, ssl.SSLContext]) -> None:
    with Container(make_context(), token(), azurite[0], account=ACCOUNT, container=CONTAINER) as container:
        for name in AWKWARD:
            key = f"{FOLDER}/{name}"
            assert [item.key for item in container.objects(key.removesuffix(".csv"))] == [key]
            assert container.read(key) == name.encode()


def test_a_token_for_another_resource_is_refused(azurite: tuple[str, ssl.SSLContext]) -> None:
    other = token("https://management.azure.com")
    opened = Container(make_context(), other, azurite[0], account=ACCOUNT, container=CONTAINER)
    with opened as container, pytest.raises(PermanentError, match="403"):
        list(container.objects(FOLDER))


def test_a_container_that_is_not_there_is_named(azurite: tuple[str, ssl.SSLContext]) -> None:
    opened = Container(make_context(), token(), azurite[0], account=ACCOUNT, container="none")
    with opened as container, pytest.raises(PermanentError, match="There is no container 'none'"):
        list(container.objects(FOLDER))


def test_the_export_pipeline_reads_the_bill_from_azurite(azurite: tuple[str, ssl.SSLContext]) -> None:
    def login(request: Request) -> Answer | None:
        body = {"token_type": "Bearer", "expires_in": 3599, "access_token": token()}
        return Answer(200, body) if request.path.startswith("/azure-login") else None

    with SandboxServer(SEED, fail_with=login, rate_limit_every=0) as server:
        urls: dict[str, Any] = {"azure.login": server.urls["azure_login"], "azure.blob": azurite[0]}
        context = make_context(provider_url=urls.__getitem__, secret=lambda: SECRET, start_date=FIRST, end_date=LAST)
        params = ExportParams.model_validate({"destination_table": "cloud_focus_export"})
        rows = [row for batch in AzureExportExtractor().run(context, params) for row in rows_of(batch)]
    assert total(rows) == bills.billed("azure", SEED, FIRST, LAST) > 0
