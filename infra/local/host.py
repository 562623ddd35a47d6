"""Serves every function in one process, and delivers the bus's messages to them as Pub/Sub would.

Each function is its own functions-framework app, mounted below ``/functions/<name>/``; the API is at the root. A
message becomes a binary-mode CloudEvent posted to its function in process. 2xx acknowledges it, anything else brings
it back later.
"""

import base64
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import functions_framework
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from common.adapters.sqlite.bus import Delivery, SqliteBus
from common.logs import bound, logger
from common.paths import PROJECT_ROOT
from common.processors.registry import PROCESSORS
from common.topics import (
    DEAD_LETTER_SOURCE,
    DEAD_LETTERS,
    RUN_FINISHED,
    RUNS,
    STEP_COMPLETED,
    step_topic,
)
from functions.run_step import function_name

SUBSCRIPTIONS: dict[str, str] = {
    RUNS: "start_run",
    STEP_COMPLETED: "advance",
    RUN_FINISHED: "run_finished",
    DEAD_LETTERS: "dead_letter",
    **{step_topic(ps_type): function_name(ps_type) for ps_type in PROCESSORS},
}
"""Which function listens to which topic, as ``infra`` sets it up in the cloud."""

WORKERS = 32
IDLE_POLL_S = 0.5


def wsgi_app() -> Any:
    """Return one WSGI application that serves every function."""

    def target(name: str) -> Any:
        create_app: Any = functions_framework.create_app  # untyped
        return create_app(target=name, source=str(PROJECT_ROOT / "main.py"))

    names = [*SUBSCRIPTIONS.values(), "sweep"]
    mounts = {f"/functions/{name}": target(name) for name in names}
    # functions-framework lowers the root logger and adds handlers of its own for every app it makes.
    logging.getLogger().handlers.clear()
    return DispatcherMiddleware(target("api"), mounts)


def cloud_event(delivery: Delivery, project_id: str) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a message as Eventarc delivers it to a function."""
    message = delivery.message
    published = delivery.published_at.isoformat().replace("+00:00", "Z")
    number = str(delivery.message_id)
    headers = {
        "ce-id": number,
        "ce-specversion": "1.0",
        "ce-type": "google.cloud.pubsub.topic.v1.messagePublished",
        "ce-source": f"//pubsub.googleapis.com/projects/{project_id}/topics/{message.topic}",
        "ce-time": published,
        "Content-Type": "application/json",
    }
    body = {
        "message": {
            "data": base64.b64encode(json.dumps(message.data).encode()).decode(),
            "messageId": number,
            "publishTime": published,
            "attributes": {"key": message.key, **({DEAD_LETTER_SOURCE: message.source} if message.source else {})},
        },
        "subscription": f"projects/{project_id}/subscriptions/{message.topic}",
        "deliveryAttempt": delivery.deliveries,
    }
    return headers, json.dumps(body).encode()


class Dispatcher:
    """Pulls due messages and posts each to its function on a pool of threads, until stopped."""

    def __init__(self, bus: SqliteBus, app: Any, project_id: str) -> None:
        self._bus, self._app, self._project_id = bus, app, project_id
        self._stopping = threading.Event()
        self._free = threading.Semaphore(WORKERS)
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="function")
        self._puller = threading.Thread(target=self._pull, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._puller.start()

    def stop(self) -> None:
        """Deliver nothing new and wait for the functions at work."""
        self._stopping.set()
        self._bus.wake()
        self._puller.join()
        self._pool.shutdown(wait=True, cancel_futures=False)

    def _pull(self) -> None:
        seen = 0
        while not self._stopping.is_set():
            self._free.acquire()
            try:
                found = self._bus.pull(1)
            except Exception:
                logger.exception("The bus could not be read; trying again")
                found = []
            if found:
                self._pool.submit(self._deliver, found[0])
                continue
            self._free.release()
            seen = self._bus.wait(seen, IDLE_POLL_S)

    def _deliver(self, delivery: Delivery) -> None:
        try:
            error = self._post(delivery)
            if error is None:
                self._bus.ack(delivery)
            else:
                logger.warning("Delivery %d to %s failed: %s", delivery.deliveries, delivery.message.topic, error)
                self._bus.nack(delivery, error)
        except Exception:
            # Neither acknowledged nor given back: it comes again when its deadline is over.
            logger.exception("A delivery could not be settled")
        finally:
            self._free.release()

    def _post(self, delivery: Delivery) -> str | None:
        """Post the message; return None if its function answered 2xx, else what went wrong."""
        name = SUBSCRIPTIONS.get(delivery.message.topic)
        if name is None:
            return f"no function listens to topic {delivery.message.topic!r}"
        headers, body = cloud_event(delivery, self._project_id)
        with bound(function=name):
            answer = Client(self._app).post(f"/functions/{name}/", data=body, headers=headers)
        return None if 200 <= answer.status_code < 300 else f"{name} answered {answer.status_code}"
