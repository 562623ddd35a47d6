"""Our side of the benchmark: three-step no-op runs, from submission to the announced end.

- ``engine``: engine and bus in one process, messages handed straight to the engine's methods.
- ``functions``: the embedded stack as it is served: requests over HTTP, every message a CloudEvent to its
  functions-framework app in the same process.
- ``emulators``: the same product on Google's Firestore and Pub/Sub emulators, with pushes over HTTP.

All in one process of one interpreter, on one file on the disk. A run is durable when it is accepted and when it has
ended (synced); what lies between is committed, so that a killed process loses nothing, but not synced: after a power
cut a run goes on from a step or two before. Log lines are off, as DBOS's are.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from common import bootstrap
from common.domain.model import RunStatus
from common.platform.settings import Settings
from common.processors import registry
from common.runs.engine import Engine
from common.runs.request import run_request
from common.runs.topics import RUN_FINISHED, RUNS, STEP_COMPLETED, read_completed, read_order, read_run_id
from infra.local.dispatcher import Dispatcher
from tests.bench.measure import Result
from tests.harness import PROVIDERS, PS_TYPE

ORG, ROUTE = "acme_corp", "bench/noop/three"
STEPS = 3
NOWHERE = "http://127.0.0.1:1"
"""The warehouse's address: a no-op step never asks for it."""

Submit = Callable[[], str]


class Ends:
    """Tells each client that its run has ended: the engine announces the end as its last act."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: dict[str, threading.Event] = {}

    def event(self, run_id: str) -> threading.Event:
        with self._lock:
            return self._ended.setdefault(run_id, threading.Event())

    @contextmanager
    def watched(self) -> Iterator["Ends"]:
        original = Engine.run_finished

        def finished(engine: Engine, run_id: str) -> None:
            original(engine, run_id)
            self.event(run_id).set()

        Engine.run_finished = finished  # type: ignore[method-assign]
        try:
            yield self
        finally:
            Engine.run_finished = original  # type: ignore[method-assign]


@contextmanager
def configs(folder: Path) -> Iterator[Path]:
    """A tree with one pipeline of three no-op steps in a row, and no quota in the way."""
    many = 10**9
    plan = {"daily": many, "monthly": many, "concurrent": many}
    plans = {"plans": {"p": plan}, "organisations": {ORG: {"plan": "p", "status": "ACTIVE"}}}
    names = "abc"
    steps = [
        {"step_id": name, "ps_type": PS_TYPE, "depends_on": list(names[max(0, i - 1) : i])}
        for i, name in enumerate(names)
    ]
    head = {"pipeline_id": "three", "name": "Three", "provider": "openai", "domain": "noop", "version": "1"}
    for path, data in (("system/plans.yml", plans), (f"{ROUTE}.yml", {**head, "steps": steps})):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(yaml.safe_dump(data))
    (folder / "system" / "providers.yml").write_text(PROVIDERS.read_text())
    before = registry.PROCESSORS[PS_TYPE]
    registry.PROCESSORS[PS_TYPE] = "tests.fakes:Noop"  # type: ignore[index]
    registry.processor.cache_clear()
    logging.disable(logging.CRITICAL)
    try:
        yield folder
    finally:
        registry.PROCESSORS[PS_TYPE] = before  # type: ignore[index]
        registry.processor.cache_clear()
        logging.disable(logging.NOTSET)


def measured(name: str, submit: Submit, ends: Ends, *, runs: int, clients: int) -> Result:
    """Run ``clients`` that each submit a run and wait for its end, again and again, ``runs`` in all."""
    latencies: list[float] = []

    def client(count: int) -> None:
        for _ in range(count):
            began = time.perf_counter()
            ends.event(submit()).wait(60)
            latencies.append((time.perf_counter() - began) * 1000)

    client(20)
    latencies.clear()
    cpu, began = time.process_time(), time.perf_counter()
    threads = [threading.Thread(target=client, args=(runs // clients,)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    return Result(name, len(latencies), STEPS, seconds, tuple(latencies), time.process_time() - cpu)


def engine_alone(folder: Path, tree: Path, ends: Ends, *, runs: int, ended: int = 0) -> list[Result]:
    """(a) Latency with one client and throughput with eight; with ``ended`` runs in the store beforehand."""
    settings = Settings(state_dir=folder, configs=tree, bigquery_url=NOWHERE, archive=False)
    engine = bootstrap.build(settings)

    def submit() -> str:
        return engine.request_run(run_request(ORG, ROUTE, {}, now=engine.now(), trigger="api")).run_id

    def deliver(delivery: Any) -> str | None:
        topic, data = delivery.message.topic, delivery.message.data
        if topic == RUNS:
            engine.start_run(read_run_id(data))
        elif topic == STEP_COMPLETED:
            engine.advance(*read_completed(data))
        elif topic == RUN_FINISHED:
            engine.run_finished(read_run_id(data))
        else:
            engine.run_step(*read_order(data))
        return None

    dispatcher = Dispatcher(engine.bus, deliver, workers=8)  # type: ignore[arg-type]
    dispatcher.start()
    title = "engine" if not ended else f"engine, {ended:,} ended runs"
    try:
        if ended:
            ends.event(submit()).wait(60)
            fill(folder / bootstrap.STORE_FILE, ended)
        return _both(title, submit, ends, runs)
    finally:
        dispatcher.stop()


def served(stack: Any, name: str, ends: Ends, *, runs: int) -> list[Result]:
    """(b), (c) The same through a stack's API over HTTP."""
    import httpx2

    with stack:
        local = threading.local()

        def submit() -> str:
            if not hasattr(local, "http"):
                key = {"Authorization": f"Bearer {stack.token}"}
                local.http = httpx2.Client(base_url=stack.url, trust_env=False, timeout=60, headers=key)
            answer = local.http.post(f"/pipelines/run/{ORG}/{ROUTE}", json={})
            run_id: str = answer.json()["run_id"]
            return run_id

        return _both(name, submit, ends, runs)


