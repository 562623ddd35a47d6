"""The BigQuery emulator as a child process (``local-bigquery``, see docs/decisions/0007-libraries.md)."""

import json
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from common.platform.errors import PipelineOpsError
from common.platform.paths import PROJECT_ROOT
from common.platform.settings import environment_variable
from infra.local.watched import Watched

START_WITHIN_S = 60.0
FREED_WITHIN_S = 10.0
"""How long a start waits for the emulator before it, which may still be ending, to let go of the data."""

STRICT_WITHIN_S = 400.0
"""With Google's analyzer before it, which is compiled on a machine's first start: a minute or so."""

REFUSALS = "PIPELINE_OPS_SQL_REFUSALS"
"""Environment variable: a file. With it the emulator refuses SQL that BigQuery refuses, and appends it to that file."""

STRICT = f"""
import runpy, sys
sys.path[0] = {str(PROJECT_ROOT)!r}
runpy.run_module('infra.local.strict_bigquery', run_name='__main__', alter_sys=True)
"""

EXTENSIONS = ("ducklake", "spatial", "icu")


class EmulatorError(PipelineOpsError):
    """The emulator could not be started; the message holds the end of its log."""


class EndedAtOnceError(EmulatorError):
    """Its process ended while it started, as it does when its port is taken."""


class BigQueryEmulator:
    """One emulator on one data directory. ``url``, ``log_path`` and ``process`` are set once it is started."""

    def __init__(self, data_dir: Path, project: str) -> None:
        self._data_dir, self._project = data_dir, project
        self.log_path = data_dir / "emulator.log"
        self.url = ""
        self.process = Watched()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers from its data.

        Raises EmulatorError, with nothing left running: with the end of the log if it does not come up, in words if
        another emulator holds the data directory.
        """
        self._data_dir.mkdir(parents=True, exist_ok=True)
        _import_extensions()
        try:
            self._launch()
        except EndedAtOnceError:
            # Between the choice of a free port and its use somebody else may take it: once more, with other ports.
            self.stop()
            self._launch()

    def _launch(self) -> None:
        port, grpc_port = _free_ports()
        program = Path(sys.executable).with_name("local-bigquery")
        if not program.exists():
            raise EmulatorError("local-bigquery is not installed here: pip install -r requirements-local.txt")
        refusals = environment_variable(REFUSALS)
        command = [sys.executable, "-c", STRICT, refusals] if refusals else [str(program)]
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
        """End it; returns when it is gone."""
        self.process.stop()

    def _wait_for_port(self, within_s: float) -> None:
        """Wait until it says that it listens: before, whoever answers there may be somebody else's emulator."""
        deadline = time.monotonic() + within_s
        while f"running on {self.url} " not in self.log_path.read_text("utf-8", "replace"):
            if self.process.ended():
                raise EndedAtOnceError(f"The BigQuery emulator ended while it started. {self._log_end()}")
            if time.monotonic() > deadline:
                raise EmulatorError(f"The BigQuery emulator did not answer within {within_s:.0f} s. {self._log_end()}")
            time.sleep(0.05)

    def _wait_for_data(self) -> None:
        """Wait until it answers from its data, which it opens with the first request only."""
        deadline = time.monotonic() + FREED_WITHIN_S
        while problem := self._problem():
            held = "set lock" in problem
            if not held or time.monotonic() > deadline:
                hint = " Another emulator still holds it: end that process, or use another directory." if held else ""
                raise EmulatorError(f"The BigQuery emulator can't use {self._data_dir}: {problem}{hint}")
            time.sleep(0.1)

    def _problem(self) -> str:
        """Ask for the datasets; return what is wrong, or an empty string."""
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
        end = self.log_path.read_text("utf-8", "replace").strip().splitlines()[-5:]
        return f"The end of {self.log_path}: " + " | ".join(end)


def _free_ports() -> tuple[int, int]:
    """Return two different free ports: both are held until both are known."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def _import_extensions() -> None:
    """Copy DuckDB's extensions from their wheels to where DuckDB looks for them, once a user. Works offline."""
    import duckdb

    there = Path.home() / ".duckdb" / "extensions" / f"v{duckdb.__version__}"
    if all(list(there.glob(f"*/{name}.duckdb_extension")) for name in EXTENSIONS):
        return
    import duckdb_extensions

    for name in EXTENSIONS:
        duckdb_extensions.import_extension(name)
