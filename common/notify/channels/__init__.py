"""Channels for notices about ended runs: one small file per channel, one contract (``base.py``)."""

from collections.abc import Mapping

from common.notify.channels.base import Channel
from common.notify.channels.slack import Slack
from common.notify.channels.webhook import Webhook

CHANNELS: Mapping[str, Channel] = {"slack": Slack(), "webhook": Webhook()}
"""Every channel by its ``type``."""
