"""A run's log: lines, lines by step, transitions, a live stream, and a download."""

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Annotated, Literal

from flask import Response, request
from pydantic import Field

from common.bootstrap import engine
from common.ports.logs import LogLine
from common.runs.follow import PLACE, Following, Place
from common.runs.log_lines import log_lines
from functions.api.inputs import Headers, Input, NoQuery, RunPath, up_to, whole_number
from functions.api.part import part
from functions.api.runs import find_run
from functions.api.streams import Slots, compressed, in_chunks
from functions.api.views import (
    LinesView,
    StepLogsView,
    StepLogView,
    TransitionsView,
    change_view,
    line_view,
    step_fields,
)

MAX_LINES = 10_000
MAX_STEP_LINES = 1_000

FOLLOW_S = 300.0
"""Longest stream, so that it holds its slot for a bounded time. EventSource reconnects by itself and resumes with
Last-Event-ID."""

LOOK_EVERY_S, LONGEST_REST_S = 1.0, 5.0
"""Each look reads the store, so the wait doubles from one to the other while nothing happens."""

HEARTBEAT_S = 10.0
"""A client that has gone is noticed only when something is written to it."""

# Each stream holds a thread of the server, of which the rest of the API needs some.
FOLLOWERS = Slots("followers of logs", 8)
DOWNLOADS = Slots("downloads of logs", 8)

routes = part("logs", __doc__)

Severity = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Switch = Literal["0", "1"]


class LinesFilter(Input):
    """Selects lines."""

    step: str | None = Field(None, max_length=80, description="Only lines of this step.")
    severity: Severity | None = Field(None, description="Only this severity and those above it.")


class LinesQuery(LinesFilter):
    """Selects lines, and how many."""

    limit: Annotated[int, up_to(MAX_LINES, "Largest number of lines."), whole_number] = 1_000
    follow: Switch = Field("0", description="1: send lines as they come, as server-sent events, until the run ends.")


class StepLinesQuery(Input):
    """Selects how many lines of each step."""

    limit: Annotated[int, up_to(MAX_STEP_LINES, "Largest number of lines per step."), whole_number] = 100


class DownloadQuery(LinesFilter):
    """Selects lines and the file's format."""

    format: Literal["ndjson", "text"] = Field("ndjson", description="ndjson: a JSON object per line. text: for people.")
    gzip: Switch = Field("0", description="1: a .gz file. Otherwise Accept-Encoding: gzip compresses the transfer.")


class FollowHeaders(Headers):
    """The position from which to resume a stream."""

    last_event_id: str | None = Field(
        None, alias="Last-Event-ID", pattern=f"^{PLACE.pattern}$", description="With follow=1: resume after this event."
    )


FILE = {"schema": {"type": "string"}}


def _read(run_id: str, *, step_id: str | None = None, severity: str | None = None) -> Iterator[LogLine]:
    built = engine()
    return log_lines(built.store, built.logs, run_id, step_id=step_id, severity=severity)


@routes.get("/pipelines/logs/<org>/<run_id>", responses={200: LinesView})
def lines(path: RunPath, query: LinesQuery, header: FollowHeaders) -> Response:
    """List log lines, oldest first; with `follow=1` stream them

    A stream is `text/event-stream`: a `line` event for each line, with an id from which Last-Event-ID resumes, and
    `end` once the run has ended. It is closed after five minutes; the client then reconnects.
    """
    run = find_run(path)
    if query.follow == "1":
        return _followed(run.run_id, query, header.last_event_id)
    log = _read(run.run_id, step_id=query.step, severity=query.severity)
    shown = [line_view(line) for line in islice(log, query.limit + 1)]  # one more tells whether there are more
    return LinesView(run_id=run.run_id, lines=shown[: query.limit], truncated=len(shown) > query.limit).response()


@routes.get("/pipelines/logs/<org>/<run_id>/steps", responses={200: StepLogsView})
def steps(path: RunPath, query: StepLinesQuery) -> Response:
    """List the steps, each with its log lines"""
    run = find_run(path)
    of_step = _first_lines(_read(run.run_id), run.steps, query.limit + 1)
    views = [
        StepLogView(
            **step_fields(run, step),
            lines=[line_view(line) for line in of_step[step_id][: query.limit]],
            truncated=len(of_step[step_id]) > query.limit,
        )
        for step_id, step in run.steps.items()
    ]
    return StepLogsView(run_id=run.run_id, steps=views).response()


