"""A run's log: lines, by step, transitions, as it grows, and as a file."""

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
from functions.api.streams import Slots, in_pieces, zipped
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
"""A follower is sent away after so long. Browsers come back by themselves, and go on where they were."""

LOOK_EVERY_S, LONGEST_REST_S = 1.0, 5.0
"""A look costs reads of the store: where nothing happens, the rests between two get longer."""

HEARTBEAT_S = 10.0
FOLLOWERS = Slots("followers of logs", 8)
DOWNLOADS = Slots("downloads of logs", 8)

routes = part("logs", __doc__)

Severity = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
Switch = Literal["0", "1"]


class LinesFilter(Input):
    """Which lines."""

    step: str | None = Field(None, max_length=80, description="Only lines of this step.")
    severity: Severity | None = Field(None, description="Only this severity and those above it.")


class LinesQuery(LinesFilter):
    """Which lines, and how many."""

    limit: Annotated[int, up_to(MAX_LINES, "How many lines at most."), whole_number] = 1_000
    follow: Switch = Field("0", description="1: send lines as they come, as server-sent events, until the run ends.")


class StepLinesQuery(Input):
    """How many lines of each step."""

    limit: Annotated[int, up_to(MAX_STEP_LINES, "How many lines of each at most."), whole_number] = 100


class DownloadQuery(LinesFilter):
    """Which lines, and in which form."""

    format: Literal["ndjson", "text"] = Field("ndjson", description="A JSON object a line, or text for people.")
    gzip: Switch = Field("0", description="1: a .gz file. Without it, Accept-Encoding: gzip compresses on the way.")


class FollowHeaders(Headers):
    """Where a follower was."""

    last_event_id: str | None = Field(
        None, alias="Last-Event-ID", pattern=f"^{PLACE.pattern}$", description="With follow=1: go on after this event."
    )


FILE = {"schema": {"type": "string"}}


def _read(run_id: str, *, step_id: str | None = None, severity: str | None = None) -> Iterator[LogLine]:
    built = engine()
    return log_lines(built.store, built.logs, run_id, step_id=step_id, severity=severity)


@routes.get("/pipelines/logs/<org>/<run_id>", responses={200: LinesView})
def lines(path: RunPath, query: LinesQuery, header: FollowHeaders) -> Response:
    """Log lines, oldest first; with `follow=1` as they come

    Followers get `text/event-stream`: an event `line` for each line, with an id from which Last-Event-ID resumes, and
    `end` once the run has ended. After five minutes they are sent away, to come back.
    """
    run = find_run(path)
    if query.follow == "1":
        return _followed(run.run_id, query, header.last_event_id)
    found = _read(run.run_id, step_id=query.step, severity=query.severity)
    shown = [line_view(line) for line in islice(found, query.limit + 1)]
    return LinesView(run_id=run.run_id, lines=shown[: query.limit], truncated=len(shown) > query.limit).answer()


@routes.get("/pipelines/logs/<org>/<run_id>/steps", responses={200: StepLogsView})
def steps(path: RunPath, query: StepLinesQuery) -> Response:
    """Each step with its own log lines"""
    run = find_run(path)
    of_step = _first_lines(_read(run.run_id), run.steps, query.limit + 1)
    told = [
        StepLogView(
            **step_fields(run, step),
            lines=[line_view(line) for line in of_step[step_id][: query.limit]],
            truncated=len(of_step[step_id]) > query.limit,
        )
        for step_id, step in run.steps.items()
    ]
    return StepLogsView(run_id=run.run_id, steps=told).answer()


def _first_lines(found: Iterable[LogLine], step_ids: Iterable[str], most: int) -> Mapping[str, list[LogLine]]:
    """Return the first lines of each step; reads until all have so many."""
    of_step: dict[str, list[LogLine]] = {step_id: [] for step_id in step_ids}
    missing = set(of_step)
    for line in found:
        if line.step_id in missing:
            of_step[line.step_id].append(line)
            if len(of_step[line.step_id]) == most:
                missing.remove(line.step_id)
        if not missing:
            break
    return of_step


@routes.get("/pipelines/logs/<org>/<run_id>/transitions", responses={200: TransitionsView})
def transitions(path: RunPath, query: NoQuery) -> Response:
    """Every state change of the run and its steps, in order"""
    run = find_run(path)
    changes = [change_view(change) for change in engine().store.changes(run.run_id)]
    return TransitionsView(run_id=run.run_id, transitions=changes).answer()


@routes.get(
    "/pipelines/logs/<org>/<run_id>/download",
    responses={200: {"content": {name: FILE for name in ("application/x-ndjson", "text/plain", "application/gzip")}}},
)
def download(path: RunPath, query: DownloadQuery) -> Response:
    """The whole log as a file, however long

    It is read and sent page by page.
    """
    run_id = find_run(path).run_id
    found = _read(run_id, step_id=query.step, severity=query.severity)
    pieces = in_pieces(_ndjson(found) if query.format == "ndjson" else _text(found))
    name = f"{run_id}.ndjson" if query.format == "ndjson" else f"{run_id}.txt"
    mimetype = "application/x-ndjson" if query.format == "ndjson" else "text/plain"
    as_file, on_the_way = query.gzip == "1", bool(request.accept_encodings["gzip"])
    if as_file:
        name, mimetype = f"{name}.gz", "application/gzip"
    slot = DOWNLOADS.take()
    answer = Response(zipped(pieces) if as_file or on_the_way else pieces, mimetype=mimetype)
    answer.call_on_close(slot.give_back)
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    answer.headers["Vary"] = "Accept-Encoding"
    if on_the_way and not as_file:
        answer.headers["Content-Encoding"] = "gzip"
    return answer


def _ndjson(found: Iterable[LogLine]) -> Iterator[str]:
    for line in found:
        yield line_view(line).model_dump_json() + "\n"


def _text(found: Iterable[LogLine]) -> Iterator[str]:
    for line in found:
        at = line.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        step = f"{line.step_id}#{line.attempt}" if line.step_id else "run"
        message = line.message.replace("\n", "\n    ")
        yield f"{at} {line.severity:<8} {step:<20} {message}\n"


def _followed(run_id: str, query: LinesQuery, last: str | None) -> Response:
    place = Place.read(last) if last else Place()
    following = Following(engine(), run_id, place, step_id=query.step, severity=query.severity)
    slot = FOLLOWERS.take()
    answer = Response(_events(following), mimetype="text/event-stream")
    answer.call_on_close(slot.give_back)
    answer.headers["X-Accel-Buffering"] = "no"  # proxies are not to collect events
    return answer


def _events(following: Following) -> Iterator[bytes]:
    """Yield events until the run has ended or the time is over; a comment now and then finds clients that are gone."""
    spoke = time.monotonic()
    until, rest = spoke + FOLLOW_S, LOOK_EVERY_S
    yield b"retry: 1000\n\n"
    while True:
        rest = min(rest * 2, LONGEST_REST_S)
        for place, line in following.news():
            rest = LOOK_EVERY_S
            yield f"id: {place}\nevent: line\ndata: {line_view(line).model_dump_json()}\n\n".encode()
            if (spoke := time.monotonic()) >= until:
                return
        if following.ended_as is not None:
            yield f'event: end\ndata: {{"status": "{following.ended_as}"}}\n\n'.encode()
            return
        if time.monotonic() >= until:
            return
        if time.monotonic() - spoke >= HEARTBEAT_S:
            spoke = time.monotonic()
            yield b": still here\n\n"
        time.sleep(rest)
