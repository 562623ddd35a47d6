"""What a caller may ask of a run."""

from datetime import UTC, date, datetime
from typing import Any

import pytest

from common.domain.model import RunRequest
from common.platform.errors import InvalidFieldsError, NotFoundError
from common.runs.request import RUN_ID, run_request

NOW = datetime(2026, 11, 21, 0, 30, tzinfo=UTC)


def ask(body: Any, org: str = "acme_corp") -> RunRequest:
    return run_request(org, "genai/payg/openai", body, now=NOW, trigger="api")


def problems(body: Any) -> dict[str, str]:
    with pytest.raises(InvalidFieldsError) as refused:
        ask(body)
    return refused.value.problems


def test_without_dates_yesterday_in_utc_is_run() -> None:
    asked = ask({})
    assert (asked.start_date, asked.end_date) == (date(2026, 11, 20), date(2026, 11, 20))
    assert RUN_ID.match(asked.run_id)


def test_one_date_is_a_range_of_one_day() -> None:
    assert ask({"start_date": "2026-11-02"}).end_date == date(2026, 11, 2)
    assert ask({"end_date": "2026-11-02"}).start_date == date(2026, 11, 2)


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"start_date": "2026-13-01"}, "start_date", "2026-13-01"),
        ({"start_date": "yesterday"}, "start_date", "yesterday"),
        ({"start_date": 20261101}, "start_date", "20261101"),
        ({"end_date": "2026-11-22"}, "end_date", "in the future"),
        ({"start_date": "2026-11-03", "end_date": "2026-11-02"}, "end_date", "before start_date"),
        ({"start_date": "2024-01-01", "end_date": "2026-01-01"}, "end_date", "at most 366 days"),
        ({"start_date": "1999-12-31"}, "start_date", "before 2000-01-01"),
        ({"start_dat": "2026-11-01"}, "start_dat", "Did you mean 'start_date'?"),
        ({"credential_id": "../etc"}, "credential_id", "../etc"),
        ({"source": "../../etc/passwd"}, "source", "passwd"),
        ({"source": "https://evil.example/x.csv"}, "source", "evil"),
        ({"source": ".hidden"}, "source", ".hidden"),
        ([], "body", "JSON object"),
        ("x", "body", "JSON object"),
        (None, "body", "JSON object"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_wrong(body: Any, field: str, says: str) -> None:
    assert says in problems(body)[field]


def test_all_wrong_fields_are_named_at_once() -> None:
    assert set(problems({"start_date": "x", "sauce": 1})) == {"start_date", "sauce"}


@pytest.mark.parametrize("org", ["", "A", "acme;drop", "../x", "acme corp", "a" * 60])
def test_a_name_that_can_be_no_organisation_does_not_exist(org: str) -> None:
    with pytest.raises(NotFoundError):
        ask({}, org)


def keyed(body: Any, key: str | None = "k", org: str = "acme", route: str = "a/b/c") -> tuple[str, str]:
    made = run_request(org, route, body, now=NOW, trigger="api", idempotency_key=key)
    return made.run_id, made.fingerprint


def test_a_key_makes_the_run_id_and_the_body_the_fingerprint_however_it_is_written() -> None:
    one = keyed({"start_date": "2026-11-01", "queue": False})
    assert one == keyed({"queue": False, "start_date": "2026-11-01"}) == keyed({"start_date": "2026-11-01"})
    assert RUN_ID.match(one[0])
    for other in (keyed({}), keyed({"start_date": "2026-11-01"}, route="a/b/d")):
        assert other[0] == one[0] and other[1] != one[1]
    assert keyed({}, "l")[0] != one[0] != keyed({}, org="globex")[0]


def test_an_organisation_and_a_key_are_never_those_of_another_pair() -> None:
    assert keyed({}, "b_k", org="acme")[0] != keyed({}, "k", org="acme_b")[0]


def test_without_a_key_each_request_is_a_run_of_its_own() -> None:
    assert keyed({}, None)[0] != keyed({}, None)[0] and keyed({}, None)[1] == ""


@pytest.mark.parametrize("field", ["queue", "backfill"])
def test_whether_a_run_may_wait_is_true_or_false_and_nothing_like_it(field: str) -> None:
    made = run_request("acme", "a/b/c", {field: True}, now=NOW, trigger="api")
    assert getattr(made, field) is True
    for wrong in ("yes", 1, "true"):
        with pytest.raises(InvalidFieldsError, match=field):
            run_request("acme", "a/b/c", {field: wrong}, now=NOW, trigger="api")
