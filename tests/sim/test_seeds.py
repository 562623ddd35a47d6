"""Every seed is a world of its own. One that breaks a rule prints how to play it alone."""

import pytest

from tests.sim.world import World

SEEDS, CHUNK = 2000, 100

OPEN: dict[int, str] = {}
"""Seeds of bugs that are known and not mended yet."""


def play(seed: int) -> World:
    world = World(seed)
    try:
        world.play()
    except Exception as error:
        error.add_note(f"seed {seed}; alone: python -m tests.sim --seed {seed} --trace")
        raise
    return world


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_rule_breaks(first: int) -> None:
    for seed in range(first, first + CHUNK):
        if seed not in OPEN:
            play(seed)


def test_a_seed_replays_exactly() -> None:
    first, second = play(11), play(11)
    assert (first.stats, first.seconds, first.bus.sent) == (second.stats, second.seconds, second.bus.sent)


def test_the_worlds_reach_every_state() -> None:
    """A simulation in which nothing goes wrong would pass as well."""
    worlds = [play(seed) for seed in range(40)]
    runs = {str(run.status) for world in worlds for run in world.rules.runs.values()}
    steps = {str(s.status) for world in worlds for steps in world.rules.steps.values() for s in steps.values()}
    assert runs == {"completed", "failed", "cancelled"}
    assert steps == {"succeeded", "failed", "skipped", "omitted", "cancelled"}
    assert any("[" in name for world in worlds for steps in world.rules.steps.values() for name in steps)
    waited = [world.rules.runs[run_id] for world in worlds for run_id in world.rules.quota.queued]
    assert any(run.admitted_at for run in waited) and any("no slot within" in run.error for run in waited)
    assert any(world.rules.quota.went_on_waiting for world in worlds)
    assert all(sum(world.stats[name] for world in worlds) for name in ("killed", "failed", "dead letters"))
