"""Every channel: a bounded POST that says how the run ended, and nothing that may not be told."""

import hashlib
import hmac
import json
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from common.notify.channels import CHANNELS
from common.notify.channels.base import Channel, LeftOut, Notice, shortened
from common.notify.channels.slack import Slack
from common.notify.channels.webhook import SIGNATURE_HEADER, Webhook

AT = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
SECRET = "whsec-canary-0123456789"
NOTICE = Notice(
    key="run_1",
    org_slug="acme_corp",
    pipeline="genai/payg/openai",
    run_id="run_1",
    status="failed",
    error="usage: the provider refused <the> key & more",
    trigger="api",
    start_date=date(2026, 11, 20),
    end_date=date(2026, 11, 20),
    ended_at=AT,
)
NOTICES = {
    "failed": NOTICE,
    "completed": replace(NOTICE, status="completed", error=""),
    "cancelled": replace(NOTICE, status="cancelled", error="", end_date=date(2026, 11, 30)),
    "left out": replace(NOTICE, key="left-out-run_0", left_out=LeftOut(37, AT)),
    "test": replace(NOTICE, is_test=True, status="completed", error=""),
    "odd text": replace(NOTICE, error='"\n\\ \x00 ä 漢 <!channel> `x` *y*'),
}


@pytest.fixture(params=list(CHANNELS))
def channel(request: pytest.FixtureRequest) -> Channel:
    return CHANNELS[request.param]


@pytest.mark.parametrize("name", list(NOTICES))
def test_a_channel_posts_json_that_names_what_it_is_about(channel: Channel, name: str) -> None:
    notice = NOTICES[name]
    post = channel.post(notice, SECRET, AT)
    assert post.headers["Content-Type"] == "application/json"
    text = json.dumps(json.loads(post.body), ensure_ascii=False)
    assert "acme_corp" in text
    if not notice.is_test:
        assert "genai/payg/openai" in text and "run_1" in text
    if notice.left_out:
        assert "37" in text


@pytest.mark.parametrize("name", list(NOTICES))
def test_a_channel_never_sends_its_secret(channel: Channel, name: str) -> None:
    post = channel.post(NOTICES[name], SECRET, AT)
    assert SECRET not in repr(post)


def test_a_notice_of_one_moment_is_always_the_same_post(channel: Channel) -> None:
    assert channel.post(NOTICE, SECRET, AT) == channel.post(NOTICE, SECRET, AT)


def test_a_post_is_bounded_however_long_the_error_is(channel: Channel) -> None:
    error = shortened("<" * 1_000_000)
    assert len(channel.post(replace(NOTICE, error=error), SECRET, AT).body) < 10_000


def test_slack_gets_no_markup_out_of_an_error() -> None:
    text = json.loads(Slack().post(NOTICES["odd text"], "", AT).body)["text"]
    assert "<!channel>" not in text and "&lt;!channel&gt;" in text


def test_a_webhooks_receiver_can_check_who_sent_it_and_when() -> None:
    post = Webhook().post(NOTICE, SECRET, AT)
    parts = dict(part.split("=", 1) for part in post.headers[SIGNATURE_HEADER].split(","))
    assert int(parts["t"]) == int(AT.timestamp())
    signed = f"{parts['t']}.".encode() + post.body
    assert hmac.compare_digest(parts["v1"], hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest())
    for other in (Webhook().post(NOTICES["completed"], SECRET, AT), Webhook().post(NOTICE, SECRET + "x", AT)):
        assert other.headers[SIGNATURE_HEADER] != post.headers[SIGNATURE_HEADER]


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("failed", "run.failed"),
        ("completed", "run.completed"),
        ("cancelled", "run.cancelled"),
        ("left out", "runs.left_out"),
        ("test", "test"),
    ],
)
def test_a_webhook_names_its_event(name: str, event: str) -> None:
    body: dict[str, Any] = json.loads(Webhook().post(NOTICES[name], SECRET, AT).body)
    assert body["event"] == event and body["run"]["ended_at"] == "2026-11-21T06:00:00+00:00"
    assert (body["left_out"] is None) == (name != "left out")
