"""Schedules start runs: once for each pipeline, organisation and time, whatever happens to the ticks."""

from collections.abc import Iterator
from copy import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.cli.demo import pause_schedules
from common.domain.model import Run
from common.platform.errors import TransientError
from common.ports.secrets import CredentialInfo
from common.ports.store import HistoryQuery
from common.runs import cron as module
from common.runs.cron import LATER_KIND, MARK, MARK_KIND, Cron, Result
from common.runs.engine import Engine
from common.runs.own_schedules import DEPLOYMENT, EVERY, NOTHING, OwnSchedules
from common.runs.timetable import Timetable, disabled
from infra.local.host import call
from tests.harness import INVOKER_TOKEN, ORG, ROUTE, SECRET, Harness, step

SIX = "0 6 * * *"
BASE = datetime(2026, 11, 20, 5, 59, tzinfo=UTC)


class Killed(BaseException):
    """The process is gone."""


class World:
    """A harness with a scheduled pipeline, whose ticks are made by hand."""

    def __init__(self, harness: Harness) -> None:
        self.harness, self.slept = harness, list[float]()
        harness.clock.now = BASE

    def pipeline(self, schedule: str = SIX, **fields: Any) -> Path:
        return self.harness.pipeline(step("only"), schedule=schedule, **fields)

    def organisations(self, *names: str, **limits: int) -> None:
        plan = {"daily": 1000, "monthly": 1000, "concurrent": 5, **limits}
        orgs = {name: {"plan": "p", "status": "ACTIVE"} for name in names}
        path = self.harness.configs / "system" / "plans.yml"
        path.write_text(yaml.safe_dump({"plans": {"p": plan}, "organisations": orgs}))

    def credential(self, org: str, name: str = "cred_openai") -> None:
        self.harness.engine.credentials.add(CredentialInfo(org, name, "openai", BASE), SECRET)

    @property
    def own(self) -> OwnSchedules:
        return OwnSchedules(self.harness.engine.records, self.harness.clock)

    def cron(self, engine: Engine | None = None, **changed: Any) -> Cron:
        engine = engine or self.harness.engine
        made = Cron(
            engine.records,
            engine.plans,
            engine.configs,
            engine.credentials,
            engine.request_run,
            engine.default_days,
            engine.now,
            engine.settings.landing,
            sleep=self.sleep,
        )
        return replace(made, **changed)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.harness.clock.tick(seconds)

    def tick(self, seconds: float = 60, **changed: Any) -> Result:
        self.harness.clock.tick(seconds)
        return self.cron(**changed).tick()

    def runs(self, org: str = ORG) -> list[Run]:
        page = self.harness.engine.store.history(HistoryQuery(org, 1000))
        runs = (run for run in page.runs if run.request.trigger == "schedule")
        return sorted(runs, key=lambda run: (run.request.end_date, run.request.requested_at))

    def later(self) -> int:
        return len(self.harness.engine.records.list(LATER_KIND, DEPLOYMENT))


@pytest.fixture
def world(harness: Harness) -> Iterator[World]:
    world = World(harness)
    world.pipeline()
    yield world


def test_a_pipeline_starts_at_its_time_once_and_loads_the_days_of_that_time(world: World) -> None:
    assert world.tick(0) == Result()  # the first look: nothing was missed before it
    for _ in range(5):
        world.tick()
    (run,) = world.runs()
    assert run.request.route == ROUTE and run.request.queue
    assert run.request.requested_at == BASE + timedelta(minutes=1)
    assert run.request.end_date == BASE.date() - timedelta(days=1)


def test_the_function_of_the_cloud_does_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", world.sleep)
    for _ in range(3):
        assert call(world.harness.app, "cron", BASE, "p", INVOKER_TOKEN) == 200
        world.harness.clock.tick(60)
    assert len(world.runs()) == 1


def test_overlapping_ticks_of_two_processes_start_one_run(world: World) -> None:
    world.tick(0)
    world.harness.clock.tick(60)
    first, second = world.cron(), world.cron()

    def overtaken(request: Any) -> object:
        second.tick()  # the other process makes its whole pass in the middle of ours
        return world.harness.engine.request_run(request)

    with pytest.raises(Exception, match="has changed since it was read"):
        replace(first, request=overtaken).tick()
    assert len(world.runs()) == 1


@pytest.mark.parametrize(("catchup", "days"), [("none", []), ("last", [22]), ("all", [20, 21, 22])])
def test_times_that_were_missed_are_made_up_for_as_the_pipeline_says(
    world: World, catchup: str, days: list[int]
) -> None:
    world.pipeline(catchup=catchup)
    world.tick(0)
    world.tick(3 * 86_400)
    assert [run.request.end_date.day + 1 for run in world.runs()] == days


def test_a_lost_tick_is_no_outage_even_without_catch_up(world: World) -> None:
    world.pipeline(catchup="none")
    world.tick(0)
    world.tick(5 * 60)
    assert len(world.runs()) == 1


