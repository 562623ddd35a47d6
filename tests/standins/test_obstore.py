"""obstore (Rust's object_store) as the client of our buckets and containers."""

from collections.abc import Iterator

import obstore
import pytest
from obstore.exceptions import PermissionDeniedError
from obstore.store import AzureStore, S3Store

from infra.local.sandbox.aws_s3 import BUCKET, PREFIX, S3Sandbox
from infra.local.sandbox.aws_signature import ACCESS_KEY, REGION, SECRET_KEY
from infra.local.sandbox.azure import CONTAINER, FOLDER, TOKENS, BlobSandbox
from infra.local.sandbox.server import SandboxServer

AWKWARD = ("a b.csv", "a+b.csv", "ä (1)~.csv")


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(3, rate_limit_every=0) as running:
        bucket, container = running.provider("aws_s3"), running.provider("azure_blob")
        assert isinstance(bucket, S3Sandbox) and isinstance(container, BlobSandbox)
        bucket.extra |= {f"{PREFIX}/{name}": name.encode() for name in AWKWARD}
        container.extra |= {f"{FOLDER}/{name}": name.encode() for name in AWKWARD}
        yield running


def s3(server: SandboxServer, secret: str = SECRET_KEY) -> S3Store:
    return S3Store(
        BUCKET,
        endpoint=server.urls["aws_s3"],
        region=REGION,
        access_key_id=ACCESS_KEY,
        secret_access_key=secret,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": "20s"},
        retry_config={"max_retries": 0},
    )


def azure(server: SandboxServer, token: str = TOKENS["https://storage.azure.com/.default"]) -> AzureStore:
    return AzureStore(
        CONTAINER,
        account_name="sandboxbills",
        endpoint=server.urls["azure_blob"],
        bearer_token=token,
        client_options={"allow_http": True, "timeout": "20s"},
        retry_config={"max_retries": 0},
    )


def test_a_bucket_is_listed_read_and_headed(server: SandboxServer) -> None:
    store, bucket = s3(server), server.provider("aws_s3")
    assert isinstance(bucket, S3Sandbox)
    listed = {item["path"]: item["size"] for page in obstore.list(store, prefix=PREFIX) for item in page}
    assert listed == {key: len(content) for key, content in bucket.objects().items()}
    for name in AWKWARD:
        key = f"{PREFIX}/{name}"
        assert obstore.get(store, key).bytes().to_bytes() == name.encode()
        assert obstore.head(store, key)["size"] == len(name.encode())
        assert obstore.get_range(store, key, start=1, end=3).to_bytes() == name.encode()[1:3]


def test_a_container_is_listed_read_and_headed(server: SandboxServer) -> None:
    store, container = azure(server), server.provider("azure_blob")
    assert isinstance(container, BlobSandbox)
    listed = {item["path"]: item["size"] for page in obstore.list(store, prefix=FOLDER) for item in page}
    assert listed == {name: len(content) for name, content in container.blobs().items()}
    for name in AWKWARD:
        key = f"{FOLDER}/{name}"
        assert obstore.get(store, key).bytes().to_bytes() == name.encode()
        assert obstore.head(store, key)["size"] == len(name.encode())
        assert obstore.get_range(store, key, start=1, end=3).to_bytes() == name.encode()[1:3]


def test_what_is_not_there_and_who_may_not_read_are_told_apart(server: SandboxServer) -> None:
    with pytest.raises(FileNotFoundError):
        obstore.get(s3(server), "none")
    with pytest.raises(FileNotFoundError):
        obstore.get(azure(server), "none")
    with pytest.raises(PermissionDeniedError):
        obstore.get(s3(server, "wrong"), f"{PREFIX}/{AWKWARD[0]}")
    with pytest.raises(PermissionDeniedError):
        obstore.get(azure(server, "wrong"), f"{FOLDER}/{AWKWARD[0]}")
