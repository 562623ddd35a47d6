"""Kills the embedded stack at random moments, again and again: helpers of ``test_kills.py``.

Most kills end the process that serves the functions and leave the BigQuery emulator, which takes seconds to start; some
end everything. The seed decides what is killed and when. How far the work is at that moment the machine decides.
"""

import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import yaml

from common import bootstrap
from common.bootstrap import STORE_FILE
from common.platform.paths import PROJECT_ROOT
from common.platform.settings import Settings
from common.ports.secrets import CredentialInfo
from common.runs.engine import Engine
from infra.local.emulator import BigQueryEmulator
from infra.local.sandbox.server import SANDBOX_ADMIN_KEY

DEADLINE_S = 90

PATIENCE_S = 600
"""For steps to end: each kill leaves staging tables, and the emulator is slower with every table that it has."""

MAX_ATTEMPTS = 10
LONGEST_WAIT_S = 5
"""A kill does not wait longer for progress: where the machine is slow, more attempts are lost."""
SPARED_FROM = 6
"""An attempt of this number is left alone until its step has ended: only kills may not use up all attempts."""


class Kill(StrEnum):
    """What a kill ends."""

    FUNCTIONS = "the process of the functions"
    STARTING = "the process of the functions while it starts"
    ALL = "functions and emulator"
    OWN = "functions and the emulator that is their child"
    PARENT = "functions; their emulator ends by its watcher"


@dataclass(frozen=True)
class Asked:
    """A run to ask for."""

    org: str
    route: str
    body: Mapping[str, str]


class Place:
    """A state directory, and the configs that stacks on it use. ``hosts`` are Google's emulators, which live on."""

    def __init__(
        self, folder: Path, environment: str, provider_url: str, hosts: Mapping[str, str] | None = None
    ) -> None:
        self.settings = Settings(
            state_dir=folder / "state", configs=folder / "configs", environment=environment, location="US"
        )
        self.hosts = hosts or {}
        self._provider_url = provider_url
        copy_configs(self.settings.configs)

    def engine(self, bigquery_url: str | None = None) -> Engine:
        """Return an engine that reads what is there. Not while the stack is to be killed: it keeps the files open."""
        return bootstrap.build(
            Settings(
                state_dir=self.settings.state_dir,
                configs=self.settings.configs,
                environment=self.settings.environment,
                bigquery_url=bigquery_url,
            )
        )

    def add_credentials(self, *orgs: str) -> None:
        credentials = self.engine().credentials
        for org in orgs:
            credentials.add(CredentialInfo(org, "cred_openai", "openai", datetime.now(UTC)), SANDBOX_ADMIN_KEY)

    def environ(self, bigquery_url: str | None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "BIGQUERY_EMULATOR_HOST"}
        given = {"BIGQUERY_EMULATOR_HOST": bigquery_url} if bigquery_url else {}
        return {
            **kept,
            **given,
            **self.hosts,
            "PIPELINE_OPS_CONFIGS": str(self.settings.configs),
            "PIPELINE_OPS_ENV": self.settings.environment,
            "PIPELINE_OPS_PROVIDER_URL_OPENAI": self._provider_url,
        }

    def ended_steps(self) -> int:
        """Count the steps that have ended, from a connection that is closed at once: a kill must find none open."""
        db = sqlite3.connect(f"file:{self.settings.state_dir / STORE_FILE}?mode=ro", uri=True)
        try:
            count: int = db.execute("SELECT COUNT(*) FROM steps WHERE ended").fetchone()[0]
        finally:
            db.close()
        return count


def copy_configs(folder: Path) -> None:
    """Copy the project's configs with ten attempts a step, which rest 0 or 1 s, and the same prices for everybody."""
    shutil.copytree(PROJECT_ROOT / "configs", folder)
    shutil.rmtree(folder / "system" / "prices")  # tables of two organisations are compared
    for path in [*folder.glob("genai/**/*.yml"), *folder.glob("cloud/**/*.yml")]:
        data = yaml.safe_load(path.read_text())
        for number, step in enumerate(data["steps"]):
            step["retry"] = {"max_attempts": MAX_ATTEMPTS, "backoff_seconds": number % 2}
        path.write_text(yaml.safe_dump(data, sort_keys=False))


