"""Following a log on a store whose lines may come in late: each line is told once, and none is passed by."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.domain.model import Run, RunStatus
from common.domain.state import Change
from common.platform.errors import RequestError
from common.ports.logs import LogLine
from common.runs.engine import Engine
from common.runs.follow import Following, Place
from tests.contract.stores import T0, new_run

SETTLES_S = 3.0


class World:
    """A run, its transitions and its lines, as another process leaves them in the store bit by bit."""

    settles_s = SETTLES_S

    def __init__(self) -> None:
        self.now, self.run = T0, new_run().run
        self.told: list[Change] = []
        self.kept: list[LogLine] = []

    def append(self, at: float, text: str) -> None:
        when = T0 + timedelta(seconds=at)
        self.kept.append(LogLine(when, "INFO", text, place=f"{int(at * 1000):020d}-00000000"))
        self.kept.sort(key=lambda line: line.place)

    def change(self, at: float, text: str) -> None:
        self.told.append(Change(T0 + timedelta(seconds=at), "", 0, "", "running", text))

    def read(self, _run_id: str, *, after: str = "") -> Iterator[LogLine]:
        return (line for line in self.kept if line.place > after)

    def load(self, _run_id: str, _steps: Any) -> Run:
        return self.run

    def changes(self, _run_id: str) -> list[Change]:
        return self.told

    def at(self, seconds: float) -> None:
        self.now = T0 + timedelta(seconds=seconds)

    def end(self, at: float) -> None:
        self.run = replace(self.run, status=RunStatus.FAILED, ended_at=T0 + timedelta(seconds=at))

    def following(self, place: Place | None = None) -> Following:
        engine = SimpleNamespace(store=self, logs=self, now=lambda: self.now)
        return Following(cast(Engine, engine), "run_1", place or Place())


def texts(following: Following) -> list[str]:
    return [line.message.removeprefix("run running: ") for _, line in following.news()]


def test_a_line_that_comes_late_is_told_in_its_place_and_once() -> None:
    world = World()
    following = world.following()
    world.append(1.0, "one")
    world.append(2.0, "three")
    world.at(4.5)
    assert texts(following) == ["one"]
    world.append(1.9, "two")
    world.change(2.5, "four")
    world.at(6.0)
    assert texts(following) == ["two", "three", "four"]
    assert texts(following) == []


def test_transitions_and_lines_are_told_in_the_order_of_their_times_from_any_place_on() -> None:
    world = World()
    for number in range(5):
        world.change(number, f"change {number}")
        world.append(number + 0.5, f"line {number}")
    world.at(100)
    told = [(place, line.message) for place, line in world.following().news()]
    assert [text for _, text in told] == [text for n in range(5) for text in (f"run running: change {n}", f"line {n}")]
    for number, (place, _) in enumerate(told):
        again = [line.message for _, line in world.following(Place.read(str(place))).news()]
        assert again == [text for _, text in told[number + 1 :]]


def test_the_end_is_told_once_nothing_more_can_come_before_it() -> None:
    world = World()
    following = world.following()
    world.append(1.0, "one")
    world.end(2.0)
    world.at(4.9)
    assert texts(following) == ["one"] and following.ended_as is None
    world.append(1.5, "late")
    world.change(2.0, "ended")
    world.at(5.0)
    assert texts(following) == ["late", "ended"] and following.ended_as == "failed"


@pytest.mark.parametrize("text", ["", "1", ".", "x.", "-1.", "1.UPPER", "01.", "1.a b", "9999999999."])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="Last-Event-ID"):
        Place.read(text)
