"""``make specs``: record again what the heavy SDKs accept of our sandboxes, and cut the specifications anew.

Each SDK runs in .venv-specs against a sandbox here, and has to accept every answer. What went over the wire is kept,
without values (``shapes.py``), so that every test run can hold the sandbox to it without the SDK. With
OPENAI_SPEC=openapi.yaml, a file of github.com/openai/openai-openapi, its cut is made anew, too.
"""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from infra.local.sandbox.azure import CONTAINER, FOLDER, SCOPE, TOKENS
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.server import SandboxServer
from tests.specs.shapes import shape

HERE = Path(__file__).parent
RECORDED = HERE / "recorded"
SEED = 1
KEPT_HEADERS = ("anthropic-version", "anthropic-beta", "x-ms-version", "x-ms-range", "range", "content-type", "accept")
AWKWARD = [
    ["GET", "https://objectstorage.us-ashburn-1.oraclecloud.com/n/bling/b/t/o?prefix=FOCUS%20Reports%2F&limit=2", ""],
    [
        "GET",
        "https://objectstorage.us-ashburn-1.oraclecloud.com/n/bling/b/t/o/FOCUS%20Reports%2Fa%2Bb%20%28c%29.gz",
        "",
    ],
    ["GET", "https://objectstorage.us-ashburn-1.oraclecloud.com/n/bling/b/t/o/reports/%C3%A4~-_.csv.gz", ""],
    ["GET", "https://objectstorage.us-ashburn-1.oraclecloud.com/n/bling/b/t/o?start=a%3D%26b&fields=name%2Csize", ""],
    ["GET", "https://objectstorage.us-ashburn-1.oraclecloud.com:8443/n/bling/b/t/o?empty=", ""],
    ["POST", "https://usageapi.us-ashburn-1.oci.oraclecloud.com/20200107/usage?limit=5", '{"a": 1}'],
    [
        "POST",
        "https://usageapi.us-ashburn-1.oci.oraclecloud.com/20200107/usage?limit=5&page=a%2Bb%3D",
        '{"\u00e4": "\u20ac"}',
    ],
]
PATHS = "/organization/costs", "/organization/usage/"


class Recorder(SandboxServer):
    """A sandbox that keeps what it is asked and answers."""

    def __init__(self) -> None:
        super().__init__(SEED, rate_limit_every=0)
        self.exchanges: list[dict[str, Any]] = []

    def respond(self, request: Request) -> Answer:
        answer = super().respond(request)
        kept = {name: request.headers[name] for name in KEPT_HEADERS if name in request.headers}
        body = request.body.decode() or None
        asked = {"method": request.method, "target": request.target, "headers": kept, "body": body}
        refused = answer.status >= 400
        got = {"status": answer.status, "headers": sorted(answer.headers), "shape": [] if refused else shape(answer)}
        if not refused and {"request": asked, "answer": got} not in self.exchanges:
            self.exchanges.append({"request": asked, "answer": got})
        return answer


def main() -> None:
    python = sys.argv[1]
    RECORDED.mkdir(exist_ok=True)
    for name in ("anthropic", "azure", "oci"):
        with Recorder() as sandbox:
            told = _client(python, name, sandbox)
            _write(RECORDED / f"{name}.json", told | {"exchanges": _few(sandbox.exchanges)})
    with Recorder() as sandbox:
        _write(HERE / "google.json", _client(python, "google", sandbox))
    if len(sys.argv) > 2:
        _write(HERE / "openai.json", _openai_cut(Path(sys.argv[2])))


def _client(python: str, name: str, sandbox: SandboxServer) -> dict[str, Any]:
    given = {
        "urls": sandbox.urls,
        "secrets": sandbox.secrets,
        "tokens": {api: TOKENS[f"https://{host}/.default"] for api, host in _AZURE.items()},
        "container": CONTAINER,
        "folder": FOLDER,
        "scope": SCOPE,
        "awkward": AWKWARD,
    }
    done = subprocess.run(
        [python, str(HERE / "clients.py"), name],
        input=json.dumps(given),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return {"recorded_on": f"{datetime.now(UTC):%Y-%m-%d}", **told}


_AZURE = {"storage": "storage.azure.com", "management": "management.azure.com"}


def _few(exchanges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep one exchange of each shape: pages of a list look alike."""
    seen: set[str] = set()
    few = []
    for exchange in exchanges:
        asked, got = exchange["request"], exchange["answer"]
        path, _, query = asked["target"].partition("?")
        names = sorted(pair.partition("=")[0] for pair in query.split("&"))
        mark = json.dumps([asked["method"], path, names, sorted(asked["headers"]), got])
        if mark not in seen:
            seen.add(mark)
            few.append(exchange)
    return few


def _openai_cut(path: Path) -> dict[str, Any]:
    document = yaml.safe_load(path.read_text("utf-8"))
    paths = {name: {"get": item["get"]} for name, item in document["paths"].items() if name.startswith(PATHS)}
    schemas: dict[str, Any] = {}
    needed = ["UsageResponse"]
    while needed:
        name = needed.pop()
        if name not in schemas:
            schemas[name] = document["components"]["schemas"][name]
            needed += _references(schemas[name])
    kept = ("parameters", "responses")
    return {
        "recorded_on": f"{datetime.now(UTC):%Y-%m-%d}",
        "version": document["info"]["version"],
        "licence": "MIT",
        "paths": {name: {"get": {k: item["get"][k] for k in kept}} for name, item in paths.items()},
        "components": {"schemas": schemas},
    }


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"].rpartition("/")[2]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in _references(inner)]
    return [found for inner in value for found in _references(inner)] if isinstance(value, list) else []


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=False, ensure_ascii=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
