"""The BigQuery emulator as a child process: it starts past a taken port, and says why when it can't."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from common.paths import PROJECT_ROOT
from infra.local import emulator as module
from infra.local.emulator import BigQueryEmulator, EmulatorError
from tests.conftest import PROJECT


def test_ports_are_two_different_ones() -> None:
    for _ in range(50):
        one, other = module._free_ports()
        assert one != other


def test_a_start_on_a_port_that_is_taken_meanwhile_is_made_again_on_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bigquery_emulator: BigQueryEmulator
) -> None:
    taken = int(bigquery_emulator.url.rpartition(":")[2])
    free, chosen = module._free_ports, [(taken, module._free_ports()[1])]
    monkeypatch.setattr(module, "_free_ports", lambda: chosen.pop() if chosen else free())
    with BigQueryEmulator(tmp_path, PROJECT) as emulator:
        assert not chosen and emulator.url != bigquery_emulator.url and _answers(emulator.url)


def test_an_emulator_that_can_not_start_tells_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bigquery_emulator: BigQueryEmulator
) -> None:
    taken = int(bigquery_emulator.url.rpartition(":")[2])
    monkeypatch.setattr(module, "_free_ports", lambda: (taken, taken))
    emulator = BigQueryEmulator(tmp_path, PROJECT)
    with pytest.raises(EmulatorError, match=r"The end of .*emulator\.log: .*Failed to bind to address"):
        emulator.start()
    emulator.stop()


def test_it_dies_with_a_killed_parent_and_starts_again_on_the_same_data(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from infra.local.emulator import BigQueryEmulator\n"
        f"e = BigQueryEmulator(Path({str(tmp_path)!r}), {PROJECT!r})\n"
        "e.start(); print(e.url, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert url, "the parent did not start it"
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 15
    while _answers(url):
        assert time.monotonic() < deadline, "it outlived its parent"
        time.sleep(0.05)
    with BigQueryEmulator(tmp_path, PROJECT) as again:
        assert _answers(again.url)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/bigquery/v2/projects/{PROJECT}/datasets", timeout=2):
            return True
    except OSError:
        return False
