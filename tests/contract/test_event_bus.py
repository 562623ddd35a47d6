"""What every event bus promises, on each adapter: SQLite, and Pub/Sub on Google's own emulator."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from common.adapters.google.pubsub import PubSubBus, topic_path
from common.adapters.sql.sqlite.bus import SqliteBus
from common.adapters.sql.sqlite.database import Database
from common.ports.bus import EventBus, Message

pytestmark = pytest.mark.filterwarnings("ignore:The return_immediately flag")

TOPIC = "step-noop"
DEADLINE_S = 30.0


@dataclass
class Adapter:
    """A bus, and the data of the messages that have arrived since the last look."""

    bus: EventBus
    arrived: Callable[[], list[Any]]
    now: Callable[[], datetime]

    def wait_for(self, count: int) -> list[Any]:
        found: list[Any] = []
        end = time.monotonic() + DEADLINE_S
        while len(found) < count and time.monotonic() < end:
            found += self.arrived()
        return found


@pytest.fixture(params=["sqlite", "pubsub"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Adapter:
    if request.param == "sqlite":
        bus = SqliteBus(Database(tmp_path / "bus.db"))
        return Adapter(bus, lambda: _pulled(bus), lambda: datetime.now(UTC))
    return _pubsub(request.getfixturevalue("google_emulators").pubsub_host, request.getfixturevalue("google_project"))


def _pulled(bus: SqliteBus) -> list[Any]:
    found = bus.pull(100)
    for delivery in found:
        bus.ack(delivery)
    return [delivery.message.data for delivery in found]


def _pubsub(host: str, project: str) -> Adapter:
    import grpc
    from google.pubsub_v1 import PublisherClient, SubscriberClient
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

    channel = grpc.insecure_channel(host)
    publisher = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
    subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
    topic, subscription = topic_path(project, TOPIC), f"projects/{project}/subscriptions/all"
    publisher.create_topic(request={"name": topic})
    subscriber.create_subscription(request={"name": subscription, "topic": topic, "ack_deadline_seconds": 60})

    def arrived() -> list[Any]:
        pulled = subscriber.pull(
            request={"subscription": subscription, "max_messages": 100, "return_immediately": True}
        ).received_messages
        if pulled:
            ids = [message.ack_id for message in pulled]
            subscriber.acknowledge(request={"subscription": subscription, "ack_ids": ids})
        return [json.loads(message.message.data) for message in pulled]

    return Adapter(PubSubBus(project, host), arrived, lambda: datetime.now(UTC))


def message(number: int, not_before: datetime | None = None) -> Message:
    return Message(
        TOPIC, f"run_{number}", {"n": number, "text": "Größe ✓", "deep": {"list": [1, None, "x"]}}, not_before
    )


def test_a_published_message_arrives_as_it_was(adapter: Adapter) -> None:
    adapter.bus.publish([message(1)])
    assert adapter.wait_for(1) == [message(1).data]


def test_all_messages_of_one_call_arrive(adapter: Adapter) -> None:
    adapter.bus.publish([message(number) for number in range(50)])
    assert sorted(data["n"] for data in adapter.wait_for(50)) == list(range(50))


def test_nothing_to_publish_is_no_error(adapter: Adapter) -> None:
    adapter.bus.publish([])
    assert adapter.arrived() == []


def test_a_message_is_never_delivered_before_its_time(adapter: Adapter) -> None:
    adapter.bus.publish([message(1, adapter.now() + timedelta(hours=1)), message(2)])
    assert [data["n"] for data in adapter.wait_for(1)] == [2]
    assert adapter.arrived() == []


def test_a_message_whose_time_has_come_is_delivered_at_once(adapter: Adapter) -> None:
    adapter.bus.publish([message(1, adapter.now() - timedelta(seconds=1))])
    assert [data["n"] for data in adapter.wait_for(1)] == [1]
