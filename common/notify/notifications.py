"""Notifies organisations of the ends of their runs, over the channels they chose. At least once, each by itself.

A channel that can't be reached is tried again when the message of the run's end is redelivered; those that were
reached are not. A permanent refusal is reported in the run's log.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from common.config.hosts import AllowedHosts
from common.domain.model import Run, RunStatus
from common.notify.channels import CHANNELS
from common.notify.channels.base import LeftOut, Notice, Post
from common.notify.channels.sender import send
from common.notify.failure_limit import FailureLimit
from common.notify.settings import ChannelSettings, NotificationSettings, SettingsStore
from common.platform.errors import NotFoundError, PermanentError, PipelineOpsError, TransientError, nearest
from common.platform.logs import logger
from common.ports.logs import LogLine, RunLogs
from common.ports.records import Record, Records

SENT_KIND = "notified"
"""Which channels were reached already, kept while the message of the run's end is redelivered."""

DUE_A_SWEEP = 50

Send = Callable[[str, Post, str, AllowedHosts], None]


@dataclass(frozen=True, slots=True)
class Sent:
    """The result of sending to one channel."""

    channel: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Notifications:
    """Sends notices. ``settings`` are the organisations' own."""

    settings: SettingsStore
    records: Records
    logs: RunLogs
    limit: FailureLimit
    send: Send = send

    def tell(self, run: Run, *, comes_back: bool = False) -> None:
        """Send the end of the run to its organisation's channels. ``comes_back``: there will be another call anyway.

        An end that was announced before is sent only in the count of left-out failures. Raises TransientError if a
        channel could not be reached: call again.
        """
        org_slug, route = run.request.org_slug, run.request.route
        settings = self.settings.load(org_slug)
        if run.ended_at is None or not settings.wants(run.status.value, route):
            return
        notice = Notice.of(run)
        announced = run.wake_at is None  # by an earlier delivery, or given up as a dead letter
        if run.status is not RunStatus.FAILED:
            if not announced:
                self._send_all(settings, notice, comes_back)
            return
        admitted = self.limit.admit(org_slug, route, run.run_id, again=announced)
        if announced and admitted.since is None:
            return
        if not admitted.tell:
            logger.info("Not notified: this pipeline's failures have reached their limit this hour; a count follows")
            return
        if admitted.since is not None:
            key = f"left-out-{admitted.left_out[0]}"
            notice = replace(notice, key=key, left_out=LeftOut(len(admitted.left_out), admitted.since))
        self._send_all(settings, notice, comes_back)
        if admitted.since is not None:  # only now: a crash before it repeats the count and does not lose it
            self.limit.told(org_slug, route, admitted.left_out)

    def send_test(self, org_slug: str, channel: str | None = None) -> Sequence[Sent]:
        """Send a test to all channels or to one; return the results. Raises NotFoundError."""
        settings = self.settings.load(org_slug)
        chosen = [target for target in settings.channels if channel in (None, target.name)]
        if not chosen:
            known = [target.name for target in settings.channels]
            what = "no channel" if channel is None else f"no channel {channel[:80]!r}"
            raise NotFoundError(f"{org_slug} has {what}.{nearest(channel or '', known)}")
        notice = _test_notice(org_slug, self.settings)
        return [self._sent(org_slug, target, notice) for target in chosen]

    def due(self) -> Sequence[tuple[Record, str]]:
        """Return the runs to announce once more, so that left-out failures are counted; pass each record to ``seen``.

        The run id is empty where nothing is left to notify.
        """
        return self.limit.due(DUE_A_SWEEP)

    def seen(self, record: Record) -> None:
        """Delete a due record, once the message about it is published."""
        self.limit.seen(record)

    def _sent(self, org_slug: str, channel: ChannelSettings, notice: Notice) -> Sent:
        try:
            self._send(org_slug, channel, notice)
        except PipelineOpsError as error:
            return Sent(channel.name, False, str(error))
        return Sent(channel.name, True)

    def _send_all(self, settings: NotificationSettings, notice: Notice, comes_back: bool) -> None:
        org_slug = notice.org_slug
        record = self.records.get(SENT_KIND, org_slug, notice.key)
        done: list[str] = [] if record is None else list(record.body["channels"])
        before, missing = len(done), []
        for channel in settings.channels:
            if channel.name in done:
                continue
            try:
                self._send(org_slug, channel, notice)
            except TransientError as error:
                missing.append(f"{channel.name}: {error}")
                self._log(notice, f"Notification to {channel.name} comes later: {error}")
                continue
            except PermanentError as error:
                problem = (
                    f"Notification to {channel.name} can't be sent: {error} See: main.py notifications show {org_slug}"
                )
                self._log(notice, problem)
            done.append(channel.name)  # a permanent refusal is done with, too
        # Before the error is raised: the redelivery must not send to these again.
        if (missing or comes_back) and len(done) > before:
            self.records.put(SENT_KIND, org_slug, notice.key, {"channels": done})
        if missing:
            raise TransientError(f"Some channels were not notified of the end of {notice.run_id}: {'; '.join(missing)}")
        if record is not None and not comes_back:
            self.records.delete(SENT_KIND, org_slug, notice.key)

    def _send(self, org_slug: str, channel: ChannelSettings, notice: Notice) -> None:
        url, secret = self.settings.opened(org_slug, channel)
        post = CHANNELS[channel.type].post(notice, secret, self.settings.now())
        self.send(url, post, notice.key, self.settings.hosts())

    def _log(self, notice: Notice, text: str) -> None:
        logger.warning(text)
        self.logs.append(notice.run_id, LogLine(self.settings.now(), "WARNING", text))


def _test_notice(org_slug: str, settings: SettingsStore) -> Notice:
    now = settings.now()
    return Notice(
        key=f"test-{secrets.token_hex(8)}",
        org_slug=org_slug,
        pipeline="test",
        run_id="test",
        status=RunStatus.COMPLETED.value,
        error="",
        trigger="test",
        start_date=now.date(),
        end_date=now.date(),
        ended_at=now,
        is_test=True,
    )