def test_a_long_catch_up_comes_in_parts_so_that_others_are_not_held_up_and_no_time_is_lost(world: World) -> None:
    world.pipeline("* * * * *", catchup="all")
    world.tick(0)
    world.tick(45 * 60)
    assert len(world.runs()) == module.MOST_AT_ONCE
    world.tick(1)
    world.tick(1)
    times = world.later(), len(world.runs())
    assert times == (0, 45)


def test_ten_years_are_not_made_up_for_and_that_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    module.logger.propagate = True
    world.pipeline(catchup="all")
    world.tick(0)
    world.tick(3650 * 86_400)
    oldest = world.runs()[0].request.end_date
    assert oldest == (BASE + timedelta(days=3650 - 1 - module.MOST_MISSED)).date()  # the day before its time
    assert "More than 1000 times were missed" in caplog.text and "--backfill" in caplog.text


ORGS = [f"org_{number:03}" for number in range(120)]


@pytest.fixture
def many(world: World) -> World:
    world.organisations(*ORGS)
    for org in ORGS:
        world.credential(org)
    world.tick(0)
    return world


def test_a_pass_that_dies_half_way_is_continued_and_starts_every_run_once(many: World) -> None:
    calls = 0

    def dies(request: Any) -> object:
        nonlocal calls
        calls += 1
        if calls == 70:
            raise Killed
        return many.harness.engine.request_run(request)

    with pytest.raises(Killed):
        many.tick(request=dies)
    assert 69 <= sum(len(many.runs(org)) for org in ORGS) < len(ORGS)
    many.harness.restart()
    many.tick()
    assert [len(many.runs(org)) for org in ORGS] == [1] * len(ORGS)


def test_a_pass_that_takes_too_long_ends_and_the_next_continues_behind_it(many: World) -> None:
    requested: list[str] = []

    def slow(request: Any) -> object:
        requested.append(request.org_slug)
        many.harness.clock.tick(1)
        return many.harness.engine.request_run(request)

    clock = lambda: many.harness.clock.now.timestamp()  # noqa: E731
    assert not many.tick(request=slow, clock=clock).ended
    assert requested == ORGS[: module.BATCH]
    many.tick(request=slow, clock=clock)
    assert not many.tick(0, request=slow, clock=clock).ended or requested == ORGS
    many.tick(request=slow, clock=clock)
    assert requested == ORGS  # in order, none twice


def test_an_organisation_that_fails_holds_up_nobody_and_is_tried_again(many: World) -> None:
    def fails(request: Any) -> object:
        if request.org_slug == ORGS[3]:
            raise TransientError("its store is away")
        return many.harness.engine.request_run(request)

    assert many.tick(request=fails).started == len(ORGS) - 1
    assert many.later() == 1 and many.runs(ORGS[3]) == []
    many.tick()
    assert many.later() == 0 and len(many.runs(ORGS[3])) == 1


def test_a_run_that_the_quota_refuses_is_tried_again_until_the_quota_has_room(world: World) -> None:
    world.pipeline(catchup="all")
    world.organisations(ORG, daily=0)
    world.tick(0)
    assert world.tick().refused == 1 and world.later() == 1
    world.organisations(ORG)
    assert world.tick().started == 0  # not yet: a refused run is not asked for every minute
    assert world.tick(module.AGAIN_AFTER.total_seconds()).started == 1
    (run,) = world.runs()
    assert run.request.end_date == BASE.date() - timedelta(days=1)


def test_what_was_kept_is_dropped_when_only_the_latest_counts_and_a_later_time_has_come(world: World) -> None:
    world.organisations(ORG, daily=0)
    world.tick(0)
    world.tick()
    world.organisations(ORG)
    world.tick(86_400)
    assert [run.request.end_date for run in world.runs()] == [BASE.date()] and world.later() == 0


def test_the_mark_is_written_at_most_once_a_second(world: World) -> None:
    world.tick(0)
    world.tick(0.25)
    assert world.slept == [0.75]


def test_a_clock_that_is_put_back_starts_nothing_and_one_that_was_wrong_does_not_silence_the_schedule(
    world: World,
) -> None:
    world.tick(0)
    world.tick()
    world.tick(-120)
    world.tick()
    assert len(world.runs()) == 1
    world.tick(365 * 86_400)  # a wrong clock, which is mended
    world.harness.clock.tick(-365 * 86_400)
    world.tick(0)
    world.tick(86_400 + 120)
    assert [run.request.end_date.isoformat() for run in world.runs()] == ["2026-11-19", "2026-11-20", "2027-11-18"]


