"""The benchmark's peer in a venv of its own, so that DBOS and its database never become the project's dependencies."""

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from tests.bench.measure import Result

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-bench"
REQUIREMENTS = Path(__file__).with_name("requirements-peer.txt")
PROGRAM = Path(__file__).with_name("peer_dbos.py")
TIME_LIMIT_S = 150
INSTALL_LIMIT_S = 600


class PeerFailed(Exception):
    """The peer could not be installed or measured; the message says why."""


def measure_peer(*arguments: str) -> dict[str, Any]:
    """What peer_dbos.py printed. The first call installs the peer, which needs a package index."""
    python = environment(VENV, REQUIREMENTS, "DBOS and PostgreSQL")
    output = _run([str(python), str(PROGRAM), *arguments], "measuring DBOS", TIME_LIMIT_S)
    try:
        return json.loads(output)
    except ValueError:
        raise PeerFailed(f"measuring DBOS printed no JSON but: {output[-500:]!r}") from None


def as_results(peer: dict[str, Any]) -> tuple[Result, Result]:
    """Its latency and its throughput, for the same formulas as our own figures."""
    return _result(peer["name"], peer["latency"]), _result(peer["name"], peer["throughput"])


def _result(name: str, measured: dict[str, Any]) -> Result:
    clients = "1 client" if measured["clients"] == 1 else f"{measured['clients']} clients"
    return Result(
        name=f"{name}, {clients}",
        runs=measured["runs"],
        steps_per_run=measured["steps_per_run"],
        seconds=measured["seconds"],
        latencies_ms=tuple(measured["latencies_ms"]),
        cpu_s=measured["cpu_s"],
    )


def environment(folder: Path, requirements: Path, what: str) -> Path:
    """Return a venv's interpreter: made from the one that runs us, and anew when the requirements have changed."""
    python = folder / "bin" / "python"
    installed = folder / "installed.txt"  # written last, so a half-made venv is never taken for a whole one
    wanted = f"{sys.version}\n{requirements.read_text()}"
    if not (installed.exists() and installed.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True, symlinks=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]
        _run([*install, str(requirements)], f"installing {what}", INSTALL_LIMIT_S)
        installed.write_text(wanted)
    return python


def _run(command: list[str], what: str, limit_s: int) -> str:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            output, errors = process.communicate(timeout=limit_s)
        except BaseException as error:
            process.terminate()  # not kill: the program still has its PostgreSQL to stop
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise PeerFailed(f"{what} took longer than {limit_s} s") from None
            raise
    if process.returncode:
        raise PeerFailed(f"{what} failed with exit code {process.returncode}:\n{errors.strip()[-3000:]}")
    return output


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure_peer(*sys.argv[1:])) + "\n")
