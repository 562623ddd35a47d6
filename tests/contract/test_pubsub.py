"""The event bus on Pub/Sub, and the local topology that pushes its messages to the functions."""

import base64
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import functions_framework
import grpc
import pytest
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from common.adapters.google.pubsub import PubSubBus, topic_path
from common.platform.errors import PermanentError, TransientError
from common.ports.bus import Message
from infra.local.google_emulators import GoogleEmulators, PubSubEmulator
from infra.local.pubsub_topology import DEAD_LETTERS, PushPolicy, set_up, subscription_path
from tests.google_fixtures import received

pytestmark = pytest.mark.timeout(120)  # what waits for what it should not is found here, and is not to hang

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TOPIC = "orders"
WITHIN_S = 30.0
QUICK = PushPolicy(min_backoff_s=0, max_backoff_s=0, max_attempts=5)


class Puller:
    """A topic with a pull subscription."""

    def __init__(self, host: str, project: str, topic: str = TOPIC) -> None:
        self._subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=grpc.insecure_channel(host)))
        publisher = PublisherClient(transport=PublisherGrpcTransport(channel=grpc.insecure_channel(host)))
        publisher.create_topic(name=topic_path(project, topic))
        self._path = subscription_path(project, f"{topic}-pull")
        self._subscriber.create_subscription(name=self._path, topic=topic_path(project, topic))

    def pull(self, count: int) -> list[Any]:
        """Return the next ``count`` messages, acknowledged, and whatever came with them."""
        found: list[Any] = []
        deadline = time.monotonic() + WITHIN_S
        while len(found) < count:
            assert time.monotonic() < deadline, f"only {len(found)} of {count} messages came"
            got = self._subscriber.pull(subscription=self._path, max_messages=1000, timeout=WITHIN_S).received_messages
            if got:
                self._subscriber.acknowledge(subscription=self._path, ack_ids=[one.ack_id for one in got])
            found += [one.message for one in got]
        return found


@pytest.fixture
def host(google_emulators: GoogleEmulators) -> str:
    return google_emulators.pubsub_host


@pytest.fixture
def bus(host: str, google_project: str) -> PubSubBus:
    return PubSubBus(google_project, host, lambda: NOW)


@pytest.fixture
def puller(host: str, google_project: str) -> Puller:
    return Puller(host, google_project)


def order(number: int, not_before: datetime | None = None) -> Message:
    return Message(TOPIC, f"run-{number}", {"n": number, "text": "Käse ☃"}, not_before)


def numbers(messages: list[Any]) -> list[int]:
    return sorted(json.loads(message.data)["n"] for message in messages)


def test_a_published_message_arrives_whole_with_its_key(bus: PubSubBus, puller: Puller) -> None:
    bus.publish([order(1)])
    [message] = puller.pull(1)
    assert json.loads(message.data) == {"n": 1, "text": "Käse ☃"}
    assert dict(message.attributes) == {"key": "run-1"}


def test_many_messages_are_published_in_one_call_each_once_and_to_its_own_topic(
    bus: PubSubBus, puller: Puller, host: str, google_project: str
) -> None:
    other = Puller(host, google_project, "invoices")
    bus.publish([*(order(n) for n in range(2500)), Message("invoices", "run-7", {"n": 7})])
    assert numbers(puller.pull(2500)) == list(range(2500))
    assert numbers(other.pull(1)) == [7]


