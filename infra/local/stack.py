"""The local stacks: a store and a bus, the BigQuery emulator or BigQuery itself, and every function in this process.

One stack per state directory at a time, by a file lock, which the system releases however the process ends. A start
resumes the work of the previous process: its leases are released and its messages redelivered.
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
from infra.local.host import call, poster, wsgi_app

SWEEP_EVERY_S = 5.0
"""In the cloud Scheduler sweeps every minute; here it may be more often, because a sweep is one indexed read."""


TICK_EVERY_S = 15.0
"""In the cloud it is a minute, Scheduler's smallest step. A run starts this much after its time at the latest."""

LOOK_AT_EMULATOR_EVERY_S = 1.0
"""How often the stack looks whether the BigQuery emulator's process still runs; a look is one system call."""

SHARED = ("bigquery_url", "store", "firestore_host", "pubsub_host", "operator_token")
"""Settings of a running stack that other processes need to use its store and warehouse."""


def new_token() -> str:
    """Return a random token of 256 bits, valid while the process runs."""
    return secrets.token_hex(32)


class StackBusyError(PipelineOpsError):
    """Another process runs a stack on the same state directory."""


class Server(Protocol):
    """An HTTP server that can be stopped."""

    def close(self) -> None:
        """Accept no more requests."""


class LocalStack(ABC):
    """Starts and stops everything. ``url`` serves the API; ``engine`` is the process's engine.

    Stacks differ in the servers behind the store and in how messages reach their functions.
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
        """Start all parts and resume the work of an earlier process."""
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
            self._keeper = threading.Thread(target=self._keep, args=[self._emulator], name="emulator", daemon=True)
            self._keeper.start()
        settings = replace(
            self._start_store(settings),
            operator_token=settings.operator_token or new_token(),
            invoker_token=new_token(),
        )
        self.engine = bootstrap.build(settings)
        bootstrap.use(self.engine)
        app = self._app = wsgi_app()
        self._server, port = self._listen(app)
        self.url = f"http://{self._host}:{port}"
        self._start_delivery(app)
        self._publish(settings)  # last: other processes use the stack as soon as the file is there
        self._sweeper = threading.Thread(target=self._sweep, name="sweeper", daemon=True)
        self._sweeper.start()

    def _start_store(self, settings: Settings) -> Settings:
        """Start the store's servers; return settings with their addresses."""
        return settings

    def _stop_store(self) -> None:  # noqa: B027 - most stacks have no such servers
        """Stop the servers that ``_start_store`` started."""

    @abstractmethod
    def _start_delivery(self, app: Any) -> None:
        """Start the delivery of messages to their functions."""

    @abstractmethod
    def _stop_delivery(self) -> None:
        """Stop delivery; also called if it was never started."""

    def _publish(self, settings: Settings) -> None:
        """Write the stack's addresses and token for other processes of this user."""
        stack = {name: getattr(settings, name) for name in SHARED} | {"url": self.url, "pid": os.getpid()}
        new = settings.state_dir / "stack.json.new"
        new.unlink(missing_ok=True)
        # Created with its mode, because it holds the operator's token; then renamed, so that nobody reads half of it.
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            json.dump(stack, out)
        new.replace(settings.state_dir / "stack.json")

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

    def carry_out_schedules(self) -> None:
        """Start runs when their schedules say so, until the stack stops. Only ``serve`` does: a stack that a command
        starts for itself, such as the demo's, must not run anything that nobody asked for."""
        self._ticker = threading.Thread(target=self._tick, name="ticker", daemon=True)
        self._ticker.start()

    def _tick(self) -> None:
        while not self._stopping.is_set():
            settings = self.engine.settings
            status = call(self._app, "cron", self.engine.now(), settings.project_id, settings.invoker_token)
            if status != 200:
                logger.error("cron responded %d; the next call catches up", status)
            self._stopping.wait(TICK_EVERY_S)

    def _keep(self, emulator: BigQueryEmulator) -> None:
        """Start the emulator again whenever it has died: without it every run would fail until somebody notices."""
        while not self._stopping.wait(LOOK_AT_EMULATOR_EVERY_S):
            try:
                if emulator.revive():
                    logger.warning("The BigQuery emulator had ended and was started again on its data")
            except Exception:
                logger.exception("The BigQuery emulator has ended and could not be started; trying again")

    def stop(self) -> None:
        """Stop all parts, after running steps have ended."""
        self._stopping.set()
        # Delivery first and the lock last: running steps still need the store and the emulator, and the next stack must
        # not start before all of it is released.
        self._stop_delivery()
        for thread in ("_sweeper", "_ticker"):
            if hasattr(self, thread):
                getattr(self, thread).join()
        if self._server is not None:
            self._server.close()
        bootstrap.use(None)
        self._stop_store()
        if self._emulator is not None:
            if hasattr(self, "_keeper"):
                self._keeper.join()  # otherwise it could start the emulator that is being stopped
            self._emulator.stop()
        if self._lock is not None:
            (self._settings.state_dir / "stack.json").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


class EmbeddedStack(LocalStack):
    """Store and bus in one SQLite file; it needs nothing but Python."""

    _dispatcher: Dispatcher | None = None

    def _start_delivery(self, app: Any) -> None:
        bus = self.engine.bus
        assert isinstance(bus, SqliteBus)
        bus.release()
        recovered = self.engine.recover()
        if recovered:
            logger.warning("Resuming %d runs of an earlier process", recovered)
        self._dispatcher = Dispatcher(bus, poster(app, self._settings.project_id, self.engine.settings.invoker_token))
        self._dispatcher.start()

    def _stop_delivery(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.stop()


def running(state_dir: Path) -> str | None:
    """Return the URL of the stack that another process runs on this directory, or None."""
    url: str | None = _published(state_dir).get("url")
    return url


def attached(settings: Settings) -> Settings:
    """Return settings that point to the store and warehouse of the running stack; unchanged if none runs."""
    published = _published(settings.state_dir)
    return replace(settings, **{name: published[name] for name in SHARED if name in published})


@contextmanager
def reading(settings: Settings) -> Iterator[Settings]:
    """Yield settings for store and warehouse: those of the running stack, or of an emulator that runs for the block.

    Resumes no runs. In the cloud, no emulator is needed.
    """
    reachable = attached(settings)
    if reachable.bigquery_url is not None or reachable.needs_no_emulator:
        yield reachable
        return
    # The lock keeps a stack from starting a second emulator on the same data meanwhile.
    handle = _take_lock(settings.state_dir)
    try:
        with BigQueryEmulator(settings.state_dir / "bigquery", settings.project_id) as emulator:
            yield replace(reachable, bigquery_url=emulator.url)
    finally:
        os.close(handle)


def _published(state_dir: Path) -> dict[str, Any]:
    """Return the contents of the running stack's file; empty if none runs. A killed stack leaves the file behind."""
    try:
        handle = _take_lock(state_dir)
    except StackBusyError:
        try:
            published: dict[str, Any] = json.loads((state_dir / "stack.json").read_text())
        except (OSError, ValueError):  # the stack is still starting
            return {}
        return published
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
