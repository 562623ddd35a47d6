"""The jobs of Cloud Scheduler that call this stack's ``cron`` and ``sweep``: what there is, and what to change.

A job publishes to the topic of its name: retries, dead letters and the token of the push belong to the subscription,
as for every other function. The zone is UTC: with any other, Scheduler's own documentation warns of anomalies on the
days on which the clock changes. Only jobs whose name begins with the stack's prefix are looked at or touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from common.adapters.google_errors import Service

EVERY_MINUTE = "* * * * *"
ZONE = "Etc/UTC"
TOPICS = ("cron", "sweep")
DATA = b"{}"
"""Pub/Sub refuses a message without data and attributes; the functions read neither."""

ONCE: dict[str, Any] = {"retry": None, "timeout": 30.0}
"""The client would repeat a refused call for ten minutes, without a word to whoever waits at the terminal."""

SCHEDULER = Service(
    "Cloud Scheduler",
    not_found="Check the project and --location, and that the API cloudscheduler.googleapis.com is enabled.",
    forbidden="Give your account roles/cloudscheduler.admin, and let it use the project's Pub/Sub topics.",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One change of one job, and what it is for people."""

    action: Literal["create", "update", "resume", "remove"]
    name: str
    text: str


class SchedulerJobs:
    """The jobs of one stack. ``endpoint`` replaces Google's server."""

    def __init__(self, project: str, location: str, prefix: str, endpoint: str | None = None) -> None:
        self._parent = f"projects/{project}/locations/{location}"
        self._project, self._prefix, self._endpoint = project, prefix, endpoint

    def plan(self) -> Sequence[Step]:
        """Return what is to change, in order; nothing if all is as it should be."""
        with SCHEDULER.translated("list the jobs"):
            found = {
                job.name.rpartition("/")[2]: job for job in self._client.list_jobs({"parent": self._parent}, **ONCE)
            }
        ours = {name: job for name, job in found.items() if name.startswith(self._prefix)}
        wanted = {f"{self._prefix}{topic}": topic for topic in TOPICS}
        steps = []
        for name, topic in wanted.items():
            job = ours.get(name)
            if job is None:
                steps.append(Step("create", name, f"every minute, to topic {topic}"))
            elif differs := self._differences(job, topic):
                steps.append(Step("update", name, differs))
            elif job.state == type(job).State.PAUSED:
                steps.append(Step("resume", name, "it is paused: nothing starts or is swept until then"))
        steps += [Step("remove", name, "this stack has no such job") for name in sorted(ours.keys() - wanted.keys())]
        return steps

    def carry_out(self, steps: Sequence[Step]) -> None:
        """Make these changes. Safe to repeat: a job that somebody else has made or removed meanwhile is no error."""
        from google.api_core import exceptions

        for step in steps:
            name = f"{self._parent}/jobs/{step.name}"
            with SCHEDULER.translated(f"{step.action} the job {step.name}"):
                try:
                    self._make(step, name)
                except (exceptions.AlreadyExists, exceptions.NotFound):
                    if step.action not in ("create", "remove"):
                        raise

    def _make(self, step: Step, name: str) -> None:
        match step.action:
            case "create":
                job = self._job(name, step.name.removeprefix(self._prefix))
                self._client.create_job({"parent": self._parent, "job": job}, **ONCE)
            case "update":
                job = self._job(name, step.name.removeprefix(self._prefix))
                mask = {"paths": sorted(job.keys() - {"name"})}
                self._client.update_job({"job": job, "update_mask": mask}, **ONCE)
                self._client.resume_job({"name": name}, **ONCE)
            case "resume":
                self._client.resume_job({"name": name}, **ONCE)
            case "remove":
                self._client.delete_job({"name": name}, **ONCE)

    def _job(self, name: str, topic: str) -> dict[str, Any]:
        return {
            "name": name,
            "description": f"Calls {topic} of Pipeline Ops every minute. Made by main.py schedules sync.",
            "schedule": EVERY_MINUTE,
            "time_zone": ZONE,
            "pubsub_target": {"topic_name": f"projects/{self._project}/topics/{topic}", "data": DATA},
        }

    def _differences(self, job: Any, topic: str) -> str:
        wanted = self._job(job.name, topic)
        target = wanted["pubsub_target"]
        pairs = {
            "schedule": (job.schedule, wanted["schedule"]),
            "zone": (job.time_zone, wanted["time_zone"]),
            "topic": (job.pubsub_target.topic_name, target["topic_name"]),
            "data": (bytes(job.pubsub_target.data), target["data"]),
            "description": (job.description, wanted["description"]),
        }
        return "; ".join(f"{what} is {was!r}, should be {to!r}" for what, (was, to) in pairs.items() if was != to)

    @cached_property
    def _client(self) -> Any:
        from google.cloud.scheduler_v1 import CloudSchedulerClient

        if self._endpoint is None:
            return CloudSchedulerClient()
        import grpc
        from google.cloud.scheduler_v1.services.cloud_scheduler.transports import CloudSchedulerGrpcTransport

        channel = grpc.insecure_channel(self._endpoint)
        return CloudSchedulerClient(transport=CloudSchedulerGrpcTransport(channel=channel))
