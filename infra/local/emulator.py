"""The BigQuery emulator as a child process (``local-bigquery``, see docs/decisions/0007-libraries.md)."""

import json
import socket
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from common.platform.errors import PipelineOpsError
from common.platform.paths import PROJECT_ROOT
from common.platform.settings import environment_variable
from infra.local.watched import Watched

START_WITHIN_S = 60.0
"""Far longer than a start takes, a few seconds: on a busy machine it must not fail for lack of time."""
FREED_WITHIN_S = 10.0
"""How long a start waits for a previous emulator, which may still be stopping, to release the data's lock."""

STRICT_WITHIN_S = 400.0
"""With Google's analyzer before it, which is compiled on a machine's first start: a minute or so."""

REFUSALS = "PIPELINE_OPS_SQL_REFUSALS"
"""Environment variable: a file. With it the emulator refuses SQL that BigQuery refuses, and appends it to that file."""

PROGRAM = f"""
import runpy, sys
sys.path[0] = {str(PROJECT_ROOT)!r}
runpy.run_module('infra.local.{{module}}', run_name='__main__', alter_sys=True)
"""

EXTENSIONS = ("ducklake", "spatial", "icu")


class EmulatorError(PipelineOpsError):
    """The emulator could not be started; the message has the end of its log."""


class EndedAtOnceError(EmulatorError):
    """The emulator's process ended during its start, as it does if its port is taken."""


class BigQueryEmulator:
    """One emulator on one data directory. ``url`` is set once it is started."""

    def __init__(self, data_dir: Path, project: str) -> None:
        self._data_dir, self._project = data_dir, project
        self.log_path = data_dir / "emulator.log"
        self.url = ""
        self.process = Watched()
        self._ports = (0, 0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start the emulator and wait until it responds with its data.

        Raises EmulatorError and leaves nothing running. The message has the end of the log, or says that another
        emulator holds the data directory.
        """
        self._data_dir.mkdir(parents=True, exist_ok=True)
        _import_extensions()
        self._ports = _free_ports()
        try:
            self._launch()
        except EndedAtOnceError:
            # Another process may take a free port before the emulator does: retry once, with other ports.
            self._ports = _free_ports()
            self._launch()

    def revive(self) -> bool:
        """Start the emulator again if its process has ended, on the same data; return whether it had.

        The address stays the same, because clients have it. Raises EmulatorError; the next call tries again.
        """
        if not self.process.ended():
            return False
        self.process.stop()
        self._launch()
        return True

    def _launch(self) -> None:
        port, grpc_port = self._ports
        if find_spec("local_bigquery") is None:
            raise EmulatorError("local-bigquery is not installed here: pip install -r requirements-local.txt")
        refusals = environment_variable(REFUSALS)
        command = [sys.executable, "-c", PROGRAM.format(module="strict_bigquery" if refusals else "lean_bigquery")]
        command += [refusals] if refusals else []
        command += ["--data-dir", str(self._data_dir / "data"), "--host", "127.0.0.1"]
        command += ["--port", str(port), "--grpc-port", str(grpc_port), "--project", self._project]
        self.process.start(command, self.log_path)
        self.url = f"http://127.0.0.1:{port}"
        try:
            self._wait_for_port(STRICT_WITHIN_S if refusals else START_WITHIN_S)
            self._wait_for_data()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the emulator; return when its process has ended."""
        self.process.stop()

    def _wait_for_port(self, within_s: float) -> None:
        """Wait until its log says that it listens: before, a response on the port may come from another process."""
        deadline = time.monotonic() + within_s
        while f"running on {self.url} " not in self.log_path.read_text("utf-8", "replace"):
            if self.process.ended():
                raise EndedAtOnceError(f"The BigQuery emulator ended while it started. {self._log_end()}")
            if time.monotonic() > deadline:
                raise EmulatorError(f"The BigQuery emulator did not respond within {within_s:.0f} s. {self._log_end()}")
            time.sleep(0.05)

    def _wait_for_data(self) -> None:
        """Wait until it responds with its data, which it opens on the first request."""
        deadline = time.monotonic() + FREED_WITHIN_S
        while problem := self._problem():
            is_locked = "set lock" in problem  # DuckDB: "Could not set lock on file"
            if not is_locked or time.monotonic() > deadline:
                hint = " Another emulator uses it: stop that process, or use another directory." if is_locked else ""
                raise EmulatorError(f"The BigQuery emulator can't use {self._data_dir}: {problem}{hint}")
            time.sleep(0.1)

    def _problem(self) -> str:
        """List the datasets; return the error, or an empty string."""
        try:
            probe = f"{self.url}/bigquery/v2/projects/{self._project}/datasets"
            with urllib.request.urlopen(probe, timeout=START_WITHIN_S):
                return ""
        except urllib.error.HTTPError as error:
            body = error.read().decode("utf-8", "replace")
            try:
                return str(json.loads(body)["error"]["message"])
            except (ValueError, LookupError, TypeError):
                return f"{error} {body[:200]}"
        except OSError as error:
            return f"{error}. {self._log_end()}"

    def _log_end(self) -> str:
        lines = self.log_path.read_text("utf-8", "replace").strip().splitlines()[-5:]
        return f"The end of {self.log_path}: " + " | ".join(lines)


def _free_ports() -> tuple[int, int]:
    """Return two different free ports: both sockets are open at the same time."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


def _import_extensions() -> None:
    """Copy DuckDB's extensions from their wheels to DuckDB's folder, once per user, so that it works offline."""
    import duckdb

    folder = Path.home() / ".duckdb" / "extensions" / f"v{duckdb.__version__}"
    if all(list(folder.glob(f"*/{name}.duckdb_extension")) for name in EXTENSIONS):
        return
    import duckdb_extensions

    for name in EXTENSIONS:
        duckdb_extensions.import_extension(name)
