"""Turns every push of Pub/Sub into the CloudEvent that Eventarc would have sent, so that functions see one form.

======================  ==============================================================  =================
form                    sent by                                                         here
======================  ==============================================================  =================
CloudEvent, binary      Eventarc; the embedded stack                                    left as it is
CloudEvent, structured  clients of the CloudEvents SDKs                                 left as it is
wrapped push            a push subscription                                             made binary
unwrapped push          a push subscription with ``no_wrapper`` and ``write_metadata``  made binary
unwrapped, no metadata  a push subscription with ``no_wrapper`` alone                   refused, in words
======================  ==============================================================  =================

functions-framework converts wrapped pushes too, but drops the subscription, the ordering key and the delivery attempt,
and refuses a message without data (Cloud Scheduler can send one). Unwrapped ones it can't read at all.

https://cloud.google.com/pubsub/docs/push, https://cloud.google.com/pubsub/docs/payload-unwrapping,
https://cloud.google.com/eventarc/docs/cloudevents
"""

import base64
import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from common.runs.topics import DEAD_LETTER_SOURCE

EVENT_TYPE = "google.cloud.pubsub.topic.v1.messagePublished"
SERVICE = "//pubsub.googleapis.com/"

METADATA = "x-goog-pubsub-"
"""Prefix of the headers in which an unwrapped push has its metadata. Its attributes are bare headers."""

ATTRIBUTES = ("key", DEAD_LETTER_SOURCE)
"""The attributes of our messages and of Pub/Sub's own that functions read. Among the headers of an unwrapped push,
nothing else tells an attribute from what a proxy added."""

Headers = Mapping[str, str]
"""A request's headers by their names in lower case."""


def event_of_push(headers: Headers, body: bytes) -> tuple[dict[str, str], bytes] | None:
    """Return headers and body of the binary CloudEvent for a push; None for a request that is no push."""
    if any(name.startswith("ce-") for name in headers):
        return None
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict) and isinstance(data.get("message"), dict) and isinstance(data.get("subscription"), str):
        message, push = data["message"], data
    elif f"{METADATA}message-id" in headers:
        push = _wrapped(headers, body)
        message = push["message"]
    else:
        return None
    number = message.get("messageId", message.get("message_id"))
    if not isinstance(number, str) or not number:
        return None
    event = {
        "ce-id": number,
        "ce-specversion": "1.0",
        "ce-type": EVENT_TYPE,
        "ce-source": SERVICE + push["subscription"],  # a push does not name its topic
        "content-type": "application/json",
    }
    published = message.get("publishTime", message.get("publish_time"))
    if isinstance(published, str) and published:
        event["ce-time"] = published
    return event, json.dumps(push).encode()


def _wrapped(headers: Headers, body: bytes) -> dict[str, Any]:
    """Return the body that the push would have if its payload were not unwrapped."""
    named = {name: headers[name.lower()] for name in ATTRIBUTES if name.lower() in headers}
    message = {
        "data": base64.b64encode(body).decode(),
        "attributes": named,
        "messageId": headers[f"{METADATA}message-id"],
        "publishTime": headers.get(f"{METADATA}publish-time", ""),
    }
    if ordering_key := headers.get(f"{METADATA}ordering-key"):
        message["orderingKey"] = ordering_key
    return {"message": message, "subscription": headers.get(f"{METADATA}subscription-name", "")}


class PushedEvents:
    """WSGI middleware that hands pushes on to an event function's app as CloudEvents."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        length = environ.get("CONTENT_LENGTH") or ""
        if "ce-id" not in headers and environ["REQUEST_METHOD"] == "POST" and length.isdecimal():
            body = environ["wsgi.input"].read(int(length))
            event = event_of_push(headers, body)
            if event is not None:
                more, body = event
                environ["CONTENT_TYPE"] = more.pop("content-type")
                environ |= {"HTTP_" + name.replace("-", "_").upper(): value for name, value in more.items()}
            environ |= {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return self._app(environ, start_response)
