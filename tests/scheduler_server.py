"""Cloud Scheduler's jobs on loopback: the real messages over gRPC, kept in memory.

There is no emulator of it. What it answers is what Google documents: ALREADY_EXISTS, NOT_FOUND, INVALID_ARGUMENT for a
schedule or zone that is none; a page of ``page_size`` jobs; a job that is updated keeps what the mask leaves out.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.cloud.scheduler_v1 import types
from google.protobuf import empty_pb2

from common.config.model import check_cron
from common.config.schedule import find_zone

SERVICE = "google.cloud.scheduler.v1.CloudScheduler"
PAGE = 2


@dataclass
class SchedulerServer:
    """``calls`` are the methods that changed something, with the job's short name; ``refuses`` a status for all."""

    endpoint: str = ""
    jobs: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    refuses: grpc.StatusCode | None = None

    def list_jobs(self, request: Any, context: Any) -> Any:
        self._refuse(context)
        names = sorted(name for name in self.jobs if name.startswith(f"{request.parent}/jobs/"))
        first = int(request.page_token or 0)
        more = str(first + PAGE) if first + PAGE < len(names) else ""
        page = [self.jobs[name] for name in names[first : first + PAGE]]
        return types.ListJobsResponse(jobs=page, next_page_token=more)

    def create_job(self, request: Any, context: Any) -> Any:
        self._called("create", request.job.name, context)
        if request.job.name in self.jobs:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"Job {request.job.name} already exists.")
        self._check(request.job, context)
        job = types.Job(request.job)
        job.state = types.Job.State.ENABLED
        self.jobs[job.name] = job
        return job

    def update_job(self, request: Any, context: Any) -> Any:
        self._called("update", request.job.name, context)
        job = types.Job(self._found(request.job.name, context))
        for path in request.update_mask.paths:
            setattr(job, path, getattr(request.job, path))
        self._check(job, context)
        self.jobs[job.name] = job
        return job

    def resume_job(self, request: Any, context: Any) -> Any:
        self._called("resume", request.name, context)
        job = self._found(request.name, context)
        job.state = types.Job.State.ENABLED
        return job

    def delete_job(self, request: Any, context: Any) -> Any:
        self._called("delete", request.name, context)
        self._found(request.name, context)
        del self.jobs[request.name]
        return empty_pb2.Empty()

    def _called(self, method: str, name: str, context: Any) -> None:
        self._refuse(context)
        self.calls.append((method, name.rpartition("/")[2]))

    def _refuse(self, context: Any) -> None:
        if self.refuses is not None:
            context.abort(self.refuses, "as the test says")

    def _found(self, name: str, context: Any) -> Any:
        if name not in self.jobs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Job {name} not found.")
        return self.jobs[name]

    @staticmethod
    def _check(job: Any, context: Any) -> None:
        try:
            check_cron(job.schedule)
            find_zone(job.time_zone)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if not (job.pubsub_target.data or job.pubsub_target.attributes):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The message is empty.")


@contextmanager
def scheduler() -> Iterator[SchedulerServer]:
    """Serve for the time of the block."""
    made = SchedulerServer()

    def handler(does: Any, asked: Any, serialize: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            does, request_deserializer=asked.deserialize, response_serializer=serialize
        )

    job = types.Job.serialize
    methods = {
        "ListJobs": handler(made.list_jobs, types.ListJobsRequest, types.ListJobsResponse.serialize),
        "CreateJob": handler(made.create_job, types.CreateJobRequest, job),
        "UpdateJob": handler(made.update_job, types.UpdateJobRequest, job),
        "ResumeJob": handler(made.resume_job, types.ResumeJobRequest, job),
        "DeleteJob": handler(made.delete_job, types.DeleteJobRequest, lambda empty: empty.SerializeToString()),
    }
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    made.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield made
    finally:
        server.stop(None)
