"""HTTP client for providers' APIs: bounded time, size and tries; the secret never appears in a message.

Only failures that a short wait can mend are retried here, within the attempt. A long ``Retry-After`` ends the attempt
with a TransientError instead, so that no function is held (and paid for) while it only waits.
"""

import json
import math
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import quote, urlencode, urlsplit

from common.domain.model import ErrorKind
from common.platform.errors import PermanentError, TransientError
from common.platform.retry import Backoff, retried
from common.ports.http import Calls

# A body is held in memory as bytes and again as parsed values: without a bound one response could exhaust the function.
MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_TRIES = 4
MAX_WAIT_S = 30.0
"""A longer wait is left to the engine, which frees the function meanwhile."""
# A later date is a server's mistake, and would hold the step until then.
MAX_RETRY_AFTER_S = 86_400.0
# Apart from each other: a host that does not accept connections is known to be down long before a slow report is late.
CONNECT_TIMEOUT_S = 10.0
# Between two chunks, not for the whole body; the attempt's deadline bounds the whole.
READ_TIMEOUT_S = 60.0
BACKOFF = Backoff(0.5, 8.0, jitter=False)
"""The defaults of OpenAI's own SDK (openai 3.52.0, _constants.py), for when the server names no time."""
MAX_MESSAGE_CHARS = 300
LOOPBACK = ("127.0.0.1", "::1", "localhost")

GONE = 410
"""The page's cursor has expired: the next attempt starts again at the first page."""

# 409 too: OpenAI's SDK retries it as a lock timeout.
_RETRIED = frozenset({408, 409, 429})
# Providers quote (masked) keys and tokens in their error messages, and those end up in logs and on runs.
_KEY_LIKE = re.compile(r"\b(?:sk|pk|key)-[\w*.\-]{4,}|\bya29\.[\w.\-]{4,}", re.ASCII)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")


class ProviderRefusedError(PermanentError):
    """The provider refused the request with this ``status``: the same request would be refused again."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ProviderNotFoundError(ProviderRefusedError):
    """The provider responded 404: it has no such address."""


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """Body of a 200, with decimals parsed as Decimal (None for a 204), and its headers by lower-case name."""

    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """The provider's own error code and message; empty strings if the body has none. ``region``: where S3 sends us."""

    code: str = ""
    message: str = ""
    region: str = ""


def json_error(body: bytes) -> ErrorBody:
    """Read ``{"error": {"code": …, "message": …}}``."""
    try:
        error = json.loads(body)["error"]
        code, message = error.get("code"), error["message"]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return ErrorBody()
    return ErrorBody(str(code or ""), message if isinstance(message, str) else "")


@dataclass(frozen=True, slots=True)
class Api:
    """An API, and what to do when it refuses the credential.

    ``error`` parses the body of an error. ``later`` are the error codes that mean "not now", whatever the status.
    ``hint`` says what to do about an error that has a cause of its own; empty for others.
    """

    key: str
    name: str
    credential_help: str
    error: Callable[[bytes], ErrorBody] = json_error
    later: frozenset[str] = frozenset()
    hint: Callable[[ErrorBody, Mapping[str, str]], str] = lambda _error, _headers: ""


Sign = Callable[[str, str, bytes], Mapping[str, str]]
"""Maps a request's method, full URL and body to the headers that sign it."""


class _FailedTryError(Exception):
    """A try failed and may be repeated. ``wait_s`` is the wait that the provider asked for, None if it named none."""

    def __init__(self, reason: str, wait_s: float | None = None, kind: ErrorKind = ErrorKind.UNAVAILABLE) -> None:
        super().__init__(reason.rstrip("."))
        self.wait_s, self.kind = wait_s, kind


