# ruff: noqa: T201
"""``python -m tests.sim --seeds 0..1000`` plays worlds; ``--seed N --trace`` shows one, event by event."""

import argparse
import sys
import time
import traceback
from collections import Counter

from tests.sim.world import World


def main() -> int:
    """Play the seeds; print each that breaks a rule. Return 1 if one did."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", default="0..1000", help="first..last, the last not included")
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument("--trace", action="store_true", help="print every event")
    parser.add_argument("--stop", action="store_true", help="stop at the first seed that breaks a rule")
    wanted = parser.parse_args()
    first, _, last = wanted.seeds.partition("..")
    seeds = range(int(first), int(last)) if wanted.seed is None else range(wanted.seed, wanted.seed + 1)
    broken, stats, began = 0, Counter[str](), time.perf_counter()
    for seed in seeds:
        world = World(seed, trace=wanted.trace)
        try:
            world.play()
        except Exception as error:
            broken += 1
            if isinstance(error, AssertionError):
                print(f"seed {seed}: {error}")
            else:
                print(f"seed {seed}: {''.join(traceback.format_exception(error))}")
            if wanted.stop:
                break
        stats += world.stats
    seconds = time.perf_counter() - began
    print(f"{len(seeds)} seeds, {broken} broken, {len(seeds) / seconds:.0f} seeds/s")
    print(", ".join(f"{name} {count}" for name, count in sorted(stats.items())))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
