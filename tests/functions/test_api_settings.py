"""Credentials, keys and notifications over HTTP: what is secret goes in, and never out again."""

import json
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.harness import ORG, SECRET, Harness

CREDENTIALS = f"/pipelines/credentials/{ORG}"
KEYS = f"/pipelines/keys/{ORG}"
NOTIFICATIONS = f"/pipelines/notifications/{ORG}"
SLACK = "https://hooks.slack.com/services/T000/B000/canary-9f1e"


def body(answer: TestResponse, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = json.loads(answer.data)
    return found


def everything_shown(harness: Harness) -> str:
    paths = (CREDENTIALS, KEYS, NOTIFICATIONS, f"/pipelines/audit/{ORG}", f"/pipelines/usage/{ORG}")
    return "".join(harness.http("GET", path).text for path in paths)


def test_a_credential_goes_in_and_never_comes_out(harness: Harness) -> None:
    secret = "sk-admin-canary-of-http"
    added = harness.http("POST", CREDENTIALS, json={"provider": "openai", "secret": secret, "credential_id": "cred_eu"})
    assert body(added, 201) == {
        "credential_id": "cred_eu",
        "provider": "openai",
        "created_at": "2026-11-21T06:00:00Z",
    }
    assert harness.engine.credentials.secret(ORG, "cred_eu") == secret
    listed = body(harness.http("GET", CREDENTIALS))
    assert [one["credential_id"] for one in listed["credentials"]] == ["cred_eu", "cred_openai"]
    assert secret not in added.text + everything_shown(harness)


def test_a_credential_of_the_same_name_is_replaced(harness: Harness) -> None:
    body(harness.http("POST", CREDENTIALS, json={"provider": "openai", "secret": "other"}), 201)
    assert harness.engine.credentials.secret(ORG, "cred_openai") == "other"


def test_a_credential_is_deleted_once(harness: Harness) -> None:
    assert harness.http("DELETE", f"{CREDENTIALS}/cred_openai").status_code == 204
    again = harness.http("DELETE", f"{CREDENTIALS}/cred_openai")
    assert body(again, 404)["type"] == "/problems/not-found"


def test_an_unknown_provider_is_refused_with_the_nearest_one(harness: Harness) -> None:
    answer = body(harness.http("POST", CREDENTIALS, json={"provider": "openia", "secret": SECRET}), 422)
    assert "Did you mean 'openai'?" in answer["errors"][0]["problem"] and SECRET not in json.dumps(answer)


def test_a_key_is_shown_once_and_opens_what_its_scope_says(harness: Harness) -> None:
    made = harness.http("POST", KEYS, json={"name": "app", "scope": "read", "days": 1})
    key = body(made, 201)["key"]
    assert made.headers["Cache-Control"] == "no-store"
    assert harness.http("GET", f"/pipelines/history/{ORG}", key=key).status_code == 200
    assert harness.http("GET", KEYS, key=key).status_code == 403
    shown = everything_shown(harness)
    assert key not in shown and key.rpartition("_")[2] not in shown
    harness.clock.tick(86_400)
    assert harness.http("GET", f"/pipelines/history/{ORG}", key=key).status_code == 401
    assert body(harness.http("GET", KEYS))["keys"][0]["status"] == "expired"


def test_a_key_of_a_name_is_rotated_and_revoked(harness: Harness) -> None:
    first = body(harness.http("POST", KEYS, json={"name": "app", "scope": "read"}), 201)
    again = harness.http("POST", KEYS, json={"name": "app", "scope": "read"})
    assert body(again, 409)["type"] == "/problems/conflicting-state"
    harness.clock.tick(1)
    second = body(harness.http("POST", f"{KEYS}/app/rotate", json={"grace_hours": 1}), 201)
    for key in (first, second):
        assert harness.http("GET", f"/pipelines/history/{ORG}", key=key["key"]).status_code == 200
    revoked = body(harness.http("DELETE", f"{KEYS}/{second['key_id']}"))
    assert revoked["status"] == "revoked"
    assert harness.http("GET", f"/pipelines/history/{ORG}", key=second["key"]).status_code == 401
    harness.clock.tick(3_600)
    assert harness.http("GET", f"/pipelines/history/{ORG}", key=first["key"]).status_code == 401


@pytest.mark.parametrize(
    "wrong",
    [{"name": "App"}, {"scope": "root"}, {"days": 0}, {"days": "1"}, {"days": 1.5}, {"days": True}, {"more": 1}],
)
def test_a_key_that_can_not_be_is_refused(harness: Harness, wrong: dict[str, Any]) -> None:
    answer = harness.http("POST", KEYS, json={"name": "app", "scope": "read", **wrong})
    assert body(answer, 422)["errors"][0]["field"] in wrong


def test_notifications_are_set_shown_without_secrets_and_taken_back(harness: Harness) -> None:
    (harness.configs / "system" / "notifications.yml").write_text("allowed_hosts: [hooks.slack.com]")
    assert body(harness.http("GET", NOTIFICATIONS))["channels"] == []
    asked = {"events": ["failed"], "channels": [{"name": "ops", "type": "slack", "url": SLACK}]}
    shown = body(harness.http("PUT", NOTIFICATIONS, json=asked))
    assert shown["events"] == ["failed"] and shown["channels"][0]["url"] == "https://hooks.slack.com/…"
    assert shown["updated_by"] == "operator" and "canary" not in everything_shown(harness)
    kept = {"events": ["completed"], "channels": [{"name": "ops", "type": "slack"}]}
    assert body(harness.http("PUT", NOTIFICATIONS, json=kept))["channels"] == shown["channels"]
    assert body(harness.http("DELETE", NOTIFICATIONS))["channels"] == []


@pytest.mark.parametrize(
    "channel",
    [
        {"name": "ops", "type": "slack", "url": f"http://127.0.0.1/{SECRET}"},
        {"name": "ops", "type": "slick", "url": SECRET},
        {"name": "ops", "type": "webhook", "url": 5, "secret": SECRET},
        {"name": SECRET.upper(), "type": "slack"},
    ],
)
def test_a_channel_that_can_not_be_is_refused_without_its_address(harness: Harness, channel: dict[str, Any]) -> None:
    answer = harness.http("PUT", NOTIFICATIONS, json={"channels": [channel]})
    told = body(answer, 422)
    assert told["errors"] and SECRET not in answer.text and SECRET.upper() not in answer.text


def test_a_test_without_channels_is_404(harness: Harness) -> None:
    assert body(harness.http("POST", f"{NOTIFICATIONS}/test"), 404)["type"] == "/problems/not-found"
