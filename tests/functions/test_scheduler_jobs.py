"""Cloud Scheduler's jobs of this stack, over the wire, and the commands that show and change schedules."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from google.cloud.scheduler_v1 import types

from common import bootstrap
from common.adapters.google.scheduler import SchedulerJobs
from common.cli.main import cli
from common.platform.errors import PermanentError, TransientError
from tests.harness import ORG, ROUTE, Harness, step
from tests.scheduler_server import SchedulerServer, scheduler

PREFIX = "pipeline-ops-prod-"
PARENT = "projects/acme/locations/europe-west1"


@pytest.fixture(scope="module")
def one_server() -> Iterator[SchedulerServer]:
    with scheduler() as made:
        yield made


@pytest.fixture
def server(one_server: SchedulerServer) -> SchedulerServer:
    one_server.jobs.clear()
    one_server.calls.clear()
    one_server.refuses = None
    return one_server


@pytest.fixture
def jobs(server: SchedulerServer) -> SchedulerJobs:
    return SchedulerJobs("acme", "europe-west1", PREFIX, server.endpoint)


def other(server: SchedulerServer, name: str, **fields: Any) -> Any:
    job = types.Job(name=f"{PARENT}/jobs/{name}", schedule="0 0 * * *", time_zone="Europe/Berlin", **fields)
    server.jobs[job.name] = job
    return job


def made(jobs: SchedulerJobs) -> list[tuple[str, str]]:
    steps = jobs.plan()
    jobs.carry_out(steps)
    return [(step.action, step.name) for step in steps]


def test_both_jobs_are_made_to_publish_every_minute_in_utc_and_then_nothing_is_left_to_do(
    server: SchedulerServer, jobs: SchedulerJobs
) -> None:
    assert made(jobs) == [("create", f"{PREFIX}cron"), ("create", f"{PREFIX}sweep")]
    job = server.jobs[f"{PARENT}/jobs/{PREFIX}cron"]
    assert (job.schedule, job.time_zone) == ("* * * * *", "Etc/UTC")
    assert (job.pubsub_target.topic_name, job.pubsub_target.data) == ("projects/acme/topics/cron", b"{}")
    server.calls.clear()
    assert made(jobs) == [] and server.calls == []


def test_what_differs_is_changed_back_and_a_paused_job_is_resumed(server: SchedulerServer, jobs: SchedulerJobs) -> None:
    made(jobs)
    cron, sweep = (server.jobs[f"{PARENT}/jobs/{PREFIX}{name}"] for name in ("cron", "sweep"))
    cron.schedule, cron.time_zone = "0 * * * *", "Europe/Berlin"
    sweep.state = types.Job.State.PAUSED
    assert "schedule is '0 * * * *', should be '* * * * *'; zone is" in jobs.plan()[0].text
    assert made(jobs) == [("update", f"{PREFIX}cron"), ("resume", f"{PREFIX}sweep")]
    assert jobs.plan() == [] and sweep.state == types.Job.State.ENABLED


def test_jobs_of_others_are_never_touched_on_any_page_and_ours_that_are_too_many_are_removed(
    server: SchedulerServer, jobs: SchedulerJobs
) -> None:
    theirs = ["a-job", "pipeline-ops-prod", "pipeline-ops-prod_eu-cron", "pipeline-ops-staging-cron", "zz"]
    for name in theirs:
        other(server, name)
    other(server, f"{PREFIX}old")
    assert made(jobs)[-1] == ("remove", f"{PREFIX}old")
    assert {name for _, name in server.calls} == {f"{PREFIX}{name}" for name in ("cron", "sweep", "old")}
    assert {name.rpartition("/")[2] for name in server.jobs} == {*theirs, f"{PREFIX}cron", f"{PREFIX}sweep"}


def test_what_somebody_else_did_between_plan_and_deed_is_no_error(server: SchedulerServer, jobs: SchedulerJobs) -> None:
    other(server, f"{PREFIX}old")
    steps = jobs.plan()
    made(jobs)
    jobs.carry_out(steps)
    assert jobs.plan() == []


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, PermanentError, "roles/cloudscheduler.admin"),
        (grpc.StatusCode.NOT_FOUND, PermanentError, "--location"),
        (grpc.StatusCode.UNAVAILABLE, TransientError, "Cloud Scheduler"),
    ],
)
def test_a_refusal_says_what_to_do(
    server: SchedulerServer, jobs: SchedulerJobs, status: grpc.StatusCode, error: type[Exception], told: str
) -> None:
    server.refuses = status
    with pytest.raises(error, match=told):
        jobs.plan()


@pytest.fixture
def run(harness: Harness, server: SchedulerServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PIPELINE_OPS_CONFIGS", str(harness.configs))
    monkeypatch.setattr(bootstrap, "_utc_now", harness.clock)
    monkeypatch.setattr(
        bootstrap,
        "scheduler_jobs",
        lambda _settings, location: SchedulerJobs("acme", location, PREFIX, server.endpoint),
    )

    def invoke(*words: str, answer: str = "") -> Result:
        return CliRunner().invoke(cli, ["--state-dir", str(harness.folder / "state"), *words], input=answer)

    return invoke


SYNC = ("schedules", "sync", "--location", "europe-west1")


def test_sync_shows_its_plan_and_check_changes_nothing_and_fails(run: Any, server: SchedulerServer) -> None:
    checked = run(*SYNC, "--check")
    assert checked.exit_code == 1 and server.jobs == {}
    assert f"create  {PREFIX}cron: every minute, to topic cron" in checked.output
    assert run(*SYNC).exit_code == 0 and len(server.jobs) == 2
    assert run(*SYNC, "--check").exit_code == 0
    refused = run("schedules", "sync", "--location", "US")
    assert refused.exit_code == 1 and "such as europe-west1" in refused.output


@pytest.mark.parametrize(("answer", "remain"), [("n\n", 3), ("y\n", 2)])
def test_sync_removes_a_job_only_after_a_yes(run: Any, server: SchedulerServer, answer: str, remain: int) -> None:
    other(server, f"{PREFIX}old")
    done = run(*SYNC, answer=answer)
    assert done.exit_code == 0 and len(server.jobs) == remain, done.output


def test_schedules_are_listed_paused_resumed_and_set_and_each_change_is_audited(run: Any, harness: Harness) -> None:
    harness.pipeline(step("only"), schedule="30 6 * * *")

    def one() -> dict[str, Any]:
        listed = json.loads(run("schedules", "list", ORG, "--json").stdout)
        return dict(listed["schedules"][0])

    assert one()["next_at"] == "2026-11-21T06:30:00+00:00"
    assert run("schedules", "pause", ORG, "--reason", "moving").exit_code == 0
    assert one()["reason"] == "paused: moving"
    assert "paused: moving" in run("schedules", "list", ORG).output
    assert run("schedules", "resume", ORG).exit_code == 0
    assert run("schedules", "set", ORG, ROUTE, "--timezone", "Asia/Tokyo").exit_code == 0
    assert one()["timezone"] == "Asia/Tokyo" and one()["enabled"]
    wrong = run("schedules", "set", ORG, ROUTE, "--timezone", "Asia/Tokio")
    assert wrong.exit_code == 1 and "Asia/Tokyo" in wrong.output
    assert "Did you mean" in run("schedules", "pause", ORG, f"{ROUTE}x", "--reason", "r").output
    rows = harness.http("GET", f"/pipelines/audit/{ORG}").json["rows"]  # type: ignore[index]
    assert {row["action"] for row in rows} == {"schedule.pause", "schedule.resume", "schedule.replace"}
