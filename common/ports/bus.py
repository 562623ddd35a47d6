"""How messages travel between functions. ``tests/contract`` holds every adapter to these promises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """One message for a topic. ``data`` is plain JSON; ``key`` names its subject, for logs and traces.

    A bus that can delay does not deliver before ``not_before``; one that can't leaves that to the sweep.
    ``source`` is the topic that a dead letter was sent to.
    """

    topic: str
    key: str
    data: Mapping[str, Any]
    not_before: datetime | None = None
    source: str = ""


class EventBus(Protocol):
    """Publishes messages. Delivery is at least once, in any order."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Return once the messages are safe: they are delivered even if this process dies right after."""
