"""What the product promises of quotas, through the API: checked before a run exists, held atomically, settled once.

Each promise is walked once here, in the words of the requirements (``docs/requirements.md``). What every store has to
keep is in ``tests/contract/test_run_store_quota.py``, queues and money in ``tests/functions``.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from werkzeug.test import TestResponse

from common.platform.errors import PermanentError
from tests.functions.limited import OTHER, plan
from tests.harness import ORG, ROUTE, Harness, step

HOUR, DAY = 3_600, 86_400


def ask(harness: Harness, org: str = ORG) -> TestResponse:
    return harness.http("POST", f"/pipelines/run/{org}/{ROUTE}", json={})


def used(harness: Harness, org: str = ORG) -> dict[str, int]:
    """What the API says of an organisation's use."""
    answer = harness.http("GET", f"/pipelines/usage/{org}").json
    return {limit["limit"]: limit["used"] for limit in answer["limits"]} | answer["ended_this_month"]


def runs(harness: Harness, org: str = ORG) -> int:
    return len(harness.http("GET", f"/pipelines/history/{org}").json["runs"])


@pytest.mark.parametrize(
    ("limit", "retry_after_s"),
    [
        ("daily", 18 * HOUR),  # it is 06:00: until midnight UTC
        ("monthly", 9 * DAY + 18 * HOUR),  # it is 21 November
    ],
)
def test_a_used_up_count_is_429_leaves_nothing_behind_and_starts_anew_when_it_says(
    harness: Harness, limit: str, retry_after_s: int
) -> None:
    plan(harness, **{limit: 2, "concurrent": 9})
    for _ in range(2):
        assert ask(harness).status_code == 202
    harness.drain()
    before = used(harness)

    refused = ask(harness)
    problem: dict[str, Any] = refused.get_json(force=True)
    assert (refused.status_code, refused.content_type) == (429, "application/problem+json")
    assert (problem["limit"], problem["value"], problem["used"]) == (limit, 2, 2)
    assert int(refused.headers["Retry-After"]) == retry_after_s
    assert (runs(harness), used(harness)) == (2, before)

    harness.clock.tick(retry_after_s - 1)
    assert ask(harness).status_code == 429
    harness.clock.tick(1)
    assert ask(harness).status_code == 202


def test_a_slot_is_taken_by_the_request_and_given_back_by_the_end_of_the_run(harness: Harness) -> None:
    plan(harness, concurrent=2)
    assert [ask(harness).status_code for _ in range(3)] == [202, 202, 429]
    assert used(harness)["concurrent"] == 2
    harness.drain()
    assert used(harness)["concurrent"] == 0
    assert ask(harness).status_code == 202


@pytest.mark.parametrize(
    ("status", "answer"),
    [("ACTIVE", 202), ("TRIAL", 202), ("SUSPENDED", 403), ("PAST_DUE", 403), ("CANCELLED", 403)],
)
def test_only_an_active_or_a_trial_subscription_starts_runs(harness: Harness, status: str, answer: int) -> None:
    plan(harness, status=status)
    assert ask(harness).status_code == answer
    assert runs(harness) == used(harness)["daily"] == (1 if answer == 202 else 0)


def test_of_requests_at_the_same_moment_exactly_as_many_are_admitted_as_there_are_slots(harness: Harness) -> None:
    """Check and reservation are one step: with a look before a write, several would see the last slot free."""
    plan(harness, concurrent=3)
    together = Barrier(12)

    def request(_number: int) -> int:
        together.wait(timeout=30)
        return ask(harness).status_code

    with ThreadPoolExecutor(12) as threads:
        answers = Counter(threads.map(request, range(12)))
    assert answers == {202: 3, 429: 9}
    assert (used(harness)["concurrent"], used(harness)["daily"], runs(harness)) == (3, 3, 3)


def test_the_limits_are_those_that_the_plan_has_when_a_run_is_asked_for(harness: Harness) -> None:
    plan(harness, daily=1)
    assert [ask(harness).status_code for _ in range(2)] == [202, 429]
    plan(harness, daily=2, concurrent=9)
    assert [ask(harness).status_code for _ in range(2)] == [202, 429]


def test_a_run_is_settled_once_however_often_its_messages_come(harness: Harness) -> None:
    def fail(_context: Any, _params: Any) -> None:
        raise PermanentError("bad data")

    plan(harness, concurrent=9)
    harness.script("bad", fail)
    harness.pipeline(step("only", script="bad"), route=OTHER)
    harness.start()
    harness.start(route=OTHER)
    while found := harness.bus.pull(1):
        for _ in range(3):
            assert harness.deliver(found[0]) == 200
        harness.bus.ack(found[0])
    assert used(harness) == {"daily": 2, "monthly": 2, "concurrent": 0, "completed": 1, "failed": 1, "cancelled": 0}


def test_a_slot_of_a_run_that_has_vanished_frees_itself(harness: Harness) -> None:
    """Its process is gone and no sweep comes: the next request clears stale reservations before it checks."""
    plan(harness, concurrent=1)
    assert [ask(harness).status_code for _ in range(2)] == [202, 429]
    harness.clock.tick(2 * DAY)
    assert ask(harness).status_code == 202
    assert used(harness)["concurrent"] == 1


def test_one_organisation_uses_up_its_own_plan_alone(harness: Harness) -> None:
    plan(harness, daily=1)
    assert [ask(harness).status_code for _ in range(2)] == [202, 429]
    assert ask(harness, org="globex").status_code == 202
    assert (used(harness)["daily"], used(harness, "globex")["daily"]) == (1, 1)
