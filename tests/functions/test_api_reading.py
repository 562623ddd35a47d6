"""Looking around over HTTP: history by time, pipelines and their schedules, usage."""

import json
from collections.abc import Sequence
from copy import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from common import bootstrap
from common.domain.quota import Limits
from tests.harness import ORG, ROUTE, Harness, step

HISTORY = f"/pipelines/history/{ORG}"


def get(harness: Harness, path: str, **query: str) -> dict[str, Any]:
    answer = harness.http("GET", path, query_string=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(answer.data)
    return found


def ids(page: dict[str, Any]) -> list[str]:
    return [run["run_id"] for run in page["runs"]]


@pytest.fixture
def days(harness: Harness) -> Sequence[str]:
    """A run at 06:00 of each of five days, the first on 2026-11-21."""
    found = []
    for _ in range(5):
        found.append(harness.start())
        harness.drain()
        harness.clock.tick(86_400)
    return found


def test_history_of_days_holds_both_of_them(harness: Harness, days: Sequence[str]) -> None:
    assert ids(get(harness, HISTORY, **{"from": "2026-11-22", "to": "2026-11-24"})) == [days[3], days[2], days[1]]
    assert ids(get(harness, HISTORY, to="2026-11-21")) == [days[0]]
    assert ids(get(harness, HISTORY, **{"from": "2026-11-25"})) == [days[4]]
    assert ids(get(harness, HISTORY, **{"from": "2026-11-26"})) == []
    assert ids(get(harness, HISTORY, to="9999-12-31")) == list(days[::-1])


def test_history_of_times_holds_both_of_them_in_any_zone(harness: Harness, days: Sequence[str]) -> None:
    at = "2026-11-22T06:00:00Z"
    assert ids(get(harness, HISTORY, **{"from": at, "to": at})) == [days[1]]
    assert ids(get(harness, HISTORY, to="2026-11-22T05:59:59.999999Z")) == [days[0]]
    assert ids(get(harness, HISTORY, **{"from": "2026-11-22T07:00:00.000001+01:00", "to": "2026-11-23"})) == [days[2]]


def test_pages_with_filters_are_stable_while_runs_come_in(harness: Harness, days: Sequence[str]) -> None:
    query = {"limit": "2", "from": "2026-11-21", "to": "2026-11-25", "pipeline": ROUTE, "status": "completed"}
    found, cursor = [], None
    while True:
        page = get(harness, HISTORY, **query, **({"cursor": cursor} if cursor else {}))
        found += ids(page)
        harness.start()
        harness.drain()
        if (cursor := page["next_cursor"]) is None:
            break
    assert found == list(days[::-1])


def test_pipelines_are_listed_with_their_next_times_and_with_what_is_wrong(harness: Harness) -> None:
    harness.pipeline(step("a"), step("b", "a"), route="test/demo/daily", schedule="30 6 * * *")
    harness.pipeline(step("a", "nobody"), route="test/demo/wrong")
    listed = {one["pipeline"]: one for one in get(harness, f"/pipelines/configs/{ORG}")["pipelines"]}
    assert list(listed) == ["test/demo/daily", ROUTE, "test/demo/wrong"]
    daily = listed["test/demo/daily"]
    assert (daily["name"], daily["schedule"], daily["steps"]) == ("Test", "30 6 * * *", ["a", "b"])
    assert daily["next_runs"] == [f"2026-11-{day}T06:30:00Z" for day in range(21, 26)]
    assert listed[ROUTE]["next_runs"] == [] and listed[ROUTE]["schedule"] is None
    wrong = listed["test/demo/wrong"]
    assert "wrong.yml" in wrong["error"] and "nobody" in wrong["error"] and wrong["name"] is None
    assert str(harness.folder) not in json.dumps(listed)


def test_a_pipelines_config_is_shown_with_the_hash_that_its_runs_keep(harness: Harness) -> None:
    path = harness.pipeline(step("a"), schedule="0 0 1 * *")
    shown = get(harness, f"/pipelines/configs/{ORG}/{ROUTE}")
    run = harness.finish(harness.start())
    assert shown["config_hash"] == run.config_hash
    assert shown["next_runs"][:2] == ["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"] and len(shown["next_runs"]) == 5
    written = yaml.safe_load(path.read_text())
    assert shown["config"]["pipeline_id"] == written["pipeline_id"]
    assert shown["config"]["steps"][0]["config"] == written["steps"][0]["config"]
    answer = harness.http("GET", f"/pipelines/configs/{ORG}/test/demo/pipelin")
    assert answer.status_code == 404 and ROUTE in answer.text


def test_usage_is_held_against_the_plan_with_the_times_at_which_it_starts_anew(harness: Harness) -> None:
    harness.start()
    harness.drain()
    harness.start()
    seen = get(harness, f"/pipelines/usage/{ORG}")
    assert seen["subscription"] == "ACTIVE" and seen["as_of"] == "2026-11-21T06:00:00Z"
    assert seen["limits"] == [
        {"limit": "daily", "value": 1000, "used": 2, "left": 998, "resets_at": "2026-11-22T00:00:00Z"},
        {"limit": "monthly", "value": 1000, "used": 2, "left": 998, "resets_at": "2026-12-01T00:00:00Z"},
        {"limit": "concurrent", "value": 5, "used": 1, "left": 4, "resets_at": None},
    ]
    assert seen["ended_this_month"] == {"completed": 1, "failed": 0, "cancelled": 0}
    assert seen["money_usd"] is None and seen["waiting"] == 0 and seen["limits_as_of"] is None
    harness.clock.now = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    later = get(harness, f"/pipelines/usage/{ORG}")["limits"]
    assert [one["resets_at"] for one in later[:2]] == ["2027-01-01T00:00:00Z"] * 2
    assert [one["used"] for one in later[:2]] == [0, 0]


def test_limits_whose_source_is_away_say_of_when_they_are_whoever_is_told_of_them(harness: Harness) -> None:
    read_at = datetime(2026, 11, 21, 5, 30, tzinfo=UTC)
    known = harness.engine.plans.limits(ORG)

    class Away:
        status = "ACTIVE"

        def limits(self, _org_slug: str) -> Limits:
            return replace(known, status=self.status, daily=0, as_of=read_at)

    away = Away()
    bootstrap.use(replace(harness.engine, plans=away))
    assert get(harness, f"/pipelines/usage/{ORG}")["limits_as_of"] == "2026-11-21T05:30:00Z"
    for status, refused in (("ACTIVE", 429), ("SUSPENDED", 403)):
        away.status = status
        answer = harness.http("POST", f"/pipelines/run/{ORG}/{ROUTE}", json={})
        assert answer.status_code == refused and "as of 2026-11-21T05:30:00Z" in answer.text


def test_a_replay_is_a_rerun_as_a_preview(harness: Harness) -> None:
    run_id = harness.start()
    harness.drain()
    answer = harness.http("POST", f"/pipelines/replay/{ORG}/{run_id}", json={"by": "ana", "reason": "prices"})
    assert answer.status_code == 202 and answer.json is not None
    made = get(harness, answer.json["links"]["status"])
    assert made["rerun_of"] == run_id and made["trigger"] == "preview" and made["preview"] == "open"


def test_a_preview_that_wrote_nothing_can_be_promoted(harness: Harness) -> None:
    body = {"by": "ana", "reason": "prices"}
    replayed = harness.http("POST", f"/pipelines/replay/{ORG}/{harness.start()}", json=body)
    assert replayed.status_code == 409  # it has not ended
    run_id = harness.start()
    harness.drain()
    replayed = harness.http("POST", f"/pipelines/replay/{ORG}/{run_id}", json=body)
    assert replayed.json is not None
    harness.drain()
    assert get(harness, f"/pipelines/preview/{ORG}/{replayed.json['run_id']}")["tables"] == []
    promoted = harness.http("POST", f"/pipelines/promote/{ORG}/{replayed.json['run_id']}", json=body)
    assert promoted.status_code == 200 and promoted.json is not None and promoted.json["preview"] == "promoted"
