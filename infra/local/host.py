"""Serves every function in one process, and delivers the bus's messages to them as Pub/Sub would.

Each function is its own functions-framework app, mounted below ``/functions/<name>/``; the API is at the root. A
message becomes a binary-mode CloudEvent posted to its function in process. 2xx acknowledges it, anything else brings
it back later.
"""

import base64
import json
import logging
import threading
from collections.abc import Callable
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

QUICK_TOPICS = (RUNS, STEP_COMPLETED)
"""Topics whose functions only read configs and move runs on: they wait for nothing but the store."""

SLOW_TOPICS = tuple(topic for topic in SUBSCRIPTIONS if topic not in QUICK_TOPICS)
QUICK_LIMIT = 16
"""Messages a transaction, so that whoever wants to write does not wait for long."""

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
    """Pulls due messages and hands each to ``deliver`` on a pool of threads, until stopped.

    ``deliver`` returns None if the message was taken, else what went wrong. Acknowledgements travel with the next
    pull, in one transaction; one that is lost with the process only repeats a message.
    """

    def __init__(self, bus: SqliteBus, deliver: Callable[[Delivery], str | None], workers: int = WORKERS) -> None:
        self._bus, self._deliver, self._workers = bus, deliver, workers
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._busy = 0
        self._taken: list[Delivery] = []
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="function")
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
        self._bus.pull(0, self._taken)

    def _pull(self) -> None:
        while not self._stopping.is_set():
            seen = self._bus.seen
            with self._lock:
                free, taken, self._taken = self._workers - self._busy, self._taken, []
            found: list[Delivery] = []
            quick = 0
            try:
                with self._bus.batch():
                    quick = self._run_quick(taken)
                    found = self._bus.pull(free, topics=SLOW_TOPICS) if free else []
            except Exception:
                logger.exception("The bus could not be read; trying again")
                with self._lock:
                    self._taken = taken + self._taken
                found = []
            with self._lock:
                self._busy += len(found)
            for delivery in found:
                self._pool.submit(self._run, delivery)
            if not found and not quick:
                self._bus.wait(seen, IDLE_POLL_S)

    def _run_quick(self, taken: list[Delivery]) -> int:
        """Deliver what only moves runs on, here and in the same transaction: pulled, applied, acknowledged at once."""
        quick = self._bus.pull(QUICK_LIMIT, taken, QUICK_TOPICS)
        for delivery in quick:
            error = self._deliver(delivery)
            if error is None:
                self._bus.ack(delivery)
            else:
                logger.warning("Delivery %d to %s failed: %s", delivery.deliveries, delivery.message.topic, error)
                self._bus.nack(delivery, error)
        return len(quick)

    def _run(self, delivery: Delivery) -> None:
        taken = False
        try:
            error = self._deliver(delivery)
            taken = error is None
            if error is not None:
                logger.warning("Delivery %d to %s failed: %s", delivery.deliveries, delivery.message.topic, error)
                self._bus.nack(delivery, error)
        except Exception:
            # Neither acknowledged nor given back: it comes again when its deadline is over.
            logger.exception("A delivery could not be settled")
        finally:
            with self._lock:
                was_full = self._busy == self._workers
                self._busy -= 1
                if taken:
                    self._taken.append(delivery)
            if was_full:
                self._bus.wake()


def poster(app: Any, project_id: str) -> Callable[[Delivery], str | None]:
    """Return a ``deliver`` that posts a message to its function in process; 2xx takes it."""

    def deliver(delivery: Delivery) -> str | None:
        name = SUBSCRIPTIONS.get(delivery.message.topic)
        if name is None:
            return f"no function listens to topic {delivery.message.topic!r}"
        headers, body = cloud_event(delivery, project_id)
        with bound(function=name):
            answer = Client(app).post(f"/functions/{name}/", data=body, headers=headers)
        return None if 200 <= answer.status_code < 300 else f"{name} answered {answer.status_code}"

    return deliver
