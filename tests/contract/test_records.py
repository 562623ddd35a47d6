"""Small documents: kept whole, compared by version, listed by name, each organisation's apart."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.adapters.google.firestore_records import FirestoreRecords
from common.adapters.sql.records import SqlRecords
from common.adapters.sql.sqlite.database import Database
from common.platform.errors import StaleRecordError
from common.ports.records import Records
from tests.memory_records import MemoryRecords


@pytest.fixture(params=["sqlite", "memory", "firestore", "postgres"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Records:
    match request.param:
        case "sqlite":
            return SqlRecords(Database(tmp_path / "store.db"))
        case "memory":
            return MemoryRecords()
        case "postgres":
            return SqlRecords(request.getfixturevalue("postgres"))
    host = request.getfixturevalue("google_emulators").firestore_host
    return FirestoreRecords(request.getfixturevalue("google_project"), host)


def test_a_document_is_read_back_as_it_was_put(records: Records) -> None:
    body = {"text": "ä\n\"'; --", "none": None, "list": [[1, 2], {"a": True}], "number": 2**63, "ratio": 0.25}
    put = records.put("keys", "acme", "a-b_1", body)
    assert put.body == body and put.name == "a-b_1"
    assert records.get("keys", "acme", "a-b_1") == put == records.list("keys", "acme")[0]


def test_what_was_never_put_is_none(records: Records) -> None:
    records.put("keys", "acme", "a", {})
    for kind, org, name in (("keys", "acme", "b"), ("keys", "globex", "a"), ("audit", "acme", "a")):
        assert records.get(kind, org, name) is None
        assert records.delete(kind, org, name) is False
    assert records.list("keys", "globex") == [] and records.list("audit", "acme") == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a/b/c", "__a__", "ä", "a" * 2_000, "a\x00b", "a' OR '1'='1"])
def test_a_name_that_no_document_can_have_is_not_there(records: Records, name: str) -> None:
    records.put("keys", "acme", "a", {})
    assert records.get("keys", "acme", name) is None and records.get("keys", name, "a") is None
    assert records.delete("keys", "acme", name) is False and records.list("keys", name) == []


def test_what_is_put_or_read_is_no_longer_shared_with_the_store(records: Records) -> None:
    body = {"list": [1]}
    records.put("keys", "acme", "a", body)
    body["list"].append(2)
    first = records.get("keys", "acme", "a")
    assert first is not None and first.body == {"list": [1]}
    first.body["list"].append(3)
    second = records.get("keys", "acme", "a")
    assert second is not None and second.body == {"list": [1]}


def test_each_put_gives_a_new_version_even_of_the_same_body(records: Records) -> None:
    versions = [records.put("keys", "acme", "a", {"n": 1}).version for _ in range(3)]
    records.delete("keys", "acme", "a")
    versions.append(records.put("keys", "acme", "a", {"n": 1}, expected=0).version)
    assert len(set(versions)) == 4 and 0 not in versions


def test_a_put_replaces_the_whole_document(records: Records) -> None:
    first = records.put("keys", "acme", "a", {"old": 1})
    records.put("keys", "acme", "a", {"new": 2}, expected=first.version)
    found = records.get("keys", "acme", "a")
    assert found is not None and found.body == {"new": 2}


def test_an_old_version_is_refused_and_changes_nothing(records: Records) -> None:
    first = records.put("keys", "acme", "a", {"n": 1}, expected=0)
    second = records.put("keys", "acme", "a", {"n": 2}, expected=first.version)
    for expected in (0, first.version):
        with pytest.raises(StaleRecordError, match="'a' of acme"):
            records.put("keys", "acme", "a", {"n": 3}, expected=expected)
    assert records.get("keys", "acme", "a") == second


def test_a_version_of_a_deleted_document_is_refused(records: Records) -> None:
    first = records.put("keys", "acme", "a", {})
    assert records.delete("keys", "acme", "a") is True
    with pytest.raises(StaleRecordError):
        records.put("keys", "acme", "a", {}, expected=first.version)
    assert records.get("keys", "acme", "a") is None


def test_of_many_that_compare_at_once_one_wins(records: Records) -> None:
    first = records.put("keys", "acme", "a", {"n": 0})

    def rival(number: int) -> int:
        try:
            records.put("keys", "acme", "a", {"n": number}, expected=first.version)
        except StaleRecordError:
            return 0
        return number

    with ThreadPoolExecutor(8) as pool:
        won = [number for number in pool.map(rival, range(1, 9)) if number]
    found = records.get("keys", "acme", "a")
    assert found is not None and [found.body["n"]] == won


def test_documents_are_listed_by_name_a_page_at_a_time_in_either_direction(records: Records) -> None:
    for name in ("b", "a", "d", "c", "B"):
        records.put("audit", "acme", name, {"name": name})
    records.put("audit", "globex", "x", {})
    records.put("keys", "acme", "y", {})

    def names(**how: object) -> str:
        return "".join(one.name for one in records.list("audit", "acme", **how))  # type: ignore[arg-type]

    assert names() == "Babcd" and names(newest=True) == "dcbaB"
    assert names(limit=2) == "Ba" and names(limit=2, after="a") == "bc" and names(after="d") == ""
    assert names(limit=2, newest=True) == "dc" and names(limit=2, after="c", newest=True) == "ba"
    assert names(after="bb") == "cd", "a cursor may be a name that has been deleted since"
