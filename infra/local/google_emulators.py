"""Google's Firestore and Pub/Sub emulators as child processes, started from the jars of the gcloud SDK.

They keep everything in memory and end with the process that started them, even if it is killed
(``infra/local/watched.py``). They listen on 127.0.0.1 only.
"""

import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from common.platform.settings import environment_variable
from infra.local.emulator import EmulatorError, EndedAtOnceError
from infra.local.watched import Watched

SDK_VARIABLE = "PIPELINE_OPS_GCLOUD_SDK"
INSTALL = (
    "Install it with `gcloud components install cloud-firestore-emulator pubsub-emulator beta` (where gcloud came "
    "from apt: `apt-get install google-cloud-cli-firestore-emulator google-cloud-cli-pubsub-emulator`)"
)
HEAP = "-Xmx512m"
START_WITHIN_S = 60.0
STARTS = 3
"""Another process may take a free port before the emulator does: then it is started again, on another port."""


class MissingProgramError(EmulatorError):
    """Java, gcloud or an emulator is not installed; the message says what to install."""


class JavaEmulator:
    """One emulator from its jar. ``host`` (``127.0.0.1:port``) is set once it is started."""

    name: ClassVar[str]
    ready_line: ClassVar[str]
    """Text of the log once the emulator listens; ``{port}`` is its port."""

    def __init__(self, log_dir: Path) -> None:
        self.log_path = log_dir / f"{self.name.lower().replace('/', '')}-emulator.log"
        self.host = ""
        self._process = Watched()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start the emulator and wait until it responds. Raises EmulatorError and leaves nothing running."""
        command = [_java(), HEAP, "-Duser.language=en", *self._program(sdk_root())]
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        for left in reversed(range(STARTS)):
            try:
                return self._launch(command, _free_port())
            except EndedAtOnceError:
                if left == 0:
                    raise

    def stop(self) -> None:
        """End it; returns when it is gone."""
        self._process.stop()

    def _program(self, sdk: Path) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        """Return whether the emulator serves requests, once its log says that it listens."""
        with socket.create_connection(_address(self.host), timeout=1):
            return True

    def _launch(self, command: list[str], port: int) -> None:
        self._process.start([*command, "--host=127.0.0.1", f"--port={port}"], self.log_path)
        self.host = f"127.0.0.1:{port}"
        try:
            self._wait(self.ready_line.format(port=port))
        except BaseException:
            self.stop()
            raise

    def _wait(self, ready_line: str) -> None:
        """Wait until its log says that it listens, and it responds: before, another process may use the port."""
        deadline = time.monotonic() + START_WITHIN_S
        while True:
            log = self.log_path.read_text("utf-8", "replace")
            # Pub/Sub's emulator does not exit if its port is taken: it logs the exception and stays.
            if "BindException" in log or self._process.ended():
                raise EndedAtOnceError(f"The {self.name} emulator did not start. {self._log_end(log)}")
            try:
                if ready_line in log and self._answers():
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise EmulatorError(
                    f"The {self.name} emulator did not respond within {START_WITHIN_S:.0f} s. {self._log_end(log)}"
                )
            time.sleep(0.05)

    def _log_end(self, log: str) -> str:
        lines = [line for line in log.splitlines() if line.strip() and not re.match(r"\s+at ", line)]
        return f"The end of {self.log_path}: " + " | ".join(lines[-5:])


class FirestoreEmulator(JavaEmulator):
    """Firestore. Start it before its clients: a call to an emulator that is down blocks for minutes."""

    name = "Firestore"
    ready_line = "Dev App Server is now running"

    def _program(self, sdk: Path) -> list[str]:
        jar = _jar(sdk / "platform" / "cloud-firestore-emulator", "cloud-firestore-emulator.jar")
        return ["-cp", str(jar), "com.google.cloud.datastore.emulator.firestore.CloudFirestore"]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.host}/", timeout=2) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False


class PubSubEmulator(JavaEmulator):
    """Pub/Sub. It pushes two messages per subscription at a time, and only 200, 201 and 204 are successes for it."""

    name = "Pub/Sub"
    ready_line = "Server started, listening on {port}"

    def _program(self, sdk: Path) -> list[str]:
        return ["-jar", str(_jar(sdk / "platform" / "pubsub-emulator" / "lib", "cloud-pubsub-emulator-*-all.jar"))]


class GoogleEmulators:
    """Both emulators, started in parallel."""

    def __init__(self, log_dir: Path) -> None:
        self.firestore, self.pubsub = FirestoreEmulator(log_dir), PubSubEmulator(log_dir)

    @property
    def firestore_host(self) -> str:
        """``127.0.0.1:port`` of Firestore, once started."""
        return self.firestore.host

    @property
    def pubsub_host(self) -> str:
        """``127.0.0.1:port`` of Pub/Sub, once started."""
        return self.pubsub.host

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start both and wait until both respond. Raises EmulatorError and leaves nothing running."""
        try:
            with ThreadPoolExecutor(2) as pool:
                for started in [pool.submit(emulator.start) for emulator in (self.firestore, self.pubsub)]:
                    started.result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both; return when their processes have ended."""
        self.firestore.stop()
        self.pubsub.stop()


def sdk_root() -> Path:
    """Return the folder of the gcloud SDK: PIPELINE_OPS_GCLOUD_SDK, or the output of ``gcloud info``."""
    if configured := environment_variable(SDK_VARIABLE):
        return Path(configured)
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        raise MissingProgramError(
            f"Google's emulators need the gcloud SDK, and there is no `gcloud` on the PATH. Install it "
            f"(https://cloud.google.com/sdk/docs/install), or set {SDK_VARIABLE} to its folder."
        )
    command = [gcloud, "info", "--format=value(installation.sdk_root)"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    root = result.stdout.strip()
    if result.returncode != 0 or not root:
        problem = " ".join(result.stderr.split())[-300:]
        raise MissingProgramError(f"`gcloud info` failed: {problem} Set {SDK_VARIABLE} to the SDK's folder.")
    return Path(root)


def _jar(folder: Path, pattern: str) -> Path:
    jars = sorted(folder.glob(pattern))
    if not jars:
        raise MissingProgramError(
            f"There is no {pattern} in {folder}. {INSTALL}, or set {SDK_VARIABLE} to the SDK's folder."
        )
    return jars[-1]  # an update may leave the old version's jar


def _java() -> str:
    home = environment_variable("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    java = java or shutil.which("java")
    if java is None:
        raise MissingProgramError(
            "Google's emulators need Java, and there is no `java` on the PATH. Install a Java runtime, 17 or newer "
            "(`apt-get install default-jre-headless`, `brew install openjdk`)."
        )
    return java


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    return name, int(port)
