"""Commands over the API in this very process: history by time, logs that are followed, usage, errors."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from common import bootstrap
from common.cli.main import cli
from functions.api import logs
from tests.harness import ORG, Harness, step


@pytest.fixture
def run(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line on the harness's state and configs."""
    monkeypatch.setenv("PIPELINE_OPS_CONFIGS", str(harness.configs))
    monkeypatch.setattr(logs, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(bootstrap, "_utc_now", harness.clock)

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(cli, ["--state-dir", str(harness.folder / "state"), *words])

    return invoke


def test_history_is_asked_for_by_days(harness: Harness, run: Any) -> None:
    first = harness.start()
    harness.clock.tick(86_400)
    second = harness.start()

    def found(*words: str) -> list[str]:
        done = run("history", ORG, "--json", *words)
        assert done.exit_code == 0, done.output
        return [one["run_id"] for one in json.loads(done.stdout)["runs"]]

    assert found() == [second, first]
    assert found("--from", "2026-11-22") == [second]
    assert found("--to", "2026-11-21") == [first]
    assert found("--from", "2026-11-21T06:00:00Z", "--to", "2026-11-21T06:00:00Z") == [first]


def test_a_log_is_followed_to_its_end(harness: Harness, run: Any) -> None:
    run_id = harness.start()
    harness.drain()
    followed = run("logs", ORG, run_id, "--follow", "--json")
    whole = json.loads(run("logs", ORG, run_id, "--json").stdout)["lines"]
    assert [json.loads(line) for line in followed.stdout.splitlines()] == whole
    assert whole[-1]["message"].startswith("run running → completed")
    text = run("logs", ORG, run_id, "--follow", "--step", "only").stdout.splitlines()
    assert len(text) == len([line for line in whole if line["step_id"] == "only"]) and "only#1" in text[-1]


def test_a_follower_that_is_sent_away_goes_on_where_it_was(
    harness: Harness, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = harness.start()
    harness.drain()
    whole = json.loads(run("logs", ORG, run_id, "--json").stdout)["lines"]
    monkeypatch.setattr(logs, "FOLLOW_S", 0.0)  # one line, and away
    plain, came = logs._events, []
    monkeypatch.setattr(logs, "_events", lambda following: came.append(following) or plain(following))
    done = run("logs", ORG, run_id, "--follow", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == whole
    assert len(came) == len(whole) + 1


def test_usage_and_pipelines_are_shown(harness: Harness, run: Any) -> None:
    harness.pipeline(step("a", "nobody"), route="test/demo/wrong")
    harness.start()
    shown = run("usage", ORG).stdout
    assert "concurrent" in shown and "0 runs wait for a slot" in shown
    assert json.loads(run("usage", ORG, "--json").stdout)["limits"][2]["used"] == 1
    listed = run("pipelines", ORG)
    assert "test/demo/pipeline" in listed.stdout and "nobody" in listed.stdout
    assert len(json.loads(run("pipelines", ORG, "--json").stdout)["pipelines"]) == 2


@pytest.mark.parametrize(
    ("words", "slug"),
    [
        (("history", ORG, "--status", "runing"), "invalid-fields"),
        (("status", ORG, "run_" + "0" * 32), "not-found"),
        (("usage", "nobody"), "not-found"),
        (("credentials", "list", "nobody"), "not-found"),
        (("keys", "rotate", ORG, "--name", "none"), "not-found"),
    ],
)
def test_errors_are_the_apis_documents_and_in_words_title_detail_and_hint(
    run: Any, words: tuple[str, ...], slug: str
) -> None:
    done = run(*words, "--json")
    problem = json.loads(done.stdout)
    assert done.exit_code == 1 and problem["type"] == f"/problems/{slug}" and problem["hint"]
    told = run(*words).output
    for part in (problem["title"], problem["detail"], problem["hint"]):
        assert part in told


def test_an_error_of_the_machine_is_told_in_one_sentence(run: Any, harness: Harness) -> None:
    (harness.configs / "system" / "plans.yml").write_text("plans: 5")
    told = run("usage", ORG)
    assert told.exit_code == 1 and "Traceback" not in told.output
    listed = run("keys", "list", ORG)
    assert listed.exit_code == 1 and "plans.yml" in listed.output
