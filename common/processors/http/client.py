"""JSON from a provider's API: bounded in time, in size and in tries, and silent about the secret.

What is retried here is what a short wait mends within the attempt. A long ``Retry-After`` ends the attempt with a
TransientError instead, so that no function is held (and paid for) while it only waits.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit

from common.domain.model import ErrorKind
from common.platform.errors import PermanentError, TransientError
from common.platform.retry import Backoff, retried
from common.ports.http import Calls

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_TRIES = 4
MAX_WAIT_S = 30.0
"""A longer wait is the engine's: it frees the function meanwhile."""
MAX_RETRY_AFTER_S = 86_400.0
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
BACKOFF = Backoff(0.5, 8.0, jitter=False)
"""What OpenAI's own SDK waits when the server names no time."""
MAX_MESSAGE_CHARS = 300
LOOPBACK = ("127.0.0.1", "::1", "localhost")

GONE = 410
"""A page's cursor has expired: another attempt reads from the first page again."""

_RETRIED = frozenset({408, 409, 429})
_KEY_LIKE = re.compile(r"\b(?:sk|pk|key)-[\w*.\-]{4,}|\bya29\.[\w.\-]{4,}", re.ASCII)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")


class ProviderNotFoundError(PermanentError):
    """The provider answered 404: it has no such address."""


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """A 200's body (numbers with a point are Decimal) and its headers, names in lower case."""

    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """The provider's own code and message in the body of an error; empty if there are none."""

    code: str = ""
    message: str = ""


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
    """Which API is read, and what a person has to do when it refuses the credential.

    ``error`` reads the body of an error. ``later`` are codes of such that mean "not now", whatever status they come
    with.
    """

    key: str
    name: str
    credential_help: str
    error: Callable[[bytes], ErrorBody] = json_error
    later: frozenset[str] = frozenset()


Sign = Callable[[str, str, bytes], Mapping[str, str]]
"""Returns the headers that sign a request, of its method, its whole URL and its body."""


class _FailedTryError(Exception):
    """A try that another one may mend. ``wait_s`` is what the provider asked for, None if it did not."""

    def __init__(self, reason: str, wait_s: float | None = None, kind: ErrorKind = ErrorKind.UNAVAILABLE) -> None:
        super().__init__(reason.rstrip("."))
        self.wait_s, self.kind = wait_s, kind