def functions(folder: Path, tree: Path, ends: Ends, *, runs: int) -> list[Result]:
    """(b) The embedded stack."""
    from infra.local.stack import EmbeddedStack

    return served(EmbeddedStack(_settings(folder, tree)), "functions", ends, runs=runs)


def emulators(folder: Path, tree: Path, ends: Ends, *, runs: int) -> list[Result]:
    """(c) Google's emulators. Their CPU time is not counted: they stand for services of Google's."""
    from infra.local.emulator_stack import EmulatorStack

    return served(EmulatorStack(_settings(folder, tree)), "emulators", ends, runs=runs)


def _settings(folder: Path, tree: Path) -> Settings:
    return replace(Settings(), state_dir=folder, configs=tree, bigquery_url=NOWHERE, archive=False)


def _both(name: str, submit: Submit, ends: Ends, runs: int) -> list[Result]:
    alone = measured(f"{name}, 1 client", submit, ends, runs=runs // 3, clients=1)
    return [alone, measured(f"{name}, 8 clients", submit, ends, runs=runs, clients=8)]


def fill(file: Path, count: int) -> None:
    """Put ``count`` copies of the one run that has ended into the store: its records, steps, changes."""
    db = sqlite3.connect(file, timeout=60)
    (run_id,) = db.execute("SELECT run_id FROM runs WHERE status = ?", (RunStatus.COMPLETED,)).fetchone()
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {int(count)})"
    name = "printf('run_%032x', i)"
    for statement in (
        f"INSERT INTO runs {numbers} SELECT {name}, org_slug, route, status, requested_at - i, NULL, version, body"
        " FROM n, (SELECT * FROM runs WHERE run_id = ?)",
        f"INSERT INTO steps {numbers} SELECT {name}, step_id, ended, deadline, version, body"
        " FROM n, (SELECT * FROM steps WHERE run_id = ?)",
        f"INSERT INTO changes {numbers} SELECT {name}, number, body FROM n, (SELECT * FROM changes WHERE run_id = ?)",
    ):
        db.execute(statement, (run_id,))
        db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