def _first_lines(log: Iterable[LogLine], step_ids: Iterable[str], most: int) -> Mapping[str, list[LogLine]]:
    """Return the first ``most`` lines of each step; stops reading when every step has them."""
    of_step: dict[str, list[LogLine]] = {step_id: [] for step_id in step_ids}
    missing = set(of_step)
    for line in log:
        if line.step_id in missing:
            of_step[line.step_id].append(line)
            if len(of_step[line.step_id]) == most:
                missing.remove(line.step_id)
        if not missing:
            break
    return of_step


@routes.get("/pipelines/logs/<org>/<run_id>/transitions", responses={200: TransitionsView})
def transitions(path: RunPath, query: NoQuery) -> Response:
    """List every state change of the run and its steps, in order"""
    run = find_run(path)
    changes = [change_view(change) for change in engine().store.changes(run.run_id)]
    return TransitionsView(run_id=run.run_id, transitions=changes).response()


@routes.get(
    "/pipelines/logs/<org>/<run_id>/download",
    responses={200: {"content": {name: FILE for name in ("application/x-ndjson", "text/plain", "application/gzip")}}},
)
def download(path: RunPath, query: DownloadQuery) -> Response:
    """Download the whole log, however long

    It is read and sent page by page.
    """
    run_id = find_run(path).run_id
    log = _read(run_id, step_id=query.step, severity=query.severity)
    chunks = in_chunks(_ndjson(log) if query.format == "ndjson" else _text(log))
    name = f"{run_id}.ndjson" if query.format == "ndjson" else f"{run_id}.txt"
    mimetype = "application/x-ndjson" if query.format == "ndjson" else "text/plain"
    as_file, in_transfer = query.gzip == "1", bool(request.accept_encodings["gzip"])
    if as_file:
        name, mimetype = f"{name}.gz", "application/gzip"
    slot = DOWNLOADS.acquire()
    response = Response(compressed(chunks) if as_file or in_transfer else chunks, mimetype=mimetype)
    response.call_on_close(slot.release)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Vary"] = "Accept-Encoding"
    # A .gz file gets no Content-Encoding: the client would unpack it and store plain text under that name.
    if in_transfer and not as_file:
        response.headers["Content-Encoding"] = "gzip"
    return response


def _ndjson(log: Iterable[LogLine]) -> Iterator[str]:
    for line in log:
        yield line_view(line).model_dump_json() + "\n"


def _text(log: Iterable[LogLine]) -> Iterator[str]:
    for line in log:
        at = line.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        step = f"{line.step_id}#{line.attempt}" if line.step_id else "run"
        message = line.message.replace("\n", "\n    ")
        yield f"{at} {line.severity:<8} {step:<20} {message}\n"


def _followed(run_id: str, query: LinesQuery, last: str | None) -> Response:
    place = Place.read(last) if last else Place()
    following = Following(engine(), run_id, place, step_id=query.step, severity=query.severity)
    slot = FOLLOWERS.acquire()
    response = Response(_events(following), mimetype="text/event-stream")
    response.call_on_close(slot.release)
    response.headers["X-Accel-Buffering"] = "no"  # nginx and its relatives would hold events back to fill a buffer
    return response


def _events(following: Following) -> Iterator[bytes]:
    """Yield events until the run has ended or the time is over; comments detect clients that have gone."""
    sent_at = time.monotonic()
    until, rest = sent_at + FOLLOW_S, LOOK_EVERY_S
    yield b"retry: 1000\n\n"
    while True:
        rest = min(rest * 2, LONGEST_REST_S)
        for place, line in following.news():
            rest = LOOK_EVERY_S
            yield f"id: {place}\nevent: line\ndata: {line_view(line).model_dump_json()}\n\n".encode()
            if (sent_at := time.monotonic()) >= until:
                return
        if following.ended_as is not None:
            yield f'event: end\ndata: {{"status": "{following.ended_as}"}}\n\n'.encode()
            return
        if time.monotonic() >= until:
            return
        if time.monotonic() - sent_at >= HEARTBEAT_S:
            sent_at = time.monotonic()
            yield b": still here\n\n"
        time.sleep(rest)
