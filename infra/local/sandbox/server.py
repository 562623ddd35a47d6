"""A small HTTP server that speaks the documented usage APIs of GenAI providers, with made-up usage from a seed.

It replaces the providers in the demo, in tests and during development. It binds to loopback only.
"""

import socketserver
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from infra.local.sandbox.anthropic import AnthropicSandbox
from infra.local.sandbox.aws_ce import CostExplorerSandbox
from infra.local.sandbox.aws_s3 import S3Sandbox
from infra.local.sandbox.azure import BlobSandbox, LoginSandbox, QuerySandbox
from infra.local.sandbox.deepseek import DeepSeekSandbox
from infra.local.sandbox.exchange import Answer, ProviderSandbox, Request
from infra.local.sandbox.gcp import BillingSandbox, TableSandbox
from infra.local.sandbox.gemini import GeminiSandbox
from infra.local.sandbox.oci import ReportsSandbox, UsageSandbox
from infra.local.sandbox.openai import ADMIN_KEY, OpenAISandbox
from infra.local.sandbox.service_accounts import TokenSandbox

SANDBOX_ADMIN_KEY = ADMIN_KEY
"""The admin key that the OpenAI sandbox accepts."""

PROVIDERS: tuple[Callable[[int], ProviderSandbox], ...] = (
    OpenAISandbox,
    AnthropicSandbox,
    DeepSeekSandbox,
    GeminiSandbox,
    S3Sandbox,
    CostExplorerSandbox,
    LoginSandbox,
    BlobSandbox,
    QuerySandbox,
    ReportsSandbox,
    UsageSandbox,
    TokenSandbox,
    BillingSandbox,
    TableSandbox,
)

SANDBOXED = frozenset(make(0).key.partition("_")[0] for make in PROVIDERS)
"""The providers that have a sandbox, by their key in the registry. Only these can be run by the demo and by tests."""

RATE_LIMIT_EVERY = 7
"""A run reads about 12 pages, so it gets one or two 429s, and never for the retry of one."""

MAX_FORM_BYTES = 65_536

FailWith = Callable[[Request], Answer | None] | Iterable[Answer | None]


class SandboxServer:
    """The server, on a thread. ``urls`` are the providers' base URLs by key.

    ``url`` is OpenAI's base URL; ``requests`` are those that came, in order. Unless ``settled``, some of the usage is
    not reported yet; ``settle()`` reports it.

    ``rate_limit_every`` refuses every nth authorised request with a 429 (0: never). ``fail_with`` replaces answers,
    for tests: a function of the request, or a sequence with one answer per request; None lets a request through.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        port: int = 0,
        rate_limit_every: int = RATE_LIMIT_EVERY,
        fail_with: FailWith | None = None,
        settled: bool = True,
    ) -> None:
        self._providers = [make(seed) for make in PROVIDERS]
        for provider in self._providers:
            provider.settled = settled
        self._port, self._every, self._authorised = port, rate_limit_every, 0
        self._injected = fail_with if callable(fail_with) else _in_turn(iter(fail_with or ()))
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self.requests: deque[Request] = deque(maxlen=10_000)
        self.urls: dict[str, str] = {}
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Serve from now on. Raises OSError if the port is taken."""
        self._server = _Server(("127.0.0.1", self._port), _handler(self))
        origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.urls = {provider.key: origin + provider.base for provider in self._providers}
        self.url = self.urls["openai"]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="sandbox", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and free the port; answers being delayed are cut short."""
        self._stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def wait(self) -> None:
        """Block until the server is stopped."""
        self._thread.join()

    @property
    def secrets(self) -> dict[str, str]:
        """The credential that each provider accepts, by key."""
        return {provider.key: provider.secret for provider in self._providers}

    def provider(self, key: str) -> ProviderSandbox:
        """Return one provider's module, for tests that change its data."""
        return next(its for its in self._providers if its.key == key)

    def settle(self) -> None:
        """Report the late usage: the figures of its days change."""
        for provider in self._providers:
            provider.settled = True

    def respond(self, request: Request) -> Answer:
        """Return the answer to a request; a delayed one only after its delay."""
        with self._lock:
            self.requests.append(request)
            injected = self._injected(request)
        answer = injected or self._provider_answer(request)
        if answer.delay_s:
            self._stopping.wait(answer.delay_s)
        return answer

    def _provider_answer(self, request: Request) -> Answer:
        provider = next((p for p in self._providers if request.path.startswith(p.prefixes)), None)
        if provider is None:
            known = ", ".join(prefix for p in self._providers for prefix in p.prefixes)
            return Answer(404, {"error": {"message": f"Invalid URL (GET {request.path}). Known: {known}"}})
        refusal = provider.refuse(request)
        if refusal is not None:
            return refusal
        with self._lock:
            self._authorised += 1
            limited = self._every > 0 and self._authorised % self._every == 0
        return provider.rate_limited() if limited else provider.answer(request)


def _in_turn(answers: Iterator[Answer | None]) -> Callable[[Request], Answer | None]:
    return lambda _request: next(answers, None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without HTTPServer's reverse look-up of the host's name, which can hang where DNS does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]


def _handler(sandbox: SandboxServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60
        disable_nagle_algorithm = True  # headers and body are two writes: without this each answer waits 40 ms

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            length = min(int(self.headers.get("content-length") or 0), MAX_FORM_BYTES)
            self._answer(self.rfile.read(length))

        def _answer(self, body: bytes = b"") -> None:
            url = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = parse_qsl(url.query, keep_blank_values=True)
            form = dict(parse_qsl(body.decode("ascii", "replace")))
            answer = sandbox.respond(Request(url.path, query, headers, self.command, form, body, self.path))
            content = answer.content()
            self.send_response(answer.status)
            fixed = {"content-type": "application/json", "content-length": str(len(content))}
            for name, value in {**fixed, **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Log nothing: the caller reports."""

    return Handler
