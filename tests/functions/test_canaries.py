"""Secrets are planted, everything is run (failures too), and nothing that is said or kept afterwards holds one of them.

Searched: log lines with their stack traces, every file of the state directory (runs, messages, records, logs), what the
API answers, what the commands print, what receivers of notifications get, the texts of errors.
"""

import base64
import io
import json
from collections.abc import Callable, Iterator
from copy import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import click
import pytest
import yaml
from click.testing import CliRunner

from common import bootstrap
from common.access.api_keys import Scope
from common.adapters.sql.postgres import client
from common.cli.main import cli
from common.notify.settings import notifications_body, settings_view
from common.platform import logs
from common.platform.errors import PermanentError, PipelineOpsError, TransientError
from common.platform.settings import SUPABASE_DSN
from common.ports.secrets import CredentialInfo
from common.processors.http.client import Api, ProviderClient
from tests.harness import INVOKER_TOKEN, ORG, ROUTE, Harness, step
from tests.receiver import Receiver, receiving

CREDENTIAL = 'sk-admin-CANARY/1+"quoted"\\=='
KEY_FIELD = "CANARY-private-key-0123456789"
JSON_CREDENTIAL = json.dumps({"client_email": "robot@example.com", "private_key": KEY_FIELD})
OPERATOR = "CANARY-operator-0123456789abcdef0123456789"
WEBHOOK_SECRET = "CANARY-webhook-secret-0123456789"
WEBHOOK_PATH = "/services/CANARY-path"
DATABASE = "CANARY-database-0123456789"
OTHER = "CANARY"
"""Stands in all of them but the API key's, so that also a part of one is found."""


