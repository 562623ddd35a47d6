"""Notifications of ended runs. Addresses and secrets can be stored, but never read back."""

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
    url: Annotated[str, Field(description="The address, shortened so that it shows no secret.")]
    signed: bool


class SettingsView(View):
    """The events an organisation is notified of, and its channels."""

    events: list[str]
    pipelines: Annotated[list[str], Field(description="Routes; none means all.")]
    channels: list[ChannelView]
    updated_at: datetime | None
    updated_by: str | None


class TestBody(Input):
    """Selects the channel of a test."""

    channel: str | None = Field(None, max_length=63, description="The channel's name; default: all.")


class SentView(View):
    """The result of one channel's test."""

    channel: str
    ok: bool
    detail: str


class TestView(View):
    """The results of a test, by channel."""

    sent: list[SentView]


@routes.get("/pipelines/notifications/<org>", responses={200: SettingsView})
def shown(path: OrgPath, query: NoQuery) -> Response:
    """Read the organisation's settings, without addresses and secrets"""
    return _settings(path.org)


@routes.put("/pipelines/notifications/<org>", responses={200: SettingsView})
def replace(path: OrgPath, query: NoQuery, body: NotificationsBody) -> Response:
    """Replace all settings

    An existing channel keeps its address and secret if they are left out.
    """
    engine().notifications.settings.save(path.org, notifications_body(body), who=caller().who)
    return _settings(path.org)


@routes.delete("/pipelines/notifications/<org>", responses={200: SettingsView})
def reset(path: OrgPath, query: NoQuery) -> Response:
    """Delete all settings: nobody is notified any more"""
    engine().notifications.settings.save(path.org, notifications_body({}), who=caller().who)
    return _settings(path.org)


@routes.post("/pipelines/notifications/<org>/test", responses={200: TestView})
def test(path: OrgPath, query: NoQuery, body: TestBody) -> Response:
    """Send a test to all channels, or to one"""
    results = engine().notifications.send_test(path.org, body.channel)
    sent = [SentView(channel=result.channel, ok=result.ok, detail=result.detail) for result in results]
    return TestView(sent=sent).response()


def _settings(org: str) -> Response:
    return SettingsView(**settings_view(engine().notifications.settings.load(org))).response()
