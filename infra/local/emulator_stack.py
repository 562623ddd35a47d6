"""The whole product on Google's emulators: the clients, pushes and dead letters of the cloud, on one machine.

The emulators keep everything in memory, so runs and messages are lost when they end. Emulators that the stack started
end with it. With ``FIRESTORE_EMULATOR_HOST`` and ``PUBSUB_EMULATOR_HOST`` it uses existing ones, which it must not
share with another stack: at start it takes every lease there for that of a dead process. Rows in BigQuery and the
credentials' key are in the state directory.
"""

import logging
import threading
from dataclasses import replace
from typing import Any

from werkzeug.serving import BaseWSGIServer, make_server

from common.platform.logs import logger
from common.platform.settings import Settings
from infra.local.google_emulators import GoogleEmulators
from infra.local.host import SUBSCRIPTIONS
from infra.local.pubsub_topology import DEAD_LETTERS, PushPolicy, set_up
from infra.local.stack import LocalStack, Server

PUSH_POLICY = PushPolicy(min_backoff_s=0, max_backoff_s=0, max_attempts=30)
"""Without a backoff the emulator redelivers every second, where the cloud's policy would wait minutes. 30 attempts, so
that messages do not become dead letters while the stack is down for a few seconds."""


class _Closing:
    """Adapts a werkzeug server to the Server protocol."""

    def __init__(self, server: BaseWSGIServer) -> None:
        self._server = server

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class EmulatorStack(LocalStack):
    """Firestore and Pub/Sub from Google's emulators; Pub/Sub pushes to this process over HTTP."""

    _emulators: GoogleEmulators | None = None

    def _start_store(self, settings: Settings) -> Settings:
        settings = replace(settings, store="google")
        if settings.firestore_host and settings.pubsub_host:
            return settings
        self._emulators = GoogleEmulators(settings.state_dir)
        self._emulators.start()
        firestore, pubsub = self._emulators.firestore_host, self._emulators.pubsub_host
        return replace(settings, firestore_host=firestore, pubsub_host=pubsub)

    def _stop_store(self) -> None:
        if self._emulators is not None:
            self._emulators.stop()

    def _listen(self, app: Any) -> tuple[Server, int]:
        # The Pub/Sub emulator hangs after some hundred pushes to a server that keeps connections open; werkzeug's
        # closes each after its response.
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        server = make_server(self._host, self._port, app, threaded=True)
        threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
        return _Closing(server), server.port

    def _stop_delivery(self) -> None:
        if self._emulators is not None:
            self._emulators.pubsub.stop()

    def _start_delivery(self, app: Any) -> None:
        pubsub = self.engine.settings.pubsub_host
        assert pubsub is not None
        recovered = self.engine.recover()
        if recovered:
            logger.warning("Resuming %d runs of an earlier process", recovered)
        functions = {topic: function for topic, function in SUBSCRIPTIONS.items() if topic != DEAD_LETTERS}
        set_up(
            self._settings.project_id,
            self.url,
            functions,
            emulator_host=pubsub,
            policy=PUSH_POLICY,
            token=self.engine.settings.invoker_token,
        )
