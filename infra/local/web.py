"""The HTTP server of the embedded stack: waitress, with bounds for clients that are slow, large or many.

Waitress takes requests in on one thread and hands over whole ones, so that a client that sends slowly costs a
connection and no more. What it leaves open is closed here: a request that never ends, an answer that nobody takes.
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
"""Followers and downloads of logs hold one each, sixteen at most: the rest is for everybody else."""

CONNECTIONS = 1_000
MAX_BODY_BYTES = 2 * 1024 * 1024
"""Beyond that a body is not even taken in. The API's own limit is lower, and says so in its own words."""

MAX_HEADER_BYTES = 32 * 1024
REQUEST_S = 30.0
"""A request has to be here, whole, within this time."""

STALLED_S = 60.0
"""An answer of which nothing was taken for this long is broken off, and its thread is free."""

WAITING_BYTES = 1024 * 1024
"""So much of an answer may wait to be taken; whoever makes more of it waits, too."""

IDLE_S = 120
LOOK_EVERY_S = 5

_KINDS = {408: problems.TOO_SLOW, 413: problems.TOO_LARGE, 500: problems.INTERNAL}


class RequestTimeout(BadRequest):  # type: ignore[misc]  # untyped
    """The request did not come in time."""

    code = 408
    reason = "Request Timeout"


class ProblemTask(ErrorTask):  # type: ignore[misc]  # untyped
    """Answers what never reached the application: with a problem document, too."""

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
    """Since when a part of a request is here, and not the rest."""

    def is_stalled(self, now: float) -> bool:
        """Whether an answer waits to be taken, and was not for too long."""
        return bool(self.requests) and self.total_outbufs_len > 0 and now - self.last_activity > STALLED_S

    def is_too_slow(self, now: float) -> bool:
        """Whether a request has begun to come in, and has not ended for too long."""
        if self.request is None or self.requests:
            self.asked_at = None
            return False
        if self.asked_at is None:
            self.asked_at = now
        return now - self.asked_at > REQUEST_S

    def refuse(self) -> None:
        """Answer the part of a request that is here, and hang up."""
        with self.requests_lock:
            request = self.request
            self.request = None
            if request is not None and not self.requests:
                request.error = RequestTimeout(f"it was not here within {REQUEST_S:.0f} s.")
                request.completed = True
                self.requests.append(request)
                self.server.add_task(self)


class WebServer(TcpWSGIServer):  # type: ignore[misc]  # untyped
    """Serves a WSGI application on one address. ``run`` does until ``close``."""

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
            asyncore_use_poll=True,  # select knows a thousand files at most, and those of SQLite are among them
        )
        super().__init__(app, {}, adj=adjustments)

    def maintenance(self, now: float) -> None:
        """End what takes too long; the server calls this every few seconds."""
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            if channel.is_too_slow(now):
                channel.refuse()
            elif channel.is_stalled(now):
                # Its socket takes nothing more, so that the server would never look at a mark to close it.
                channel.handle_close()
