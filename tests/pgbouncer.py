"""PgBouncer in transaction mode before a PostgreSQL, as the pooler on port 6543 is at Supabase."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infra.local.watched import WATCHER

CONFIG = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {sessions}
server_round_robin = 1
server_reset_query =
"""


class PgBouncer:
    """A pooler that gives each transaction the next of ``sessions`` sessions, whoever had it before."""

    def __init__(self, server_port: int, users: dict[str, str], sessions: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        text = CONFIG.format(server=server_port, port=self.port, folder=self._folder, sessions=sessions)
        (self._folder / "pgbouncer.ini").write_text(text)
        (self._folder / "users").write_text("".join(f'"{name}" "{secret}"\n' for name, secret in users.items()))
        as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        if as_nobody:
            for path in (self._folder, *self._folder.iterdir()):
                shutil.chown(path, "nobody")
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None
        with (self._folder / "log").open("wb") as log:
            self._watcher = subprocess.Popen(
                [sys.executable, "-c", WATCHER, *as_nobody, program, str(self._folder / "pgbouncer.ini")],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 10
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline or self._watcher.poll() is not None:
                    raise RuntimeError((self._folder / "log").read_text()[-1000:]) from None
            time.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        self._watcher.wait(10)
        shutil.rmtree(self._folder)


def is_installed() -> bool:
    """Return whether there is a PgBouncer on this machine."""
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") is not None
