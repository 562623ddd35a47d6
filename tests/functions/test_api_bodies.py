"""Bodies that are not what they should be: refused, each with what is wrong."""

import gzip
import json
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import Client, TestResponse

from functions.api import inputs
from tests.harness import OPERATOR, ORG, ROUTE, Harness

RUN = f"/pipelines/run/{ORG}/{ROUTE}"
JSON = {"Content-Type": "application/json"}


def send(harness: Harness, data: bytes, **headers: str) -> TestResponse:
    return harness.http("POST", RUN, data=data, headers={**JSON, **headers})


def refused(answer: TestResponse, status: int, says: str) -> None:
    body = json.loads(answer.data)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), answer.text
    assert says in body["detail"], body


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "not JSON"),
        (b"nothing", "not JSON"),
        (b"{} {}", "not JSON"),
        (b'{"start_date": NaN}', "NaN is not a number"),
        (b'{"start_date": -Infinity}', "is not a number"),
        (b'{"source": "a", "source": "b"}', "'source' is given twice"),
        (b"[" * 30_000, "not JSON"),
        (b"[" * 21 + b"]" * 21, "more than 20 deep"),
        (b'{"a":' * 21 + b"1" + b"}" * 21, "more than 20 deep"),
        (b"[" * 900 + b"]" * 900, "more than 20 deep"),
        (b"9" * 5_000, "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        ('{"source": "käse"}'.encode("latin-1"), "not UTF-8"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
    ],
)
def test_a_body_that_is_no_json_in_utf8_is_400(harness: Harness, data: bytes, says: str) -> None:
    refused(send(harness, data), 400, says)


@pytest.mark.parametrize("data", [b"[]", b'"{}"', b"null", b"5", b"true"])
def test_a_body_that_is_no_object_is_422(harness: Harness, data: bytes) -> None:
    refused(send(harness, data), 422, "must be a JSON object")


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/xml",
        "application/problem+json",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "multipart/form-data; boundary=x",
    ],
)
def test_a_body_of_another_type_or_charset_is_415(harness: Harness, content_type: str) -> None:
    refused(harness.http("POST", RUN, data=b"{}", headers={"Content-Type": content_type}), 415, "The body is")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", 'application/JSON;charset="UTF-8"'])
def test_json_in_utf8_is_taken_however_it_is_spelt(harness: Harness, content_type: str) -> None:
    assert harness.http("POST", RUN, data=b"{}", headers={"Content-Type": content_type}).status_code == 202


def test_no_body_at_all_asks_for_the_defaults(harness: Harness) -> None:
    assert harness.http("POST", RUN).status_code == 202
    assert harness.http("POST", RUN, headers={"Content-Type": "text/plain"}).status_code == 202


def test_a_compressed_body_is_415(harness: Harness) -> None:
    refused(send(harness, gzip.compress(b"{}"), **{"Content-Encoding": "gzip"}), 415, "compressed")


def test_a_body_too_large_is_413(harness: Harness) -> None:
    refused(send(harness, b" " * (inputs.MAX_BODY_BYTES + 1)), 413, "64 KiB")
    assert send(harness, b"{}" + b" " * (inputs.MAX_BODY_BYTES - 2)).status_code == 202


def test_a_chunked_body_too_large_is_413(harness: Harness) -> None:
    more = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    body = BytesIO(b" " * 10_000_000)
    answer = harness.http("POST", RUN, input_stream=body, headers=JSON, environ_overrides=more)
    refused(answer, 413, "64 KiB")
    assert body.read() == b"", "a client that is still sending hears no answer"


@pytest.mark.parametrize("length", ["100", "-1", "x", "1e3", "99999999999999999999"])
def test_a_body_that_is_not_as_long_as_it_says_is_refused(harness: Harness, length: str) -> None:
    headers = {"Authorization": f"Bearer {OPERATOR}", **JSON}
    answer = Client(harness.app).post(
        RUN, input_stream=BytesIO(b'{"source": "a'), headers=headers, environ_overrides={"CONTENT_LENGTH": length}
    )
    assert answer.status_code in (400, 413, 202), answer.text
    if answer.status_code == 202:  # what is no length is none: then there is no body
        assert length in ("-1", "x", "1e3")


@pytest.mark.parametrize("name", ["start_date", "end_date"])
@pytest.mark.parametrize("value", [1795132800, 0, True, "2026-11-20T00:00:00", "20261120", "2026-11-20 ", [], {}])
def test_a_day_is_written_as_a_day(harness: Harness, name: str, value: Any) -> None:
    refused(harness.http("POST", RUN, json={name: value}), 422, name)


@pytest.mark.parametrize("field", ["by", "reason"])
@pytest.mark.parametrize("value", ["", "  ", "\t", "a\nb", "a\x00b", "\u3000", 5, None, ["x"], "x" * 501])
def test_who_and_why_are_a_line_of_text(harness: Harness, field: str, value: Any) -> None:
    run_id = harness.start()
    body = {"by": "ana", "reason": "because", field: value}
    refused(harness.http("POST", f"/pipelines/cancel/{ORG}/{run_id}", json=body), 422, field)


def test_a_half_of_a_character_in_a_body_is_refused_in_words(harness: Harness) -> None:
    run_id = harness.start()
    answer = harness.http(
        "POST", f"/pipelines/cancel/{ORG}/{run_id}", data=rb'{"by": "\ud800", "reason": "x"}', headers=JSON
    )
    refused(answer, 422, "by")
    answer = harness.http("POST", f"/pipelines/cancel/{ORG}/{run_id}", data=rb'{"\ud800": 1}', headers=JSON)
    assert answer.status_code == 422


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=JSONISH | st.binary(max_size=200), content_type=st.sampled_from(["application/json", "text/x", ""]))
def test_no_body_whatever_crashes_the_function(harness: Harness, body: Any, content_type: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = harness.http("POST", RUN, data=data, headers={"Content-Type": content_type})
    assert answer.status_code in (202, 400, 415, 422, 429), answer.text
