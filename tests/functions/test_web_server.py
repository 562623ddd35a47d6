"""The embedded stack's server, over real sockets: no client keeps another from its answer."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from common.ports.logs import LogLine
from functions.api import logs
from infra.local import web
from infra.local.web import WebServer
from tests.harness import OPERATOR, ORG, ROUTE, Harness

pytestmark = pytest.mark.timeout(60)  # what waits for what it should not is found here, and is not to hang

SLOW = 20
PATIENCE_S = 30.0


@pytest.fixture
def server(harness: Harness) -> Iterator[WebServer]:
    """The server, on a free port."""
    made = WebServer(harness.app, "127.0.0.1", 0)
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.task_dispatcher.shutdown()
    made.close()
    for channel in list(made.active_channels.values()):
        channel.handle_close()
    thread.join(PATIENCE_S)


def connect(server: WebServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.effective_port)), timeout=PATIENCE_S)


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """Return a whole request, with the operator's key."""
    fields = {
        "Host": "x",
        "Authorization": f"Bearer {OPERATOR}",
        "Connection": "close",
        **({"Content-Type": "application/json", "Content-Length": str(len(body))} if body else {}),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return head.encode() + b"\r\n" + body


def read(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of an answer after which the server hangs up."""
    came = b""
    while piece := connection.recv(65_536):
        came += piece
    head, _, body = came.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def ask(server: WebServer, *args: Any, **more: Any) -> tuple[int, dict[str, str], bytes]:
    with connect(server) as connection:
        connection.sendall(request(*args, **more))
        return read(connection)


def problem(answer: tuple[int, dict[str, str], bytes], slug: str) -> None:
    status, headers, body = answer
    document = json.loads(body)
    assert headers["Content-Type"] == "application/problem+json"
    assert document["type"] == f"/problems/{slug}" and document["status"] == status, document


def until(holds: Callable[[], bool]) -> None:
    """Wait for what other threads are about to do."""
    waiting = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if holds():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not come to that")


def test_slow_senders_keep_nobody_from_an_answer(server: WebServer) -> None:
    """Slow loris: connections that send their request a byte at a time, in the head or in the body."""
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(SLOW)]
        for number, connection in enumerate(slow):
            whole = request("POST", f"/pipelines/run/{ORG}/{ROUTE}", b'{"start_date": "2026-11-20"}')
            connection.sendall(whole[: 10 if number % 2 else -5])
        until(lambda: sum(channel.request is not None for channel in list(server.active_channels.values())) == SLOW)
        assert ask(server, "GET", f"/pipelines/history/{ORG}")[0] == 200
        for connection in slow:
            connection.sendall(b"a")
        assert ask(server, "GET", "/health")[0] == 200
        assert sum(channel.request is not None for channel in list(server.active_channels.values())) == SLOW


def test_a_request_that_does_not_come_in_time_is_refused(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "REQUEST_S", 0.0)
    for part in (b"POST /x HT", request("POST", f"/pipelines/run/{ORG}/{ROUTE}", b'{"a": 1}')[:-3]):
        with connect(server) as connection:
            connection.sendall(part)
            until(lambda: any(channel.request is not None for channel in list(server.active_channels.values())))
            server.next_channel_cleanup = 0
            server.pull_trigger()
            until(lambda: any(channel.asked_at is not None for channel in list(server.active_channels.values())))
            server.next_channel_cleanup = 0
            server.pull_trigger()
            problem(read(connection), "request-timeout")


def test_an_answer_that_nobody_takes_is_broken_off(
    harness: Harness, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, closed = harness.start(), threading.Event()

    def endless(*_: Any, **__: Any) -> Iterator[LogLine]:
        try:
            while True:
                yield LogLine(harness.clock.now, "INFO", "x" * 60_000)
        finally:
            closed.set()

    monkeypatch.setattr(type(harness.engine.logs), "read", endless)
    with ExitStack() as stack:
        for _ in range(8):  # as many as there may be
            stalled = stack.enter_context(connect(server))
            stalled.sendall(request("GET", f"/pipelines/logs/{ORG}/{run_id}/download"))
        until(
            lambda: sum(one.total_outbufs_len >= web.WAITING_BYTES for one in [*server.active_channels.values()]) == 8
        )
        assert ask(server, "GET", f"/pipelines/logs/{ORG}/{run_id}/download")[0] == 503
        assert ask(server, "GET", f"/pipelines/status/{ORG}/{run_id}")[0] == 200
        monkeypatch.setattr(web, "STALLED_S", 0.0)
        server.next_channel_cleanup = 0
        server.pull_trigger()
        assert closed.wait(PATIENCE_S)
        until(lambda: logs.DOWNLOADS._free._value == 8)


def test_a_part_of_a_download_never_looks_like_all_of_it(
    harness: Harness, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = harness.start()

    def broken(*_: Any, **__: Any) -> Iterator[LogLine]:
        for number in range(5_000):
            yield LogLine(harness.clock.now, "INFO", f"line {number}")
        raise RuntimeError("gone")

    path = f"/pipelines/logs/{ORG}/{run_id}/download"
    assert ask(server, "GET", path)[2].endswith(b"0\r\n\r\n")
    monkeypatch.setattr(type(harness.engine.logs), "read", broken)
    status, headers, body = ask(server, "GET", path)
    assert status == 200 and headers["Transfer-Encoding"] == "chunked" and len(body) > 65_536
    assert not body.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("length", [web.MAX_BODY_BYTES, 10**18])
def test_a_body_that_is_far_too_large_is_not_taken_in(server: WebServer, length: int) -> None:
    with connect(server) as connection:
        head = request("POST", f"/pipelines/run/{ORG}/{ROUTE}", Content_Length=str(length), Content_Type="x")
        connection.sendall(head + b"a")
        problem(read(connection), "too-large")


def test_an_endless_chunked_body_is_not_taken_in(server: WebServer) -> None:
    with connect(server) as connection:
        connection.sendall(request("POST", f"/pipelines/run/{ORG}/{ROUTE}", Transfer_Encoding="chunked"))
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        # A client that goes on sending may hear the connection break before it hears the answer.
        with suppress(OSError):
            for _ in range(web.MAX_BODY_BYTES // 0x10000 + 1):
                connection.sendall(chunk)
            problem(read(connection), "too-large")
    until(lambda: not any(channel.request or channel.requests for channel in list(server.active_channels.values())))
    assert ask(server, "GET", "/health")[0] == 200


def test_a_chunked_body_beyond_the_apis_own_limit_is_413_too(server: WebServer) -> None:
    with connect(server) as connection:
        connection.sendall(
            request(
                "POST", f"/pipelines/run/{ORG}/{ROUTE}", Transfer_Encoding="chunked", Content_Type="application/json"
            )
        )
        connection.sendall(b"10001\r\n" + b" " * 0x10001 + b"\r\n0\r\n\r\n")
        problem(read(connection), "too-large")


@pytest.mark.parametrize("length", ["-1", "x", "5, 5", "+5"])
def test_a_length_that_is_none_is_refused(server: WebServer, length: str) -> None:
    with connect(server) as connection:
        connection.sendall(request("POST", f"/pipelines/run/{ORG}/{ROUTE}", Content_Length=length))
        problem(read(connection), "malformed-request")


def test_headers_that_are_too_long_are_refused(server: WebServer) -> None:
    with connect(server) as connection:
        connection.sendall(request("GET", "/health", X_Long="x" * web.MAX_HEADER_BYTES)[: web.MAX_HEADER_BYTES])
        problem(read(connection), "malformed-request")
