"""Turns every exception of a request into a problem document (RFC 9457)."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from flask import Response, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import (
    BadRequest,
    Forbidden,
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
    RequestTimeout,
    ServiceUnavailable,
    Unauthorized,
    UnsupportedMediaType,
)

from common.notify.settings import NotificationsBody
from common.platform import problems
from common.platform.errors import ConfigError, InvalidFieldsError, UnauthorizedError
from common.platform.logs import logger
from common.platform.problems import Kind, document, problems_of
from common.runs.request import RUN_ID, ControlBody, ReplayBody, RerunBody, RunBody
from functions.api.inputs import Input

MEDIA_TYPE = "application/problem+json"

_BY_HTTP: Mapping[type[HTTPException], Kind] = {
    Unauthorized: problems.UNAUTHENTICATED,
    Forbidden: problems.OUT_OF_SCOPE,
    ServiceUnavailable: problems.UNAVAILABLE,
    NotFound: problems.NO_PATH,
    MethodNotAllowed: problems.METHOD,
    RequestTimeout: problems.TOO_SLOW,
    RequestEntityTooLarge: problems.TOO_LARGE,
    UnsupportedMediaType: problems.MEDIA_TYPE,
    BadRequest: problems.MALFORMED,
}


def error_response(error: Exception) -> Response:
    """Return the problem document of an exception, with the headers that belong to it."""
    run_id = (request.view_args or {}).get("run_id", "")
    # From the path, so anything: only what looks like a run's id is repeated.
    about = run_id if RUN_ID.fullmatch(run_id) else None
    if isinstance(error, HTTPException):
        body = _of_http(error, about)
    else:
        body = problems.problem(error, run_id=about)
        if isinstance(error, ConfigError):
            logger.error("%s", error)
        elif problems.kind_of(error) is problems.INTERNAL:
            logger.exception("The API failed")
    response = Response(json.dumps(body), body["status"], mimetype=MEDIA_TYPE)
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
    if isinstance(error, UnauthorizedError):
        response.headers["WWW-Authenticate"] = 'Bearer realm="pipeline-ops"'
    if (wait := problems.retry_after_s(error)) is not None:
        response.headers["Retry-After"] = str(wait)
    return response


def _of_http(error: HTTPException, run_id: str | None) -> dict[str, Any]:
    kind = next((_BY_HTTP[each] for each in type(error).__mro__ if each in _BY_HTTP), None)
    if kind is None and 400 <= (error.code or 500) < 500:
        kind = problems.MALFORMED
    if kind is None:
        logger.exception("The API failed")
        return document(problems.INTERNAL, problems.INTERNAL.meaning, run_id=run_id)
    # werkzeug's default descriptions are written for browsers; those that our code sets are kept.
    detail = error.description != type(error).description and error.description
    return document(kind, detail or kind.meaning, run_id=run_id)


def refuse(error: ValidationError) -> Response:
    """Raise InvalidFieldsError for pydantic's error. The framework calls it."""
    model = _models()[error.title]
    raise InvalidFieldsError(problems_of(error, model, shown=model is not NotificationsBody))


@cache
def _models() -> Mapping[str, type[BaseModel]]:
    """Return every model of a request's parts by name, which is all that pydantic's error has."""
    models: dict[str, type[BaseModel]] = {
        model.__name__: model for model in (RunBody, ControlBody, ReplayBody, RerunBody, NotificationsBody)
    }
    inputs: list[type[Input]] = [Input]
    for model in inputs:
        inputs += model.__subclasses__()
        models[model.__name__] = model
    return models