class Served:
    """``main.py serve`` as the leader of a process group of its own."""

    def __init__(self, place: Place, bigquery_url: str | None) -> None:
        self._place = place
        kind = ["--stack", "emulators"] if place.hosts else []
        command = [sys.executable, "main.py", "--state-dir", str(place.settings.state_dir), "serve", "--port", "0"]
        self.log = place.settings.state_dir.parent / "serve.log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, *kind],
                cwd=PROJECT_ROOT,
                env=place.environ(bigquery_url),
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        self.bigquery_url = ""
        self.http = httpx2.Client(trust_env=False)

    def wait_until_up(self) -> None:
        where = until(self._where, "the stack is not up")
        key = {"Authorization": f"Bearer {where['operator_token']}"}
        self.http = httpx2.Client(base_url=where["url"], trust_env=False, timeout=30, headers=key)
        self.bigquery_url = where["bigquery_url"]

    def _where(self) -> dict[str, Any] | None:
        assert self.process.poll() is None, f"the stack can't start: {self.log.read_text()[-3000:]}"
        try:
            where: dict[str, Any] = json.loads((self._place.settings.state_dir / "stack.json").read_text())
        except (OSError, ValueError):
            return None
        return where if where["pid"] == self.process.pid else None

    def post(self, asked: Asked) -> str:
        """Ask for a run; return its id."""
        answer = self.http.post(f"/pipelines/run/{asked.org}/{asked.route}", json=dict(asked.body))
        assert answer.status_code == 202, f"{asked}: {answer.text}"
        run_id: str = answer.json()["run_id"]
        return run_id

    def runs(self, org: str) -> list[dict[str, Any]]:
        """Return every run of the organisation, newest first."""
        found, cursor = [], None
        while True:
            query = {"limit": "200", **({"cursor": cursor} if cursor else {})}
            page = self.http.get(f"/pipelines/history/{org}", params=query).json()
            found += page["runs"]
            cursor = page["next_cursor"]
            if not cursor:
                return found

    def open_runs(self, org: str) -> list[str]:
        return [run["run_id"] for run in self.runs(org) if not run["ended_at"]]

    def status(self, org: str, run_id: str) -> dict[str, Any]:
        status: dict[str, Any] = self.http.get(f"/pipelines/status/{org}/{run_id}").json()
        return status

    def kill(self, *, children: bool = False) -> None:
        """SIGKILL the process group; with ``children`` what it started in other groups, too: that is the emulator."""
        others = descendants(self.process.pid) if children else []
        os.killpg(self.process.pid, signal.SIGKILL)
        for pid in others:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(30)

    def end(self) -> None:
        """Let it end by itself."""
        self.process.terminate()
        assert self.process.wait(60) == 0, self.log.read_text()[-3000:]

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind, whatever happened."""
        if self.process.poll() is None:
            self.kill()
        self.http.close()


class Emulator:
    """The BigQuery emulator of a place, which outlives the stacks there until it is killed, too."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._started: BigQueryEmulator | None = None

    def url(self) -> str:
        """Return where it listens; start it if it does not run."""
        if self._started is None:
            settings = self._place.settings
            self._started = BigQueryEmulator(settings.state_dir / "bigquery", settings.project_id)
            self._started.start()
        return self._started.url

    def kill(self) -> None:
        """SIGKILL it with its watcher."""
        if self._started is None:
            return
        watcher = self._started.process.pid
        for pid in [*descendants(watcher), watcher]:
            os.kill(pid, signal.SIGKILL)
        self._started.stop()
        self._started = None

    def __enter__(self) -> "Emulator":
        return self

    def __exit__(self, *_: object) -> None:
        if self._started is not None:
            self._started.stop()


def descendants(pid: int) -> list[int]:
    """Return the processes that the process started, directly or not."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for child, parent in (map(int, line.split()) for line in listed.splitlines()):
        children.setdefault(parent, []).append(child)
    found = [pid]
    for known in found:
        found += children.get(known, [])
    return found[1:]


def until[T](look: Callable[[], T | None], otherwise: str, deadline_s: float = DEADLINE_S) -> T:
    """Look until there is something to see; fail after the deadline."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.03)
    raise AssertionError(f"{otherwise} after {deadline_s:.0f} s")