class ProviderClient:
    """One connection pool to one provider, for one attempt. Use it as a context manager.

    ``headers`` hold the secret; ``secret`` is given apart so that no message can ever repeat it. ``sign`` makes more
    headers, anew for each try. ``base`` takes the place of the provider's base URL: another of its addresses in the
    registry.
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

        if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise PermanentError(
                f"The {api.name} credential {context.credential_id!r} is empty or holds characters that no key has "
                "(a space, a line end?). Add it again: main.py credentials add."
            )
        self._context, self._api, self._secret, self._sign = context, api, secret, sign
        self._base = (context.provider_url(api.key) if base is None else base).rstrip("/")
        self._http = httpx2.Client(
            headers={"accept": "application/json", "accept-encoding": "identity", **headers},
            follow_redirects=False,
            # A proxy from the environment can't reach this machine's own loopback.
            trust_env=urlsplit(self._base).hostname not in LOOPBACK,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get_json(self, path: str, params: Sequence[tuple[str, str]] = ()) -> JsonAnswer:
        """Return the answer to a GET of ``path`` below the provider's base URL.

        Retries 408, 409, 429, 5xx and broken connections, waiting as ``Retry-After`` says or 0.5 s doubling.
        Raises TransientError when that does not help or the wait is longer than ``MAX_WAIT_S`` or the attempt has
        left, or the body is not JSON; it is of kind RATE_LIMIT after a 429, else UNAVAILABLE. A 410, too, is one:
        that page's cursor has expired. Raises ProviderNotFoundError for 404, PermanentError for every other refusal.
        """
        return self._answer("GET", path, {"params": list(params)})

    def post_form(self, path: str, form: Mapping[str, str]) -> JsonAnswer:
        """Return the answer to a form sent to ``path``, for a request that may be repeated (a token's); as get_json."""
        return self._answer("POST", path, {"data": dict(form)})

    def post_json(
        self, path: str, value: Any, params: Sequence[tuple[str, str]] = (), headers: Mapping[str, str] | None = None
    ) -> JsonAnswer:
        """Return the answer to JSON sent to ``path``, for a request that may be repeated (a query's); as get_json."""
        sent = {"content-type": "application/json", **(headers or {})}
        content = {"content": json.dumps(value).encode(), "params": list(params), "headers": sent}
        return self._answer("POST", path, content)

    def get_bytes(self, path: str, params: Sequence[tuple[str, str]] = ()) -> bytes:
        """Return the body of the answer to a GET, whatever it is; as get_json."""
        return self._retried("GET", path, {"params": list(params)}, lambda response: self._read(path, response))

    def download(self, path: str, target: Path, *, headers: Mapping[str, str] | None = None, limit: int) -> None:
        """Write the answer to a GET to a file, of at most ``limit`` bytes; as get_json. Memory stays flat."""

        def write(response: Any) -> bool:
            with target.open("wb") as file:  # anew with each try
                size = 0
                for chunk in response.iter_raw():
                    size += len(chunk)
                    if size > limit:
                        raise PermanentError(f"{self._api.name} {path}: the file is larger than {limit // 2**20} MiB.")
                    file.write(chunk)
                    self._context.remaining_s()
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

        def log_rest(error: BaseException, rest_s: float) -> None:
            self._context.info(f"{where}: {error}; next try in {rest_s:g} s.")

        try:
            return retried(
                once,
                on=_FailedTryError,
                backoff=BACKOFF,
                tries=MAX_TRIES,
                left_s=self._context.remaining_s,
                longest_rest_s=MAX_WAIT_S,
                asked_s=lambda error: error.wait_s if isinstance(error, _FailedTryError) else None,
                before_rest=log_rest,
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

        left = self._context.remaining_s()
        timeout = httpx2.Timeout(min(READ_TIMEOUT_S, left), connect=min(CONNECT_TIMEOUT_S, left))
        try:
            request = self._http.build_request(method, self._base + path, timeout=timeout, **content)
            if self._sign is not None:
                request.headers.update(self._sign(method, str(request.url), request.content))
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
        """Read the body as it comes; the deadline counts during a slow one too."""
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
            return json.loads(body, parse_float=Decimal, parse_constant=_no_constant)
        except (ValueError, RecursionError, ArithmeticError):
            raise TransientError(
                f"{self._api.name} {path}: the answer of {len(body)} bytes is not valid JSON. "
                "It is read again in the next attempt; if that stays so, the provider (or a proxy) has a fault."
            ) from None

    def _refused(self, path: str, status: int, headers: Mapping[str, str], body: bytes) -> Exception:
        answer = self._api.error(body)
        message = self._shown(answer.message)
        where = f"{self._api.name} {path}"
        is_limit = status == 429 or answer.code in self._api.later
        if is_limit or status in _RETRIED or status >= 500:
            kind = ErrorKind.RATE_LIMIT if is_limit else ErrorKind.UNAVAILABLE
            return _FailedTryError(f"answered {status}{message}", retry_after_s(headers, self._context.now()), kind)
        if status in (401, 403):
            return PermanentError(
                f"{where}: refused the credential {self._context.credential_id!r} with {status}{message} "
                f"{self._api.credential_help} Replace it: main.py credentials add."
            )
        if status == GONE:
            return TransientError(f"{where}: answered 410{message} It is read from the first page again.")
        if status == 404:
            return ProviderNotFoundError(f"{where}: answered 404{message} Check the provider's base URL.")
        if status < 400:
            return PermanentError(
                f"{where}: answered {status}, which is not followed. Check the provider's base URL in "
                "configs/system/providers.yml."
            )
        return PermanentError(f"{where}: answered {status}{message} The same request would be refused again.")

    def _shown(self, message: str) -> str:
        """Return ``: <the provider's own message>``, without the secret or anything that looks like a key."""
        if not message.strip():
            return "."
        text = _KEY_LIKE.sub("[key]", message.replace(self._secret, "[key]"))
        text = _UNPRINTABLE.sub(" ", text).strip()
        text = text[:MAX_MESSAGE_CHARS] + (" …" if len(text) > MAX_MESSAGE_CHARS else "")
        return f": {text}" if text.endswith((".", "…")) else f": {text}."


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds a server asks to wait: ``retry-after-ms``, else the longest of all headers ``…retry-after``.

    Those hold seconds or an HTTP date. Never negative, at most a day (a later date is a server's mistake); None when
    none of them can be read. Sources: RFC 9110 section 10.2.3; ``retry-after-ms`` from OpenAI's SDK (openai 3.52.0,
    _base_client.py); ``x-ms-ratelimit-…-retry-after``, one for each limit, from Azure's Cost Management.
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
