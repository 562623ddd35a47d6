"""``make bench``: runs per second, latency, CPU of the engine, beside DBOS on PostgreSQL, in one go.

python -m tests.bench                      everything
python -m tests.bench --only engine,peer   some of it
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import ours
from tests.bench.measure import Result, table, to_json
from tests.bench.peer import as_results, measure_peer

FEW, MANY = 1_000, 1_000_000
PARTS = ("engine", "ended", "functions", "emulators", "peer")


def main() -> int:
    """Measure and print a table, then JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, of {', '.join(PARTS)}")
    parser.add_argument("--runs", type=int, default=1_000, help="runs with eight clients; a third of it with one")
    parser.add_argument("--ended", type=int, default=MANY, help="ended runs in the store for the part 'ended'")
    asked = parser.parse_args()
    wanted = asked.only.split(",")
    if set(wanted) - set(PARTS):
        parser.error(f"--only: choose from {', '.join(PARTS)}")
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        ends = ours.Ends()
        steps: dict[str, Callable[[Path], list[Result]]] = {
            "engine": lambda tree: ours.engine_alone(folder / "a", tree, ends, runs=asked.runs),
            "ended": lambda tree: [
                *ours.engine_alone(folder / "few", tree, ends, runs=asked.runs, ended=FEW),
                *ours.engine_alone(folder / "many", tree, ends, runs=asked.runs, ended=asked.ended),
            ],
            "functions": lambda tree: ours.functions(folder / "b", tree, ends, runs=asked.runs),
            "emulators": lambda tree: ours.emulators(folder / "c", tree, ends, runs=asked.runs // 5),
        }
        with ours.configs(folder / "configs") as tree, ends.watched():
            for part in (part for part in PARTS if part in wanted and part in steps):
                _tell(part)
                results += steps[part](tree)
    if "peer" in wanted:
        _tell("peer")
        results += as_results(measure_peer())
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(table(results))  # noqa: T201
    print(f"load averages at the end: {load}; cores: {os.cpu_count()}")  # noqa: T201
    print(to_json(results))  # noqa: T201
    sys.stdout.flush()
    os._exit(0)  # functions-framework leaves threads behind


def _tell(part: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {part} ...", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
