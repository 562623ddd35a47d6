"""An incoming webhook of Slack (and of what speaks its format: Mattermost, Rocket.Chat). Its address is its secret."""

import json
from datetime import datetime
from typing import ClassVar

from common.notify.channels.base import Notice, Post


class Slack:
    """Sends one text."""

    needs_secret: ClassVar[bool] = False

    def post(self, notice: Notice, secret: str, at: datetime) -> Post:
        """Return ``{"text": …}``."""
        return Post(json.dumps({"text": _text(notice)}).encode(), {"Content-Type": "application/json"})


def _text(notice: Notice) -> str:
    what = f"{_escaped(notice.pipeline)} of {_escaped(notice.org_slug)}"
    if notice.is_test:
        return f"This is a test of {_escaped(notice.org_slug)}'s notifications."
    if notice.left_out is not None:
        since = notice.left_out.since.isoformat(timespec="minutes")
        return (
            f"*{notice.left_out.count} more runs failed*: {what}, since {since}. They were not told one by one.\n"
            f"The last: `{notice.run_id}`{_quoted(notice.error)}"
        )
    dates = str(notice.start_date)
    if notice.end_date != notice.start_date:
        dates += f"..{notice.end_date}"
    return f"*Run {notice.status}*: {what}, {dates}\n`{notice.run_id}`{_quoted(notice.error)}"


def _quoted(error: str) -> str:
    lines = "".join(f"\n> {_escaped(line)}" for line in error.splitlines())
    return lines


def _escaped(text: str) -> str:
    """Escape the three characters that Slack reads as markup of links and mentions."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