class ProviderClient:
    """One connection pool to one provider, for one attempt. Use it as a context manager.

    ``headers`` hold the secret; ``secret`` is passed separately so that it can be removed from every message. ``sign``
    adds headers to each try. ``base`` replaces the provider's base URL: another of its addresses in the registry.
    """

    def __init__(
        self,
        context: Calls,
        api: Api,
        *,
        secret: str,
        headers: Mapping[str, str],
        base: str | None = None,
        sign: Sign | None = None,
    ) -> None:
        import httpx2

        # Checked here because httpx would fail on such a header with an error that quotes it.
        if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise PermanentError(
                f"The {api.name} credential {context.credential_id!r} is empty or holds characters that no key has "
                "(a space, a line end?). Add it again: main.py credentials add."
            )
        self._context, self._api, self._secret, self._sign = context, api, secret, sign
        self._base = (context.provider_url(api.key) if base is None else base).rstrip("/")
        self._streams: list[Any] = []
        self._origin = self._base.removesuffix(urlsplit(self._base).path)
        self._http = httpx2.Client(
            # Bodies are read undecoded, so that the size counted is the size held: gzip could unpack to 1,000 times.
            headers={"accept": "application/json", "accept-encoding": "identity", **headers},
            # A redirect could take the secret to an address that the registry does not name.
            follow_redirects=False,
            # A proxy from the environment can't reach this machine's own loopback.
            trust_env=urlsplit(self._base).hostname not in LOOPBACK,
        )

    def __enter__(self) -> Self:
        self._cut_off = self._context.interrupts(self._cut)
        self._cut_off.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._cut_off.__exit__(kind, error, at)
        self._http.close()

    def _trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Keep each connection's socket, while the request that opens it has no response yet (httpx's ``trace``)."""
        # Of TLS it is the second event that counts: wrapping a socket leaves the first one without a descriptor.
        if name.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._streams.append(info["return_value"])

    def _cut(self) -> None:
        """End the calls that wait for the provider. Another thread's: only a shutdown wakes a read that blocks."""
        for stream in list(self._streams):
            with suppress(OSError):  # it was closed before
                # Of the plain socket, not TLS's: its own shutdown would pull the session away from under the reader.
                socket.socket.shutdown(stream.get_extra_info("socket"), socket.SHUT_RDWR)

    def get_json(self, path: str, params: Sequence[tuple[str, str]] = ()) -> JsonAnswer:
        """GET ``path`` below the provider's base URL and return the parsed response.

        Retries 408, 409, 429, 5xx and broken connections after the wait in ``Retry-After``, or else 0.5 s, doubled
        each time. Raises TransientError if the tries run out, if the wait exceeds ``MAX_WAIT_S`` or the attempt's time,
        if the body is not JSON, and for a 410 (the page's cursor has expired). Its kind is RATE_LIMIT after a 429, else
        UNAVAILABLE. Raises ProviderNotFoundError for 404, PermanentError for every other refusal.
        """
        return self._answer("GET", path, {"params": list(params)})

    def post_form(self, path: str, form: Mapping[str, str]) -> JsonAnswer:
        """POST a form; as get_json. Only for requests that may be repeated, such as one for a token."""
        return self._answer("POST", path, {"data": dict(form)})

    def post_json(
        self, path: str, value: Any, params: Sequence[tuple[str, str]] = (), headers: Mapping[str, str] | None = None
    ) -> JsonAnswer:
        """POST JSON; as get_json. Only for requests that may be repeated, such as queries."""
        all_headers = {"content-type": "application/json", **(headers or {})}
        content = {"content": json.dumps(value).encode(), "params": list(params), "headers": all_headers}
        return self._answer("POST", path, content)

    def get_bytes(self, path: str, params: Sequence[tuple[str, str]] = ()) -> bytes:
        """GET ``path`` and return the body as it is; errors as get_json."""
        return self._retried("GET", path, {"params": list(params)}, lambda response: self._read(path, response))

    def download(self, path: str, target: Path, *, headers: Mapping[str, str] | None = None, limit: int) -> None:
        """GET ``path`` into a file of at most ``limit`` bytes, a chunk at a time; errors as get_json."""

        def write(response: Any) -> bool:
            with target.open("wb") as file:  # truncated: a try that broke off leaves nothing behind
                size = 0
                for chunk in response.iter_raw():
                    size += len(chunk)
                    if size > limit:
                        raise PermanentError(f"{self._api.name} {path}: the file is larger than {limit // 2**20} MiB.")
                    file.write(chunk)
                    self._context.remaining_s()  # a server that trickles never trips the read timeout
            return True

        self._retried("GET", path, {"headers": dict(headers or {})}, write)

    def _answer(self, method: str, path: str, content: Mapping[str, Any]) -> JsonAnswer:
        def parsed(response: Any) -> JsonAnswer:
            body = self._read(path, response)
            value = None if response.status_code == 204 else self._parse(path, body)
            return JsonAnswer(value, _lower(response.headers))

        return self._retried(method, path, content, parsed)

    def _retried[T](self, method: str, path: str, content: Mapping[str, Any], take: Callable[[Any], T]) -> T:
        where, tried = f"{self._api.name} {path}", 0

        def once() -> T:
            nonlocal tried
            tried += 1
            return self._try(method, path, content, take)

        def log_wait(error: BaseException, wait_s: float) -> None:
            self._context.info(f"{where}: {error}; next try in {wait_s:g} s.")

        try:
            return retried(
                once,
                on=_FailedTryError,
                backoff=BACKOFF,
                tries=MAX_TRIES,
                left_s=self._context.remaining_s,
                longest_rest_s=MAX_WAIT_S,
                asked_s=lambda error: error.wait_s if isinstance(error, _FailedTryError) else None,
                before_rest=log_wait,
                sleep=self._context.sleep,
            )
        except _FailedTryError as failed:
            hint = (
                f"Is {self._api.name} up (see its status page), and can it be reached from here?"
                if failed.wait_s is None
                else f"{self._api.name} asks to wait {failed.wait_s:g} s."
            )
            text = f"{where}: {failed} (try {tried} of {MAX_TRIES}). {hint}"
            raise TransientError(text, retry_after_s=failed.wait_s or 0.0, kind=failed.kind) from None

    def _try[T](self, method: str, path: str, content: Mapping[str, Any], take: Callable[[Any], T]) -> T:
        import httpx2

        query = urlencode(content.get("params", ()), quote_via=quote)
        content = {name: value for name, value in content.items() if name != "params"}
        left = self._context.remaining_s()
        timeout = httpx2.Timeout(min(READ_TIMEOUT_S, left), connect=min(CONNECT_TIMEOUT_S, left))
        try:
            # httpx2 would send a space as "+", and "a/./b" as "a/b": AWS reads both as other requests than the signed.
            url = self._base + path + (f"?{query}" if query else "")
            target = url.removeprefix(self._origin).encode("ascii")
            extensions = {"target": target, "trace": self._trace}
            request = self._http.build_request(method, url, timeout=timeout, extensions=extensions, **content)
            if self._sign is not None:
                request.headers.update(self._sign(method, url, request.content))
            with closing(self._http.send(request, stream=True)) as response:
                if response.status_code in (200, 204):
                    return take(response)
                body = self._read(path, response)
        except httpx2.TimeoutException:
            raise _FailedTryError("no answer in time") from None
        except (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError) as error:
            # The type alone: the text of such errors can quote a header, and with it the secret.
            raise _FailedTryError(f"the connection failed ({type(error).__name__})") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise PermanentError(
                f"{self._api.name} {path}: the request could not be sent ({type(error).__name__}). "
                f"Check the provider's base URL and the credential {self._context.credential_id!r}."
            ) from None
        raise self._refused(path, response.status_code, _lower(response.headers), body)

    def _read(self, path: str, response: Any) -> bytes:
        """Read the body in chunks, checking its size and the attempt's deadline at each."""
        chunks, size = [], 0
        for chunk in response.iter_raw():
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise PermanentError(
                    f"{self._api.name} {path}: the answer is larger than {MAX_BODY_BYTES // 2**20} MiB. "
                    "Run fewer days at once."
                )
            chunks.append(chunk)
            self._context.remaining_s()
        return b"".join(chunks)

    def _parse(self, path: str, body: bytes) -> Any:
        try:
            # Decimal from the text itself: money that was a float once no longer adds up to the last digit.
            return json.loads(body, parse_float=Decimal, parse_constant=_no_constant)
        except (ValueError, RecursionError, ArithmeticError):
            raise TransientError(
                f"{self._api.name} {path}: the answer of {len(body)} bytes is not valid JSON. "
                "It is read again in the next attempt; if that stays so, the provider (or a proxy) has a fault."
            ) from None

    def _refused(self, path: str, status: int, headers: Mapping[str, str], body: bytes) -> Exception:
        error = self._api.error(body)
        message = self._shown(error.message)
        where = f"{self._api.name} {path}"
        is_limit = status == 429 or error.code in self._api.later
        if is_limit or status in _RETRIED or status >= 500:
            kind = ErrorKind.RATE_LIMIT if is_limit else ErrorKind.UNAVAILABLE
            return _FailedTryError(f"answered {status}{message}", retry_after_s(headers, self._context.now()), kind)
        if hint := self._api.hint(error, headers):
            return ProviderRefusedError(f"{where}: answered {status}{message} {hint}", status)
        if status in (401, 403):
            return ProviderRefusedError(
                f"{where}: refused the credential {self._context.credential_id!r} with {status}{message} "
                f"{self._api.credential_help} Replace it: main.py credentials add.",
                status,
            )
        if status == GONE:
            return TransientError(f"{where}: answered 410{message} It is read from the first page again.")
        if status == 404:
            return ProviderNotFoundError(f"{where}: answered 404{message} Check the provider's base URL.", status)
        if status < 400:
            return PermanentError(
                f"{where}: answered {status}, which is not followed. Check the provider's base URL in "
                "configs/system/providers.yml."
            )
        return ProviderRefusedError(
            f"{where}: answered {status}{message} The same request would be refused again.", status
        )

    def _shown(self, message: str) -> str:
        """Return ``: <the provider's message>`` with the secret, and anything that looks like a key, replaced."""
        if not message.strip():
            return "."
        text = _KEY_LIKE.sub("[key]", message.replace(self._secret, "[key]"))
        text = _UNPRINTABLE.sub(" ", text).strip()  # a line break would forge a second line of the log
        text = text[:MAX_MESSAGE_CHARS] + (" …" if len(text) > MAX_MESSAGE_CHARS else "")
        return f": {text}" if text.endswith((".", "…")) else f": {text}."


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that the server asks to wait: ``retry-after-ms``, else the longest ``…retry-after`` header.

    Those hold seconds or an HTTP date. At least 0 and at most a day; None if no header can be read. Sources: RFC 9110
    section 10.2.3; ``retry-after-ms`` from OpenAI's SDK (openai 3.52.0, _base_client.py);
    ``x-ms-ratelimit-…-retry-after`` from Azure's Cost Management, which sends one for each limit: all must have passed.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return min(milliseconds / 1000, MAX_RETRY_AFTER_S)
    waits = [_wait_of(text, now) for name, text in headers.items() if name.endswith("retry-after")]
    longest = max((wait for wait in waits if wait is not None), default=None)
    return None if longest is None else min(longest, MAX_RETRY_AFTER_S)


def _wait_of(text: str, now: datetime) -> float | None:
    seconds = _number(text)
    if seconds is not None:
        return seconds
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if at.tzinfo is None:  # "-0000" in the date: the zone is unknown, and HTTP knows only GMT
        at = at.replace(tzinfo=UTC)
    return max((at - now).total_seconds(), 0.0)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
