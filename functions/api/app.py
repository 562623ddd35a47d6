"""The application: all routes, with and without ``/api/v1``, behind one guard and one error handler."""

from functools import cache

from flask import Blueprint
from flask_openapi.blueprint import APIBlueprint
from flask_openapi.openapi import OpenAPI

from functions.api import (
    access,
    audit,
    credentials,
    errors,
    keys,
    logs,
    notifications,
    pipelines,
    previews,
    runs,
    schedules,
    service,
    usage,
)
from functions.api.document import document_text
from functions.api.inputs import MAX_BODY_BYTES, ApiRequest

VERSIONED = "/api/v1"
PARTS: tuple[APIBlueprint, ...] = tuple(
    part.routes
    for part in (
        runs,
        logs,
        previews,
        pipelines,
        schedules,
        usage,
        credentials,
        keys,
        notifications,
        audit,
        service,
    )
)
INFO = {
    "title": "Pipeline Ops",
    "version": "1",
    "description": "Starts, follows, cancels and reruns cost pipelines. Errors are RFC 9457 problem documents.",
}
KEY = {"type": "http", "scheme": "bearer", "description": "An API key of the organisation in the path."}


class Api(OpenAPI):
    """The application. Requests have strict JSON bodies."""

    request_class = ApiRequest


def make_app() -> Api:
    """Return a new application."""
    app = Api(
        __name__,
        info=INFO,
        security_schemes={"key": KEY},
        servers=[{"url": "/"}, {"url": VERSIONED}],
        validation_error_callback=errors.refuse,
        doc_ui=False,
        static_folder=None,
    )
    app.openapi_version = "3.1.0"
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # no CORS: browsers of other origins have no business here
    app.config["OPENAPI_TEXT"] = cache(lambda: document_text(app))
    app.url_map.merge_slashes = False  # a path with // is a 404, not a redirect: each operation has one address
    versioned = Blueprint("v1", __name__, url_prefix=VERSIONED)
    for part in PARTS:
        versioned.register_blueprint(part)
    for part in PARTS:
        app.register_api(part)
    app.register_blueprint(versioned)
    app.before_request(access.guard)
    app.after_request(access.record_audit)
    app.after_request(access.set_security_headers)
    app.register_error_handler(Exception, errors.error_response)
    return app
