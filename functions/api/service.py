"""The service itself: health, readiness and documentation. None of it needs a key."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import disk_usage
from tempfile import gettempdir
from typing import Literal

from flask import Response, current_app, send_from_directory
from werkzeug.exceptions import NotFound

from common.bootstrap import engine
from common.platform import problems
from common.platform.errors import NotFoundError, PipelineOpsError, TransientError
from common.platform.logs import logger
from functions.api.inputs import Input, NoQuery
from functions.api.part import part
from functions.api.views import View

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
"""Nothing is due before it, so the store's check reads no run."""

NO_ORGANISATION = "no_such_organisation"

FREE_DISK_BYTES = 256 * 1024 * 1024
"""Room for the store's write-ahead log between two checkpoints and for the spool of an ordinary step."""

routes = part("service", __doc__)


class HealthView(View):
    """The function responds."""

    status: Literal["ok"]


class ReadyView(View):
    """Each dependency of the service, with its state."""

    status: Literal["ready"]
    checks: dict[str, Literal["ok"]]


@routes.get("/health", responses={200: HealthView})
def health(query: NoQuery) -> Response:
    """Check that the function responds

    It checks no dependency: restarting a function does not repair a store that is down.
    """
    return HealthView(status="ok").response()


@routes.get("/ready", responses={200: ReadyView})
def ready(query: NoQuery) -> Response:
    """Check that runs can be started and do their work: every dependency responds, and there is free disk

    The store, the configs, the source of plans, the warehouse (if there is one) and, of a local stack, its disk. A 503
    names what is not ready and what to do about it.
    """
    checks = {name: check for name, check in _CHECKS.items() if check.applies()}
    failed = [f"{name} ({check.remedy})" for name, check in checks.items() if not _passes(name, check.run)]
    if failed:
        raise TransientError(f"Not ready: {'; '.join(failed)}. The service's log says why.")
    return ReadyView(status="ready", checks=dict.fromkeys(checks, "ok")).response()


def _passes(name: str, check: Callable[[], None]) -> bool:
    try:
        check()
    except PipelineOpsError as error:
        logger.error("Not ready, %s: %s", name, error)
        return False
    except Exception:
        logger.exception("Not ready, %s", name)
        return False
    return True


def _store() -> None:
    engine().store.due(LONG_AGO, 1)


def _configs() -> None:
    configs = engine().configs
    for route in configs.routes():
        configs.load(route)


def _plans() -> None:
    with suppress(NotFoundError):  # the source responded, which is what is checked
        engine().plans.limits(NO_ORGANISATION)


def _warehouse() -> None:
    engine().attempts.warehouse().ping()


def _has_warehouse() -> bool:
    settings = engine().settings
    return settings.bigquery_url is not None or settings.needs_no_emulator


def _disk() -> None:
    # The store and the emulator's data; and rows on their way into the warehouse, which are spooled to the other.
    for what, folder in (("state", engine().settings.state_dir), ("temporary", Path(gettempdir()))):
        free = disk_usage(folder).free
        if free < FREE_DISK_BYTES:
            raise TransientError(f"The disk of the {what} folder has {free >> 20} MiB left.")


def _has_disk() -> bool:
    return not engine().settings.is_cloud  # a function's disk is its memory, and the API writes nothing to it


@dataclass(frozen=True, slots=True)
class _Check:
    """One dependency. ``remedy`` says what to do; it is public, so it names no address and no path."""

    run: Callable[[], None]
    remedy: str
    applies: Callable[[], bool] = lambda: True


_CHECKS = {
    "store": _Check(_store, "the run store can't be read: start its database, or free its disk"),
    "configs": _Check(_configs, "a pipeline's file is wrong: run main.py validate"),
    "plans": _Check(_plans, "limits can't be read: correct plans.yml, or start the database of plans"),
    "warehouse": _Check(
        _warehouse,
        "BigQuery does not respond: a local stack starts its emulator again within seconds, "
        "for BigQuery itself see https://status.cloud.google.com and run main.py doctor",
        _has_warehouse,
    ),
    "disk": _Check(_disk, f"less than {FREE_DISK_BYTES >> 20} MiB of disk are free: free some space", _has_disk),
}


PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Pipeline Ops API</title>
<link rel="stylesheet" href="docs/swagger-ui.css"></head>
<body><div id="docs"></div><script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></body>
</html>
"""
START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null})\n'
FILES = {"swagger-ui.css": "css", "swagger-ui-bundle.js": "js"}
# Swagger UI sets inline styles; scripts come from this service only, so an injected one does not run.
POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


@routes.get("/openapi.json", doc_ui=False)
def document(query: NoQuery) -> Response:
    """Read the API as an OpenAPI document"""
    return Response(current_app.config["OPENAPI_TEXT"](), mimetype="application/json")


@routes.get("/docs", doc_ui=False)
def docs(query: NoQuery) -> Response:
    """Open a page to read and try the API; all its files come from this service"""
    return Response(PAGE, mimetype="text/html", headers={"Content-Security-Policy": POLICY})


class FilePath(Input):
    """A file of the page."""

    name: str


@routes.get("/docs/<name>", doc_ui=False)
def docs_file(path: FilePath, query: NoQuery) -> Response:
    """Read a file of the page"""
    if path.name == "start.js":
        return Response(START, mimetype="text/javascript")
    if path.name not in FILES:
        raise NotFound(f"The page has no file {path.name[:80]!r}.")
    return send_from_directory(_swagger() / FILES[path.name], path.name, max_age=86_400)


@cache
def _swagger() -> Path:
    """Return the folder of Swagger UI without importing its package: only its files are needed."""
    spec = find_spec("flask_openapi_swagger")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "templates" / "swagger"


class ProblemPath(Input):
    """A kind of problem."""

    slug: str


@routes.get("/problems/<slug>", doc_ui=False)
def problem(path: ProblemPath, query: NoQuery) -> Response:
    """Explain a kind of problem, and what to do: the `type` of problem documents is this path"""
    kind = problems.KINDS.get(path.slug)
    if kind is None:
        raise NotFound(f"There is no kind of problem {path.slug[:80]!r}. Kinds: {', '.join(sorted(problems.KINDS))}.")
    text = f"{kind.title} ({kind.status})\n\n{kind.meaning}\n\nWhat to do: {kind.hint}\n"
    return Response(text, mimetype="text/plain")
