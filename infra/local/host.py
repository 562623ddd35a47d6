"""Serves every function in one process, and delivers the bus's messages to them as Pub/Sub would.

Each function is its own functions-framework app, mounted below ``/functions/<name>/``; the API is at the root. A
message becomes a binary-mode CloudEvent that is posted to its function in process. 2xx acknowledges it; after any other
status it is redelivered.
"""

import base64
import json
import logging
import sys
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import functions_framework
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from common.adapters.sql.sqlite.bus import Delivery
from common.platform.logs import bound
from common.platform.paths import PROJECT_ROOT
from common.ports.bus import Message
from common.processors.registry import PROCESSORS
from common.runs.topics import DEAD_LETTER_SOURCE, DEAD_LETTERS, RUN_FINISHED, RUNS, STEP_COMPLETED, step_topic
from functions.authorization import TOKEN_HEADER
from functions.pushes import EVENT_TYPE, SERVICE
from functions.run_step import function_name

SUBSCRIPTIONS: dict[str, str] = {
    RUNS: "start_run",
    STEP_COMPLETED: "advance",
    RUN_FINISHED: "run_finished",
    DEAD_LETTERS: "dead_letter",
    **{step_topic(ps_type): function_name(ps_type) for ps_type in PROCESSORS},
}
"""The function that subscribes to each topic, as in the cloud."""

CLOCKED = ("sweep", "cron")
"""Functions that a clock calls: in the cloud Scheduler, here the stack. They subscribe to the topics of their names."""


def wsgi_app() -> Any:
    """Return one WSGI application that serves every function."""

    def target(name: str) -> Any:
        create_app: Any = functions_framework.create_app  # untyped
        return create_app(target=name, source=str(PROJECT_ROOT / "main.py"))

    names = [*SUBSCRIPTIONS.values(), *CLOCKED]
    # functions-framework appends the folder of main.py to sys.path for every app: a process that creates many stacks
    # would search thousands of paths at each import.
    known = list(sys.path)
    mounts = {f"/functions/{name}": target(name) for name in names}
    api = target("api")
    sys.path[:] = known
    # It also adds handlers to the root logger for every app, which would repeat each log line.
    logging.getLogger().handlers.clear()
    return DispatcherMiddleware(api, mounts)


def cloud_event(delivery: Delivery, project_id: str, token: str | None) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a message as Eventarc delivers it to a function, with the stack's token."""
    message = delivery.message
    published = delivery.published_at.isoformat().replace("+00:00", "Z")
    number = str(delivery.message_id or uuid.uuid4().int % 10**16)  # Pub/Sub's ids are decimal digits
    headers = {
        "ce-id": number,
        "ce-specversion": "1.0",
        "ce-type": EVENT_TYPE,
        "ce-source": f"{SERVICE}projects/{project_id}/topics/{message.topic}",
        "ce-time": published,
        "Content-Type": "application/json",
        **({TOKEN_HEADER: token} if token else {}),
    }
    dead = {DEAD_LETTER_SOURCE: message.source, f"{DEAD_LETTER_SOURCE}Project": project_id} if message.source else {}
    body = {
        "message": {
            "data": base64.b64encode(json.dumps(message.data).encode()).decode(),
            "messageId": number,
            "message_id": number,
            "publishTime": published,
            "publish_time": published,
            "attributes": {"key": message.key, **dead},
        },
        "subscription": f"projects/{project_id}/subscriptions/{message.topic}",
        "deliveryAttempt": delivery.deliveries,
    }
    return headers, json.dumps(body).encode()


def call(app: Any, name: str, now: datetime, project_id: str, token: str | None) -> int:
    """Call one of the ``CLOCKED`` functions as Scheduler's message would; return the status."""
    delivery = Delivery(0, Message(name, name, {}), now, 1)
    headers, body = cloud_event(delivery, project_id, token)
    with bound(function=name):
        return Client(app).post(f"/functions/{name}/", data=body, headers=headers).status_code


def poster(app: Any, project_id: str, token: str | None) -> Callable[[Delivery], str | None]:
    """Return a ``deliver`` that posts a message to its function in process; a 2xx acknowledges it."""

    def deliver(delivery: Delivery) -> str | None:
        name = SUBSCRIPTIONS.get(delivery.message.topic)
        if name is None:
            return f"no function subscribes to topic {delivery.message.topic!r}"
        headers, body = cloud_event(delivery, project_id, token)
        with bound(function=name):
            response = Client(app).post(f"/functions/{name}/", data=body, headers=headers)
        return None if 200 <= response.status_code < 300 else f"{name} responded {response.status_code}"

    return deliver
