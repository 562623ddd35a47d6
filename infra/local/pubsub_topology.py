"""Topics and push subscriptions on the Pub/Sub emulator, as ``infra`` sets them up in the cloud.

What a function finds different here:

- the push body is not a CloudEvent, and has no ordering key: ``functions/pushes.py`` makes an event of it;
- a function must answer 200, 201 or 204: the emulator delivers again after a 202;
- no more than two messages of a subscription are in flight.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from common.adapters.google.pubsub import topic_path
from functions.locks import TOKEN_QUERY

DEAD_LETTERS = "dead-letters"
ACK_DEADLINE_S = 600
"""The most there is, and longer than any function may run."""


@dataclass(frozen=True, slots=True)
class PushPolicy:
    """How a failed push is repeated, and after how many it becomes a dead letter (Pub/Sub wants 5 to 100).

    Without a longest backoff a push is repeated as soon as may be: every second here. The shortest backoff there is
    comes to three seconds.
    """

    min_backoff_s: float = 10.0
    max_backoff_s: float = 600.0
    max_attempts: int = 10


CLOUD_POLICY = PushPolicy()


def subscription_path(project_id: str, topic: str) -> str:
    """Return the full name of a topic's push subscription, which is called like the topic."""
    return f"projects/{project_id}/subscriptions/{topic}"


def endpoint(base_url: str, function: str, token: str | None = None) -> str:
    """Return where a function takes its messages. Without the last slash its host answers 308, which is a failure.

    The emulator signs nothing, and a push can have no header of ours: a stack's own token goes into the address.
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
    """Make every topic of ``subscriptions`` (topic to function) and of the dead letters, each with its push.

    A repeat changes nothing but the endpoints, if ``base_url`` or a function is another one now.
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
        # A dead letter that can't be recorded is tried until it can: there is nowhere else for it to go.
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
        "expiration_policy": {},  # never: a topic that is quiet for a month keeps its function
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
        there = subscriber.get_subscription(subscription=request["name"])
        if there.push_config.push_endpoint != request["push_config"]["push_endpoint"]:
            subscriber.modify_push_config(subscription=request["name"], push_config=request["push_config"])
