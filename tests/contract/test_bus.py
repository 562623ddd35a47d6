"""The embedded bus: what is published is delivered at least once, whatever happens in between."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.adapters.sql.sqlite.bus import ACK_DEADLINE, MAX_DELIVERIES, SqliteBus
from common.adapters.sql.sqlite.database import Database
from common.ports.bus import Message

pytestmark = pytest.mark.timeout(60)  # what waits for what it should not is found here, and is not to hang


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bus(tmp_path: Path, clock: Clock) -> SqliteBus:
    return SqliteBus(Database(tmp_path / "bus.db"), clock)


def message(number: int, not_before: datetime | None = None) -> Message:
    return Message("t", str(number), {"n": number}, not_before)


def pulled(bus: SqliteBus, limit: int = 10) -> list[int]:
    return [d.message.data["n"] for d in bus.pull(limit)]


def test_a_published_message_survives_the_process(tmp_path: Path, clock: Clock, bus: SqliteBus) -> None:
    bus.publish([message(1)])
    assert pulled(SqliteBus(Database(tmp_path / "bus.db"), clock)) == [1]


def test_a_message_handed_out_is_not_handed_out_again_before_its_deadline(bus: SqliteBus, clock: Clock) -> None:
    bus.publish([message(1)])
    assert pulled(bus) == [1] and pulled(bus) == []
    clock.now += ACK_DEADLINE
    assert pulled(bus) == [1]


def test_an_acknowledged_message_never_comes_back(bus: SqliteBus, clock: Clock) -> None:
    bus.publish([message(1)])
    bus.ack(bus.pull(1)[0])
    clock.now += ACK_DEADLINE
    assert pulled(bus) == []


def test_a_message_is_not_delivered_before_its_time(bus: SqliteBus, clock: Clock) -> None:
    bus.publish([message(1, clock.now + timedelta(seconds=30))])
    clock.now += timedelta(seconds=29.999)
    assert pulled(bus) == []
    clock.now += timedelta(seconds=0.001)
    assert pulled(bus) == [1]


def test_a_message_given_back_returns_later_and_later_and_ends_among_the_dead_letters(
    bus: SqliteBus, clock: Clock
) -> None:
    bus.publish([message(1)])
    waits = []
    for _ in range(MAX_DELIVERIES):
        before = clock.now
        while not (found := bus.pull(1)):
            clock.now += timedelta(seconds=0.1)
        waits.append((clock.now - before).total_seconds())
        bus.nack(found[0], "broken")
    assert waits == sorted(waits) and waits[-1] >= 60
    clock.now += timedelta(days=1)
    (letter,) = bus.pull(10)
    assert (letter.message.topic, letter.message.source, letter.message.data) == ("dead-letters", "t", {"n": 1})
    assert bus.dead_letters() == [("t", "1", "broken")]


def test_a_restart_delivers_what_the_dead_process_had_in_hand_but_nothing_early(bus: SqliteBus, clock: Clock) -> None:
    bus.publish([message(1), message(2, clock.now + timedelta(hours=1))])
    assert pulled(bus) == [1]
    bus.release()
    assert pulled(bus) == [1]


def test_two_pullers_never_get_one_message(bus: SqliteBus) -> None:
    bus.publish([message(n) for n in range(100)])
    got: list[int] = []

    def pull() -> None:
        while found := bus.pull(3):
            got.extend(d.message.data["n"] for d in found)

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(100))


def test_waiting_ends_when_a_message_is_published(bus: SqliteBus) -> None:
    seen, woken = bus.seen, threading.Event()

    def wait() -> None:
        bus.wait(seen, 60)
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    bus.publish([message(1)])
    assert woken.wait(10)
    thread.join()
