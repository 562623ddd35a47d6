"""Five failures of a pipeline are told in an hour, the rest are counted once."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from common.notify.failure_limit import MAX_COUNTED, Admitted, FailureLimit
from common.platform.errors import TransientError
from tests.fakes import FakeClock
from tests.memory_records import MemoryRecords

ORG, ROUTE = "acme", "genai/payg/openai"


class World:
    """A limit on memory. ``fail`` is what happens to a failed run."""

    def __init__(self) -> None:
        self.clock, self.records = FakeClock(), MemoryRecords()
        self.limit = FailureLimit(self.records, self.clock)

    def fail(self, run_id: str, route: str = ROUTE, org: str = ORG) -> str:
        admitted = self.limit.admit(org, route, run_id)
        if not admitted.tell:
            return "left out"
        return "told" if admitted.since is None else f"count {len(admitted.left_out)}"

    def summary(self) -> Admitted:
        """The summary that the sweep brings about."""
        ((record, run_id),) = self.limit.due(10)
        admitted = self.limit.admit(ORG, ROUTE, run_id)
        self.limit.seen(record)
        return admitted


@pytest.fixture
def world() -> World:
    return World()


def test_five_failures_an_hour_are_told_and_the_rest_left_out(world: World) -> None:
    told = [world.fail(f"run_{number}") for number in range(8)]
    assert told == ["told"] * 5 + ["left out"] * 3
    world.clock.tick(3_600)
    assert world.fail("run_later") == "told"


def test_the_hour_slides(world: World) -> None:
    for number in range(5):
        assert world.fail(f"run_{number}") == "told"
        world.clock.tick(600)
    assert world.fail("run_5") == "left out"
    world.clock.tick(600)
    assert world.fail("run_6") == "told", "an hour after the first"
    assert world.fail("run_7").startswith("count"), "the count is due, and this one joins it"


def test_a_repeated_message_gets_the_answer_it_got_before_and_counts_once(world: World) -> None:
    for _ in range(3):
        assert [world.fail(f"run_{number}") for number in range(7)] == ["told"] * 5 + ["left out"] * 2
    world.clock.tick(3_600)
    assert len(world.summary().left_out) == 2


def test_pipelines_and_organisations_have_limits_of_their_own(world: World) -> None:
    for number in range(6):
        world.fail(f"run_{number}")
    assert world.fail("run_x", route="aws/cost/billing") == "told" and world.fail("run_y", org="globex") == "told"


def test_when_the_hour_is_over_the_sweep_is_told_once_and_not_before(world: World) -> None:
    for number in range(9):
        world.fail(f"run_{number}")
        world.clock.tick(1)
    assert world.limit.due(10) == []
    world.clock.tick(3_600 - 9 - 1)
    assert world.limit.due(10) == []
    world.clock.tick(1)
    admitted = world.summary()
    assert admitted.left_out == ("run_5", "run_6", "run_7", "run_8") and admitted.tell
    assert admitted.since == FakeClock().now.replace(second=5)
    assert world.limit.due(10) == []


def test_a_count_is_told_again_until_somebody_says_that_it_was(world: World) -> None:
    for number in range(7):
        world.fail(f"run_{number}")
    world.clock.tick(3_600)
    assert world.fail("run_6") == world.fail("run_5") == "count 2"
    world.limit.told(ORG, ROUTE, ["run_5", "run_6"])
    assert world.fail("run_new") == "told"
    assert all(not record.body["left_out"] for record in world.records.list("failure_limits", ORG))


def test_what_is_left_out_while_a_count_is_being_told_is_told_too(world: World) -> None:
    for number in range(7):
        world.fail(f"run_{number}")
    world.clock.tick(3_600)
    admitted = world.summary()
    for number in range(5):
        world.fail(f"again_{number}")
    assert world.fail("again_5") == "count 3"
    world.limit.told(ORG, ROUTE, admitted.left_out)
    assert world.fail("again_5") == "count 1"


def test_a_second_night_is_counted_by_itself(world: World) -> None:
    for night in ("a", "b"):
        for number in range(7):
            world.fail(f"{night}_{number}")
        world.clock.tick(3_600)
        admitted = world.summary()
        assert admitted.left_out == (f"{night}_5", f"{night}_6")
        world.limit.told(ORG, ROUTE, admitted.left_out)
        world.clock.tick(80_000)


def test_a_process_that_dies_between_the_two_writes_leaves_nothing_untold(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        world.fail(f"run_{number}")
    real = world.records.put

    def dies(kind: str, *given: Any, **more: Any) -> Any:
        if kind == "failure_limits":
            raise TransientError("gone")
        return real(kind, *given, **more)

    monkeypatch.setattr(world.records, "put", dies)
    with pytest.raises(TransientError):
        world.fail("run_5")
    monkeypatch.setattr(world.records, "put", real)
    assert world.fail("run_5") == "left out"
    world.clock.tick(3_600)
    assert world.summary().left_out == ("run_5",)


def test_a_look_in_vain_finds_nothing_to_tell(world: World) -> None:
    for number in range(6):
        world.fail(f"run_{number}")
    world.clock.tick(3_600)
    world.limit.told(ORG, ROUTE, ["run_5"])
    ((_record, run_id),) = world.limit.due(10)
    assert run_id == ""


def test_many_failures_at_once_are_counted_exactly(world: World) -> None:
    names = [f"run_{number}" for number in range(60)]
    random.Random(1).shuffle(names)
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(world.fail, names))
    assert sorted(set(told)) == ["left out", "told"] and told.count("told") == 5
    world.clock.tick(3_600)
    assert len(set(world.summary().left_out)) == 55


def test_a_failure_that_was_dealt_with_before_takes_nobodys_turn(world: World) -> None:
    for number in range(10):
        assert not world.limit.admit(ORG, ROUTE, f"old_{number}", again=True).tell
    assert world.fail("run_0") == "told"


def test_a_record_does_not_grow_without_end(world: World) -> None:
    for number in range(5):
        world.fail(f"run_{number}")
    (record,) = world.records.list("failure_limits", ORG)
    since = FakeClock().now.isoformat()
    until = FakeClock().now.replace(hour=7).isoformat()
    full = {**record.body, "left_out": [f"x_{n}" for n in range(MAX_COUNTED)], "since": since, "until": until}
    world.records.put("failure_limits", ORG, record.name, full)
    assert world.fail("run_more") == "left out"
    (record,) = world.records.list("failure_limits", ORG)
    assert len(record.body["left_out"]) == MAX_COUNTED
