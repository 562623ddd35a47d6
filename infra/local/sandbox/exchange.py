"""Requests and answers, as the sandbox's server exchanges them with its provider modules."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``query`` keeps repeated parameters in their order; header names are in lower case.

    ``form`` holds the fields of a POST, ``body`` its bytes. ``target`` is path and query exactly as they were sent:
    signatures cover it.
    """

    path: str
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    method: str = "GET"
    form: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    target: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. A ``body`` of bytes is sent unchanged, so it can be malformed; ``delay_s`` delays it."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0

    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def content_answer(request: Request, content: bytes, headers: Mapping[str, str], *, header: str = "range") -> Answer:
    """Return an object's content, or the part that ``header`` asks for. 416 where the content has no such part."""
    asked = request.headers.get(header)
    if asked is None:
        return Answer(200, content, {"accept-ranges": "bytes", **headers})
    match = _RANGE.fullmatch(asked)
    first = int(match[1]) if match else 0
    last = min(int(match[2]), len(content) - 1) if match and match[2] else len(content) - 1
    if match is None or not first <= last:
        return Answer(416, b"", {"content-range": f"bytes */{len(content)}"})
    where = {"content-range": f"bytes {first}-{last}/{len(content)}", "accept-ranges": "bytes"}
    return Answer(206, content[first : last + 1], {**where, **headers})


class ProviderSandbox(Protocol):
    """One provider's API: a module of its own beside this one, and a line in ``server.PROVIDERS``."""

    settled: bool
    """Whether usage that is reported late has arrived; when this becomes true, reports of earlier days change."""

    @property
    def key(self) -> str:
        """The provider's key in the registry."""

    @property
    def base(self) -> str:
        """The path of the provider's base URL, e.g. ``/v1``."""

    @property
    def secret(self) -> str:
        """The credential that it accepts."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Paths that belong to the provider start with one of these."""

    def refuse(self, request: Request) -> Answer | None:
        """Return the refusal of a request that is not authorised, or None."""

    def answer(self, request: Request) -> Answer:
        """Return what the provider answers to an authorised request."""

    def rate_limited(self) -> Answer:
        """Return the provider's 429, with its Retry-After."""
