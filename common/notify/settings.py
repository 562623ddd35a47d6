"""An organisation's notification settings: one record, in which addresses and secrets are sealed.

An address is a secret too (anyone who has a Slack webhook's can post there), so no more than its host is ever shown.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from common.access.audit import Audit
from common.access.sealing import Sealer
from common.config.hosts import AllowedHosts
from common.notify.channels import CHANNELS
from common.notify.channels.sender import MAX_URL_CHARS, check_url
from common.platform.errors import InvalidFieldsError, NotFoundError, PermanentError
from common.platform.problems import problems_of
from common.platform.strict import StrictModel
from common.ports.records import Records

KIND, NAME = "notifications", "settings"
MAX_CHANNELS = 5
MAX_PIPELINES = 100

Ending = Literal["completed", "failed", "cancelled"]
Route = Callable[[str], object]
"""Finds a pipeline, or raises NotFoundError."""


class ChannelBody(StrictModel):
    """One channel. ``url`` and ``secret`` may be left out for a channel that is there: it keeps its own."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="Its name, e.g. ops.")
    type: Literal["slack", "webhook"] = Field(description="slack: an incoming webhook. webhook: signed JSON.")
    url: str | None = Field(None, max_length=MAX_URL_CHARS, repr=False, description="Where to send it; https.")
    secret: str | None = Field(
        None, min_length=16, max_length=500, repr=False, description="Of a webhook: what it is signed with."
    )


class NotificationsBody(StrictModel):
    """Body of a request that sets an organisation's notifications, all of them at once."""

    # Not "on": YAML reads that as true.
    events: tuple[Ending, ...] = Field(("failed", "completed"), description="Which ends of runs are told.")
    pipelines: tuple[str, ...] = Field((), max_length=MAX_PIPELINES, description="Only of these routes; none: of all.")
    channels: tuple[ChannelBody, ...] = Field((), max_length=MAX_CHANNELS, description="Where they are told.")


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """One channel as stored: ``shown`` is the part of its address that may be displayed."""

    name: str
    type: str
    shown: str
    sealed: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NotificationSettings:
    """Which ends of runs an organisation is notified of, and where. ``pipelines`` are routes; none means all."""

    events: Sequence[str] = ("failed", "completed")
    pipelines: Sequence[str] = ()
    channels: Sequence[ChannelSettings] = ()
    updated_at: datetime | None = None
    updated_by: str = ""

    def wants(self, status: str, route: str) -> bool:
        """Return whether this end of a run of this pipeline is notified at all."""
        return bool(self.channels) and status in self.events and (not self.pipelines or route in self.pipelines)


def notifications_body(body: Any) -> NotificationsBody:
    """Return the checked body, or raise InvalidFieldsError. The error repeats no value: it may be a secret."""
    try:
        checked = NotificationsBody.model_validate(body)
    except ValidationError as error:
        raise InvalidFieldsError(problems_of(error, NotificationsBody, shown=False)) from None
    names = [channel.name for channel in checked.channels]
    if len(set(names)) < len(names):
        raise InvalidFieldsError({"channels": "each needs a name of its own."})
    return checked


class SettingsStore:
    """The notification settings of all organisations."""

    def __init__(
        self,
        records: Records,
        sealer: Sealer,
        audit: Audit,
        now: Callable[[], datetime],
        hosts: Callable[[], AllowedHosts],
        find: Route,
    ) -> None:
        self._records, self._sealer, self._audit, self._find = records, sealer, audit, find
        self.now, self.hosts = now, hosts

    def load(self, org_slug: str) -> NotificationSettings:
        """Return the organisation's settings; without any, settings without channels."""
        record = self._records.get(KIND, org_slug, NAME)
        if record is None:
            return NotificationSettings()
        body = record.body
        return NotificationSettings(
            events=body["events"],
            pipelines=body["pipelines"],
            channels=[ChannelSettings(**channel) for channel in body["channels"]],
            updated_at=datetime.fromisoformat(body["updated_at"]),
            updated_by=body["updated_by"],
        )

    def save(self, org_slug: str, body: NotificationsBody, *, who: str) -> NotificationSettings:
        """Replace the organisation's settings; return them. Raises InvalidFieldsError that names each bad field."""
        before = {channel.name: channel for channel in self.load(org_slug).channels}
        problems: dict[str, str] = {}
        for number, route in enumerate(body.pipelines):
            try:
                self._find(route)
            except NotFoundError as error:
                problems[f"pipelines.{number}"] = str(error)
        channels = []
        for number, channel in enumerate(body.channels):
            try:
                channels.append(self._kept(org_slug, channel, before.get(channel.name)))
            except PermanentError as error:
                problems[f"channels.{number}"] = str(error)
        if problems:
            raise InvalidFieldsError(problems)
        saved = NotificationSettings(body.events, body.pipelines, channels, self.now().astimezone(UTC), who)
        self._records.put(KIND, org_slug, NAME, _record(saved))
        shown = ", ".join(f"{channel.name} ({channel.shown})" for channel in channels) or "none"
        details = {"events": ", ".join(body.events), "channels": shown}
        self._audit.record(org_slug, who=who, action="notifications.set", target=NAME, details=details)
        return saved

    def _kept(self, org_slug: str, asked: ChannelBody, before: ChannelSettings | None) -> ChannelSettings:
        """Return a channel as it is stored, with its old address and secret where no new ones are given."""
        # A channel of another type is another receiver: it must not be sent the old one's secret.
        if before is not None and before.type != asked.type:
            before = None
        opened = ("", "") if before is None else self.opened(org_slug, before)
        url = asked.url if asked.url is not None else opened[0]
        secret = asked.secret if asked.secret is not None else opened[1]
        if not url:
            raise PermanentError("url: is needed for a new channel.")
        host = check_url(url, self.hosts())
        needs = CHANNELS[asked.type].needs_secret
        if needs and not secret:
            raise PermanentError("secret: is needed, at least 16 characters: what it sends is signed with it.")
        if secret and not needs:
            raise PermanentError(f"secret: a channel of type {asked.type} has none.")
        text = json.dumps({"url": url, "secret": secret})
        sealed = self._sealer.seal(text, KIND, org_slug, asked.name)
        return ChannelSettings(asked.name, asked.type, f"{urlsplit(url).scheme}://{host}/…", sealed)

    def opened(self, org_slug: str, channel: ChannelSettings) -> tuple[str, str]:
        """Return a channel's address and secret in clear: for sending, and to keep them through a change."""
        clear = json.loads(self._sealer.open(channel.sealed, KIND, org_slug, channel.name))
        return clear["url"], clear["secret"]


def settings_view(settings: NotificationSettings) -> dict[str, Any]:
    """Return the settings as JSON for people and programs, without addresses and secrets."""
    return {
        "events": list(settings.events),
        "pipelines": list(settings.pipelines),
        "channels": [
            {
                "name": channel.name,
                "type": channel.type,
                "url": channel.shown,
                "signed": CHANNELS[channel.type].needs_secret,
            }
            for channel in settings.channels
        ],
        "updated_at": settings.updated_at and settings.updated_at.isoformat().replace("+00:00", "Z"),
        "updated_by": settings.updated_by or None,
    }


def _record(settings: NotificationSettings) -> dict[str, Any]:
    assert settings.updated_at is not None
    return {
        "events": list(settings.events),
        "pipelines": list(settings.pipelines),
        "channels": [
            {"name": one.name, "type": one.type, "shown": one.shown, "sealed": dict(one.sealed)}
            for one in settings.channels
        ],
        "updated_at": settings.updated_at.isoformat(),
        "updated_by": settings.updated_by,
    }
