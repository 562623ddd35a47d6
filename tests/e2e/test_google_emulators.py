"""Google's emulators as child processes: they start past a taken port, and say what is missing when they can't."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.platform.paths import PROJECT_ROOT
from infra.local import google_emulators as module
from infra.local.emulator import EmulatorError
from infra.local.google_emulators import (
    FirestoreEmulator,
    GoogleEmulators,
    JavaEmulator,
    MissingProgramError,
    PubSubEmulator,
)

KINDS = pytest.mark.parametrize("kind", [FirestoreEmulator, PubSubEmulator])


@KINDS
def test_a_start_on_a_port_that_is_taken_meanwhile_is_made_again_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, google_emulators: GoogleEmulators, kind: type[JavaEmulator]
) -> None:
    taken = int(google_emulators.pubsub_host.rpartition(":")[2])
    free, chosen = module._free_port, [taken]
    monkeypatch.setattr(module, "_free_port", lambda: chosen.pop() if chosen else free())
    with kind(tmp_path) as emulator:
        assert not chosen and emulator.host != google_emulators.pubsub_host and listens(emulator.host)
    assert not listens(emulator.host) and listens(google_emulators.pubsub_host)


def test_an_emulator_that_can_not_start_tells_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, google_emulators: GoogleEmulators
) -> None:
    taken = int(google_emulators.pubsub_host.rpartition(":")[2])
    monkeypatch.setattr(module, "_free_port", lambda: taken)
    monkeypatch.setattr(module, "STARTS", 1)
    monkeypatch.setattr(module, "START_WITHIN_S", 20.0)
    with pytest.raises(
        EmulatorError, match=r"emulator did not start\. The end of .*pubsub-emulator\.log: .*Address already in use"
    ):
        PubSubEmulator(tmp_path).start()


def test_a_missing_jar_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, google_emulators: GoogleEmulators
) -> None:
    monkeypatch.setenv(module.SDK_VARIABLE, str(tmp_path))
    both = r"no cloud-firestore-emulator\.jar in .*gcloud components install cloud-firestore-emulator pubsub-emulator"
    with pytest.raises(MissingProgramError, match=both):
        GoogleEmulators(tmp_path).start()


@pytest.mark.parametrize(("missing", "says"), [("java", "need Java"), ("gcloud", "need the gcloud SDK")])
def test_a_missing_program_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, google_emulators: GoogleEmulators, missing: str, says: str
) -> None:
    which = module.shutil.which
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv(module.SDK_VARIABLE, raising=False)
    monkeypatch.setattr(module.shutil, "which", lambda name: None if name == missing else which(name))
    with pytest.raises(MissingProgramError, match=says):
        FirestoreEmulator(tmp_path).start()


def test_both_die_with_a_killed_parent(tmp_path: Path, google_emulators: GoogleEmulators) -> None:
    code = (
        "import time; from pathlib import Path; from infra.local.google_emulators import GoogleEmulators\n"
        f"e = GoogleEmulators(Path({str(tmp_path)!r}))\n"
        "e.start(); print(e.firestore_host, e.pubsub_host, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        hosts = parent.stdout.readline().split()
        assert len(hosts) == 2 and all(map(listens, hosts))
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 15
    while any(map(listens, hosts)):
        assert time.monotonic() < deadline, "one outlived its parent"
        time.sleep(0.05)


def listens(host: str) -> bool:
    name, _, port = host.rpartition(":")
    try:
        with socket.create_connection((name, int(port)), timeout=2):
            return True
    except OSError:
        return False
