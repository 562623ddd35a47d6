"""The BigQuery emulator as a child process: it starts past a taken port, and says why when it can't."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.platform.paths import PROJECT_ROOT
from common.platform.settings import Settings
from infra.local import emulator as module
from infra.local import stack
from infra.local.emulator import BigQueryEmulator, EmulatorError
from infra.local.stack import EmbeddedStack
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
    with pytest.raises(EmulatorError, match=r"The end of .*emulator\.log: .*Failed to bind to address"):
        BigQueryEmulator(tmp_path, PROJECT).start()


def test_it_dies_with_a_killed_parent_and_its_data_is_there_at_the_next_start(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from infra.local.emulator import BigQueryEmulator\n"
        f"e = BigQueryEmulator(Path({str(tmp_path)!r}), {PROJECT!r})\n"
        "e.start(); print(e.url, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert url, "the parent did not start it"
        _query(url, f"CREATE SCHEMA `{PROJECT}.kept`; CREATE TABLE `{PROJECT}.kept.t` AS SELECT 7 AS n")
        os.kill(parent.pid, signal.SIGKILL)
    # At once: the old one may still be ending, and the new one has to wait until it lets go of the data.
    with BigQueryEmulator(tmp_path, PROJECT) as again:
        assert _query(again.url, f"SELECT n FROM `{PROJECT}.kept.t`") == [{"n": 7}]
        assert not _answers(url), "it outlived its parent"


def test_one_that_was_killed_is_started_again_on_its_data_at_the_same_address(tmp_path: Path) -> None:
    with BigQueryEmulator(tmp_path, PROJECT) as emulator:
        url = emulator.url
        assert not emulator.revive(), "it was alive"
        _query(url, f"CREATE SCHEMA `{PROJECT}.kept`; CREATE TABLE `{PROJECT}.kept.t` AS SELECT 7 AS n")
        # The harder case: the emulator itself lives on, without the watcher that would end it, and holds port and data.
        os.kill(emulator.process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, emulator.process.pid, os.WEXITED | os.WNOWAIT)
        assert emulator.revive() and emulator.url == url
        assert _query(url, f"SELECT n FROM `{PROJECT}.kept.t`") == [{"n": 7}]


def test_a_stack_revives_its_emulator_until_it_stops_whatever_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "LOOK_AT_EMULATOR_EVERY_S", 0)
    served, looks = EmbeddedStack(Settings(state_dir=tmp_path)), []

    class Dying(BigQueryEmulator):
        def revive(self) -> bool:
            looks.append(self)
            if len(looks) == 1:
                raise EmulatorError("its port is taken at the moment")
            if len(looks) == 3:
                served.stop()
            return True

    served._keep(Dying(tmp_path, PROJECT))
    assert len(looks) == 3


def test_a_directory_that_another_emulator_holds_is_refused_in_words_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FREED_WITHIN_S", 0.5)
    with BigQueryEmulator(tmp_path, PROJECT) as holder:
        second = BigQueryEmulator(tmp_path, PROJECT)
        with pytest.raises(EmulatorError, match=r"\(PID \d+\).*Another emulator uses it: stop that process"):
            second.start()
        assert not _answers(second.url), "a failed start left its process behind"
        assert _answers(holder.url)


def test_data_that_can_not_be_read_fails_the_start_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "emulator.duckdb").write_bytes(b"no database" * 1000)
    with pytest.raises(EmulatorError, match="not a valid DuckDB database file"):
        BigQueryEmulator(tmp_path, PROJECT).start()


def _query(url: str, sql: str) -> list[dict[str, Any]]:
    return list(BigQueryWarehouse(PROJECT, location="US", emulator_url=url).query(sql))


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/bigquery/v2/projects/{PROJECT}/datasets", timeout=2):
            return True
    except OSError:
        return False
