"""A child process that ends with its parent, even if the parent is killed.

A small watcher process between the two holds a pipe to the parent and ends the child when the pipe breaks. That works
from any thread and on every Unix, unlike Linux's PR_SET_PDEATHSIG.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

STOP_WITHIN_S = 10.0
"""Longer than the watcher's own five seconds for the child to end."""

WATCHER = """
import os, signal, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
signal.signal(signal.SIGTERM, lambda *_: child.terminate())
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, lambda *_: os._exit(1) if child.poll() is not None else None)
if child.poll() is not None:  # it ended before the line above could hear of it
    os._exit(1)
while True:
    try:
        if not os.read(0, 1):
            break
    except InterruptedError:
        continue
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
child.terminate()
try:
    child.wait(5)
except subprocess.TimeoutExpired:
    child.kill()
    child.wait()
"""
"""Ends its child at the end of standard input, which comes when the parent ends or closes the pipe."""


class Watched:
    """One child at a time."""

    def __init__(self) -> None:
        self._watcher: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], log_path: Path) -> None:
        """Start the child; its output goes to a new log."""
        with log_path.open("wb") as log:
            self._watcher = subprocess.Popen(
                [sys.executable, "-c", WATCHER, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C for the stack must not end the child before it
            )

    def ended(self) -> bool:
        """Return whether the child, or the watcher that would end it, has ended."""
        if self._watcher is None or self._watcher.returncode is not None:
            return True
        # WNOWAIT: not reaped, its id stays taken, so that ``stop`` can't signal the group of another process.
        return os.waitid(os.P_PID, self._watcher.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    @property
    def pid(self) -> int:
        """The watcher's process id; the child is the watcher's child."""
        assert self._watcher is not None, "it was not started"
        return self._watcher.pid

    def stop(self) -> None:
        """Stop the child; return when it has ended."""
        if self._watcher is None:
            return
        assert self._watcher.stdin is not None
        if self.ended():
            # A watcher that was killed leaves its child behind, which would keep the port and the data.
            with suppress(ProcessLookupError, PermissionError):  # macOS: not permitted if only the watcher is left
                os.killpg(self._watcher.pid, signal.SIGKILL)
        self._watcher.stdin.close()
        try:
            self._watcher.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._watcher.pid, signal.SIGKILL)
            self._watcher.wait()
        self._watcher = None
