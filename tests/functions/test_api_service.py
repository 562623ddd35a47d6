"""What the service says of itself: alive, ready, and what it can do."""

import json
import re
import socket
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from common import bootstrap
from common.platform.errors import TransientError
from common.platform.paths import PROJECT_ROOT
from functions.api import application, service
from functions.api.access import OPERATIONS, operation
from tests.harness import Harness, step


def test_health_touches_nothing(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("functions.api.service.engine", lambda: pytest.fail("health looks at nothing"))
    assert harness.http("GET", "/health", key=None).json == {"status": "ok"}


def test_ready_says_what_was_looked_at(harness: Harness) -> None:
    answer = harness.http("GET", "/ready", key=None)
    assert answer.status_code == 200
    assert answer.json == {"status": "ready", "checks": dict.fromkeys(("store", "configs", "plans", "disk"), "ok")}


def not_ready(harness: Harness, what: str) -> None:
    answer = harness.http("GET", "/ready", key=None)
    body = json.loads(answer.data)
    assert answer.status_code == 503 and body["type"] == "/problems/try-again" and answer.headers["Retry-After"]
    assert re.match(rf"Not ready: {what} \([^();]+\)\. The service's log", body["detail"]), body["detail"]
    assert str(harness.folder) not in answer.text and "http://" not in answer.text


def test_not_ready_without_the_store(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise TransientError("disk full")

    monkeypatch.setattr(type(harness.engine.store), "due", away)
    not_ready(harness, "store")


def test_not_ready_with_a_config_that_is_wrong(harness: Harness) -> None:
    harness.pipeline(step("only", "nobody"))
    not_ready(harness, "configs")


def test_not_ready_without_plans(harness: Harness) -> None:
    (harness.configs / "system" / "plans.yml").unlink()
    not_ready(harness, "plans")


def test_not_ready_without_a_warehouse_that_responds(harness: Harness) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"  # nobody listens there once the block has ended
    bootstrap.use(bootstrap.build(replace(harness.engine.settings, bigquery_url=url), now=harness.clock))
    not_ready(harness, "warehouse")


def test_not_ready_on_a_full_disk(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "disk_usage", lambda folder: SimpleNamespace(free=service.FREE_DISK_BYTES - 1))
    not_ready(harness, "disk")


@pytest.fixture
def document(harness: Harness) -> dict[str, Any]:
    answer = harness.http("GET", "/openapi.json", key=None)
    assert answer.mimetype == "application/json"
    found: dict[str, Any] = answer.json or {}
    return found


def test_the_document_has_every_operation_with_its_scope(document: dict[str, Any]) -> None:
    told = {one["operationId"]: one for methods in document["paths"].values() for one in methods.values()}
    own_pages = {"service.document", "service.docs", "service.docs_file", "service.problem"}
    assert set(told) == set(OPERATIONS) - own_pages
    for name, one in told.items():
        scope = OPERATIONS[name].scope
        assert one.get("security") == ([{"key": []}] if scope else None), name
        assert scope is None or f"Scope of the key: {scope}." in one["description"]
        assert one["summary"] and "<br" not in json.dumps(one)
    assert [server["url"] for server in document["servers"]] == ["/", "/api/v1"]


def test_every_path_is_there_twice_and_no_other_is() -> None:
    rules: dict[str, set[str]] = {}
    for rule in application().url_map.iter_rules():
        rules.setdefault(operation(rule.endpoint), set()).add(rule.rule)
    for paths in rules.values():
        plain = min(paths, key=len)
        assert paths == {plain, f"/api/v1{plain}"}


def test_every_endpoint_of_the_requirements_is_there(document: dict[str, Any]) -> None:
    """FR-PIP-002."""
    assert "post" in document["paths"]["/pipelines/run/{org}/{provider}/{domain}/{pipeline}"]
    for path in ("status/{org}/{run_id}", "history/{org}", "logs/{org}/{run_id}", "logs/{org}/{run_id}/steps"):
        assert "get" in document["paths"][f"/pipelines/{path}"]
    for path in ("transitions", "download"):
        assert "get" in document["paths"][f"/pipelines/logs/{{org}}/{{run_id}}/{path}"]


def test_every_path_stands_in_the_docs(document: dict[str, Any]) -> None:
    told = (PROJECT_ROOT / "docs" / "api.md").read_text()
    for path in document["paths"]:
        subject = re.match(r"/pipelines(/\w+/\{org\})|(/\w+)$", path)
        assert subject is not None and (subject[1] or subject[2]) in told, path


def test_no_answer_may_be_kept_on_the_way_but_the_pages_files(harness: Harness) -> None:
    for path in ("/health", "/pipelines/history/acme_corp", "/pipelines/nothing", "/openapi.json"):
        answer = harness.http("GET", path)
        assert answer.headers["Cache-Control"] == "no-store" and answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "max-age" in harness.http("GET", "/docs/swagger-ui.css", key=None).headers["Cache-Control"]


def test_the_page_loads_nothing_from_elsewhere(harness: Harness) -> None:
    for prefix in ("", "/api/v1"):
        page = harness.http("GET", f"{prefix}/docs", key=None)
        assert page.mimetype == "text/html" and "default-src 'self'" in page.headers["Content-Security-Policy"]
        files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(files) == 3
        for name in files:
            assert not name.startswith(("http", "/")), name
            assert harness.http("GET", f"{prefix}/{name}", key=None).status_code == 200
        assert "https://" not in page.text
    start = harness.http("GET", "/docs/start.js", key=None)
    assert '"openapi.json"' in start.text and start.mimetype == "text/javascript"


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e%2f__init__.py", "swagger-ui-bundle.js.map", "x", "css%2fswagger-ui.css"]
)
def test_the_page_has_no_other_files(harness: Harness, name: str) -> None:
    assert harness.http("GET", f"/docs/{name}", key=None).status_code == 404
