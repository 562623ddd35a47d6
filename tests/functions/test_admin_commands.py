"""The commands that look after keys and credentials: what they show, what they keep in the audit rows."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from common import bootstrap
from common.access.api_keys import Scope
from common.cli.main import cli
from common.platform.paths import CONFIGS
from common.platform.settings import Settings
from common.runs.engine import Engine
from tests.receiver import receiving

ORG = "acme_corp"


class Program:
    """The command line on a state directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str, **more: Any) -> Result:
        return CliRunner().invoke(cli, ["--state-dir", str(self.folder), *words], **more)

    def json(self, *words: str) -> Any:
        done = self(*words, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def engine(self) -> Engine:
        return bootstrap.build(Settings(state_dir=self.folder))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "state")


def test_a_made_key_is_printed_once_and_opens_its_organisation(program: Program) -> None:
    done = program("keys", "create", ORG, "--name", "app", "--scope", "run")
    token = done.stdout.splitlines()[-1]
    caller = program.engine().keys.caller(f"Bearer {token}")
    assert caller.org_slug == ORG and caller.scope is Scope.RUN
    listed = program("keys", "list", ORG)
    assert caller.key_id in listed.stdout and token.rsplit("_", 1)[1] not in listed.stdout + repr(
        program.json("keys", "list", ORG)
    )


def test_keys_rotate_and_are_revoked_and_each_act_names_the_login(program: Program) -> None:
    first = program.json("keys", "create", ORG, "--name", "app", "--scope", "read", "--days", "30")
    second = program.json("keys", "rotate", ORG, "--name", "app", "--grace-hours", "1")
    assert program("keys", "revoke", ORG, first["key_id"]).exit_code == 0
    assert [key["status"] for key in program.json("keys", "list", ORG)] == ["live", "revoked"]
    assert program.engine().keys.caller(f"Bearer {second['token']}").scope is Scope.READ
    rows = program.engine().audit.list(ORG).rows
    assert [row.action for row in rows] == ["key.revoke", "key.rotate", "key.create"]
    assert all(row.who.startswith("cli:") for row in rows)


@pytest.mark.parametrize("command", ["create", "rotate", "list"])
def test_an_organisation_that_does_not_exist_gets_no_key(program: Program, command: str) -> None:
    more = {"create": ["--name", "a", "--scope", "run"], "rotate": ["--name", "a"]}.get(command, [])
    done = program("keys", command, "acme_crop", *more)
    assert done.exit_code == 1 and "Did you mean 'acme_corp'?" in done.output


def test_a_credential_that_comes_and_goes_is_an_audit_row_without_its_secret(program: Program) -> None:
    added = program("credentials", "add", ORG, "openai", input="sk-canary-11")
    removed = program("credentials", "remove", ORG, "cred_openai")
    assert (added.exit_code, removed.exit_code) == (0, 0)
    rows = program.engine().audit.list(ORG).rows
    assert [(row.action, row.target) for row in rows] == [
        ("credential.remove", "cred_openai"),
        ("credential.add", "cred_openai"),
    ]
    assert "canary" not in repr(rows)
    assert all(b"sk-canary-11" not in path.read_bytes() for path in program.folder.iterdir())


def test_notifications_are_set_from_standard_input_and_shown_without_addresses(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(CONFIGS, configs)
    (configs / "system" / "notifications.yml").write_text("allowed_hosts: [127.0.0.1]\n")
    monkeypatch.setenv("PIPELINE_OPS_CONFIGS", str(configs))
    with receiving() as receiver:
        channel = f"{{name: app, type: webhook, url: '{receiver.url}/canary', secret: canary-0123456789}}"
        done = program("notifications", "set", ORG, input=f"events: [failed]\nchannels: [{channel}]\n")
        assert done.exit_code == 0 and "canary" not in done.output
        assert program.json("notifications", "show", ORG)["channels"][0]["url"] == "http://127.0.0.1/…"
        assert program.json("notifications", "test", ORG)[0]["ok"] is True
        assert [row.action for row in program.engine().audit.list(ORG).rows] == [
            "notifications.test",
            "notifications.set",
        ]
        assert [one.path for one in receiver.received] == ["/canary"]
    assert program("notifications", "test", ORG).exit_code == 1


@pytest.mark.parametrize("text", ["", "canary: [", "a: canary", "- canary", "channels: [{secret: canary-0123456789}]"])
def test_settings_that_can_not_be_read_are_refused_without_a_word_of_them(program: Program, text: str) -> None:
    done = program("notifications", "set", ORG, input=text)
    assert done.exit_code == 1 and done.output.startswith("Error: ") and "canary" not in done.output