@dataclass
class Campaign:
    """Keeps runs at work on a place while it kills their stack; then lets them end.

    ``at_work`` says how many runs of an organisation are open at the same time while there are kills to come.
    """

    place: Place
    emulator: Emulator
    asked: list[Asked]
    at_work: Mapping[str, int]
    kills: int
    chance: random.Random
    killed_at: list[datetime] = field(default_factory=list)
    kinds: list[Kill] = field(default_factory=list)
    promised: list[tuple[str, str]] = field(default_factory=list)
    """Organisation and id of every run that the API has acknowledged."""
    unanswered: int = 0
    """Requests whose answer the kill may have cut off."""
    seconds: float = 0.0

    def run(self) -> None:
        began = time.monotonic()
        self._next = {org: itertools.cycle([asked for asked in self.asked if asked.org == org]) for org in self.at_work}
        for kind in self._plan():
            self._kill_one(kind)
        with Served(self.place, self.emulator.url()) as last:
            last.wait_until_up()
            self._ask_for_all(last)
            wait_for_all(last, self.at_work)
            last.end()
        self.seconds = time.monotonic() - began

    def _ask_for_all(self, stack: Served) -> None:
        """Ask for everything once more: a kill may have cut a request off, or come before some day's turn."""
        for asked in self.asked:
            self.promised.append((asked.org, stack.post(asked)))

    def _plan(self) -> Iterator[Kill]:
        """Yield what each kill ends. One in twenty ends the emulator, and one its child; of fewer kills one each."""
        plan = [Kill.STARTING if self.chance.random() < 0.12 else Kill.FUNCTIONS for _ in range(self.kills)]
        blocks = max(1, self.kills // 40)
        for number in range(blocks):
            at = self.chance.randrange(number * self.kills // blocks + 1, (number + 1) * self.kills // blocks)
            plan[at - 1 : at + 1] = Kill.ALL, Kill.PARENT if number % 2 else Kill.OWN
        yield from plan

    def _kill_one(self, kind: Kill) -> None:
        own = kind in (Kill.OWN, Kill.PARENT)
        with Served(self.place, None if own else self.emulator.url()) as stack:
            if kind is Kill.STARTING:
                time.sleep(self.chance.uniform(0.1, 1.2))
            else:
                stack.wait_until_up()
                self._feed(stack)
                self._spare_the_tired(stack)
                self._wait_for_the_moment()
            asking = self._ask_meanwhile(stack) if kind is Kill.FUNCTIONS and self.chance.random() < 0.25 else None
            self.kinds.append(kind)
            self.killed_at.append(datetime.now(UTC))
            stack.kill(children=kind is Kill.OWN)
            if kind is Kill.ALL:
                self.emulator.kill()
            if asking is not None:
                asking.join()

    def _feed(self, stack: Served) -> None:
        """Ask for runs until enough are at work. A refusal fails the test: nobody else may hold the quota."""
        for org, wanted in self.at_work.items():
            for _ in range(wanted - len(stack.open_runs(org))):
                self.promised.append((org, stack.post(next(self._next[org]))))

    def _ask_meanwhile(self, stack: Served) -> threading.Thread:
        """Ask for a run right before the kill: its answer may get lost, the run or nothing of it is stored."""
        org = next(iter(self.at_work))
        asked = next(self._next[org])

        def ask() -> None:
            try:
                self.promised.append((org, stack.post(asked)))
            except httpx2.TransportError:
                self.unanswered += 1

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(self.chance.uniform(0.0, 0.02))
        return thread

    def _spare_the_tired(self, stack: Served) -> None:
        """Wait for steps whose attempts are nearly used up: that many kills in a row would rightly fail their run."""
        for org in self.at_work:
            for run_id in stack.open_runs(org):
                tired = {s["step_id"] for s in stack.status(org, run_id)["steps"] if s["attempt"] >= SPARED_FROM}
                look = partial(self._tired_have_ended, stack, org, run_id, tired)
                until(look, f"after {len(self.kinds)} kills: {tired} of {run_id} have not ended", PATIENCE_S)

    @staticmethod
    def _tired_have_ended(stack: Served, org: str, run_id: str, tired: set[str]) -> bool | None:
        return _all_ended(stack.status(org, run_id), tired)

    def _wait_for_the_moment(self) -> None:
        """Let some steps end, and go into the next ones; or kill what the start before has just begun anew."""
        wanted = self.chance.choices((0, 1, 2), (4, 4, 1))[0]
        rest = self.chance.uniform(0.05, 2.0 if wanted == 0 else 1.0)
        enough = self.place.ended_steps() + wanted
        latest = time.monotonic() + LONGEST_WAIT_S
        while self.place.ended_steps() < enough and time.monotonic() < latest:
            time.sleep(0.03)
        time.sleep(rest)


def wait_for_all(stack: Served, orgs: Iterable[str]) -> None:
    """Wait until every run of the organisations has ended."""
    for org in orgs:
        until(lambda o=org: None if stack.open_runs(o) else True, f"{org} still has open runs", 3 * DEADLINE_S)


def _all_ended(run: dict[str, Any], step_ids: set[str]) -> bool | None:
    steps = [step for step in run["steps"] if step["step_id"] in step_ids]
    return True if all(step["ended_at"] for step in steps) else None
