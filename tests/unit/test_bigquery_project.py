"""``--bigquery-project``: asked once, kept with the state directory, and never mixed with the emulator's rows."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from common import bootstrap
from common.cli import bigquery_project, runs
from common.cli.bigquery_project import chosen
from common.cli.main import cli
from common.cli.own_bigquery import FILE, followed
from common.platform.errors import ConfigError
from common.platform.settings import ENVIRONMENT, Settings
from infra.local.stack import reading

PROJECT = "my-test-project"


@pytest.fixture(autouse=True)
def jane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bigquery_project, "my_name", lambda: "Jane.Doe@x")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state")


def test_datasets_end_in_the_environment_and_the_user_so_that_none_of_production_s_is_touched(
    settings: Settings,
) -> None:
    own = chosen(replace(settings, environment="prod"), PROJECT, "EU", yes=True)
    assert (own.project_id, own.location, own.own_bigquery) == (PROJECT, "EU", True)
    assert own.dataset("acme_corp") == "acme_corp_prod_jane_doe_x"
    assert re.fullmatch(r"[A-Za-z0-9_]+", own.dataset("acme_corp")) and ENVIRONMENT.match("prod")


def test_the_choice_is_kept_and_every_later_command_follows_it(settings: Settings) -> None:
    own = chosen(settings, PROJECT, "EU", yes=True)
    assert followed(settings) == own == chosen(settings, PROJECT, None, yes=False)
    assert followed(replace(settings, environment="other", location="US")) == own  # what runs have written stays there


def test_without_a_choice_nothing_changes(settings: Settings) -> None:
    assert followed(settings) == settings == chosen(settings, None, None, yes=False)
    assert not settings.state_dir.exists()


def test_the_emulator_s_state_directory_is_refused_with_what_to_do(settings: Settings) -> None:
    (settings.state_dir / "bigquery").mkdir(parents=True)
    with pytest.raises(ConfigError, match="are in the BigQuery emulator.*--state-dir .pipeline-ops-my-test-project"):
        chosen(settings, PROJECT, None, yes=True)
    assert followed(settings) == settings


@pytest.mark.parametrize(("project", "location"), [("other-project", None), (PROJECT, "US")])
def test_another_project_or_location_needs_another_state_directory(
    settings: Settings, project: str, location: str | None
) -> None:
    chosen(settings, PROJECT, "EU", yes=True)
    with pytest.raises(ConfigError, match=f"are in project {PROJECT}, location EU"):
        chosen(settings, project, location, yes=True)


def test_a_location_alone_says_nothing(settings: Settings) -> None:
    with pytest.raises(click.UsageError, match="goes with --bigquery-project"):
        chosen(settings, None, "EU", yes=True)


def test_a_choice_that_can_not_be_read_is_no_reason_to_use_the_emulator(settings: Settings) -> None:
    settings.state_dir.mkdir()
    (settings.state_dir / FILE).write_text('{"project": "x"}')
    with pytest.raises(ConfigError, match="can't be read. Choose again"):
        followed(settings)


def invoke(tmp_path: Path, *args: str, **more: Any) -> Any:
    return CliRunner().invoke(cli, ["--state-dir", str(tmp_path / "state"), *args], **more)


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("run", "acme_corp", "genai/payg/openai")])
def test_the_first_use_asks_and_a_no_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("started")

    monkeypatch.setattr(runs, "OwnStack", started)
    monkeypatch.setattr(runs, "stack_to_serve", started)
    done = invoke(tmp_path, *command, "--bigquery-project", PROJECT, input="n\n")
    assert done.exit_code == 1 and not (tmp_path / "state").exists()
    said = " ".join(done.output.split())
    assert "acme_corp_local_jane_doe_x; no other is touched" in said and "main.py doctor --project" in said


def test_a_yes_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    class Stack:
        def __init__(self, settings: Settings) -> None:
            seen.append(settings)
            raise ConfigError("far enough")

    monkeypatch.setattr(runs, "OwnStack", Stack)
    run = ("run", "acme_corp", "genai/payg/openai")
    assert "Go on?" in invoke(tmp_path, *run, "--bigquery-project", PROJECT, input="y\n").output
    assert "Go on?" not in invoke(tmp_path, *run).output
    assert [(one.project_id, one.own_bigquery) for one in seen] == [(PROJECT, True)] * 2
    assert json.loads((tmp_path / "state" / FILE).read_text())["project"] == PROJECT


def test_the_demo_keeps_its_made_up_bills_away_from_a_real_project(tmp_path: Path) -> None:
    chosen(Settings(state_dir=tmp_path / "state"), PROJECT, None, yes=True)
    done = invoke(tmp_path, "demo")
    assert done.exit_code == 1 and "The demo makes bills up" in done.output


def test_commands_that_read_start_no_emulator_for_a_project(settings: Settings) -> None:
    own = chosen(settings, PROJECT, None, yes=True)
    with reading(own) as there:
        assert there == own and own.keeps_runs
        connection: Any = bootstrap.warehouse(there)
    assert connection.decimal_digits == (76, 38)  # BigQuery's own
    assert not (own.state_dir / "bigquery").exists()
