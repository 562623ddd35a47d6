"""The client that every provider is read with: what it retries, how long it waits, and what it never says."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from common.domain.model import ErrorKind
from common.platform.errors import LostLeaseError, PermanentError, StepTimeoutError, TransientError
from common.platform.stop import Stop
from common.processors.http import client as provider_http
from common.processors.http.client import Api, ProviderClient, ProviderNotFoundError, retry_after_s
from tests.processors.context import NOW, make_context

SECRET = "sk-admin-canary-77aa"
API = Api("acme", "Acme", "It needs the scope usage.read.")

Reply = tuple[int, dict[str, str], bytes]
OK: Reply = (200, {}, b'{"ok": true}')


class Provider:
    """A server on a free port that gives its replies in order, the last one for ever."""

    def __init__(self, *replies: Reply) -> None:
        self.replies, self.seen = list(replies), list[str]()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.seen.append(self.path)
                status, headers, body = owner.replies[min(len(owner.seen), len(owner.replies)) - 1]
                self.send_response(status)
                for name, value in {"content-length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def provider() -> Iterator[Callable[..., Provider]]:
    started: list[Provider] = []

    def start(*replies: Reply) -> Provider:
        made = Provider(*replies)
        threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        started.append(made)
        return made

    yield start
    for one in started:
        one.server.shutdown()
        one.server.server_close()


@contextmanager
def client_of(url: str, secret: str = SECRET, **overrides: Any) -> Iterator[tuple[ProviderClient, Any]]:
    context = make_context(provider_url=lambda _key: url, **overrides)
    with ProviderClient(context, API, secret=secret, headers={"authorization": f"Bearer {secret}"}) as client:
        yield client, context


def error_body(message: str) -> bytes:
    return b'{"error": {"message": "%s", "type": "t", "param": null, "code": null}}' % message.encode()


def test_numbers_with_a_point_are_decimals_and_header_names_lower_case(provider: Any) -> None:
    server = provider((200, {"X-Org": "o"}, b'{"cost": 0.1000000000000000000001}'))
    with client_of(server.url) as (client, _):
        answer = client.get_json("/usage", [("group_by[]", "model"), ("limit", "7")])
    assert answer.body == {"cost": Decimal("0.1000000000000000000001")}
    assert answer.headers["x-org"] == "o"
    assert server.seen == ["/usage?group_by%5B%5D=model&limit=7"]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_what_a_wait_may_mend_is_tried_again(provider: Any, status: int) -> None:
    server = provider((status, {}, b""), OK)
    with client_of(server.url) as (client, context):
        assert client.get_json("/x").body == {"ok": True}
    assert context.time.slept == [0.5]


def test_the_wait_is_the_one_that_retry_after_names(provider: Any) -> None:
    server = provider((429, {"Retry-After": "7"}, b""), (429, {"retry-after-ms": "1500", "Retry-After": "9"}, b""), OK)
    with client_of(server.url) as (client, context):
        client.get_json("/x")
    assert context.time.slept == [7.0, 1.5]


def test_a_retry_after_date_counts_from_now(provider: Any) -> None:
    server = provider((503, {"Retry-After": "Sat, 21 Nov 2026 06:00:12 GMT"}, b""), OK)  # NOW is 06:00:00
    with client_of(server.url) as (client, context):
        client.get_json("/x")
    assert context.time.slept == [12.0]


def test_a_long_retry_after_is_left_to_the_engine(provider: Any) -> None:
    server = provider((429, {"Retry-After": "31"}, b""))
    with client_of(server.url) as (client, context), pytest.raises(TransientError) as caught:
        client.get_json("/x")
    assert caught.value.retry_after_s == 31
    assert (context.time.slept, len(server.seen)) == ([], 1)


def test_a_wait_beyond_the_deadline_is_not_begun(provider: Any) -> None:
    server = provider((429, {"Retry-After": "20"}, b""))
    deadline = NOW + timedelta(seconds=15)
    with client_of(server.url, deadline=deadline) as (client, context), pytest.raises(TransientError) as caught:
        client.get_json("/x")
    assert caught.value.retry_after_s == 20
    assert context.time.slept == []


def test_tries_are_counted_and_back_off(provider: Any) -> None:
    server = provider((500, {}, b""))
    with client_of(server.url) as (client, context), pytest.raises(TransientError, match="answered 500.*try 4 of 4"):
        client.get_json("/x")
    assert context.time.slept == [0.5, 1.0, 2.0]
    assert len(server.seen) == 4


@pytest.mark.parametrize(
    ("replies", "kind"),
    [
        ([429], ErrorKind.RATE_LIMIT),
        ([500, 500, 500, 429], ErrorKind.RATE_LIMIT),
        ([429, 429, 429, 503], ErrorKind.UNAVAILABLE),
        ([408], ErrorKind.UNAVAILABLE),
        ([409], ErrorKind.UNAVAILABLE),
        ([200], ErrorKind.UNAVAILABLE),  # a body that is not JSON
    ],
)
def test_the_last_try_says_what_kind_of_failure_it_was(provider: Any, replies: list[int], kind: ErrorKind) -> None:
    server = provider(*((status, {}, b"") for status in replies))
    with client_of(server.url) as (client, _), pytest.raises(TransientError) as caught:
        client.get_json("/x")
    assert caught.value.kind is kind


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_credential_is_permanent_and_says_what_to_do(provider: Any, status: int) -> None:
    server = provider((status, {}, error_body("Missing scopes: usage.read")))
    with client_of(server.url) as (client, _), pytest.raises(PermanentError) as caught:
        client.get_json("/x")
    text = str(caught.value)
    for part in (str(status), "'cred_openai'", "Missing scopes: usage.read.", API.credential_help, "credentials add"):
        assert part in text
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [400, 405, 413, 422])
def test_another_refusal_is_permanent_with_the_providers_words(provider: Any, status: int) -> None:
    server = provider((status, {}, error_body("Limit must be less than or equal to 31")))
    with client_of(server.url) as (client, _), pytest.raises(PermanentError, match=f"{status}: Limit must be less"):
        client.get_json("/x")
    assert len(server.seen) == 1


def test_not_found_can_be_told_apart(provider: Any) -> None:
    with client_of(provider((404, {}, b"gone")).url) as (client, _), pytest.raises(ProviderNotFoundError, match="404"):
        client.get_json("/x")


def test_redirects_are_not_followed(provider: Any) -> None:
    elsewhere = provider(OK)
    server = provider((302, {"Location": elsewhere.url}, b""))
    with client_of(server.url) as (client, _), pytest.raises(PermanentError, match="302, which is not followed"):
        client.get_json("/x")
    assert elsewhere.seen == []


@pytest.mark.parametrize(
    "body",
    [b'{"data": [', b"<html>", b"", b"\xff\xfe\x00", b'{"a": NaN}', b"[" * 200_000, b"9" * 5_000],
    ids=["cut", "html", "empty", "bytes", "nan", "deep", "long"],
)
def test_malformed_json_is_transient(provider: Any, body: bytes) -> None:
    with client_of(provider((200, {}, body)).url) as (client, _), pytest.raises(TransientError, match="not valid JSON"):
        client.get_json("/x")


def test_a_body_is_bounded(provider: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_http, "MAX_BODY_BYTES", 1000)
    server = provider((200, {}, b'"' + b"x" * 1000 + b'"'))
    with client_of(server.url) as (client, _), pytest.raises(PermanentError, match="larger than"):
        client.get_json("/x")


def test_a_connection_that_nobody_accepts_is_transient() -> None:
    with socket.socket() as taken:  # bound, not listening: connecting is refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with (
            client_of(url) as (client, context),
            pytest.raises(TransientError, match=r"connection failed \(ConnectErr") as caught,
        ):
            client.get_json("/x")
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert context.time.slept == [0.5, 1.0, 2.0]


def test_a_server_that_never_answers_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_http, "READ_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with client_of(url) as (client, _), pytest.raises(TransientError, match="no answer in time"):
            client.get_json("/x")


def test_a_call_of_a_provider_that_hangs_ends_when_the_work_has_to() -> None:
    stop, ended = Stop(), list[BaseException]()

    def call(url: str) -> None:
        try:
            with client_of(url, stop=stop) as (client, _):
                client.get_json("/x")
        except LostLeaseError as error:
            ended.append(error)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        caller = threading.Thread(target=call, args=[f"http://127.0.0.1:{silent.getsockname()[1]}"])
        caller.start()
        connection, _ = silent.accept()
        assert connection.recv(65_536).startswith(b"GET /x")  # sent: from now on it waits for the response
        stop.request()
        caller.join(10)
        connection.close()
    assert not caller.is_alive() and len(ended) == 1


def test_no_page_is_asked_for_once_the_work_has_to_end(provider: Any) -> None:
    acme, stop = provider(OK), Stop()
    with client_of(acme.url, stop=stop) as (client, _):
        client.get_json("/1")
        stop.request()
        with pytest.raises(LostLeaseError):
            client.get_json("/2")
    assert acme.seen == ["/1"]


def test_no_request_is_made_once_the_time_is_up(provider: Any) -> None:
    server = provider(OK)
    with client_of(server.url, deadline=NOW) as (client, _), pytest.raises(StepTimeoutError):
        client.get_json("/x")
    assert server.seen == []


@pytest.mark.parametrize("secret", [SECRET, "no-known-form-77aa"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_an_error_never_repeats_the_secret_even_if_the_provider_does(
    provider: Any, status: int, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    server = provider((status, {}, error_body(f"Incorrect API key provided: {secret} (sk-admin*****77aa)")))
    with client_of(server.url, secret) as (client, context), pytest.raises((PermanentError, TransientError)) as caught:
        client.get_json("/x")
    said = [str(caught.value), repr(caught.value), caplog.text, *context.infos, *context.warnings]
    assert all("77aa" not in text for text in said)


def test_an_unsendable_header_does_not_show_the_secret() -> None:
    context = make_context(provider_url=lambda _key: "http://127.0.0.1:1")
    headers = {"authorization": f"Bearer {SECRET}\r\nx: y"}
    with (
        ProviderClient(context, API, secret=SECRET, headers=headers) as client,
        pytest.raises((PermanentError, TransientError)) as caught,
    ):
        client.get_json("/x")
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("secret", ["", "sk-\n", "sk- x", "sk-é"])
def test_a_secret_that_can_be_no_key_is_refused_without_showing_it(secret: str) -> None:
    with pytest.raises(PermanentError, match="credentials add") as caught:
        ProviderClient(make_context(), API, secret=secret, headers={})
    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "1e300"}, 86_400.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86_400.0),
    ],
)
def test_a_retry_after_is_read_or_ignored(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, datetime(2026, 11, 21, tzinfo=UTC)) == seconds
