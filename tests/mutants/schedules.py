"""Schedules: when, for whom, once; and Cloud Scheduler's jobs."""

from tests.mutants.change import always, cut, never, swap
from tests.mutants.mutation import noticed_by

SCHEDULES = (
    *noticed_by(
        "test_schedule",
        (
            "a doubled time is the second",
            "moment",
            swap("wall.replace(tzinfo=zone, fold=0)", "wall.replace(tzinfo=zone, fold=1)"),
        ),
        ("a missing time is an hour off", "moment", swap("late.replace(microsecond=0)", "first")),
        ("two missing times are two", "Schedule._backwards", always("at != last")),
        ("a clock that was put back hides times", "Schedule._backwards", swap("max(walls)", "min(walls)")),
        ("a window has its beginning", "Schedule._backwards", swap("at <= after", "at < after")),
    ),
    *noticed_by(
        "test_cron",
        (
            "a scheduled run has no name of its own",
            "scheduled_request",
            swap("_digest(named)[:32]", "uuid.uuid4().hex"),
        ),
        ("what fails is lost", "_Pass._failed", cut("self._keep(org, pipeline, at, until, self._now)")),
        ("what is refused is lost", "_Pass._failed", never("pipeline.catchup != 'none'")),
        (
            "a catch-up comes all at once",
            "_Pass._start",
            swap("times[:MOST_AT_ONCE]", "times"),
        ),
        ("the rest of a catch-up is lost", "_Pass._start", never("len(times) > MOST_AT_ONCE")),
        ("a pass never ends in time", "_Pass.run", never("self._cron.clock() - self._began > BUDGET_S")),
        ("the mark is written at any rate", "Cron._put", never("timedelta() <= since < BETWEEN_WRITES")),
        (
            "a wrong clock silences the schedules",
            "Cron.tick",
            never("mark is not None and mark.done > now + CLOCK_SKEW"),
        ),
        ("pauses are made up for", "Scheduled.due", never("own.since is not None")),
        ("a pause does not count", "disabled", never("own.paused")),
        ("no catch-up means any", "Scheduled.due", never("self.catchup == 'none'")),
        ("one of several credentials is taken", "disabled", never("len(matching) > 1")),
        ("old work is done beside newer", "_Pass._later", always("not self._is_superseded(org, pipeline, until)")),
        ("two pipelines of one id both run", "Timetable.read", never("ids[pipeline.pipeline_id] > 1")),
    ),
    *noticed_by(
        "test_scheduler_jobs",
        ("jobs of others are ours", "SchedulerJobs.plan", always("name.startswith(self._prefix)")),
        ("a paused job stays so", "SchedulerJobs.plan", never("job.state == type(job).State.PAUSED")),
        (
            "jobs are removed without a yes",
            "sync",
            never("removed and not yes and not click.confirm(f'Remove {len(removed)} of these jobs?')"),
        ),
    ),
)
