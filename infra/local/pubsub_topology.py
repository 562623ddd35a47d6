"""Topics and push subscriptions on the Pub/Sub emulator, like those of the cloud.

Differences from the cloud:

- the push body is not a CloudEvent, and has no ordering key: ``functions/pushes.py`` turns it into an event;
- a function must respond 200, 201 or 204: the emulator redelivers after a 202;
- at most two messages per subscription are in flight.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from common.adapters.google.pubsub import topic_path
from functions.authorization import TOKEN_QUERY

DEAD_LETTERS = "dead-letters"
ACK_DEADLINE_S = 600
"""Pub/Sub's maximum, and longer than any function may run: a deadline that expires during a step redelivers it."""


@dataclass(frozen=True, slots=True)
class PushPolicy:
    """Backoff of failed pushes, and the number after which a message is a dead letter (Pub/Sub allows 5 to 100).

    With ``max_backoff_s`` 0 the emulator redelivers at once, which is every second; its shortest backoff is about three
    seconds.
    """

    min_backoff_s: float = 10.0
    max_backoff_s: float = 600.0
    max_attempts: int = 10


CLOUD_POLICY = PushPolicy()


def subscription_path(project_id: str, topic: str) -> str:
    """Return the full name of a topic's push subscription, which has the same name as the topic."""
    return f"projects/{project_id}/subscriptions/{topic}"


def endpoint(base_url: str, function: str, token: str | None = None) -> str:
    """Return a function's push endpoint. Without the trailing slash its host responds 308, which counts as a failure.

    The emulator signs no tokens and sends no custom headers, so the stack's token is in the query.
    """
    return f"{base_url.rstrip('/')}/functions/{function}/" + (f"?{TOKEN_QUERY}={token}" if token else "")


def set_up(
    project_id: str,
    base_url: str,
    subscriptions: Mapping[str, str],
    *,
    emulator_host: str,
    dead_letter_function: str = "dead_letter",
    policy: PushPolicy = CLOUD_POLICY,
    token: str | None = None,
) -> None:
    """Create every topic of ``subscriptions`` (topic to function) and that of dead letters, with push subscriptions.

    If they exist, only push endpoints are updated.
    """
    from google.cloud import pubsub_v1  # type: ignore[attr-defined, unused-ignore]

    publisher, subscriber = _clients(emulator_host)
    with publisher, subscriber:
        for topic in (DEAD_LETTERS, *subscriptions):
            _ensure_topic(publisher, topic_path(project_id, topic))
        dead_letters = pubsub_v1.types.DeadLetterPolicy(
            dead_letter_topic=topic_path(project_id, DEAD_LETTERS), max_delivery_attempts=policy.max_attempts
        )
        for topic, function in subscriptions.items():
            request = _subscription(project_id, topic, endpoint(base_url, function, token), policy)
            _ensure_subscription(subscriber, {**request, "dead_letter_policy": dead_letters})
        # No dead-letter policy: a dead letter that can't be recorded is redelivered until it can.
        request = _subscription(project_id, DEAD_LETTERS, endpoint(base_url, dead_letter_function, token), policy)
        _ensure_subscription(subscriber, request)


def _clients(emulator_host: str) -> tuple[Any, Any]:
    import grpc
    from google.pubsub_v1 import PublisherClient, SubscriberClient
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

    publisher = PublisherClient(transport=PublisherGrpcTransport(channel=grpc.insecure_channel(emulator_host)))
    subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=grpc.insecure_channel(emulator_host)))
    return publisher, subscriber


def _subscription(project_id: str, topic: str, push_endpoint: str, policy: PushPolicy) -> dict[str, Any]:
    request: dict[str, Any] = {
        "name": subscription_path(project_id, topic),
        "topic": topic_path(project_id, topic),
        "ack_deadline_seconds": ACK_DEADLINE_S,
        "push_config": {"push_endpoint": push_endpoint},
        "expiration_policy": {},  # never: by default Pub/Sub deletes a subscription after 31 days without activity
    }
    if policy.max_backoff_s > 0:
        request["retry_policy"] = {
            "minimum_backoff": timedelta(seconds=policy.min_backoff_s),
            "maximum_backoff": timedelta(seconds=policy.max_backoff_s),
        }
    return request


def _ensure_topic(publisher: Any, path: str) -> None:
    from google.api_core.exceptions import AlreadyExists

    try:
        publisher.create_topic(name=path)
    except AlreadyExists:
        return


def _ensure_subscription(subscriber: Any, request: Mapping[str, Any]) -> None:
    from google.api_core.exceptions import AlreadyExists

    try:
        subscriber.create_subscription(request=request)
    except AlreadyExists:
        existing = subscriber.get_subscription(subscription=request["name"])
        if existing.push_config.push_endpoint != request["push_config"]["push_endpoint"]:
            subscriber.modify_push_config(subscription=request["name"], push_config=request["push_config"])
