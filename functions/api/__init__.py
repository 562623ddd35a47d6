"""The HTTP API: start, follow, cancel and rerun runs, read logs; keys, credentials, usage. See docs/api.md.

The application is created on the first request: the event functions are deployed from the same source and never need
it.
"""

from contextlib import suppress
from functools import cache
from io import BytesIO

import functions_framework
from flask import Flask, Request, Response
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wsgi import get_input_stream

from functions.entry import entered

CHUNK_BYTES = 64 * 1024


@cache
def application() -> Flask:
    """Return the WSGI application behind the function."""
    from functions.api.app import make_app

    return make_app()


@functions_framework.http
def api(incoming: Request) -> Response:
    """Serve one request."""
    entered()
    app, body, error = application(), b"", None
    try:
        body = _read(incoming, app.config["MAX_CONTENT_LENGTH"])
    except HTTPException as refused:
        error = refused
        _drain(incoming)
    # functions-framework reads the request again after the function, so the inner app gets a stream of its own.
    environ = {**incoming.environ, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    # The body is read and has a length now; werkzeug would ignore the length of a chunked request.
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    with app.request_context(environ):
        if error is not None:
            return app.make_response(app.handle_user_exception(error))
        return app.full_dispatch_request()


def _read(incoming: Request, most: int) -> bytes:
    """Return the body. werkzeug would silently cut a stream without a length after ``most`` bytes."""
    incoming.max_content_length = most + 1
    body = incoming.get_data()
    if len(body) > most:
        raise RequestEntityTooLarge
    return body


def _drain(incoming: Request) -> None:
    """Read the rest of a refused body: a client that is still sending would not read the response."""
    with suppress(HTTPException, OSError, ValueError):
        rest = get_input_stream(incoming.environ)
        while rest.read(CHUNK_BYTES):
            pass
    incoming.stream = BytesIO()
