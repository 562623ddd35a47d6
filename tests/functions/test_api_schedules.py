"""Schedules over HTTP: what is shown is what ``cron`` does, and who changed what is in the audit log."""

from typing import Any

import pytest

from tests.harness import ORG, ROUTE, Harness, step

URL = f"/pipelines/schedules/{ORG}"
CONTROL = {"by": "ana", "reason": "moving"}


@pytest.fixture
def scheduled(harness: Harness) -> Harness:
    harness.pipeline(step("only"), schedule="30 6 * * *", timezone="Europe/Berlin")
    harness.pipeline(step("only"), route="test/demo/unscheduled")
    return harness


def shown(harness: Harness, url: str = URL) -> dict[str, Any]:
    answer = harness.http("GET", url)
    assert answer.status_code == 200, answer.text
    (one,) = answer.json["schedules"]  # type: ignore[index]
    return dict(one)


def test_a_schedule_is_listed_with_its_next_time_and_where_it_is_not_enabled_why(scheduled: Harness) -> None:
    assert shown(scheduled) == {
        "pipeline": ROUTE,
        "schedule": "30 6 * * *",
        "timezone": "Europe/Berlin",
        "catchup": "last",
        "enabled": True,
        "reason": "",
        "is_own": False,
        "next_at": "2026-11-22T05:30:00Z",  # it is 06:00 UTC on the 21st
    }
    there = shown(scheduled, "/pipelines/schedules/globex")
    assert (there["enabled"], there["reason"], there["next_at"]) == (False, "no credential for openai", None)
    assert shown(scheduled, "/pipelines/schedules/lapsed")["reason"] == "the subscription is PAST_DUE"


@pytest.mark.parametrize("body", [{}, {"pipeline": ROUTE}])
def test_a_pause_is_shown_with_its_reason_and_who_is_in_the_audit_log(scheduled: Harness, body: dict[str, str]) -> None:
    assert scheduled.http("POST", f"{URL}/pause", json=CONTROL | body).status_code == 200
    assert shown(scheduled)["reason"] == "paused: moving"
    scheduled.clock.tick(1)
    assert scheduled.http("POST", f"{URL}/resume", json=CONTROL | body).status_code == 200
    assert shown(scheduled)["enabled"]
    rows = scheduled.http("GET", f"/pipelines/audit/{ORG}").json["rows"]  # type: ignore[index]
    assert [(row["action"], row["target"]) for row in rows] == [
        ("schedule.resume", body.get("pipeline", "*")),
        ("schedule.pause", body.get("pipeline", "*")),
    ]
    assert rows[0]["details"]["by"] == "ana"


def test_a_time_and_zone_of_its_own_are_set_and_taken_back(scheduled: Harness) -> None:
    own = {"schedule": "0 9 * * MON", "timezone": "Asia/Tokyo", "credential_id": "cred_openai"}
    assert scheduled.http("PUT", f"{URL}/{ROUTE}", json=own).status_code == 200
    one = shown(scheduled)
    assert (one["schedule"], one["timezone"], one["is_own"]) == ("0 9 * * MON", "Asia/Tokyo", True)
    assert one["next_at"] == "2026-11-23T00:00:00Z"
    assert scheduled.http("PUT", f"{URL}/{ROUTE}", json={}).status_code == 200
    assert not shown(scheduled)["is_own"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("PUT", f"/{ROUTE}", {"schedule": "61 * * * *"}, 422, "not a schedule"),
        ("PUT", f"/{ROUTE}", {"timezone": "Europe/Berln"}, 422, "Europe/Berlin"),
        ("PUT", f"/{ROUTE}x", {"timezone": "UTC"}, 404, ROUTE),
        ("POST", "/pause", CONTROL | {"pipeline": f"{ROUTE}x"}, 404, ROUTE),
        ("POST", "/pause", {"by": "ana"}, 422, "reason"),
    ],
)
def test_what_can_not_be_set_is_refused_with_what_to_do(
    scheduled: Harness, method: str, path: str, body: dict[str, str], status: int, told: str
) -> None:
    refused = scheduled.http(method, URL + path, json=body)
    assert refused.status_code == status and told in refused.text, refused.text
