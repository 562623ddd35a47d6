"""Who is told how an organisation's runs ended. Addresses and secrets can be written, and never read back."""

from datetime import datetime
from typing import Annotated, Literal

from flask import Response
from pydantic import Field

from common.bootstrap import engine
from common.notify.settings import NotificationsBody, notifications_body, settings_view
from functions.api.access import caller
from functions.api.inputs import Input, NoQuery, OrgPath
from functions.api.part import part
from functions.api.views import View

routes = part("notifications", __doc__)


class ChannelView(View):
    """A channel, without its address and secret."""

    name: str
    type: Literal["slack", "webhook"]
    url: Annotated[str, Field(description="As much of it as may be seen.")]
    signed: bool


class SettingsView(View):
    """What an organisation wants to be told, and where."""

    events: list[str]
    pipelines: Annotated[list[str], Field(description="Routes; none means all.")]
    channels: list[ChannelView]
    updated_at: datetime | None
    updated_by: str | None


class TestBody(Input):
    """Which channel to send a test to."""

    channel: str | None = Field(None, max_length=63, description="Its name; default: all.")


class SentView(View):
    """What became of one channel's test."""

    channel: str
    ok: bool
    detail: str


class TestView(View):
    """What became of a test, channel by channel."""

    sent: list[SentView]


@routes.get("/pipelines/notifications/<org>", responses={200: SettingsView})
def shown(path: OrgPath, query: NoQuery) -> Response:
    """The organisation's settings, without addresses and secrets"""
    return _answer(path.org)


@routes.put("/pipelines/notifications/<org>", responses={200: SettingsView})
def replace(path: OrgPath, query: NoQuery, body: NotificationsBody) -> Response:
    """Set all of them at once

    A channel that is there keeps its address and secret where they are left out.
    """
    engine().notifications.settings.save(path.org, notifications_body(body), who=caller().who)
    return _answer(path.org)


@routes.delete("/pipelines/notifications/<org>", responses={200: SettingsView})
def reset(path: OrgPath, query: NoQuery) -> Response:
    """Tell nobody any more"""
    engine().notifications.settings.save(path.org, notifications_body({}), who=caller().who)
    return _answer(path.org)


@routes.post("/pipelines/notifications/<org>/test", responses={200: TestView})
def test(path: OrgPath, query: NoQuery, body: TestBody) -> Response:
    """Send a test to all channels, or to one"""
    sent = engine().notifications.send_test(path.org, body.channel)
    return TestView(sent=[SentView(channel=one.channel, ok=one.ok, detail=one.detail) for one in sent]).answer()


def _answer(org: str) -> Response:
    return SettingsView(**settings_view(engine().notifications.settings.load(org))).answer()
