"""Decodes the Pub/Sub message of a CloudEvent."""

import base64
import binascii
import json
from typing import Any

from cloudevents.http import CloudEvent

from common.platform.errors import PermanentError
from common.runs.topics import DEAD_LETTER_SOURCE

MAX_DATA_BYTES = 1_000_000
"""Largest encoded message that is parsed. Pub/Sub allows 10 MB; ours have ids and at most a receipt."""


def message_source(event: CloudEvent) -> str:
    """Return the subscription that gave up a dead letter; empty for any other message. Ours are named like topics.

    Google documents the short name; clients of other Pub/Sub servers see the full one, so the last part is taken.
    """
    body = event.data if isinstance(event.data, dict) else {}
    message = body.get("message")
    attributes = message.get("attributes") if isinstance(message, dict) else None
    source = attributes.get(DEAD_LETTER_SOURCE, "") if isinstance(attributes, dict) else ""
    return str(source).rpartition("/")[2]


def message_data(event: CloudEvent) -> dict[str, Any]:
    """Return the JSON object in a Pub/Sub CloudEvent.

    Raises PermanentError for anything else. The function then fails, Pub/Sub redelivers the message a few times, and it
    becomes a dead letter that an operator can inspect.
    """
    body = event.data if isinstance(event.data, dict) else {}
    message = body.get("message")
    encoded = message.get("data") if isinstance(message, dict) else None
    if not isinstance(encoded, str) or len(encoded) > MAX_DATA_BYTES:
        raise PermanentError("The event is not a Pub/Sub message with data of at most 1 MB.")
    try:
        data = json.loads(base64.b64decode(encoded, validate=True))
    except (binascii.Error, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise PermanentError(f"The message's data is not base64 of JSON: {type(error).__name__}.") from error
    if not isinstance(data, dict):
        raise PermanentError("The message's data is not a JSON object.")
    return data
