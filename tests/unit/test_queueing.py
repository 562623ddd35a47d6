"""Whose turn it is: shares by weight, nobody starved, live work first."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from random import Random

import pytest

from common.domain.queueing import TURN, Queue, Waiting, block, blocks, choose, heads, joining_turn, next_turn

T0 = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)


def waiting(number: int, *, route: str = "a/b/c", backfill: bool = False, after_s: int | None = None) -> Waiting:
    since = T0 + timedelta(seconds=number if after_s is None else after_s)
    return Waiting(f"run_{number:04d}", route, "concurrent", backfill, since)


def queue(org: str, *runs: Waiting, turn: int = 0) -> Queue:
    return Queue(org, turn, heads(runs))


def chosen(*queues: Queue, blocked: tuple[tuple[str, str, str], ...] = ()) -> tuple[str, int] | None:
    found = choose(queues, blocked)
    return found and (found[0].org_slug, int(found[1].run_id[4:]))


class Line:
    """Organisations that wait, as a store keeps them: slots come free one by one, and go to whoever is next."""

    def __init__(self, weights: dict[str, int]) -> None:
        self.weights, self.turns = weights, dict.fromkeys(weights, 0)
        self.runs: dict[str, list[Waiting]] = {org: [] for org in weights}
        self.served: Counter[str] = Counter()
        self._number = 0

    def join(self, org: str) -> None:
        self._number += 1
        if not self.runs[org]:
            others = [self.turns[name] for name, runs in self.runs.items() if runs]
            self.turns[org] = joining_turn(self.turns[org], others, self.turns.values())
        self.runs[org].append(waiting(self._number))

    def serve(self) -> str:
        found = choose([Queue(org, self.turns[org], heads(runs)) for org, runs in self.runs.items()], ())
        assert found is not None
        org = found[0].org_slug
        self.runs[org].remove(found[1])
        self.turns[org] = next_turn(self.turns[org], self.weights[org])
        self.served[org] += 1
        return org


@pytest.mark.parametrize("seed", range(12))
def test_of_organisations_that_always_wait_each_gets_its_weight_within_one_run(seed: int) -> None:
    rng = Random(seed)
    weights = {f"org{n}": rng.choice((1, 1, 2, 3, 7, 50)) for n in range(rng.randint(2, 6))}
    line, total = Line(weights), sum(weights.values())
    for slots in range(1, 250):
        for org in weights:
            while len(line.runs[org]) < 2:
                line.join(org)
        line.serve()
        for org, weight in weights.items():
            fair = Fraction(slots * weight, total)
            # One run of the heaviest takes its share of a round ahead of the others.
            assert fair - len(weights) < line.served[org] < fair + 1 + weight, (slots, weights, line.served)


@pytest.mark.parametrize("seed", range(12))
def test_nobody_that_waits_is_passed_over_for_longer_than_a_round_of_all_weights(seed: int) -> None:
    """Organisations come and go at random; who waits is served before the others have had their weight twice."""
    rng = Random(seed)
    weights = {f"org{n}": rng.choice((1, 2, 5)) for n in range(5)}
    line, passed = Line(weights), Counter[str]()
    for _ in range(500):
        for org in weights:
            if rng.random() < 0.22:
                line.join(org)
        if not any(line.runs.values()):
            continue
        served = line.serve()
        passed[served] = 0
        for org, runs in line.runs.items():
            passed[org] = passed[org] + 1 if runs and org != served else 0
            most = sum(-(-2 * weight // weights[org]) + 1 for name, weight in weights.items() if name != org)
            assert passed[org] <= most, (org, passed, weights)


def test_who_did_not_wait_has_saved_up_no_turns() -> None:
    line = Line({"busy": 1, "late": 1})
    for _ in range(50):
        line.join("busy")
    for _ in range(20):
        line.serve()
    for _ in range(20):
        line.join("late")
    assert Counter(line.serve() for _ in range(20)) == {"busy": 10, "late": 10}


def test_who_was_served_while_nobody_else_waited_owes_nothing() -> None:
    line = Line({"early": 1, "other": 1})
    for _ in range(30):
        line.join("early")
        line.serve()
    line.join("other")
    for _ in range(5):
        line.join("early")
        line.join("other")
    assert Counter(line.serve() for _ in range(6)) == {"early": 3, "other": 3}


def test_live_work_goes_before_backfills_and_then_the_oldest() -> None:
    runs = [waiting(1, backfill=True), waiting(3), waiting(2)]
    assert chosen(queue("acme", *runs)) == ("acme", 2)
    assert [one.run_id[-1] for one in sorted(runs, key=lambda one: one.order)] == ["2", "3", "1"]


def test_of_equal_turns_the_longest_wait_counts() -> None:
    assert chosen(queue("acme", waiting(2)), queue("globex", waiting(1))) == ("globex", 1)
    assert chosen(queue("acme", waiting(2)), queue("globex", waiting(1), turn=1)) == ("acme", 2)


def test_a_heads_list_has_the_next_run_of_each_pipeline_live_and_backfill() -> None:
    runs = [waiting(1), waiting(2), waiting(3, backfill=True), waiting(4, route="x/y/z"), waiting(5, route="x/y/z")]
    assert [one.run_id[-1] for one in heads(runs)] == ["1", "4", "3"]


@pytest.mark.parametrize(
    ("limit", "next_one"),
    [
        ("pipeline", ("acme", 2)),
        ("money", ("acme", 2)),
        ("concurrent", ("globex", 3)),
        ("daily", ("globex", 3)),
        ("plan", ("globex", 3)),
        ("global", None),
    ],
)
def test_a_limit_that_is_used_up_keeps_only_those_waiting_that_it_concerns(
    limit: str, next_one: tuple[str, int] | None
) -> None:
    queues = queue("acme", waiting(1), waiting(2, route="x/y/z")), queue("globex", waiting(3), turn=TURN)
    assert chosen(*queues) == ("acme", 1)
    assert chosen(*queues, blocked=(block(limit, "acme", "a/b/c"),)) == next_one


def test_every_block_is_one_that_its_own_run_is_kept_by() -> None:
    for limit in ("global", "concurrent", "pipeline", "money", "daily", "monthly", "plan"):
        assert block(limit, "acme", "a/b/c") in blocks("acme", "a/b/c")
        others = blocks("globex", "a/b/c")
        assert (block(limit, "acme", "a/b/c") in others) is (limit == "global")


def test_a_turn_moves_even_for_the_heaviest() -> None:
    assert next_turn(5, 1) == 5 + TURN and next_turn(0, 4) == TURN // 4 and next_turn(0, 10 * TURN) == 1
