"""A server on loopback that takes notifications and answers as it is told."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """One POST."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """``answer`` gives the status of a POST; 200 if there is none. ``drip`` sends that many bytes, one in 50 ms."""

    answer: Callable[[Received], int] = lambda _received: 200
    headers: dict[str, str] = field(default_factory=dict)
    drip: int = 0
    received: list[Received] = field(default_factory=list)
    url: str = ""


@contextmanager
def receiving(**how: Any) -> Iterator[Receiver]:
    """Serve for the time of the block."""
    receiver = Receiver(**how)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            receiver.received.append(got)
            self.send_response(receiver.answer(got))
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.end_headers()
            for _ in range(receiver.drip):
                time.sleep(0.05)
                self.wfile.write(b"x")
                self.wfile.flush()

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