def echoing() -> tuple[ThreadingHTTPServer, str]:
    """A provider that repeats the key that it was sent, in clear and as others would write it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.headers["authorization"].removeprefix("Bearer ")
            forms = (sent, quote(sent, safe=""), base64.b64encode(sent.encode()).decode(), json.dumps(sent))
            body = json.dumps({"error": {"message": f"Your keys are not good: {' '.join(forms)}"}}).encode()
            self.send_response(int(self.path.strip("/")))
            self.send_header("content-length", str(len(body)))
            self.send_header("x-echo", sent)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


def ask(status: int, url: str) -> Callable[[Any, Any], None]:
    def script(context: Any, _params: Any) -> None:
        headers = {"authorization": f"Bearer {context.secret()}"}
        object.__setattr__(context, "provider_url", lambda _provider: url)
        object.__setattr__(context, "sleep", lambda _seconds: None)
        with ProviderClient(
            context, Api("acme", "Acme", "Help."), secret=context.secret().replace('"', "'"), headers=headers
        ) as client:
            client.get_json(f"/{status}")

    return script


def says(kind: str) -> Callable[[Any, Any], None]:
    """Return a step that passes its secret on, as a careless processor would."""

    def script(context: Any, _params: Any) -> None:
        secret = context.secret()
        written = f"{secret} {quote(secret, safe='')} {base64.b64encode(secret.encode()).decode()} {json.dumps(secret)}"
        context.info(f"info {written}")
        context.warn(f"warn {written}")
        context.put_out("told", {"text": written})
        match kind:
            case "permanent":
                raise PermanentError(f"permanent {written}")
            case "transient":
                raise TransientError(f"transient {written}")
            case "unexpected":
                raise KeyError(written)
            case "chained":
                try:
                    raise ValueError(written)
                except ValueError as error:
                    raise RuntimeError(f"chained {written!r}") from error
            case "field":
                raise PermanentError(f"the field {json.loads(secret)['private_key']}")

    return script


class World:
    """A harness in which secrets are planted; ``said`` collects all that comes out."""

    def __init__(self, harness: Harness, receiver: Receiver, log: io.StringIO) -> None:
        self.harness, self.receiver, self.log, self.said = harness, receiver, log, list[str]()
        harness.engine.credentials.remove(ORG, "cred_openai")
        self.credential(CREDENTIAL)
        (harness.configs / "system" / "notifications.yml").write_text(yaml.safe_dump({"allowed_hosts": ["127.0.0.1"]}))
        channel = {
            "name": "app",
            "type": "webhook",
            "url": receiver.url + WEBHOOK_PATH,
            "secret": WEBHOOK_SECRET,
        }
        body = notifications_body({"events": ["failed", "completed"], "channels": [channel]})
        harness.engine.notifications.settings.save(ORG, body, who="cli:ana")
        self.key = harness.engine.keys.create(ORG, "app", Scope.ADMIN, who="cli:ana").token

    def credential(self, secret: str) -> None:
        info = CredentialInfo(ORG, "cred_openai", "openai", self.harness.clock.now)
        self.harness.engine.credentials.add(info, secret)

    def run(self, script: Callable[[Any, Any], None]) -> str:
        """Run a step that does this; collect what the API says of it."""
        self.harness.script("script", script)
        self.harness.pipeline(step("only", script="script", attempts=2), step("then", "only"))
        run_id = self.harness.start()
        self.harness.finish(run_id)
        self.harness.drain()
        self.harness.clock.tick(3_600)
        for path in (f"status/{ORG}/{run_id}", f"history/{ORG}", f"logs/{ORG}/{run_id}"):
            self.said.append(self.harness.http("GET", f"/pipelines/{path}").text)
        for part in ("steps", "transitions", "download"):
            self.said.append(self.harness.http("GET", f"/pipelines/logs/{ORG}/{run_id}/{part}").text)
        return run_id

    def refusals(self) -> Iterator[Callable[[], Any]]:
        """Everything that is done with wrong or malformed secrets."""
        engine, http = self.harness.engine, self.harness.http
        prefix, key_id, secret = self.key.rsplit("_", 2)
        for wrong in (
            self.key[:-1],
            f"{self.key}0",
            f"{prefix}_{key_id}_{secret[::-1]}",
            f"pops_globex_{key_id}_{secret}",
        ):
            yield lambda wrong=wrong: engine.keys.caller(f"Bearer {wrong}")  # type: ignore[misc]
            headers = {"Authorization": f"Bearer {wrong}"}
            yield lambda headers=headers: http("GET", f"/pipelines/history/{ORG}", headers=headers)  # type: ignore[misc]
        yield lambda: engine.keys.caller(f"Basic {self.key}")
        yield lambda: engine.keys.caller(f"Bearer {OPERATOR}x")
        yield lambda: http("POST", f"/pipelines/run/{ORG}/test/demo/pipeline", data=f'{{"x": "{CREDENTIAL}"')
        for body in (
            {"channels": [{"name": "a", "type": "webhook", "url": 5, "secret": WEBHOOK_SECRET}]},
            {
                "channels": [
                    {"name": "a", "type": "webhook", "url": f"https://x{WEBHOOK_PATH}", "secrt": WEBHOOK_SECRET}
                ]
            },
            {"channels": [{"name": "a", "type": "carrier", "url": WEBHOOK_PATH, "secret": WEBHOOK_SECRET}]},
            {"events": [WEBHOOK_SECRET]},
        ):
            yield lambda body=body: engine.notifications.settings.save(ORG, notifications_body(body), who="x")  # type: ignore[misc]
        yield lambda: engine.credentials.secret("globex", "cred_openai")

    def places(self) -> Iterator[tuple[str, bytes]]:
        """Yield (where, bytes) of all that was said and kept."""
        engine = self.harness.engine
        yield "log", self.log.getvalue().encode()
        for number, text in enumerate(self.said):
            yield f"answer {number}: {text[:60]}", text.encode()
        for number, got in enumerate(self.receiver.received):
            headers = json.dumps({name: value for name, value in got.headers.items()})
            yield f"notification {number}", headers.encode() + got.body
        for path in sorted((self.harness.folder / "state").rglob("*")):
            if path.is_file() and path.name != "credentials.key":
                yield path.name, path.read_bytes()
        shown = (engine.keys.list(ORG), engine.audit.list(ORG), engine.credentials.list(ORG), engine.settings)
        yield "shown", repr((shown, settings_view(engine.notifications.settings.load(ORG)), engine)).encode()

    def leaks(self) -> list[str]:
        """Return where a planted secret stands."""
        planted = {
            "credential": CREDENTIAL,
            "field of a credential": KEY_FIELD,
            "API key": self.key.rsplit("_", 1)[1],
            "operator": OPERATOR,
            "webhook's secret": WEBHOOK_SECRET,
            "webhook's address": WEBHOOK_PATH,
            "invoker": INVOKER_TOKEN,
            "database's password": DATABASE,
        }
        found = []
        for where, content in self.places():
            for name, secret in planted.items():
                forms = {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], json.dumps(json.dumps(secret))[3:-3]}
                forms.add(base64.b64encode(secret.encode()).decode().rstrip("="))
                found += [f"{name} in {where}" for form in forms if form.encode() in content]
            if OTHER.encode() in content:
                found.append(f"a part of a secret in {where}")
        return found


@pytest.fixture
def world(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    stream = io.StringIO()
    logs.configure("pipeline-ops-test", stream)
    monkeypatch.setattr(harness, "restart", None)
    with receiving() as receiver:
        yield World(harness, receiver, stream)
    logs.logger.handlers.clear()


def test_the_search_finds_a_planted_secret_wherever_it_is(world: World) -> None:
    assert world.leaks() == []
    for leak in (CREDENTIAL, quote(CREDENTIAL, safe=""), json.dumps(CREDENTIAL), world.key, KEY_FIELD):
        logs.logger.info("said %s", leak)
        assert world.leaks(), leak
        world.log.truncate(0)
        world.log.seek(0)
    world.harness.engine.audit.record(ORG, who="x", action="a", target="t", details={"d": WEBHOOK_SECRET})
    assert any("pipeline-ops.db" in leak for leak in world.leaks()) and any("shown" in leak for leak in world.leaks())


@pytest.mark.parametrize("kind", ["fine", "permanent", "transient", "unexpected", "chained"])
def test_a_step_that_tells_its_secret_tells_nobody(world: World, kind: str) -> None:
    world.run(says(kind))
    assert "[secret]" in world.log.getvalue() and "[secret]" in "".join(world.said)
    assert world.leaks() == []


def test_a_field_of_a_credential_is_as_secret_as_the_whole_and_the_rest_stays_readable(world: World) -> None:
    world.credential(JSON_CREDENTIAL)

    def script(context: Any, _params: Any) -> None:
        context.info(f"as {json.loads(context.secret())['client_email']}")
        says("field")(context, _params)

    run_id = world.run(script)
    assert "as robot@example.com" in "".join(world.said)
    assert world.harness.run(run_id).error == "only: the field [secret]"
    assert world.leaks() == []


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_a_provider_that_repeats_the_key_in_its_refusal_is_not_quoted(world: World, status: int) -> None:
    server, url = echoing()
    try:
        run_id = world.run(ask(status, url))
    finally:
        server.shutdown()
        server.server_close()
    assert str(status) in world.harness.run(run_id).error
    assert world.leaks() == []


def test_wrong_and_malformed_secrets_are_refused_without_a_word_of_them(world: World) -> None:
    for does in world.refusals():
        try:
            answer = does()
        except PipelineOpsError as error:
            world.said.append(f"{error!r} {error} {error.__cause__}")
        else:
            world.said.append(answer.text)
    assert len(world.said) >= 15 and world.leaks() == []


def test_a_channel_that_fails_is_told_of_without_its_address(world: World) -> None:
    answers = iter([503, 404])
    world.receiver.answer = lambda _: next(answers, 410)
    world.run(says("permanent"))
    for _ in range(10):
        world.harness.clock.tick(60)
        world.harness.engine.sweep()
        world.harness.drain()
    sent = world.harness.engine.notifications.send_test(ORG)
    world.said.append(repr(sent))
    assert not sent[0].ok
    # The receiver's own address is not secret to the receiver, but stands in no header or body that it got.
    assert world.leaks() == []


def test_a_call_of_a_function_that_is_refused_is_logged_without_its_token(world: World) -> None:
    for headers in ({"Authorization": f"Bearer {CREDENTIAL}"}, {"X-Pipeline-Ops-Token": INVOKER_TOKEN[:-1]}):
        answer = world.harness.http("POST", "/functions/start_run/", data="{}", headers={**headers, **EVENT})
        assert answer.status_code == 401
        world.said.append(answer.text)
    assert world.leaks() == []


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://reader:{DATABASE}@127.0.0.1:1/plans",
        f"postgresql://reader:{DATABASE}@db.invalid:6543/plans",
        f"postgresql://reader:pass@{DATABASE}@127.0.0.1:1/plans",
        f"postgresql://reader:{DATABASE}@203.0.113.1:1/plans?sslmode=disable",
        f"reader:{DATABASE}",
    ],
)
def test_a_database_of_plans_that_can_not_be_reached_or_read_is_told_of_without_its_connection_string(
    world: World, dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(client, "WAIT_S", 0.2)
    engine = bootstrap.build(replace(world.harness.engine.settings, supabase_dsn=dsn), now=world.harness.clock)
    bootstrap.use(engine)
    for method, path in (("POST", f"run/{ORG}/{ROUTE}"), ("GET", f"usage/{ORG}")):
        answer = world.harness.http(method, f"/pipelines/{path}", json={} if method == "POST" else None)
        assert answer.status_code in (500, 503), answer.text
        world.said.append(answer.text)
    world.said.append(repr(engine.settings))
    monkeypatch.setenv(SUPABASE_DSN, dsn)
    monkeypatch.setenv("PIPELINE_OPS_STATE_DIR", str(tmp_path / "other"))
    told = CliRunner().invoke(cli, ["usage", ORG])
    assert told.exit_code != 0 and SUPABASE_DSN in told.output + world.log.getvalue()
    world.said.append(told.output + repr(told.exception))
    assert world.leaks() == []


EVENT = {"ce-id": "1", "ce-source": "x", "ce-specversion": "1.0", "ce-type": "t", "Content-Type": "application/json"}


def test_no_command_takes_a_secret_as_an_argument_where_every_process_list_shows_it() -> None:
    def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        if isinstance(command, click.Group):
            for name, sub in command.commands.items():
                yield from commands(sub, f"{path} {name}")

    names = [(path, option.name or "") for path, command in commands(cli, "main.py") for option in command.params]
    assert len(names) > 50
    telling = ("secret", "password", "token", "api_key", "dsn", "url")
    assert [(path, name) for path, name in names if any(word in name for word in telling)] == []


def test_a_command_prints_a_credential_never_and_a_key_once(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "other"

    def program(*words: str, **more: Any) -> str:
        return CliRunner().invoke(cli, ["--state-dir", str(folder), *words], **more).output

    world.said.append(program("credentials", "add", ORG, "openai", input=CREDENTIAL))
    world.said.append(program("credentials", "list", ORG))
    world.said.append(program("credentials", "list", ORG, "--json"))
    made = program("keys", "create", ORG, "--name", "app", "--scope", "read")
    secret = made.splitlines()[1].rsplit("_", 1)[1]
    assert len(secret) == 64
    listed = program("keys", "list", ORG) + program("keys", "list", ORG, "--json")
    assert secret not in listed and secret not in (folder / "pipeline-ops.log").read_text()
    assert world.leaks() == []
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "credentials.key":
            assert b"CANARY" not in path.read_bytes() and secret.encode() not in path.read_bytes()
