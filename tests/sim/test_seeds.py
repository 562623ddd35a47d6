"""Every seed is a world of its own. One that breaks a rule prints how to play it alone."""

import pytest

from tests.seed import seed
from tests.sim.world import World

SEEDS, CHUNK = 700, 50
"""How many worlds each change plays, other ones each time; ``make test-slow`` plays the first 2,000."""

FAST_SEEDS = 150
"""How many of them ``make test-fast`` plays, too."""

SLOW_SEEDS, SLOW_CHUNK = 2000, 100

OPEN: dict[int, str] = {}
"""Seeds of bugs that are known and not mended yet."""


def play(number: int) -> World:
    world = World(number)
    try:
        world.play()
    except Exception as error:
        error.add_note(f"seed {number}; alone: python -m tests.sim --seed {number} --trace")
        raise
    return world


def play_all(seeds: range) -> None:
    for number in seeds:
        if number not in OPEN:
            play(number)


@pytest.mark.parametrize(
    "offset",
    [
        *range(0, FAST_SEEDS, CHUNK),
        *(pytest.param(offset, marks=pytest.mark.thorough) for offset in range(FAST_SEEDS, SEEDS, CHUNK)),
    ],
)
def test_no_rule_breaks(offset: int) -> None:
    first = seed() + offset
    play_all(range(first, first + CHUNK))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SLOW_SEEDS, SLOW_CHUNK))
def test_no_rule_breaks_in_the_first_two_thousand_worlds(first: int) -> None:
    play_all(range(first, first + SLOW_CHUNK))


def test_a_seed_replays_exactly() -> None:
    first, second = play(11), play(11)
    assert (first.stats, first.seconds, first.bus.sent) == (second.stats, second.seconds, second.bus.sent)


def test_the_worlds_reach_every_state() -> None:
    """A simulation in which nothing goes wrong would pass as well."""
    worlds = [play(number) for number in range(40)]
    runs = {str(run.status) for world in worlds for run in world.rules.runs.values()}
    steps = {str(s.status) for world in worlds for steps in world.rules.steps.values() for s in steps.values()}
    assert runs == {"completed", "failed", "cancelled"}
    assert steps == {"succeeded", "failed", "skipped", "omitted", "cancelled"}
    assert any("[" in name for world in worlds for steps in world.rules.steps.values() for name in steps)
    waited = [world.rules.runs[run_id] for world in worlds for run_id in world.rules.quota.queued]
    assert any(run.admitted_at for run in waited) and any("no slot within" in run.error for run in waited)
    assert any(world.rules.quota.went_on_waiting for world in worlds)
    assert all(sum(world.stats[name] for world in worlds) for name in ("killed", "failed", "dead letters"))
