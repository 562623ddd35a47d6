"""The event bus port on Pub/Sub, in the cloud and on Google's emulator of it."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from common.adapters.google_errors import Service, passing
from common.platform.errors import PermanentError, PipelineOpsError
from common.ports.bus import Message

TIMEOUT_S = 10.0
LATENCY_S = 0.001
"""How long a batch waits for more messages. The client's default of 10 ms would be most of a single publish's time."""

EARLY = timedelta(seconds=1)
"""A message that is due this soon is published now. If it arrives early, its function refuses it and Pub/Sub redelivers
it; leaving it to the sweep would add up to a minute."""


def topic_path(project_id: str, name: str) -> str:
    """Return a topic's full name."""
    return f"projects/{project_id}/topics/{name}"


def _now() -> datetime:
    return datetime.now(UTC)


class PubSubBus:
    """Publishes to ``projects/<project_id>/topics/<topic>``: the data as JSON, ``key`` as an attribute.

    Pub/Sub can't delay a message, so one whose ``not_before`` is in the future is NOT published: the sweep sends it
    when it is due. ``emulator_host`` (``host:port``) is None in the cloud.
    """

    def __init__(
        self,
        project_id: str,
        emulator_host: str | None = None,
        now: Callable[[], datetime] = _now,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._project_id, self._emulator_host, self._now, self._timeout_s = project_id, emulator_host, now, timeout_s
        self._client: Any = None
        self._lock = threading.Lock()

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish what is due in one batch, and return once Pub/Sub has stored it.

        Raises TransientError (no response within ``timeout_s``, an outage) or PermanentError (no such topic, no
        permission, a message too large). After an error, some of the messages may have been published.
        """
        latest = self._now() + EARLY
        due = [message for message in messages if message.not_before is None or message.not_before <= latest]
        if not due:
            return
        deadline = time.monotonic() + self._timeout_s
        with PUBSUB.translated(f"publish to {_names(due)} in project {self._project_id!r}"):
            client = self._publisher()
            sent = [(message, self._send(client, message)) for message in due]
        for message, future in sent:
            with PUBSUB.translated(f"publish to topic {message.topic!r} in project {self._project_id!r}"):
                future.result(timeout=max(0.0, deadline - time.monotonic()))

    def _send(self, client: Any, message: Message) -> Any:
        data = json.dumps(message.data).encode()
        return client.publish(topic_path(self._project_id, message.topic), data, key=message.key)

    def _publisher(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _client(self._emulator_host, self._timeout_s)
            return self._client


def _client(emulator_host: str | None, timeout_s: float) -> Any:
    """Return a publisher that gives up a little before ``timeout_s``; by default the client retries for ten minutes."""
    from google.api_core.retry import Retry, if_exception_type
    from google.api_core.timeout import ConstantTimeout
    from google.cloud import pubsub_v1  # type: ignore[attr-defined, unused-ignore]

    again = if_exception_type(*passing())
    constant: Any = ConstantTimeout  # untyped
    options = pubsub_v1.types.PublisherOptions(
        retry=Retry(predicate=again, initial=0.1, maximum=2.0, multiplier=2.0, timeout=timeout_s * 0.9),
        timeout=constant(timeout_s / 2),  # of one try: one that hangs leaves time for another
    )
    batching = pubsub_v1.types.BatchSettings(max_latency=LATENCY_S, max_messages=1000)
    if emulator_host is None:
        return pubsub_v1.PublisherClient(batch_settings=batching, publisher_options=options)

    import grpc
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

    transport = PublisherGrpcTransport(channel=grpc.insecure_channel(emulator_host))
    return pubsub_v1.PublisherClient(batch_settings=batching, publisher_options=options, transport=transport)


def _own(failed: str, error: Exception) -> PipelineOpsError | None:
    from google.api_core import exceptions
    from google.cloud.pubsub_v1.publisher.exceptions import MessageTooLargeError

    match error:
        case MessageTooLargeError():
            return PermanentError(f"{failed} a message is larger than Pub/Sub takes (10 MB).")
        case exceptions.NotFound():  # its own text names the topic once more
            return PermanentError(f"{failed} it does not exist. Run the set-up, which creates every topic.")
        case _:
            return None


PUBSUB = Service("Pub/Sub", forbidden="Give the service account roles/pubsub.publisher.", own=_own)


def _names(messages: Sequence[Message]) -> str:
    return ", ".join(f"topic {name!r}" for name in sorted({message.topic for message in messages}))
