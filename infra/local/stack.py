"""The local stacks: a store and a bus, the BigQuery emulator (or BigQuery itself), every function in this process.

One stack a state directory at a time (a file lock holds it, which the system frees however the process ends). A
start goes on where the last one stopped: leases of the dead process are given up, its messages delivered again.
"""

import fcntl
import json
import os
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from common import bootstrap
from common.adapters.sql.sqlite.bus import SqliteBus
from common.platform.errors import PipelineOpsError
from common.platform.logs import logger
from common.platform.settings import Settings
from common.runs.engine import Engine
from infra.local.dispatcher import Dispatcher
from infra.local.emulator import BigQueryEmulator
from infra.local.host import poster, wsgi_app

SWEEP_EVERY_S = 5.0
"""The cloud's Scheduler sweeps every minute; here a sweep costs one indexed read."""


TOLD = ("bigquery_url", "store", "firestore_host", "pubsub_host", "operator_token")
"""Settings of a running stack that others need to reach what it reaches; the file is for its owner alone."""


def new_token() -> str:
    """Return a token that nobody can guess, for the time of one process."""
    return secrets.token_hex(32)


class StackBusyError(PipelineOpsError):
    """Another process runs a stack on the same state directory."""


class Server(Protocol):
    """A server of HTTP that can be ended."""

    def close(self) -> None:
        """Take no more requests."""


class LocalStack(ABC):
    """Starts and stops everything. ``url`` serves the API; ``engine`` is the process's engine.

    What differs from stack to stack are the servers behind the store and the way of a message to its function.
    """

    def __init__(self, settings: Settings, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._settings, self._host, self._port = settings, host, port
        self._stopping = threading.Event()
        self._emulator: BigQueryEmulator | None = None
        self._lock: int | None = None
        self._server: Server | None = None
        self.url = ""
        self.engine: Engine

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Bring everything up and take up what an earlier process left."""
        self._lock = _take_lock(self._settings.state_dir)
        try:
            self._start_parts()
        except BaseException:
            self.stop()
            raise

    @property
    def token(self) -> str | None:
        """The operator's token, which opens the API for every organisation."""
        return self.engine.settings.operator_token

    def _start_parts(self) -> None:
        settings = self._settings
        if settings.bigquery_url is None and not settings.own_bigquery:
            self._emulator = BigQueryEmulator(settings.state_dir / "bigquery", settings.project_id)
            self._emulator.start()
            settings = replace(settings, bigquery_url=self._emulator.url)
        settings = replace(
            self._start_store(settings),
            operator_token=settings.operator_token or new_token(),
            invoker_token=new_token(),
        )
        self.engine = bootstrap.build(settings)
        bootstrap.use(self.engine)
        app = wsgi_app()
        self._server, port = self._listen(app)
        self.url = f"http://{self._host}:{port}"
        self._start_delivery(app)
        self._tell(settings)
        self._sweeper = threading.Thread(target=self._sweep, name="sweeper", daemon=True)
        self._sweeper.start()

    def _start_store(self, settings: Settings) -> Settings:
        """Start what keeps runs and messages; return the settings that lead to it."""
        return settings

    def _stop_store(self) -> None:  # noqa: B027 - most have nothing to end
        """End what ``_start_store`` started."""

    @abstractmethod
    def _start_delivery(self, app: Any) -> None:
        """Have messages delivered to their functions."""

    @abstractmethod
    def _stop_delivery(self) -> None:
        """Deliver nothing any more; also called where nothing was started."""

    def _tell(self, settings: Settings) -> None:
        """Say where the stack is, now that every part of it works."""
        where = {name: getattr(settings, name) for name in TOLD} | {"url": self.url, "pid": os.getpid()}
        fresh = settings.state_dir / "stack.json.new"
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump(where, out)
        fresh.replace(settings.state_dir / "stack.json")

    def _listen(self, app: Any) -> tuple[Server, int]:
        """Start to serve; return the server and its port."""
        from infra.local.web import WebServer

        server = WebServer(app, self._host, self._port)
        threading.Thread(target=server.run, name="http", daemon=True).start()
        return server, server.effective_port

    def _sweep(self) -> None:
        while not self._stopping.wait(SWEEP_EVERY_S):
            try:
                self.engine.sweep()
            except Exception:
                logger.exception("The sweep failed; the next one tries again")

    def stop(self) -> None:
        """End every part; steps at work are waited for."""
        self._stopping.set()
        self._stop_delivery()
        if hasattr(self, "_sweeper"):
            self._sweeper.join()
        if self._server is not None:
            self._server.close()
        bootstrap.use(None)
        self._stop_store()
        if self._emulator is not None:
            self._emulator.stop()
        if self._lock is not None:
            (self._settings.state_dir / "stack.json").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


class EmbeddedStack(LocalStack):
    """Store and bus in one SQLite file; nothing but Python is needed."""

    _dispatcher: Dispatcher | None = None

    def _start_delivery(self, app: Any) -> None:
        bus = self.engine.bus
        assert isinstance(bus, SqliteBus)
        bus.release()
        recovered = self.engine.recover()
        if recovered:
            logger.warning("%d runs of an earlier process go on", recovered)
        self._dispatcher = Dispatcher(bus, poster(app, self._settings.project_id, self.engine.settings.invoker_token))
        self._dispatcher.start()

    def _stop_delivery(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.stop()


def running(state_dir: Path) -> str | None:
    """Return the URL of the stack that another process runs on this directory, or None."""
    url: str | None = _told(state_dir).get("url")
    return url


def attached(settings: Settings) -> Settings:
    """Return the settings with which this process reaches the store and the warehouse of a running stack, if any."""
    told = _told(settings.state_dir)
    return replace(settings, **{name: told[name] for name in TOLD if name in told})


@contextmanager
def reading(settings: Settings) -> Iterator[Settings]:
    """Give settings that reach store and warehouse: a running stack's, or for the time of the block an own emulator's.

    No work is taken up. What is in the cloud needs no stack.
    """
    there = attached(settings)
    if there.bigquery_url is not None or there.needs_no_emulator:
        yield there
        return
    handle = _take_lock(settings.state_dir)
    try:
        with BigQueryEmulator(settings.state_dir / "bigquery", settings.project_id) as emulator:
            yield replace(there, bigquery_url=emulator.url)
    finally:
        os.close(handle)


def _told(state_dir: Path) -> dict[str, Any]:
    """Return what the stack that runs on the directory says of itself; nothing if none does."""
    try:
        handle = _take_lock(state_dir)
    except StackBusyError:
        try:
            told: dict[str, Any] = json.loads((state_dir / "stack.json").read_text())
        except (OSError, ValueError):
            return {}
        return told
    os.close(handle)
    return {}


def _take_lock(state_dir: Path) -> int:
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(state_dir / "stack.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise StackBusyError(
            f"Another process runs a stack on {state_dir}. Use it (main.py run finds it), stop it, "
            "or give this one its own --state-dir."
        ) from error
    return handle