def test_a_pipeline_runs_where_its_credential_is_and_nowhere_else(world: World) -> None:
    world.organisations("globex", ORG, "two")
    for name in ("a", "b"):
        world.credential("two", name)
    world.tick(0)
    world.tick()
    assert [len(world.runs(org)) for org in (ORG, "globex", "two")] == [1, 0, 0]
    world.own.change("two", ROUTE, credential_id="b")
    world.tick(86_400)
    assert [run.request.credential_id for run in world.runs("two")] == ["b"]


def test_a_pipeline_that_reads_a_file_runs_where_the_file_is(world: World) -> None:
    landing = world.harness.engine.settings.landing / ORG
    scheduled = replace(Timetable.read(world.harness.engine.configs).pipelines[ROUTE], files=("bill.csv",))
    credentials = world.harness.engine.credentials.list(ORG)
    assert "no file 'bill.csv'" in disabled(scheduled, NOTHING, "ACTIVE", credentials, landing)
    landing.mkdir(parents=True)
    (landing / "bill.csv").touch()
    assert disabled(scheduled, NOTHING, "ACTIVE", credentials, landing) == ""


def test_a_paused_organisation_runs_nothing_and_does_not_make_up_for_the_pause(world: World) -> None:
    world.pipeline(catchup="all")
    world.tick(0)
    world.own.change(ORG, EVERY, paused=True, reason="moving")
    world.tick(2 * 86_400)
    world.own.change(ORG, EVERY, paused=False)
    world.tick(86_400)
    assert [run.request.end_date.day for run in world.runs()] == [21]


def test_a_time_before_it_was_set_or_resumed_is_not_made_up_for_even_if_no_tick_saw_it(world: World) -> None:
    world.pipeline(catchup="all")
    world.tick(0)
    world.harness.clock.tick(3600)
    world.own.change(ORG, ROUTE, cron="15 6 * * *")  # it is 06:59
    world.tick()
    assert world.runs() == []
    world.tick(86_400)
    assert len(world.runs()) == 1


def test_an_organisations_own_time_and_zone_count_in_place_of_the_pipelines(world: World) -> None:
    world.own.change(ORG, ROUTE, cron="30 2 * * *", zone="Asia/Tokyo")  # 17:30 UTC
    world.tick(0)
    for _ in range(24):
        world.tick(3600)
    (run,) = world.runs()
    assert run.request.requested_at == datetime(2026, 11, 20, 17, 59, tzinfo=UTC)


def test_jitter_spreads_the_organisations_and_each_keeps_its_delay(many: World) -> None:
    many.pipeline(jitter=600)
    started = [many.tick().started for _ in range(12)]
    assert sum(started) == len(ORGS) and max(started) < 40 and started[11] == 0
    assert [many.tick(60 if number else 86_400 - 660).started for number in range(12)] == started


def test_what_the_demo_left_behind_is_not_run_by_the_schedule_until_somebody_resumes_it(world: World) -> None:
    world.tick(0)
    pause_schedules(world.own)
    world.tick()
    assert world.runs() == []
    world.own.change(ORG, EVERY, paused=False)
    pause_schedules(world.own)  # a second demo: what was decided since stays
    world.tick(86_400)
    assert len(world.runs()) == 1


def test_two_pipelines_of_one_id_are_not_run_by_the_schedule(world: World, caplog: pytest.LogCaptureFixture) -> None:
    module.logger.propagate = True
    world.harness.pipeline(step("only"), schedule=SIX, route="test/demo/twin", pipeline_id="test_demo_pipeline")
    world.tick(0)
    world.tick()
    assert world.runs() == [] and "have the same pipeline_id" in caplog.text


def test_the_runs_of_a_callers_key_and_of_a_scheduled_time_never_have_one_id(world: World) -> None:
    key = f"schedule/{ROUTE}/{BASE + timedelta(minutes=1):%Y-%m-%dT%H:%M:%S+00:00}"
    answer = world.harness.http("POST", f"/pipelines/run/{ORG}/{ROUTE}", json={}, headers={"Idempotency-Key": key})
    assert answer.status_code == 202
    world.tick(0)
    world.tick()
    assert len(world.runs()) == 1


def test_the_sweep_tells_when_nobody_looks_at_the_schedules_any_more(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    module.logger.propagate = True
    world.harness.engine.sweep()
    world.tick(0)
    world.harness.clock.tick(9 * 60)
    world.harness.engine.sweep()
    assert "looked at the schedules" not in caplog.text
    world.harness.clock.tick(60)
    world.harness.engine.sweep()
    assert f"Nothing has looked at the schedules since {BASE.isoformat()}" in caplog.text
    caplog.clear()
    world.tick()
    world.harness.engine.sweep()
    assert "looked at the schedules" not in caplog.text


def test_the_mark_says_how_far_everything_was_looked_at(world: World) -> None:
    world.tick(0)
    world.tick()
    record = world.harness.engine.records.get(MARK_KIND, DEPLOYMENT, MARK)
    assert record is not None and record.body["done"] == (BASE + timedelta(minutes=1)).isoformat()
