"""The seed of a run of the tests: another each time, the same in all of its processes, printed at its end.

What draws from it (worlds of the simulation, moments of kills) meets something new with each change.
"""

import os
import random

VARIABLE = "PIPELINE_OPS_TEST_SEED"


def choose() -> None:
    """Choose one unless the environment has it, before xdist starts processes, which inherit it."""
    os.environ.setdefault(VARIABLE, str(random.SystemRandom().randrange(10**9)))


def seed() -> int:
    """Return it."""
    return int(os.environ[VARIABLE])


def replay() -> str:
    """Return how to play the same again."""
    return f"{VARIABLE}={os.environ[VARIABLE]} plays the same worlds and kills again"
