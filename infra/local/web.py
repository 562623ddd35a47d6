"""The HTTP server of the embedded stack: waitress, with limits for slow, large and many requests.

Waitress reads requests on one thread and passes on complete ones, so a slow sender occupies only a connection. It does
not end requests that never complete or responses that no client reads; that is done here.
"""

import json
from typing import Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask
from waitress.utilities import BadRequest

from common.platform import problems

THREADS = 32
"""Followers and downloads of logs hold one each, at most sixteen; the rest is for other requests."""

CONNECTIONS = 1_000
"""Further connections wait in the system's queue: each open one costs a file descriptor."""
MAX_BODY_BYTES = 2 * 1024 * 1024
"""Largest body that is read at all. The API's own limit is lower and responds with a problem document."""

MAX_HEADER_BYTES = 32 * 1024
REQUEST_S = 30.0
"""Time in which a complete request must arrive."""

STALLED_S = 60.0
"""A response of which the client has read nothing for this long is cut off, which frees its thread."""

WAITING_BYTES = 1024 * 1024
"""Unread part of a response that is buffered; beyond it, the application waits for the client."""

IDLE_S = 120
LOOK_EVERY_S = 5

_KINDS = {408: problems.TOO_SLOW, 413: problems.TOO_LARGE, 500: problems.INTERNAL}


class RequestTimeout(BadRequest):  # type: ignore[misc]  # untyped
    """The request did not arrive in time."""

    code = 408
    reason = "Request Timeout"


class ProblemTask(ErrorTask):  # type: ignore[misc]  # untyped
    """Responds to requests that never reach the application, with a problem document."""

    def execute(self) -> None:
        error = self.request.error
        kind = _KINDS.get(error.code, problems.MALFORMED)
        detail = kind.meaning if kind is problems.INTERNAL else f"{error.reason}: {error.body}"
        body = json.dumps(problems.document(kind, detail)).encode()
        self.status = f"{kind.status} {error.reason}"
        self.response_headers.append(("Content-Type", "application/problem+json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):  # type: ignore[misc]  # untyped
    """One connection."""

    error_task_class = ProblemTask
    request: Any = None
    asked_at: float | None = None
    """When the first part of an incomplete request was noticed."""

    def is_stalled(self, now: float) -> bool:
        """Whether the client has not read its response for too long."""
        return bool(self.requests) and self.total_outbufs_len > 0 and now - self.last_activity > STALLED_S

    def is_too_slow(self, now: float) -> bool:
        """Whether a request has been incomplete for too long."""
        if self.request is None or self.requests:
            self.asked_at = None
            return False
        if self.asked_at is None:
            self.asked_at = now
        return now - self.asked_at > REQUEST_S

    def refuse(self) -> None:
        """Respond 408 to an incomplete request and close the connection."""
        with self.requests_lock:  # waitress's own lock: the request may become complete at this moment
            request = self.request
            self.request = None
            if request is not None and not self.requests:
                request.error = RequestTimeout(f"it did not arrive within {REQUEST_S:.0f} s.")
                request.completed = True
                self.requests.append(request)
                self.server.add_task(self)


class WebServer(TcpWSGIServer):  # type: ignore[misc]  # untyped
    """Serves a WSGI application on one address. ``run`` blocks until ``close``."""

    channel_class = Channel

    def __init__(self, app: Any, host: str, port: int) -> None:
        adjustments = Adjustments(
            host=host,
            port=port,
            threads=THREADS,
            ident="pipeline-ops",
            connection_limit=CONNECTIONS,
            max_request_body_size=MAX_BODY_BYTES,
            max_request_header_size=MAX_HEADER_BYTES,
            outbuf_high_watermark=WAITING_BYTES,
            channel_timeout=IDLE_S,
            cleanup_interval=LOOK_EVERY_S,
            asyncore_use_poll=True,  # select() fails for file descriptors above 1,023, and SQLite's files count too
        )
        super().__init__(app, {}, adj=adjustments)

    def maintenance(self, now: float) -> None:
        """End slow requests and unread responses; the server calls this every few seconds."""
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            if channel.is_too_slow(now):
                channel.refuse()
            elif channel.is_stalled(now):
                # Not by waitress's flag, which it checks only when the socket is writable: this one never is.
                channel.handle_close()
