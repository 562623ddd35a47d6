"""Credentials: sealed at rest, opened for their own organisation only."""

import os
import stat
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from common.access.credentials import SealedCredentials
from common.access.sealing import Sealer
from common.adapters.google.firestore_records import FirestoreRecords
from common.adapters.key_file import KeyFile
from common.adapters.sql.records import SqlRecords
from common.adapters.sql.sqlite.database import Database
from common.platform.errors import NotFoundError, PermanentError
from common.ports.records import Records
from common.ports.secrets import CredentialInfo

CANARY = "sk-admin-canary-7f3a"
INFO = CredentialInfo("acme", "cred_openai", "openai", datetime(2026, 11, 21, tzinfo=UTC))


@pytest.fixture(params=["sqlite", "firestore", "postgres"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Records:
    if request.param == "sqlite":
        return SqlRecords(Database(tmp_path / "store.db"))
    if request.param == "postgres":
        return SqlRecords(request.getfixturevalue("postgres"))
    host = request.getfixturevalue("google_emulators").firestore_host
    return FirestoreRecords(request.getfixturevalue("google_project"), host)


@pytest.fixture
def credentials(records: Records, tmp_path: Path) -> SealedCredentials:
    return SealedCredentials(records, Sealer(KeyFile(tmp_path / "key")))


def test_a_secret_is_read_back_and_listed_without_it(credentials: SealedCredentials) -> None:
    credentials.add(INFO, CANARY)
    assert credentials.secret("acme", "cred_openai") == CANARY
    assert credentials.list("acme") == [INFO] and CANARY not in repr(credentials.list("acme"))


def test_no_record_and_no_file_holds_the_secret_in_clear(
    credentials: SealedCredentials, records: Records, tmp_path: Path
) -> None:
    credentials.add(INFO, CANARY)
    assert CANARY not in repr(records.list("credentials", "acme"))
    for path in tmp_path.iterdir():
        assert CANARY.encode() not in path.read_bytes(), path.name


def test_two_secrets_have_keys_of_their_own(credentials: SealedCredentials, records: Records) -> None:
    for name in ("one", "two"):
        credentials.add(CredentialInfo("acme", name, "openai", INFO.created_at), CANARY)
    one, two = (record.body["secret"] for record in records.list("credentials", "acme"))
    for part in ("key", "nonce", "sealed"):
        assert one[part] != two[part]


def test_no_data_key_is_used_twice(tmp_path: Path) -> None:
    class Recording(KeyFile):
        keys: ClassVar[list[bytes]] = []

        def wrap(self, key: bytes, bound_to: bytes) -> bytes:
            self.keys.append(key)
            return super().wrap(key, bound_to)

    for _ in range(5):
        Sealer(Recording(tmp_path / "key")).seal(CANARY, "credentials", "acme", "x")
    assert len(set(Recording.keys)) == 5 and {len(key) for key in Recording.keys} == {32}


@pytest.mark.parametrize("place", [("credentials", "globex", "cred_openai"), ("credentials", "acme", "cred_other")])
def test_a_record_copied_to_another_place_does_not_open(
    credentials: SealedCredentials, records: Records, place: tuple[str, str, str]
) -> None:
    credentials.add(INFO, CANARY)
    (stored,) = records.list("credentials", "acme")
    records.put(*place, stored.body)
    with pytest.raises(PermanentError, match="can't be opened"):
        credentials.secret(place[1], place[2])


@pytest.mark.parametrize("part", ["key", "nonce", "sealed"])
@pytest.mark.parametrize("with_", ["", "AAAA", "no base64!", None])
def test_a_changed_record_does_not_open_and_says_so(
    credentials: SealedCredentials, records: Records, part: str, with_: str | None
) -> None:
    credentials.add(INFO, CANARY)
    (stored,) = records.list("credentials", "acme")
    body: dict[str, Any] = deepcopy(dict(stored.body))
    body["secret"][part] = with_
    records.put("credentials", "acme", "cred_openai", body)
    with pytest.raises(PermanentError, match="can't be opened"):
        credentials.secret("acme", "cred_openai")


def test_the_key_file_is_the_owners_alone(credentials: SealedCredentials, tmp_path: Path) -> None:
    credentials.add(INFO, CANARY)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("key")) == ["key"]


def test_a_key_file_that_others_can_read_is_refused(credentials: SealedCredentials, tmp_path: Path) -> None:
    credentials.add(INFO, CANARY)
    os.chmod(tmp_path / "key", 0o644)
    with pytest.raises(PermanentError, match="chmod 600"):
        credentials.secret("acme", "cred_openai")


def test_another_key_file_opens_nothing(credentials: SealedCredentials, tmp_path: Path) -> None:
    credentials.add(INFO, CANARY)
    (tmp_path / "key").write_bytes(os.urandom(32))
    with pytest.raises(PermanentError, match="key file key was replaced"):
        credentials.secret("acme", "cred_openai")


def test_a_lost_key_is_told_and_never_replaced_in_silence(credentials: SealedCredentials, tmp_path: Path) -> None:
    credentials.add(INFO, CANARY)
    (tmp_path / "key").unlink()
    with pytest.raises(PermanentError, match="key file"):
        credentials.secret("acme", "cred_openai")
    assert not (tmp_path / "key").exists()


def test_another_organisation_neither_sees_nor_opens_it(credentials: SealedCredentials) -> None:
    credentials.add(INFO, CANARY)
    assert credentials.list("globex") == []
    with pytest.raises(NotFoundError):
        credentials.secret("globex", "cred_openai")


def test_adding_again_replaces_and_removing_removes(credentials: SealedCredentials) -> None:
    credentials.add(INFO, "old")
    credentials.add(INFO, CANARY)
    assert credentials.secret("acme", "cred_openai") == CANARY
    credentials.remove("acme", "cred_openai")
    with pytest.raises(NotFoundError, match="cred_openai"):
        credentials.remove("acme", "cred_openai")
