"""Key-encryption keys: a data key comes back to where it was bound and nowhere else; Cloud KMS is checked both ways."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from common import bootstrap
from common.access.sealing import Sealer, WrongKeyError
from common.adapters.google import kms as kms_adapter
from common.adapters.google.kms import REMEMBERED, REMEMBERED_S, CloudKms
from common.adapters.key_file import KeyFile
from common.platform.errors import ConfigError, PermanentError, TransientError
from common.platform.retry import Backoff
from common.platform.settings import Settings
from common.ports.secrets import KeyEncryption
from tests.kms_server import DAMAGED, KEY, KmsServer, kms

DATA_KEY = b"canary-data-key-of-32-bytes-----"


@pytest.fixture(scope="module")
def running() -> Iterator[KmsServer]:
    with kms() as server:
        yield server


@pytest.fixture
def server(running: KmsServer, monkeypatch: pytest.MonkeyPatch) -> KmsServer:
    running.faults.clear()
    running.calls.clear()
    monkeypatch.setattr(kms_adapter, "BACKOFF", Backoff(0.001, 0.01))
    return running


@pytest.fixture
def cloud(server: KmsServer) -> CloudKms:
    return CloudKms(KEY, server.endpoint)


@pytest.fixture(params=["file", "kms"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> KeyEncryption:
    if request.param == "file":
        return KeyFile(tmp_path / "key")
    made: CloudKms = request.getfixturevalue("cloud")
    return made


def test_a_data_key_comes_back_and_is_not_seen_in_between(keys: KeyEncryption) -> None:
    wrapped = keys.wrap(DATA_KEY, b"place")
    assert DATA_KEY not in wrapped and keys.wrap(DATA_KEY, b"place") != wrapped
    assert keys.unwrap(wrapped, b"place") == DATA_KEY


@pytest.mark.parametrize("spoil", [lambda w: w[:-1] + bytes([w[-1] ^ 1]), lambda w: w[:5], lambda w: b""])
def test_a_changed_one_does_not_open(keys: KeyEncryption, spoil: Any) -> None:
    wrapped = keys.wrap(DATA_KEY, b"place")
    with pytest.raises(WrongKeyError):
        keys.unwrap(spoil(wrapped), b"place")


def test_one_that_is_bound_to_another_place_does_not_open(keys: KeyEncryption) -> None:
    wrapped = keys.wrap(DATA_KEY, b"place")
    assert keys.unwrap(wrapped, b"place") == DATA_KEY
    with pytest.raises(WrongKeyError):
        keys.unwrap(wrapped, b"other place")


def test_a_sealer_opens_what_it_sealed(keys: KeyEncryption) -> None:
    sealed = Sealer(keys).seal("secret ä", "credentials", "acme", "name")
    assert Sealer(keys).open(sealed, "credentials", "acme", "name") == "secret ä"
    for place in (("notifications", "acme", "name"), ("credentials", "globex", "name"), ("credentials", "acme", "n")):
        with pytest.raises(WrongKeyError, match="can't be opened"):
            Sealer(keys).open(sealed, *place)


def test_what_travels_to_kms_is_the_data_key_and_its_place_with_checksums(cloud: CloudKms, server: KmsServer) -> None:
    cloud.unwrap(cloud.wrap(DATA_KEY, b"place"), b"place")
    encrypt, decrypt = server.calls
    assert encrypt.name == decrypt.name == KEY and encrypt.additional_authenticated_data == b"place"
    assert encrypt.plaintext_crc32c and encrypt.additional_authenticated_data_crc32c
    assert decrypt.ciphertext_crc32c and decrypt.additional_authenticated_data_crc32c


def unverified_text(answer: Any) -> None:
    answer.verified_plaintext_crc32c = False


def unverified_place(answer: Any) -> None:
    answer.verified_additional_authenticated_data_crc32c = False


def other_text(answer: Any) -> None:
    answer.ciphertext += b"x"


def other_plain(answer: Any) -> None:
    answer.plaintext = b"x" * 32


@pytest.mark.parametrize("fault", [unverified_text, unverified_place, other_text])
def test_a_wrapped_key_that_was_damaged_on_the_way_is_asked_for_again_and_never_used(
    cloud: CloudKms, server: KmsServer, fault: Any
) -> None:
    server.faults[:] = [fault]
    assert cloud.unwrap(cloud.wrap(DATA_KEY, b"p"), b"p") == DATA_KEY
    server.faults[:] = [fault] * 10
    with pytest.raises(TransientError, match="damaged"):
        cloud.wrap(DATA_KEY, b"p")
    assert 1 < 10 - len(server.faults) < 10, "a limited number of tries"


def test_an_unwrapped_key_that_was_damaged_on_the_way_is_asked_for_again_and_never_used(
    cloud: CloudKms, server: KmsServer
) -> None:
    wrapped = cloud.wrap(DATA_KEY, b"p")
    server.faults[:] = [other_plain]
    assert cloud.unwrap(wrapped, b"p") == DATA_KEY
    wrapped = cloud.wrap(DATA_KEY, b"p")
    server.faults[:] = [other_plain] * 10
    with pytest.raises(TransientError, match="damaged"):
        cloud.unwrap(wrapped, b"p")


def test_what_was_damaged_on_the_way_there_is_sent_again(cloud: CloudKms, server: KmsServer) -> None:
    server.faults[:] = [DAMAGED]
    wrapped = cloud.wrap(DATA_KEY, b"p")
    server.faults[:] = [DAMAGED]
    assert cloud.unwrap(wrapped, b"p") == DATA_KEY


def test_a_key_that_another_one_wrapped_is_refused(cloud: CloudKms, server: KmsServer) -> None:
    def other_name(answer: Any) -> None:
        answer.name = f"{KEY}-other/cryptoKeyVersions/1"

    server.faults[:] = [other_name]
    with pytest.raises(PermanentError, match="no version of"):
        cloud.wrap(DATA_KEY, b"p")


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, PermanentError, "roles/cloudkms.cryptoKeyEncrypterDecrypter"),
        (grpc.StatusCode.UNAUTHENTICATED, PermanentError, "service account"),
        (grpc.StatusCode.NOT_FOUND, PermanentError, "PIPELINE_OPS_KMS_KEY"),
        (grpc.StatusCode.FAILED_PRECONDITION, PermanentError, "Enable the key's version"),
        (grpc.StatusCode.OUT_OF_RANGE, PermanentError, "could not"),
        (grpc.StatusCode.INVALID_ARGUMENT, WrongKeyError, "another key or place"),
    ],
)
def test_what_another_try_can_not_mend_is_told_at_once(
    cloud: CloudKms, server: KmsServer, status: grpc.StatusCode, error: type[Exception], told: str
) -> None:
    server.faults[:] = [status]
    with pytest.raises(error, match=told) as caught:
        cloud.wrap(DATA_KEY, b"p")
    assert len(server.calls) == 1 and "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "status",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNKNOWN,
    ],
)
def test_what_passes_is_tried_again_a_few_times(cloud: CloudKms, server: KmsServer, status: grpc.StatusCode) -> None:
    server.faults[:] = [status, status]
    assert cloud.unwrap(cloud.wrap(DATA_KEY, b"p"), b"p") == DATA_KEY
    server.faults[:] = [status] * 20
    with pytest.raises(TransientError, match="Cloud KMS could not wrap a key"):
        cloud.wrap(DATA_KEY, b"p")
    assert len(server.faults) > 10


def test_nobody_there_is_transient(server: KmsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kms_adapter, "PATIENCE_S", 0.5)
    with pytest.raises(TransientError):
        CloudKms(KEY, "127.0.0.1:1").wrap(DATA_KEY, b"p")


def test_a_process_asks_once_in_five_minutes_for_one_key_and_forgets_the_oldest(server: KmsServer) -> None:
    now = [0.0]
    cloud = CloudKms(KEY, server.endpoint, clock=lambda: now[0])
    wrapped = cloud.wrap(DATA_KEY, b"p")
    server.calls.clear()
    for _ in range(5):
        assert cloud.unwrap(wrapped, b"p") == DATA_KEY
    assert len(server.calls) == 1
    now[0] = REMEMBERED_S
    cloud.unwrap(wrapped, b"p")
    assert len(server.calls) == 2
    for number in range(REMEMBERED):
        cloud._known[b"%d" % number, b"p"] = b""
    cloud.unwrap(wrapped, b"p")
    assert len(server.calls) == 3


def test_in_the_cloud_no_secret_is_sealed_without_kms(tmp_path: Path) -> None:
    engine = bootstrap.build(Settings(state_dir=tmp_path, store="google"))
    with pytest.raises(ConfigError, match="PIPELINE_OPS_KMS_KEY is not set"):
        engine.notifications.settings._sealer.seal("s", "credentials", "acme", "x")
    assert not list(tmp_path.iterdir())


def test_the_name_of_the_key_is_checked() -> None:
    assert Settings.from_env({"PIPELINE_OPS_KMS_KEY": KEY}).kms_key == KEY
    for wrong in ("secrets", f"{KEY}/cryptoKeyVersions/1", f"{KEY} ", "https://x"):
        with pytest.raises(ConfigError, match="PIPELINE_OPS_KMS_KEY"):
            Settings.from_env({"PIPELINE_OPS_KMS_KEY": wrong})
