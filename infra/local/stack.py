"""The embedded stack: store and bus in SQLite, the BigQuery emulator, every function in this process.

One stack a state directory at a time (a file lock holds it, which the system frees however the process ends). A
start goes on where the last one stopped: leases of the dead process are given up, its messages delivered again.
"""

import fcntl
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common import bootstrap
from common.adapters.sqlite.bus import SqliteBus
from common.engine import Engine
from common.errors import PipelineOpsError
from common.logs import logger
from common.settings import Settings
from infra.local.emulator import BigQueryEmulator
from infra.local.host import Dispatcher, poster, wsgi_app

SWEEP_EVERY_S = 5.0
"""The cloud's Scheduler sweeps every minute; here a sweep costs one indexed read."""


class StackBusyError(PipelineOpsError):
    """Another process runs a stack on the same state directory."""


class EmbeddedStack:
    """Starts and stops everything. ``url`` serves the API; ``engine`` is the process's engine."""

    def __init__(self, settings: Settings, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._settings, self._host, self._port = settings, host, port
        self._stopping = threading.Event()
        self._emulator: BigQueryEmulator | None = None
        self._lock: int | None = None
        self._server: Any = None
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

    def _start_parts(self) -> None:
        settings = self._settings
        if settings.bigquery_url is None:
            self._emulator = BigQueryEmulator(settings.state_dir / "bigquery", settings.project_id)
            self._emulator.start()
            settings = replace(settings, bigquery_url=self._emulator.url)
        self.engine = bootstrap.build(settings)
        bootstrap.use(self.engine)
        assert isinstance(self.engine.bus, SqliteBus)
        app = wsgi_app()
        self._serve(app, settings)
        self.engine.bus.release()
        recovered = self.engine.recover()
        if recovered:
            logger.warning("%d runs of an earlier process go on", recovered)
        self._dispatcher = Dispatcher(self.engine.bus, poster(app, settings.project_id))
        self._dispatcher.start()
        self._sweeper = threading.Thread(target=self._sweep, name="sweeper", daemon=True)
        self._sweeper.start()

    def _serve(self, app: Any, settings: Settings) -> None:
        from waitress.server import create_server

        self._server = create_server(app, host=self._host, port=self._port, threads=8, ident="pipeline-ops")
        self.url = f"http://{self._host}:{self._server.effective_port}"
        threading.Thread(target=self._server.run, name="http", daemon=True).start()
        where = {"url": self.url, "pid": os.getpid(), "bigquery_url": settings.bigquery_url}
        (settings.state_dir / "stack.json").write_text(json.dumps(where))

    def _sweep(self) -> None:
        while not self._stopping.wait(SWEEP_EVERY_S):
            try:
                self.engine.sweep()
            except Exception:
                logger.exception("The sweep failed; the next one tries again")

    def stop(self) -> None:
        """End every part; steps at work are waited for."""
        self._stopping.set()
        if hasattr(self, "_dispatcher"):
            self._dispatcher.stop()
        if hasattr(self, "_sweeper"):
            self._sweeper.join()
        if self._server is not None:
            self._server.close()
        bootstrap.use(None)
        if self._emulator is not None:
            self._emulator.stop()
        if self._lock is not None:
            (self._settings.state_dir / "stack.json").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


def running(state_dir: Path) -> str | None:
    """Return the URL of the stack that another process runs on this directory, or None."""
    try:
        handle = _take_lock(state_dir)
    except StackBusyError:
        try:
            url: str = json.loads((state_dir / "stack.json").read_text())["url"]
        except (OSError, ValueError, KeyError):
            return None
        return url
    os.close(handle)
    return None


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
