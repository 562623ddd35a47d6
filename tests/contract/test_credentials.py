"""Credentials: sealed at rest, opened for their own organisation only."""

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.adapters.google.firestore_client import Firestore
from common.adapters.google.firestore_credentials import FirestoreCredentials
from common.adapters.sqlite.credentials import SqliteCredentials
from common.adapters.sqlite.database import Database
from common.errors import NotFoundError, PermanentError
from common.ports import CredentialInfo, Credentials
from infra.local.google_emulators import GoogleEmulators

CANARY = "sk-admin-canary-7f3a"
INFO = CredentialInfo("acme", "cred_openai", "openai", datetime(2026, 11, 21, tzinfo=UTC))


@pytest.fixture(params=["sqlite", "firestore"])
def credentials(request: pytest.FixtureRequest, tmp_path: Path) -> Credentials:
    if request.param == "sqlite":
        return SqliteCredentials(Database(tmp_path / "store.db"), tmp_path / "key")
    host = request.getfixturevalue("google_emulators").firestore_host
    return FirestoreCredentials(request.getfixturevalue("google_project"), tmp_path / "key", host)


@pytest.fixture
def documents(google_emulators: GoogleEmulators, google_project: str) -> Firestore:
    return Firestore(google_project, google_emulators.firestore_host)


def test_a_secret_is_read_back_and_listed_without_it(credentials: Credentials) -> None:
    credentials.add(INFO, CANARY)
    assert credentials.secret("acme", "cred_openai") == CANARY
    assert credentials.list("acme") == [INFO] and CANARY not in repr(credentials.list("acme"))


def test_no_document_holds_the_secret_in_clear_and_a_copied_one_does_not_open(
    documents: Firestore, google_emulators: GoogleEmulators, google_project: str, tmp_path: Path
) -> None:
    credentials = FirestoreCredentials(google_project, tmp_path / "key", google_emulators.firestore_host)
    credentials.add(INFO, CANARY)
    (stored,) = documents.get(documents.document("orgs", "acme", "credentials", "cred_openai")).values()
    assert CANARY not in repr(stored.to_dict())
    copy = documents.document("orgs", "globex", "credentials", "cred_openai")
    documents.write(lambda batch: batch.set(copy, stored.to_dict()))
    with pytest.raises(PermanentError, match="can't be opened"):
        credentials.secret("globex", "cred_openai")


def test_no_file_holds_the_secret_in_clear(credentials: Credentials, tmp_path: Path) -> None:
    credentials.add(INFO, CANARY)
    for path in tmp_path.iterdir():
        assert CANARY.encode() not in path.read_bytes(), path.name


def test_the_key_file_is_the_owners_alone(credentials: Credentials, tmp_path: Path) -> None:
    credentials.add(INFO, CANARY)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("key")) == ["key"]


def test_a_key_file_that_others_can_read_is_refused(credentials: Credentials, tmp_path: Path) -> None:
    credentials.add(INFO, CANARY)
    os.chmod(tmp_path / "key", 0o644)
    with pytest.raises(PermanentError, match="chmod 600"):
        credentials.secret("acme", "cred_openai")


def test_another_organisation_neither_sees_nor_opens_it(credentials: Credentials) -> None:
    credentials.add(INFO, CANARY)
    assert credentials.list("globex") == []
    with pytest.raises(NotFoundError):
        credentials.secret("globex", "cred_openai")


def test_a_row_copied_to_another_organisation_does_not_open(tmp_path: Path) -> None:
    credentials = SqliteCredentials(Database(tmp_path / "store.db"), tmp_path / "key")
    credentials.add(INFO, CANARY)
    Database(tmp_path / "store.db").write(lambda db: db.execute("UPDATE credentials SET org_slug = 'globex'"))
    with pytest.raises(PermanentError, match="can't be opened"):
        credentials.secret("globex", "cred_openai")


def test_a_lost_key_is_told_and_never_replaced_in_silence(credentials: Credentials, tmp_path: Path) -> None:
    credentials.add(INFO, CANARY)
    (tmp_path / "key").unlink()
    with pytest.raises(PermanentError, match="key file"):
        credentials.secret("acme", "cred_openai")
    assert not (tmp_path / "key").exists()


def test_adding_again_replaces_and_removing_removes(credentials: Credentials) -> None:
    credentials.add(INFO, "old")
    credentials.add(INFO, CANARY)
    assert credentials.secret("acme", "cred_openai") == CANARY
    credentials.remove("acme", "cred_openai")
    with pytest.raises(NotFoundError, match="cred_openai"):
        credentials.remove("acme", "cred_openai")