def test_threads_share_one_bus(bus: PubSubBus, puller: Puller) -> None:
    threads = [threading.Thread(target=bus.publish, args=([order(n)],)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(puller.pull(20)) == list(range(20))


def test_a_message_not_yet_due_is_left_to_the_sweep_and_one_due_within_a_second_is_not(
    bus: PubSubBus, puller: Puller
) -> None:
    waits = [timedelta(seconds=1.001), timedelta(hours=1)]
    due = [timedelta(seconds=1), timedelta(0), timedelta(hours=-1)]
    bus.publish([order(n, NOW + wait) for n, wait in enumerate([*due, *waits])])
    bus.publish([order(9)])  # behind the others: when it is there, they would be
    assert numbers(puller.pull(4)) == [0, 1, 2, 9]


def test_nothing_to_publish_needs_no_pubsub() -> None:
    bus = PubSubBus("nowhere", "127.0.0.1:1", lambda: NOW)
    bus.publish([])
    bus.publish([order(1, NOW + timedelta(minutes=1))])


def test_an_unknown_topic_is_named_in_the_error_and_what_to_do(bus: PubSubBus, puller: Puller) -> None:
    with pytest.raises(PermanentError, match=r"topic 'ordres' in project 'test-\w+': it does not exist\. Run the set"):
        bus.publish([Message("ordres", "k", {}), order(1)])
    assert numbers(puller.pull(1)) == [1]


def test_a_message_that_is_too_large_fails_for_good(bus: PubSubBus, puller: Puller) -> None:
    with pytest.raises(PermanentError, match="topic 'orders'.*larger than Pub/Sub takes"):
        bus.publish([Message(TOPIC, "k", {"text": "x" * 10_500_000})])


@pytest.mark.server
def test_a_dead_emulator_is_worth_another_try_and_is_told_in_time(tmp_path: Path, google_project: str) -> None:
    with PubSubEmulator(tmp_path) as emulator:
        puller = Puller(emulator.host, google_project)
        bus = PubSubBus(google_project, emulator.host, timeout_s=2)
        bus.publish([order(1)])
        assert numbers(puller.pull(1)) == [1]
    began = time.monotonic()
    with pytest.raises(TransientError, match="topic 'orders'.*no answer in time"):
        bus.publish([order(2)])
    assert time.monotonic() - began < 4


def test_a_port_that_takes_calls_and_never_answers_is_given_up_in_time(google_project: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:
        bus = PubSubBus(google_project, f"127.0.0.1:{silent.server_port}", timeout_s=2)
        began = time.monotonic()
        with pytest.raises(TransientError, match="topic 'orders'.*no answer in time"):
            bus.publish([order(1)])
        assert time.monotonic() - began < 4


# --- push


class Functions:
    """An HTTP server in the place of the functions. ``got`` holds (path, push body) in the order they came."""

    def __init__(self) -> None:
        self.got: Queue[tuple[str, dict[str, Any]]] = Queue()
        self.status: Callable[[str], int] = lambda path: 204
        functions = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(functions.status(self.path))
                self.send_header("Content-Length", "0")
                self.end_headers()
                functions.got.put((self.path, body))

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: pytest shows what matters."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def next(self) -> tuple[str, dict[str, Any]]:
        """Return path and push body of the next delivery."""
        return self.got.get(timeout=WITHIN_S)


@contextmanager
def serving(server: Any) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def functions() -> Iterator[Functions]:
    found = Functions()
    with serving(found.server):
        yield found


def data(push: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(push["message"]["data"]))


def test_each_topic_is_pushed_to_its_function(
    bus: PubSubBus, host: str, google_project: str, functions: Functions
) -> None:
    set_up(google_project, functions.url + "/", {TOPIC: "cook", "invoices": "bill"}, emulator_host=host)
    bus.publish([order(1), Message("invoices", "run-2", {"n": 2})])
    got = {path: push for path, push in (functions.next(), functions.next())}
    assert {path: data(push)["n"] for path, push in got.items()} == {"/functions/cook/": 1, "/functions/bill/": 2}
    assert got["/functions/cook/"]["message"]["attributes"] == {"key": "run-1"}


def test_a_failed_push_is_repeated_and_at_last_becomes_a_dead_letter_that_names_its_topic(
    bus: PubSubBus, host: str, google_project: str, functions: Functions
) -> None:
    set_up(
        google_project, functions.url, {TOPIC: "cook"}, emulator_host=host, dead_letter_function="bury", policy=QUICK
    )
    functions.status = lambda path: 204 if path == "/functions/bury/" else 500
    bus.publish([order(1)])
    deliveries = [functions.next()[0] for _ in range(QUICK.max_attempts)]
    assert deliveries == ["/functions/cook/"] * QUICK.max_attempts
    path, push = functions.next()
    assert path == "/functions/bury/" and data(push)["n"] == 1
    attributes = push["message"]["attributes"]
    assert attributes["key"] == "run-1" and attributes["CloudPubSubDeadLetterSourceSubscription"] == TOPIC


def test_a_push_that_fails_once_comes_again_and_is_then_over(
    bus: PubSubBus, host: str, google_project: str, functions: Functions
) -> None:
    set_up(google_project, functions.url, {TOPIC: "cook"}, emulator_host=host, policy=QUICK)
    answers = iter([503])
    functions.status = lambda path: next(answers, 200)
    bus.publish([order(1)])
    assert [data(functions.next()[1])["n"] for _ in range(2)] == [1, 1]
    bus.publish([order(2)])
    assert data(functions.next()[1])["n"] == 2


def test_a_repeated_set_up_changes_nothing_and_a_new_address_moves_the_pushes(
    bus: PubSubBus, host: str, google_project: str, functions: Functions
) -> None:
    subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=grpc.insecure_channel(host)))

    def there() -> list[Any]:
        names = (TOPIC, DEAD_LETTERS)
        return [subscriber.get_subscription(subscription=subscription_path(google_project, name)) for name in names]

    set_up(google_project, "http://127.0.0.1:1", {TOPIC: "cook"}, emulator_host=host, policy=QUICK)
    first = there()
    set_up(google_project, "http://127.0.0.1:1", {TOPIC: "cook"}, emulator_host=host, policy=QUICK)
    assert there() == first

    set_up(google_project, functions.url, {TOPIC: "chef"}, emulator_host=host, policy=QUICK)
    moved = [one.push_config.push_endpoint for one in there()]
    assert moved == [f"{functions.url}/functions/chef/", f"{functions.url}/functions/dead_letter/"]
    bus.publish([order(1)])
    assert functions.next()[0] == "/functions/chef/"


def test_the_cloud_policy_is_taken_as_it_is(host: str, google_project: str) -> None:
    set_up(google_project, "http://127.0.0.1:1", {TOPIC: "cook"}, emulator_host=host)
    subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=grpc.insecure_channel(host)))
    made = subscriber.get_subscription(subscription=subscription_path(google_project, TOPIC))
    assert made.ack_deadline_seconds == 600
    assert made.dead_letter_policy.max_delivery_attempts == 10
    assert made.dead_letter_policy.dead_letter_topic == topic_path(google_project, DEAD_LETTERS)
    backoff = made.retry_policy.minimum_backoff, made.retry_policy.maximum_backoff
    assert backoff == (timedelta(seconds=10), timedelta(seconds=600))


