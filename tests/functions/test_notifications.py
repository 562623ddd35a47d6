"""Notifications: what an organisation asked for is told, to each channel once, and nothing else is."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml

from common import bootstrap
from common.domain.model import RunStatus
from common.notify.settings import NotificationsBody, notifications_body, settings_view
from common.platform.errors import InvalidFieldsError, NotFoundError, PermanentError, TransientError
from common.ports.meta import Changes
from tests.harness import ORG, ROUTE, Harness, step
from tests.receiver import Receiver, receiving

SECRET = "whsec-canary-0123456789"
PATH = "/services/T0/B0/canary-path"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def told(harness: Harness, receiver: Receiver) -> Receiver:
    """A receiver of all failures over one webhook, and of completed runs."""
    allow(harness, "127.0.0.1")
    harness.script("bad", bad)
    save(harness, hook(receiver))
    return receiver


def allow(harness: Harness, *hosts: str) -> None:
    path = harness.configs / "system" / "notifications.yml"
    path.write_text(yaml.safe_dump({"allowed_hosts": list(hosts)}))


def hook(receiver: Receiver, name: str = "app", path: str = PATH) -> dict[str, Any]:
    return {"name": name, "type": "webhook", "url": receiver.url + path, "secret": SECRET}


def save(harness: Harness, *channels: dict[str, Any], **more: Any) -> Any:
    body = notifications_body({"channels": channels, **more})
    return harness.engine.notifications.settings.save(ORG, body, who="cli:ana")


def bad(_context: Any, _params: Any) -> None:
    raise PermanentError("bad data")


def run(harness: Harness, script: str = "ok", route: str = ROUTE) -> str:
    harness.pipeline(step("only", script=script), route=route)
    run_id = harness.start(route=route)
    harness.drain()
    return run_id


def events(receiver: Receiver) -> list[str]:
    return [json.loads(one.body)["event"] for one in receiver.received]


def later(harness: Harness, minutes: int) -> None:
    for _ in range(minutes):
        harness.clock.tick(60)
        harness.engine.sweep()
        harness.drain()


def told_in_log(harness: Harness, run_id: str) -> list[str]:
    lines = harness.engine.logs.read(run_id, severity="WARNING")
    return [line.message for line in lines]


def test_the_end_of_a_run_is_told_with_its_id_as_key(harness: Harness, told: Receiver) -> None:
    run_id = run(harness, "bad")
    (got,) = told.received
    assert got.path == PATH and got.headers["idempotency-key"] == run_id
    body = json.loads(got.body)
    assert body["event"] == "run.failed" and body["org_slug"] == ORG
    assert body["run"]["run_id"] == run_id and body["run"]["error"] == "only: bad data"
    assert harness.run(run_id).wake_at is None


def test_an_organisation_without_settings_is_told_nothing(harness: Harness, told: Receiver) -> None:
    harness.engine.credentials.add(replace(harness.engine.credentials.list(ORG)[0], org_slug="globex"), "sk-globex")
    run_id = harness.start(org="globex")
    harness.drain()
    assert harness.run(run_id).status is RunStatus.COMPLETED and told.received == []


def test_only_the_chosen_ends_of_the_chosen_pipelines_are_told(harness: Harness, told: Receiver) -> None:
    other = "test/demo/other"
    harness.pipeline(step("only"), route=other)
    harness.pipeline(step("only"), route=ROUTE)
    save(harness, hook(told), events=["failed", "cancelled"], pipelines=[other])
    run(harness, "bad")
    run(harness, "ok", other)
    assert events(told) == []
    run(harness, "bad", other)
    run_id = harness.start(route=other)
    harness.engine.cancel(harness.run(run_id), who="ana", why="test")
    harness.drain()
    assert events(told) == ["run.failed", "run.cancelled"]


def test_a_channel_that_can_not_be_reached_is_tried_again_and_the_others_are_not_told_twice(
    harness: Harness, told: Receiver
) -> None:
    answers = iter([503, 429])
    with receiving(answer=lambda _: next(answers, 200)) as shaky:
        save(harness, hook(shaky, "shaky"), hook(told))
        run_id = run(harness, "bad")
        assert len(shaky.received) == 1 and events(told) == ["run.failed"]
        assert harness.run(run_id).wake_at is not None
        later(harness, 10)
        assert [one.headers["idempotency-key"] for one in shaky.received] == [run_id] * 3
    assert events(told) == ["run.failed"] and harness.run(run_id).wake_at is None
    assert told_in_log(harness, run_id)[0] == "Notification to shaky comes later: 127.0.0.1 answered 503."
    assert harness.engine.records.list("notified", ORG) == []


def test_a_channel_that_refuses_is_given_up_and_told_in_the_runs_log(harness: Harness, told: Receiver) -> None:
    with receiving(answer=lambda _: 404) as gone:
        save(harness, hook(gone, "gone"), hook(told))
        run_id = run(harness, "bad")
        later(harness, 10)
        assert len(gone.received) == 1 and events(told) == ["run.failed"]
    assert harness.run(run_id).wake_at is None
    (line,) = told_in_log(harness, run_id)
    assert "gone can't be sent" in line and "404" in line and PATH not in line


def test_a_channel_that_is_down_for_good_does_not_keep_a_run_open_for_ever(harness: Harness, told: Receiver) -> None:
    with receiving(answer=lambda _: 500) as down:
        save(harness, hook(down, "down"))
        run_id = run(harness, "bad")
        later(harness, 60)
        tries = len(down.received)
        assert 1 < tries < 100 and harness.run(run_id).wake_at is None
        later(harness, 30)
        assert len(down.received) == tries


def test_a_host_that_is_no_longer_allowed_gets_nothing(harness: Harness, told: Receiver) -> None:
    allow(harness, "hooks.slack.com")
    run_id = run(harness, "bad")
    assert told.received == [] and "does not allow" in told_in_log(harness, run_id)[0]
    assert harness.run(run_id).wake_at is None


def test_what_the_archive_can_not_keep_is_told_all_the_same_and_once(harness: Harness, told: Receiver) -> None:
    class Flaky:
        parts = None
        refusals = 3

        def keep(self, run: Any, changes: Changes) -> None:
            self.refusals -= 1
            if self.refusals >= 0:
                raise TransientError("BigQuery does not answer.")

    harness.engine = replace(harness.engine, archive=Flaky())
    bootstrap.use(harness.engine)
    run_id = run(harness, "bad")
    assert events(told) == ["run.failed"] and harness.run(run_id).wake_at is not None
    later(harness, 10)
    assert events(told) == ["run.failed"] and harness.run(run_id).wake_at is None


def test_a_night_of_failures_is_five_notices_and_one_count(harness: Harness, told: Receiver) -> None:
    runs = [run(harness, "bad") for _ in range(9)]
    assert events(told) == ["run.failed"] * 5
    later(harness, 58)
    assert len(told.received) == 5
    later(harness, 4)
    assert events(told) == ["run.failed"] * 5 + ["runs.left_out"]
    body = json.loads(told.received[-1].body)
    assert body["left_out"]["count"] == 4 and body["run"]["run_id"] == runs[-1]
    later(harness, 200)
    assert len(told.received) == 6
    for _ in range(8):
        run(harness, "bad")
    assert events(told)[6:] == ["run.failed"] * 5, "the next night is counted by itself"
    later(harness, 62)
    assert json.loads(told.received[-1].body)["left_out"]["count"] == 3 and len(told.received) == 12


def test_completed_runs_are_all_told(harness: Harness, told: Receiver) -> None:
    for _ in range(8):
        run(harness)
    assert events(told) == ["run.completed"] * 8


def test_a_test_is_sent_to_each_channel_and_says_what_became_of_it(harness: Harness, told: Receiver) -> None:
    with receiving(answer=lambda _: 403) as shut:
        save(harness, hook(shut, "shut"), hook(told))
        sent = harness.engine.notifications.send_test(ORG)
        assert [(one.channel, one.ok) for one in sent] == [("shut", False), ("app", True)]
        assert "403" in sent[0].detail and PATH not in sent[0].detail
    assert events(told) == ["test"]
    assert len(harness.engine.notifications.send_test(ORG, "app")) == 1
    with pytest.raises(NotFoundError, match="Did you mean 'app'"):
        harness.engine.notifications.send_test(ORG, "apb")
    with pytest.raises(NotFoundError, match="no channel"):
        harness.engine.notifications.send_test("globex")


def test_neither_the_store_nor_what_is_shown_holds_addresses_or_secrets(harness: Harness, told: Receiver) -> None:
    run(harness, "bad")
    shown = settings_view(harness.engine.notifications.settings.load(ORG))
    assert shown["channels"] == [{"name": "app", "type": "webhook", "url": "http://127.0.0.1/…", "signed": True}]
    rows = [row for row in harness.engine.audit.list(ORG).rows if row.action != "run.start"]
    assert [row.action for row in rows] == ["notifications.set"] and rows[0].who == "cli:ana"
    assert "canary" not in repr((shown, rows, harness.engine.notifications.settings.load(ORG)))
    for path in (harness.folder / "state").iterdir():
        for secret in (SECRET, PATH):
            assert secret.encode() not in path.read_bytes(), path.name


def test_a_channel_keeps_its_address_and_secret_where_they_are_left_out(harness: Harness, told: Receiver) -> None:
    save(harness, {"name": "app", "type": "webhook"}, events=["failed"])
    run(harness, "bad")
    assert len(told.received) == 1 and "x-pipeline-ops-signature" in told.received[0].headers


def fields(harness: Harness, *channels: dict[str, Any], **more: Any) -> dict[str, str]:
    with pytest.raises(InvalidFieldsError) as caught:
        save(harness, *channels, **more)
    assert "canary" not in str(caught.value)
    return caught.value.problems


def test_what_is_wrong_in_the_settings_is_told_by_field_and_repeats_no_value(harness: Harness, told: Receiver) -> None:
    new = {"name": "new", "type": "webhook", "url": told.url + PATH}
    assert "secret: is needed" in fields(harness, new)["channels.0"]
    assert "url: is needed" in fields(harness, {"name": "new", "type": "slack"})["channels.0"]
    assert "url: is needed" in fields(harness, {"name": "app", "type": "slack"})["channels.0"], "another type"
    assert "has none" in fields(harness, {**new, "type": "slack", "secret": SECRET})["channels.0"]
    assert "does not allow" in fields(harness, {**new, "url": "https://evil.net/canary"})["channels.0"]
    assert "channels.0.secret" in fields(harness, {**new, "secret": "canary-short"})
    assert "unknown field" in fields(harness, {**new, "secrt": SECRET})["channels.0.secrt"]
    assert "channels" in fields(harness, hook(told), hook(told))
    assert "channels" in fields(harness, *(hook(told, f"c{number}") for number in range(6)))
    assert "pipelines.0" in fields(harness, pipelines=["test/demo/nothing"])
    assert "events.0" in fields(harness, events=["canary"])
    assert "channels.0.url" in fields(harness, {**new, "url": 5})
    with pytest.raises(InvalidFieldsError):
        notifications_body("canary")
    assert len(harness.engine.notifications.settings.load(ORG).channels) == 1, "nothing was saved"


def test_the_bodys_own_text_does_not_show_secrets() -> None:
    body = NotificationsBody.model_validate(
        {"channels": [{"name": "a", "type": "webhook", "url": "https://x/canary", "secret": SECRET}]}
    )
    assert "canary" not in repr(body)
