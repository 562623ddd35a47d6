"""HTTP: start a run, follow it, change its course, read its logs; keys, credentials, usage. See docs/api.md.

The application is made with the first request: functions that are woken by events are deployed from the same source
and never need it.
"""

from functools import cache
from io import BytesIO

import functions_framework
from flask import Flask, Request, Response
from werkzeug.exceptions import HTTPException


@cache
def application() -> Flask:
    """Return the application behind the function, which is one WSGI app."""
    from functions.api.app import make_app

    return make_app()


@functions_framework.http
def api(incoming: Request) -> Response:
    """Serve one request."""
    app = application()
    # functions-framework reads the request again after the function, so the inner app gets a stream of its own.
    try:
        body = incoming.get_data()
    except HTTPException as error:
        with app.request_context({**incoming.environ, "wsgi.input": BytesIO(), "CONTENT_LENGTH": "0"}):
            return app.make_response(app.handle_user_exception(error))
    environ = {**incoming.environ, "wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    with app.request_context(environ):
        return app.full_dispatch_request()