FUNCTION = """
import functions_framework
from functions.events import message_data
from functions.framework import take_pushes
from tests.google_fixtures import received

@functions_framework.cloud_event
def cook(event):
    received.put((event["id"], event.data, message_data(event)))

take_pushes()
"""


@contextmanager
def cooking(source: Path) -> Iterator[str]:
    """Serve the function above as main.py serves ours; yield where."""
    source.write_text(FUNCTION)
    create_app: Any = functions_framework.create_app  # untyped
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    app = DispatcherMiddleware(None, {"/functions/cook": create_app(target="cook", source=str(source))})
    root.handlers[:], root.level = handlers, level  # the framework adds its own
    server = make_server("127.0.0.1", 0, app, threaded=True)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


def test_a_function_of_the_framework_reads_what_the_emulator_pushes(
    bus: PubSubBus, host: str, google_project: str, tmp_path: Path
) -> None:
    with cooking(tmp_path / "main.py") as url:
        set_up(google_project, url, {TOPIC: "cook"}, emulator_host=host)
        bus.publish([order(1)])
        number, event, order_read = received.get(timeout=WITHIN_S)
    assert order_read == {"n": 1, "text": "Käse ☃"}
    assert event["message"]["messageId"] == event["message"]["message_id"] == number
    assert event["message"]["attributes"] == {"key": "run-1"}
    assert event["subscription"] == subscription_path(google_project, TOPIC)


def test_a_function_reads_an_unwrapped_push_with_its_attributes(
    bus: PubSubBus, host: str, google_project: str, tmp_path: Path
) -> None:
    publisher = PublisherClient(transport=PublisherGrpcTransport(channel=grpc.insecure_channel(host)))
    subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=grpc.insecure_channel(host)))
    publisher.create_topic(name=topic_path(google_project, TOPIC))
    with cooking(tmp_path / "main.py") as url:
        path = subscription_path(google_project, TOPIC)
        push = {"push_endpoint": f"{url}/functions/cook/", "no_wrapper": {"write_metadata": True}}
        subscriber.create_subscription(
            request={"name": path, "topic": topic_path(google_project, TOPIC), "push_config": push}
        )
        bus.publish([order(1)])
        number, event, order_read = received.get(timeout=WITHIN_S)
    assert order_read == {"n": 1, "text": "Käse ☃"}
    assert event["message"]["messageId"] == number and event["message"]["attributes"] == {"key": "run-1"}
    assert event["subscription"] == path
